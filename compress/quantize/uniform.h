#pragma once
// The survey's quantizers: uniform (a range and a step per tensor), global (one for the whole network), dynamic
// (levels, each with its own), mixed (a part of the weights alone). Each makes Parameters fake-quantized: value() lies
// on the grid, the raw value stays, and training goes on by straight-through gradients. Masks stay; what they hide is
// exactly 0 and takes no part in any fit.
//
//   auto report = compress::quantize::uniform(net, {.range = {-8, 7}});
//   std::cout << report.table();
//   compress::quantize::bake(net);        // the quantized values as plain floats

#include <optional>
#include <string>
#include <vector>

#include "hone/ops/nn/module.h"

namespace hone::compress::quantize {

/// The least and the largest code w_q: whole numbers, low < high, within ±2³¹.
struct Range {
  double low = -128, high = 127;
};
/// What a `step` of the options is. Codes are equal where step = 1/Δ.
enum class StepRule : uint8_t {
  multiply,  ///< w_q = round(w · step): the survey's formula
  divide,    ///< w_q = round(w / Δ), step being Δ: the field's scale
};
enum class Shift : uint8_t {
  mean,        ///< ŵ = Δ clamp(round((w − μ)/Δ)) + μ, μ the mean of the weights
  zero_point,  ///< ŵ = Δ (clamp(round(w/Δ) + z) − z), z whole: from min(w, 0) to max(w, 0), 0 exact
  none,        ///< μ = 0
};
enum class Rounding : uint8_t { nearest_even, truncate };

/// Names are those of named_parameters() ("fc1.weight") or of what they begin with ("fc1").
struct UniformOptions {
  Range range = {};  ///< with Shift::mean and none, low ≤ 0 ≤ high
  /// Above 0, with a finite inverse; none: the finest for which no weight leaves the range. With Shift::zero_point Δ is
  /// (max(w, 0) − min(w, 0)) / (high − low) instead: as z is rounded, one end of the weights may pass by half a step.
  std::optional<double> step = {};
  StepRule step_rule = StepRule::multiply;
  Shift shift = Shift::mean;
  Rounding rounding = Rounding::nearest_even;
  bool global = false;   ///< one μ, z and step for all parameters together
  bool learned = false;  ///< each step is a trained parameter (LSQ): p.scale(), for an optimizer of your choice
  std::vector<std::string> only = {}, except = {};  ///< which parameters; none: all
  bool biases = false;                              ///< parameters of fewer than two dims too
};

/// What became of one parameter. All counts and shares are of the weights that no mask hides.
struct QuantizedLayer {
  std::string name;
  int64_t kept = 0, total = 0, levels = 1;
  double step = 0, shift = 0;  ///< Δ and μ (of Shift::zero_point: −Δz) of the first level
  double error = 0;            ///< mean squared change
  double clipped = 0;          ///< share that lay beyond the range
  double zeros = 0;            ///< share that is 0 now
  int64_t values = 0;          ///< distinct values there are
  /// Codes of ⌈log2(high − low + 1)⌉ bits (without a range, of the codes there are; a kept float is as wide as its
  /// dtype), ids of levels at their entropy, and 64 bits a level for its step and shift; without the mask.
  double bits = 0;
  double entropy = 0;  ///< of the values, bits a weight
};
struct QuantizeReport {
  std::vector<QuantizedLayer> layers = {};
  std::vector<std::string> warnings = {};
  double bits_per_weight() const;  ///< over all
  std::string table() const;       ///< a line a layer, all, and the warnings
};

/// The documents' quantization: per tensor, or global. ValueError for options against the above, a name that is not
/// there (the nearest are offered), no parameter left, a codebook, weights that are not finite; then the module is as
/// it was.
QuantizeReport uniform(nn::Module& module, const UniformOptions& options = {});

/// What the quantized parameters of a module are now: against their raw values, which a codebook has no more (error 0).
QuantizeReport quantize_report(nn::Module& module);

/// Every fake-quantized or codebook parameter becomes dense, with value() as its raw value, masks included.
void bake(nn::Module& module);

}  // namespace hone::compress::quantize
