#include "hone/optim/adam.h"

#include <cmath>

#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {
namespace {

AdamOptions widen(const AdamWOptions& o) {
  return {.lr = o.lr,
          .beta1 = o.beta1,
          .beta2 = o.beta2,
          .eps = o.eps,
          .weight_decay = o.weight_decay,
          .amsgrad = o.amsgrad,
          .bias_correction = o.bias_correction,
          .decoupled_decay = true,
          .maximize = o.maximize,
          .eps_inside_sqrt = o.eps_inside_sqrt};
}
std::vector<ParameterGroup<AdamOptions>> widen(const std::vector<ParameterGroup<AdamWOptions>>& groups) {
  std::vector<ParameterGroup<AdamOptions>> out;
  for (const auto& g : groups) out.push_back({g.parameters, widen(g.options)});
  return out;
}

}  // namespace

void AdamOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("beta1", beta1);
  v("beta2", beta2);
  v("eps", eps);
  v("weight_decay", weight_decay);
  v("amsgrad", amsgrad);
  v("bias_correction", bias_correction);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
  v("eps_inside_sqrt", eps_inside_sqrt);
}

void Adam::check(const AdamOptions& o) {
  const char* const name = o.decoupled_decay ? "AdamW" : kName;
  detail::check_at_least_zero(name, "lr", o.lr);
  detail::check_unit_interval(name, "beta1", o.beta1);
  detail::check_unit_interval(name, "beta2", o.beta2);
  detail::check_at_least_zero(name, "eps", o.eps);
  detail::check_at_least_zero(name, "weight_decay", o.weight_decay);
}

detail::UpdateKernels Adam::kernels(int group) const {
  return options(group).amsgrad ? detail::update_rules().amsgrad : detail::update_rules().adam;
}

void Adam::coefficients(Entry& e, double* c) const {
  const AdamOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  const double t = static_cast<double>(e.steps);
  c[3] = o.beta1;
  c[4] = 1 - o.beta1;
  c[5] = o.beta2;
  c[6] = 1 - o.beta2;
  c[7] = o.lr / (o.bias_correction ? 1 - std::pow(o.beta1, t) : 1);
  c[8] = o.bias_correction ? 1 / (1 - std::pow(o.beta2, t)) : 1;
  detail::place_epsilon(o.eps, o.eps_inside_sqrt, c + 9);
}

AdamW::AdamW(const std::vector<ParameterRef>& parameters, AdamWOptions options) : Adam(parameters, widen(options)) {}
AdamW::AdamW(const std::vector<ParameterGroup<AdamWOptions>>& groups) : Adam(widen(groups)) {}

}  // namespace hone::optim
