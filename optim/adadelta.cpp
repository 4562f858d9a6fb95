#include "hone/optim/adadelta.h"

#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void AdadeltaOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("rho", rho);
  v("eps", eps);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
  v("eps_inside_sqrt", eps_inside_sqrt);
}

void Adadelta::check(const AdadeltaOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_unit_interval(kName, "rho", o.rho);
  detail::check_at_least_zero(kName, "eps", o.eps);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
}

detail::UpdateKernels Adadelta::kernels(int) const { return detail::update_rules().adadelta; }

void Adadelta::coefficients(Entry& e, double* c) const {
  const AdadeltaOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.rho;
  c[4] = 1 - o.rho;
  c[5] = o.lr;
  detail::place_epsilon(o.eps, o.eps_inside_sqrt, c + 6);
}

}  // namespace hone::optim
