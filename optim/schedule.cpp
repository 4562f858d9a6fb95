#include "hone/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "hone/core/error.h"

namespace hone::optim {

Schedule::Schedule(Optimizer& optimizer) : optimizer_(optimizer) {
  for (int g = 0; g < optimizer.groups(); ++g) base_lrs_.push_back(optimizer.lr(g));
}

void Schedule::apply(int64_t t) {
  for (int g = 0; g < optimizer_.groups(); ++g) optimizer_.set_lr(lr_at(t, g), g);
}

void Schedule::step() {
  apply(t_ + 1);
  ++t_;
}

void Schedule::set_state(const ScheduleState& state) {
  HONE_CHECK(state.t >= 0, ValueError, "schedule state: t must be at least 0, got ", state.t);
  HONE_CHECK(state.base_lrs.size() == base_lrs_.size(), ValueError, "schedule state: ", state.base_lrs.size(),
             " groups, the optimizer has ", base_lrs_.size());
  const std::vector<double> former = std::exchange(base_lrs_, state.base_lrs);
  try {
    apply(state.t);
  } catch (...) {
    base_lrs_ = former;
    throw;
  }
  t_ = state.t;
}

OneCycle::OneCycle(Optimizer& optimizer, OneCycleOptions o) : Schedule(optimizer), options_(o) {
  HONE_CHECK(std::isfinite(o.max_lr) && o.max_lr > 0, ValueError, "OneCycle: max_lr must be finite and above 0, got ",
             o.max_lr);
  HONE_CHECK(o.steps >= 1, ValueError, "OneCycle: steps must be at least 1, got ", o.steps);
  HONE_CHECK(o.warmup >= 0 && o.warmup <= 1, ValueError, "OneCycle: warmup must be in [0, 1], got ", o.warmup);
  HONE_CHECK(o.div_factor > 0 && o.final_div_factor > 0, ValueError,
             "OneCycle: div_factor and final_div_factor must be ", "above 0, got ", o.div_factor, " and ",
             o.final_div_factor);
  HONE_CHECK(o.base_momentum >= 0 && o.base_momentum < 1 && o.max_momentum >= 0 && o.max_momentum < 1, ValueError,
             "OneCycle: base_momentum and max_momentum must be in [0, 1), got ", o.base_momentum, " and ",
             o.max_momentum);
  apply(0);
}

double OneCycle::cycle(int64_t t, double start, double top, double end) const {
  // Phase borders are fractions of a step where warmup·steps is no integer, as in PyTorch.
  const double rise = options_.warmup * static_cast<double>(options_.steps) - 1;
  const double last = static_cast<double>(options_.steps) - 1;
  const double at = static_cast<double>(t);
  const bool rising = at <= rise;
  const double from = rising ? start : top, to = rising ? top : end;
  const double length = rising ? rise : last - rise;
  if (length <= 0) return to;
  // After the last step t = steps, past the end: its value is held (PyTorch extrapolates, a linear one below 0).
  const double part = std::min((rising ? at : at - rise) / length, 1.0);
  if (options_.anneal == Anneal::linear) return from + (to - from) * part;
  return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * part));
}

double OneCycle::lr_at(int64_t t, int) const {
  HONE_CHECK(t >= 0 && t <= options_.steps, ValueError, "OneCycle: step ", t, " of a cycle of ", options_.steps);
  const double first = options_.max_lr / options_.div_factor;
  return cycle(t, first, options_.max_lr, first / options_.final_div_factor);
}

double OneCycle::momentum_at(int64_t t) const {
  return cycle(t, options_.max_momentum, options_.base_momentum, options_.max_momentum);
}

void OneCycle::apply(int64_t t) {
  Schedule::apply(t);
  if (!options_.cycle_momentum || !optimizer().has_momentum()) return;
  for (int g = 0; g < optimizer().groups(); ++g) optimizer().set_momentum(momentum_at(t), g);
}

CosineAnnealing::CosineAnnealing(Optimizer& optimizer, CosineAnnealingOptions o) : Schedule(optimizer), options_(o) {
  HONE_CHECK(o.steps >= 1, ValueError, "CosineAnnealing: steps must be at least 1, got ", o.steps);
  HONE_CHECK(std::isfinite(o.min_lr) && o.min_lr >= 0, ValueError,
             "CosineAnnealing: min_lr must be finite and at least 0, got ", o.min_lr);
  apply(0);
}

double CosineAnnealing::lr_at(int64_t t, int group) const {
  const double part = static_cast<double>(t) / static_cast<double>(options_.steps);
  return options_.min_lr + (base_lr(group) - options_.min_lr) * (1 + std::cos(std::numbers::pi * part)) / 2;
}

}  // namespace hone::optim
