#include "hone/optim/adam_family.h"

#include <cmath>

#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {
namespace {

template <class Options> void check_adam(const char* name, const Options& o) {
  detail::check_at_least_zero(name, "lr", o.lr);
  detail::check_unit_interval(name, "beta1", o.beta1);
  detail::check_unit_interval(name, "beta2", o.beta2);
  detail::check_at_least_zero(name, "eps", o.eps);
  detail::check_at_least_zero(name, "weight_decay", o.weight_decay);
}
template <class Options> void adam_fields(Options& o, FieldVisitor& v) {
  v("lr", o.lr);
  v("beta1", o.beta1);
  v("beta2", o.beta2);
  v("eps", o.eps);
  v("weight_decay", o.weight_decay);
  v("decoupled_decay", o.decoupled_decay);
  v("maximize", o.maximize);
}
// c[0] to c[6].
template <class Options> void moment_coefficients(const Options& o, double* c) {
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.beta1;
  c[4] = 1 - o.beta1;
  c[5] = o.beta2;
  c[6] = 1 - o.beta2;
}

}  // namespace

void AdamaxOptions::fields(FieldVisitor& v) { adam_fields(*this, v); }
void Adamax::check(const AdamaxOptions& o) { check_adam(kName, o); }
detail::UpdateKernels Adamax::kernels(int) const { return detail::update_rules().adamax; }
void Adamax::coefficients(Entry& e, double* c) const {
  const AdamaxOptions& o = of(e);
  moment_coefficients(o, c);
  c[6] = o.eps;
  c[7] = o.lr / (1 - std::pow(o.beta1, static_cast<double>(e.steps)));
}

void NAdamOptions::fields(FieldVisitor& v) {
  adam_fields(*this, v);
  v("momentum_decay", momentum_decay);
  v("eps_inside_sqrt", eps_inside_sqrt);
}
void NAdam::check(const NAdamOptions& o) {
  check_adam(kName, o);
  detail::check_at_least_zero(kName, "momentum_decay", o.momentum_decay);
}
detail::UpdateKernels NAdam::kernels(int) const { return detail::update_rules().nadam; }
void NAdam::coefficients(Entry& e, double* c) const {
  const NAdamOptions& o = of(e);
  moment_coefficients(o, c);
  const double t = static_cast<double>(e.steps);
  const auto mu = [&](double at) { return o.beta1 * (1 - 0.5 * std::pow(0.96, at * o.momentum_decay)); };
  double& product = e.scalars[0];
  product = (e.steps == 1 ? 1 : product) * mu(t);
  c[7] = 1 / (1 - std::pow(o.beta2, t));
  detail::place_epsilon(o.eps, o.eps_inside_sqrt, c + 8);
  c[10] = o.lr * (1 - mu(t)) / (1 - product);
  c[11] = o.lr * mu(t + 1) / (1 - product * mu(t + 1));
}

void RAdamOptions::fields(FieldVisitor& v) {
  adam_fields(*this, v);
  v("eps_inside_sqrt", eps_inside_sqrt);
}
void RAdam::check(const RAdamOptions& o) { check_adam(kName, o); }
detail::UpdateKernels RAdam::kernels(int) const { return detail::update_rules().radam; }
void RAdam::coefficients(Entry& e, double* c) const {
  const RAdamOptions& o = of(e);
  moment_coefficients(o, c);
  const double t = static_cast<double>(e.steps), power = std::pow(o.beta2, t), correction = 1 - power;
  const double longest = 2 / (1 - o.beta2) - 1, length = longest - 2 * t * power / correction;
  const bool rectified = length > 5;
  c[7] = o.lr / (1 - std::pow(o.beta1, t));
  c[8] = o.eps_inside_sqrt ? o.eps : 0;
  c[9] = rectified ? 1 : 0;
  c[10] = !rectified ? 1 : o.eps_inside_sqrt ? 0 : o.eps;
  if (rectified)
    c[7] *= std::sqrt(correction * (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length));
}

}  // namespace hone::optim
