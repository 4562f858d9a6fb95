#include "hone/compress/quantize/grid.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "hone/compress/pack/entropy.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/weight_ops.h"

namespace hone::compress::quantize::detail {
namespace {

/// The least Δ for which x/Δ, rounded, does not pass the bound; 0 where x and bound are not on one side.
double least_scale(double x, double bound) {
  if (x == 0 || bound == 0 || (x > 0) != (bound > 0)) return 0;
  double scale = x / bound;
  while (std::abs(x / scale) > std::abs(bound)) scale = std::nextafter(scale, std::numeric_limits<double>::infinity());
  return scale;
}

/// Δ of a given step.
double scale_of(const FitOptions& o) { return o.step_rule == StepRule::multiply ? 1 / *o.step : *o.step; }

}  // namespace

void check(const char* what, const FitOptions& o) {
  const auto whole = [](double v) { return std::abs(v) <= kWidest && v == std::trunc(v); };
  HONE_CHECK(whole(o.range.low) && whole(o.range.high) && o.range.low < o.range.high, ValueError, what,
             ": the range must be two whole numbers in order within 2^31, got ", o.range.low, " and ", o.range.high);
  HONE_CHECK(o.shift != Shift::zero_point || o.range.high - o.range.low <= kWidest, ValueError, what, ": range ",
             o.range.low, " to ", o.range.high, " has more than 2^31 steps, too many for a zero point");
  HONE_CHECK(o.shift == Shift::zero_point || (o.range.low <= 0 && o.range.high >= 0), ValueError, what, ": range ",
             o.range.low, " to ", o.range.high, " must hold 0, which is where the shift goes");
  HONE_CHECK(!o.step || (*o.step > 0 && scale_of(o) > 0 && std::isfinite(scale_of(o))), ValueError, what,
             ": step must be above 0 and make a finite scale Δ above 0, got ", o.step.value_or(0));
}

Level fit(std::span<const double> w, const FitOptions& o) {
  Level level{0, 0, o.range.low, o.range.high, o.rounding == Rounding::truncate};
  if (o.step) level.scale = scale_of(o);
  const auto [min, max] = std::minmax_element(w.begin(), w.end());
  const double least = w.empty() ? 0 : *min, most = w.empty() ? 0 : *max;
  if (o.shift == Shift::zero_point) {
    const double a = std::min(least, 0.0), b = std::max(most, 0.0);
    const double codes = o.range.high - o.range.low;
    if (!o.step) level.scale = b / codes - a / codes;  // b − a may pass the largest number
    if (level.scale == 0) level.scale = 1;
    const double z = std::clamp(std::nearbyint(o.range.low - a / level.scale), o.range.low, o.range.high);
    level.low -= z, level.high -= z;
    return level;
  }
  if (o.shift == Shift::mean && !w.empty())
    level.shift = std::accumulate(w.begin(), w.end(), 0.0) / static_cast<double>(w.size());
  if (!o.step)
    level.scale =
        std::max(least_scale(most - level.shift, o.range.high), least_scale(least - level.shift, o.range.low));
  if (level.scale == 0) level.scale = 1;  // all weights are where code 0 is
  return level;
}

void set_grid(const ParameterRef& p, const Grid& grid, bool learned) {
  const auto n = static_cast<int64_t>(grid.levels.size());
  Tensor scale = empty({n}, DType::f64), points = empty({n, kGridColumns}, DType::f64);
  for (int64_t l = 0; l < n; ++l) {
    const Level& level = grid.levels[static_cast<size_t>(l)];
    scale.data<double>()[l] = level.scale;
    const double row[] = {level.shift, level.low, level.high, level.truncate ? 1.0 : 0.0};
    std::copy_n(row, kGridColumns, points.data<double>() + l * kGridColumns);
  }
  Tensor ids;
  if (!grid.ids.empty()) {
    ids = empty(p.shape(), DType::u8);
    std::copy(grid.ids.begin(), grid.ids.end(), ids.data<uint8_t>());
  }
  const Device device = p.raw().device();
  p.set_grid({to(scale, device), to(points, device), ids.defined() ? to(ids, device) : ids, learned});
}

void check_type(const char* what, const nn::NamedParameter& n) {
  HONE_CHECK(n.parameter.type() != WeightType::codebook, ValueError, what, ": '", n.name,
             "' is a codebook; bake() makes it dense");
}

QuantizedLayer measure(const char* what, const nn::NamedParameter& named) {
  const NoGrad no_grad;
  const auto& [name, p] = named;
  const Kept kept = kept_of(what, name, p);
  QuantizedLayer layer{.name = name, .kept = static_cast<int64_t>(kept.values.size()), .total = kept.total};
  const std::vector<double> value = p.value().detach().to_vector<double>();
  const auto n = static_cast<double>(layer.kept);
  std::map<double, uint64_t> count;
  for (size_t i = 0; i < kept.at.size(); ++i) {
    const double now = value[static_cast<size_t>(kept.at[i])];
    layer.error += (now - kept.values[i]) * (now - kept.values[i]) / n;
    layer.zeros += now == 0 ? 1 / n : 0;
    ++count[now];
  }
  layer.values = static_cast<int64_t>(count.size());
  std::vector<uint64_t> counts;
  for (const auto& entry : count) counts.push_back(entry.second);
  layer.entropy = n > 0 ? coding::entropy_bits_of_counts(counts) / n : 0;
  if (!p.scale().defined()) {  // a codebook
    const auto k = static_cast<double>(p.raw().numel());
    layer.bits = n * std::ceil(std::log2(k)) + k * 8 * static_cast<double>(size_of(p.raw().dtype()));
    return layer;
  }
  const WeightGrid grid = p.grid();
  const std::vector<double> scale = grid.scale.to_vector<double>(), points = grid.points.to_vector<double>();
  const std::vector<uint8_t> ids = grid.levels.defined() ? grid.levels.to_vector<uint8_t>() : std::vector<uint8_t>();
  layer.levels = static_cast<int64_t>(scale.size());
  layer.step = std::abs(scale[0]), layer.shift = points[0];
  struct Use {
    uint64_t count = 0;
    double least = std::numeric_limits<double>::infinity(), most = -least;  // codes
  };
  std::vector<Use> use(scale.size());
  for (size_t i = 0; i < kept.at.size(); ++i) {
    const auto at = static_cast<size_t>(kept.at[i]);
    const size_t l = !ids.empty() ? ids[at] : scale.size() * at / value.size();
    ++use[l].count;
    if (scale[l] == 0) continue;
    const double* point = &points[l * kGridColumns];
    const double q = (kept.values[i] - point[0]) / std::abs(scale[l]);
    layer.clipped += q < point[1] || q > point[2] ? 1 / n : 0;
    const double code = std::nearbyint((value[at] - point[0]) / std::abs(scale[l]));
    use[l].least = std::min(use[l].least, code), use[l].most = std::max(use[l].most, code);
  }
  for (size_t l = 0; l < use.size(); ++l) {
    const double* point = &points[l * kGridColumns];
    const auto count = static_cast<double>(use[l].count);
    const bool open = point[1] <= -kWidest && point[2] >= kWidest;
    const double codes = open ? use[l].most - use[l].least + 1 : point[2] - point[1] + 1;
    if (count > 0)
      layer.bits +=
          count * (scale[l] == 0 ? 8 * static_cast<double>(size_of(p.raw().dtype())) : std::ceil(std::log2(codes)));
  }
  layer.bits += 64 * static_cast<double>(scale.size());
  if (!ids.empty()) {
    std::vector<uint64_t> of_level;
    for (const Use& u : use) of_level.push_back(u.count);
    layer.bits += coding::entropy_bits_of_counts(of_level);
  }
  return layer;
}

}  // namespace hone::compress::quantize::detail
