#include "hone/optim/lion.h"

#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void LionOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("beta1", beta1);
  v("beta2", beta2);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
}

void Lion::check(const LionOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_unit_interval(kName, "beta1", o.beta1);
  detail::check_unit_interval(kName, "beta2", o.beta2);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
}

detail::UpdateKernels Lion::kernels(int) const { return detail::update_rules().lion; }

void Lion::coefficients(Entry& e, double* c) const {
  const LionOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.beta1;
  c[4] = 1 - o.beta1;
  c[5] = o.beta2;
  c[6] = 1 - o.beta2;
  c[7] = o.lr;
}

}  // namespace hone::optim
