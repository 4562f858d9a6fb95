#include "hone/compress/quantize/dynamic.h"

#include <algorithm>
#include <cmath>

#include "hone/compress/quantize/grid.h"
#include "hone/compress/quantize/kmeans.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/text_table.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/unary.h"

namespace hone::compress::quantize {
namespace {

constexpr const char* kWhat = "dynamic";

detail::FitOptions fit_options(const DynamicOptions& o) {
  return {.range = o.range, .shift = o.shift, .rounding = o.rounding};
}

/// The level of each kept weight, below o.levels, by bands of |w| of equal count; equal magnitudes share a band.
std::vector<int32_t> bands(const std::vector<double>& w, int64_t levels) {
  std::vector<double> sorted;
  for (const double v : w) sorted.push_back(std::abs(v));
  std::sort(sorted.begin(), sorted.end());
  std::vector<double> tops;  // of every band but the last
  for (int64_t b = 1; b < levels; ++b) {
    const size_t end = sorted.size() * static_cast<size_t>(b) / static_cast<size_t>(levels);
    tops.push_back(sorted[end > 0 ? end - 1 : 0]);
  }
  std::vector<int32_t> level;
  for (const double v : w)
    level.push_back(static_cast<int32_t>(std::lower_bound(tops.begin(), tops.end(), std::abs(v)) - tops.begin()));
  return level;
}

detail::Grid grid_of(const nn::NamedParameter& named, const DynamicOptions& o) {
  detail::check_type(kWhat, named);
  const detail::Kept kept = detail::kept_of(kWhat, named.name, named.parameter);
  const Shape& shape = named.parameter.shape();
  const detail::FitOptions how = fit_options(o);
  std::vector<std::vector<double>> of_level;
  detail::Grid grid;
  if (o.by == LevelBy::tensor || shape.ndim() == 0) {
    of_level = {kept.values};
  } else if (o.by == LevelBy::channel) {
    of_level.resize(static_cast<size_t>(shape[0]));
    for (size_t i = 0; i < kept.at.size(); ++i)
      of_level[static_cast<size_t>(kept.at[i] / (kept.total / shape[0]))].push_back(kept.values[i]);
  } else {
    of_level.resize(static_cast<size_t>(o.levels));
    grid.ids.assign(static_cast<size_t>(kept.total), 0);
    const std::vector<int32_t> level =
        kept.values.empty()          ? std::vector<int32_t>()
        : o.by == LevelBy::magnitude ? bands(kept.values, o.levels)
                                     : kmeans(kept.values, {.clusters = o.levels, .start = KMeansStart::optimal}).codes;
    for (size_t i = 0; i < kept.at.size(); ++i) {
      grid.ids[static_cast<size_t>(kept.at[i])] = static_cast<uint8_t>(level[i]);
      of_level[static_cast<size_t>(level[i])].push_back(kept.values[i]);
    }
  }
  for (const auto& w : of_level) grid.levels.push_back(detail::fit(w, how));
  return grid;
}

std::vector<nn::NamedParameter> checked(nn::Module& module, const DynamicOptions& o) {
  detail::check(kWhat, fit_options(o));
  HONE_CHECK(o.levels >= 1 && o.levels <= 256, ValueError, kWhat, ": levels must be in [1, 256], got ", o.levels);
  return detail::chosen(kWhat, module, o.only, o.except, o.biases);
}

void fit_all(const std::vector<nn::NamedParameter>& parameters, const DynamicOptions& o) {
  std::vector<detail::Grid> grids;
  for (const auto& n : parameters) grids.push_back(grid_of(n, o));
  for (size_t i = 0; i < grids.size(); ++i) detail::set_grid(parameters[i].parameter, grids[i]);
}
QuantizeReport report_of(const std::vector<nn::NamedParameter>& parameters) {
  QuantizeReport report;
  for (const auto& n : parameters) report.layers.push_back(detail::measure(kWhat, n));
  return report;
}
Tensor kept_raw(const ParameterRef& p) {
  const Tensor raw = cast(p.raw().detach(), DType::f64);
  return p.mask().defined() ? masked(raw, p.mask()) : raw;
}

}  // namespace

QuantizeReport dynamic(nn::Module& module, const DynamicOptions& o) {
  const auto parameters = checked(module, o);
  fit_all(parameters, o);
  return report_of(parameters);
}

DynamicQuantizer::DynamicQuantizer(nn::Module& module, DynamicOptions options, RefitOptions refit)
    : options_(std::move(options)), refit_(refit), parameters_(checked(module, options_)) {
  HONE_CHECK(refit_.every >= 0 && refit_.drift >= 0, ValueError, kWhat, ": every and drift must be at least 0, got ",
             refit_.every, " and ", refit_.drift);
  fit();
}

void DynamicQuantizer::fit() {
  const NoGrad no_grad;
  fit_all(parameters_, options_);
  fitted_.clear();
  for (const auto& n : parameters_) fitted_.push_back({kept_raw(n.parameter), n.parameter.generation()});
}

double DynamicQuantizer::error() const {
  double sum = 0, kept = 0;
  for (const QuantizedLayer& l : report().layers)
    sum += l.error * static_cast<double>(l.kept), kept += static_cast<double>(l.kept);
  return kept > 0 ? sum / kept : 0;
}

double DynamicQuantizer::drift() const {
  const NoGrad no_grad;
  double most = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const double moved = sum(square(kept_raw(parameters_[i].parameter) - fitted_[i].raw)).item(),
                 whole = sum(square(fitted_[i].raw)).item();
    if (moved > 0) most = std::max(most, std::sqrt(moved / whole));
  }
  return most;
}

bool DynamicQuantizer::step() {
  const int64_t t = t_ + 1;
  bool reshaped = false;
  for (size_t i = 0; i < parameters_.size(); ++i)
    reshaped = reshaped || parameters_[i].parameter.generation() != fitted_[i].generation;
  const bool due = refit_.every > 0 && t % refit_.every == 0;
  const double moved = !reshaped && (due || refit_.drift > 0) ? drift() : 0;
  const bool fits = reshaped || due || (refit_.drift > 0 && moved > refit_.drift);
  if (fits) {
    Refit entry{t, !reshaped && !due, reshaped, moved, error(), 0};
    fit();
    entry.error_after = error();
    log_.push_back(entry);
  }
  t_ = t;
  return fits;
}

QuantizeReport DynamicQuantizer::report() const { return report_of(parameters_); }

std::string DynamicQuantizer::table() const {
  std::vector<std::vector<std::string>> lines{{"step", "reason", "drift", "error before", "error after"}};
  for (const Refit& r : log_)
    lines.push_back({str(r.step),
                     r.reshaped   ? "shape"
                     : r.by_drift ? "drift"
                                  : "due",
                     detail::scientific(r.drift), detail::scientific(r.error_before),
                     detail::scientific(r.error_after)});
  return hone::detail::text_table(lines, 0);
}

}  // namespace hone::compress::quantize
