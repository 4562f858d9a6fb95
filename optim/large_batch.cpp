#include "hone/optim/large_batch.h"

#include <algorithm>
#include <cmath>

#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void LARSOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("momentum", momentum);
  v("weight_decay", weight_decay);
  v("trust_coefficient", trust_coefficient);
  v("eps", eps);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
}

void LARS::check(const LARSOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_at_least_zero(kName, "momentum", o.momentum);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  detail::check_above_zero(kName, "trust_coefficient", o.trust_coefficient);
  detail::check_at_least_zero(kName, "eps", o.eps);
}

detail::UpdateKernels LARS::kernels(int) const { return detail::update_rules().lars; }

void LARS::coefficients(Entry& e, double* c) const {
  const LARSOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.momentum;
}

void LARS::update(std::span<Item>) {
  sum_segments(detail::update_rules().squares);
  for (Segment& s : segments()) {
    const LARSOptions& o = of(*s.entry);
    // Coupled decay stands in c[1], decoupled in c[2].
    const double w = std::abs(s.c[2]) * std::sqrt(s.sums[0]), g = std::sqrt(s.sums[1]);
    s.c[4] = o.lr * (w > 0 && g > 0 ? o.trust_coefficient * w / (g + s.c[1] * w + o.eps) : 1);
  }
  run_segments();
}

void LAMBOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("beta1", beta1);
  v("beta2", beta2);
  v("eps", eps);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("norm_min", norm_min);
  v("norm_max", norm_max);
  v("bias_correction", bias_correction);
  v("maximize", maximize);
  v("eps_inside_sqrt", eps_inside_sqrt);
}

void LAMB::check(const LAMBOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_unit_interval(kName, "beta1", o.beta1);
  detail::check_unit_interval(kName, "beta2", o.beta2);
  detail::check_at_least_zero(kName, "eps", o.eps);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  detail::check_at_least_zero(kName, "norm_min", o.norm_min);
  HONE_CHECK(o.norm_max >= o.norm_min, ValueError, "LAMB: norm_max must be at least norm_min (", o.norm_min, "), got ",
             o.norm_max);
}

detail::UpdateKernels LAMB::kernels(int) const { return detail::update_rules().lamb; }

void LAMB::coefficients(Entry& e, double* c) const {
  const LAMBOptions& o = of(e);
  const double t = static_cast<double>(e.steps);
  c[0] = o.maximize ? -1 : 1;
  c[1] = o.decoupled_decay ? 0 : o.weight_decay;
  c[2] = 1;
  c[3] = o.beta1;
  c[4] = 1 - o.beta1;
  c[5] = o.beta2;
  c[6] = 1 - o.beta2;
  c[7] = o.bias_correction ? 1 / (1 - std::pow(o.beta1, t)) : 1;
  c[8] = o.bias_correction ? 1 / (1 - std::pow(o.beta2, t)) : 1;
  detail::place_epsilon(o.eps, o.eps_inside_sqrt, c + 9);
  c[11] = o.decoupled_decay ? o.weight_decay : 0;  // a part of the direction
}

void LAMB::update(std::span<Item>) {
  sum_segments(detail::update_rules().lamb_norms);
  for (Segment& s : segments()) {
    const LAMBOptions& o = of(*s.entry);
    const double w = std::clamp(std::sqrt(s.sums[0]), o.norm_min, o.norm_max), u = std::sqrt(s.sums[1]);
    s.c[12] = o.lr * (w > 0 && u > 0 ? w / u : 1);
  }
  run_segments();
}

}  // namespace hone::optim
