#include "hone/optim/schedule_cycle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "hone/core/error.h"

namespace hone::optim {
namespace {

double real(int64_t n) { return static_cast<double>(n); }

double cosine(double from, double to, double part) {
  return to + (from - to) * (1 + std::cos(std::numbers::pi * part)) / 2;
}

void check_max_lr(const char* name, const PerGroup<double>& max_lr, int groups) {
  detail::check_count(name, "max_lr", max_lr.values().size(), groups);
  for (double v : max_lr.values()) detail::check_above_zero(name, "max_lr", v);
}
void check_momenta(const char* name, double base, double max) {
  detail::check_unit_interval(name, "base_momentum", base);
  detail::check_unit_interval(name, "max_momentum", max);
}

// The value of a cycle at t that goes from `start` over `top` to `end`.
double one_cycle(const OneCycleOptions& o, int64_t t, double start, double top, double end) {
  HONE_CHECK(t <= o.steps, ValueError, "OneCycle: step ", t, " of a cycle of ", o.steps,
             "; .steps must be at least the number of calls of step()");
  // Phase borders are fractions of a step where warmup·steps is no integer, as in PyTorch.
  const double rise = o.warmup * real(o.steps) - 1, last = real(o.steps) - 1, at = real(t);
  double from = start, to = top, begin = 0, finish = rise;
  if (at > rise) from = top, to = end, begin = rise, finish = last;
  if (o.three_phase && at > rise) {
    const double fall = 2 * o.warmup * real(o.steps) - 2;
    if (at <= fall)
      to = start, finish = fall;
    else
      from = start, begin = fall;
  }
  if (finish <= begin) return to;
  // After the last step t = steps, past the end: its value is held (PyTorch extrapolates, a linear one below 0).
  const double part = std::min((at - begin) / (finish - begin), 1.0);
  return o.anneal == Anneal::linear ? from + (to - from) * part : cosine(from, to, part);
}

// Height of the triangle at t, in [0, 1], shrunk as the mode says.
double cyclic_height(const CyclicLROptions& o, int64_t t) {
  const int64_t up = o.steps_up, down = o.steps_down > 0 ? o.steps_down : up;
  const int64_t cycle = t / (up + down), at = t % (up + down);
  const double height = at <= up ? real(at) / real(up) : real(up + down - at) / real(down);
  if (o.mode == Cycle::triangular2) return height * std::exp2(-real(cycle));
  if (o.mode == Cycle::exp_range) return height * std::pow(o.gamma, real(t));
  return height;
}

}  // namespace

void CosineAnnealingOptions::check(int) const {
  detail::check_steps(kName, "steps", steps);
  detail::check_at_least_zero(kName, "min_lr", min_lr);
}
double CosineAnnealingOptions::rate(int64_t t, double base, int) const {
  return cosine(base, min_lr, real(t) / real(steps));
}
void CosineAnnealingOptions::settings(detail::Numbers& n) const {
  n.add("steps", steps);
  n.add("min_lr", min_lr);
}

void CosineWarmRestartsOptions::check(int) const {
  detail::check_steps(kName, "steps", steps);
  detail::check_steps(kName, "growth", growth);
  detail::check_at_least_zero(kName, "min_lr", min_lr);
}
double CosineWarmRestartsOptions::rate(int64_t t, double base, int) const {
  int64_t length = steps;
  if (growth == 1) t %= length;
  while (t >= length) {
    t -= length;
    length =
        length > std::numeric_limits<int64_t>::max() / growth ? std::numeric_limits<int64_t>::max() : length * growth;
  }
  return cosine(base, min_lr, real(t) / real(length));
}
void CosineWarmRestartsOptions::settings(detail::Numbers& n) const {
  n.add("steps", steps);
  n.add("growth", growth);
  n.add("min_lr", min_lr);
}

void OneCycleOptions::check(int groups) const {
  check_max_lr(kName, max_lr, groups);
  detail::check_steps(kName, "steps", steps);
  detail::check_fraction(kName, "warmup", warmup);
  HONE_CHECK(!three_phase || warmup <= 0.5, ValueError,
             "OneCycle: warmup must be in [0, 0.5] with three_phase, whose second phase is as long, got ", warmup);
  detail::check_above_zero(kName, "div_factor", div_factor);
  detail::check_above_zero(kName, "final_div_factor", final_div_factor);
  check_momenta(kName, base_momentum, max_momentum);
}
double OneCycleOptions::rate(int64_t t, double, int group) const {
  const double first = max_lr[group] / div_factor;
  return one_cycle(*this, t, first, max_lr[group], first / final_div_factor);
}
double OneCycleOptions::momentum(int64_t t) const {
  return cycle_momentum ? one_cycle(*this, t, max_momentum, base_momentum, max_momentum) : detail::kNoMomentum;
}
void OneCycleOptions::settings(detail::Numbers& n) const {
  n.add("max_lr", max_lr);
  n.add("steps", steps);
  n.add("warmup", warmup);
  n.add("div_factor", div_factor);
  n.add("final_div_factor", final_div_factor);
  n.add("anneal", static_cast<int64_t>(anneal));
  n.add("three_phase", static_cast<int64_t>(three_phase));
  n.add("cycle_momentum", static_cast<int64_t>(cycle_momentum));
  n.add("base_momentum", base_momentum);
  n.add("max_momentum", max_momentum);
}

void CyclicLROptions::check(int groups) const {
  check_max_lr(kName, max_lr, groups);
  constexpr int64_t kMost = int64_t{1} << 52;  // their sum and every t within are exact as doubles
  HONE_CHECK(steps_up >= 1 && steps_up <= kMost, ValueError, "CyclicLR: steps_up must be in [1, 2^52], got ", steps_up);
  HONE_CHECK(steps_down >= 0 && steps_down <= kMost, ValueError, "CyclicLR: steps_down must be in [0, 2^52], got ",
             steps_down);
  HONE_CHECK(gamma > 0 && gamma <= 1, ValueError, "CyclicLR: gamma must be in (0, 1], got ", gamma);
  check_momenta(kName, base_momentum, max_momentum);
}
double CyclicLROptions::rate(int64_t t, double base, int group) const {
  return base + (max_lr[group] - base) * cyclic_height(*this, t);
}
double CyclicLROptions::momentum(int64_t t) const {
  if (!cycle_momentum) return detail::kNoMomentum;
  return max_momentum - (max_momentum - base_momentum) * cyclic_height(*this, t);
}
void CyclicLROptions::settings(detail::Numbers& n) const {
  n.add("max_lr", max_lr);
  n.add("steps_up", steps_up);
  n.add("steps_down", steps_down);
  n.add("mode", static_cast<int64_t>(mode));
  n.add("gamma", gamma);
  n.add("cycle_momentum", static_cast<int64_t>(cycle_momentum));
  n.add("base_momentum", base_momentum);
  n.add("max_momentum", max_momentum);
}

void TwoLevelCyclicOptions::check(int groups) const {
  detail::check_rates(kName, "lr1", lr1, groups);
  detail::check_rates(kName, "lr2", lr2, groups);
  detail::check_steps(kName, "period", period);
}
double TwoLevelCyclicOptions::rate(int64_t t, double, int group) const {
  return t % period == 0 ? lr1[group] : lr2[group];
}
void TwoLevelCyclicOptions::settings(detail::Numbers& n) const {
  n.add("lr1", lr1);
  n.add("lr2", lr2);
  n.add("period", period);
}

}  // namespace hone::optim
