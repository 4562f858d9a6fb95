#include "hone/optim/schedule_decay.h"

#include <algorithm>
#include <cmath>

namespace hone::optim {
namespace {

double real(int64_t n) { return static_cast<double>(n); }
// min(t, steps)/steps
double part(int64_t t, int64_t steps) { return real(std::min(t, steps)) / real(steps); }

}  // namespace

void StepLROptions::check(int) const {
  detail::check_steps(kName, "steps", steps);
  detail::check_above_zero(kName, "gamma", gamma);
}
double StepLROptions::rate(int64_t t, double base, int) const { return base * std::pow(gamma, real(t / steps)); }
void StepLROptions::settings(detail::Numbers& n) const {
  n.add("steps", steps);
  n.add("gamma", gamma);
}

void MultiStepLROptions::check(int) const {
  detail::check_milestones(kName, milestones);
  detail::check_above_zero(kName, "gamma", gamma);
}
double MultiStepLROptions::rate(int64_t t, double base, int) const {
  const auto passed = std::upper_bound(milestones.begin(), milestones.end(), t) - milestones.begin();
  return base * std::pow(gamma, real(passed));
}
void MultiStepLROptions::settings(detail::Numbers& n) const {
  n.add("milestones", milestones);
  n.add("gamma", gamma);
}

void ExponentialLROptions::check(int) const { detail::check_above_zero(kName, "gamma", gamma); }
double ExponentialLROptions::rate(int64_t t, double base, int) const { return base * std::pow(gamma, real(t)); }
void ExponentialLROptions::settings(detail::Numbers& n) const { n.add("gamma", gamma); }

void PolynomialLROptions::check(int) const {
  detail::check_steps(kName, "steps", steps);
  detail::check_at_least_zero(kName, "power", power);
}
double PolynomialLROptions::rate(int64_t t, double base, int) const {
  return base * std::pow(1 - part(t, steps), power);
}
void PolynomialLROptions::settings(detail::Numbers& n) const {
  n.add("steps", steps);
  n.add("power", power);
}

void LinearLROptions::check(int) const {
  detail::check_steps(kName, "steps", steps);
  detail::check_fraction(kName, "start_factor", start_factor);
  detail::check_fraction(kName, "end_factor", end_factor);
}
double LinearLROptions::rate(int64_t t, double base, int) const {
  if (t >= steps) return base * end_factor;  // the sum below may miss it by a rounding
  return base * (start_factor + (end_factor - start_factor) * part(t, steps));
}
void LinearLROptions::settings(detail::Numbers& n) const {
  n.add("steps", steps);
  n.add("start_factor", start_factor);
  n.add("end_factor", end_factor);
}

void ConstantLROptions::check(int) const {
  detail::check_steps(kName, "steps", steps);
  detail::check_fraction(kName, "factor", factor);
}
double ConstantLROptions::rate(int64_t t, double base, int) const { return t < steps ? base * factor : base; }
void ConstantLROptions::settings(detail::Numbers& n) const {
  n.add("steps", steps);
  n.add("factor", factor);
}

void NoamOptions::check(int groups) const {
  detail::check_steps(kName, "d_model", d_model);
  detail::check_steps(kName, "warmup", warmup);
  detail::check_rates(kName, "scale", scale, groups);
}
double NoamOptions::rate(int64_t t, double, int group) const {
  const double n = real(t) + 1, w = real(warmup);
  return scale[group] / std::sqrt(real(d_model)) * std::min(1 / std::sqrt(n), n / (w * std::sqrt(w)));
}
void NoamOptions::settings(detail::Numbers& n) const {
  n.add("d_model", d_model);
  n.add("warmup", warmup);
  n.add("scale", scale);
}

void InverseSqrtOptions::check(int) const { detail::check_steps(kName, "warmup", warmup); }
double InverseSqrtOptions::rate(int64_t t, double base, int) const {
  const double n = real(t) + 1, w = real(warmup);
  return base * (n < w ? n / w : std::sqrt(w / n));
}
void InverseSqrtOptions::settings(detail::Numbers& n) const { n.add("warmup", warmup); }

void LinearDecayOptions::check(int) const { detail::check_steps(kName, "steps", steps); }
double LinearDecayOptions::rate(int64_t t, double base, int) const { return base * (1 - part(t, steps)); }
void LinearDecayOptions::settings(detail::Numbers& n) const { n.add("steps", steps); }

void InverseTimeDecayOptions::check(int) const { detail::check_at_least_zero(kName, "alpha", alpha); }
double InverseTimeDecayOptions::rate(int64_t t, double base, int) const { return base / (1 + alpha * real(t)); }
void InverseTimeDecayOptions::settings(detail::Numbers& n) const { n.add("alpha", alpha); }

}  // namespace hone::optim
