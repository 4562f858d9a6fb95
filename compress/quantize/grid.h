#pragma once
// Grids as numbers: how the survey's quantizers fit them to weights and hand them to parameters. Private to
// compress/quantize.

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "hone/compress/quantize/choice.h"
#include "hone/compress/quantize/uniform.h"

namespace hone::compress::quantize::detail {

inline constexpr double kWidest = 0x1p31;

/// One level's ŵ = scale · clamp(round((w − shift)/scale), low, high) + shift; scale 0 keeps w.
struct Level {
  double scale = 0, shift = 0, low = -kWidest, high = kWidest;
  bool truncate = false;
};

struct FitOptions {
  Range range = {};
  std::optional<double> step = {};
  StepRule step_rule = StepRule::multiply;
  Shift shift = Shift::mean;
  Rounding rounding = Rounding::nearest_even;
};
void check(const char* what, const FitOptions& options);
/// The level of these weights; of none: scale 1.
Level fit(std::span<const double> weights, const FitOptions& options);

/// Levels of a parameter and the level of each of its elements (empty: one, or one a row).
struct Grid {
  std::vector<Level> levels;
  std::vector<uint8_t> ids = {};
};
void set_grid(const ParameterRef& p, const Grid& grid, bool learned = false);

/// ValueError for a codebook.
void check_type(const char* what, const nn::NamedParameter& n);
/// Its kept raw weights against its value() as it is.
QuantizedLayer measure(const char* what, const nn::NamedParameter& n);

}  // namespace hone::compress::quantize::detail
