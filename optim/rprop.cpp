#include "hone/optim/rprop.h"

#include <cmath>

#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void RpropOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("eta_minus", eta_minus);
  v("eta_plus", eta_plus);
  v("step_min", step_min);
  v("step_max", step_max);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
}

void Rprop::check(const RpropOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  HONE_CHECK(o.eta_minus > 0 && o.eta_minus < 1, ValueError, "Rprop: eta_minus must be in (0, 1), got ", o.eta_minus);
  HONE_CHECK(o.eta_plus > 1 && std::isfinite(o.eta_plus), ValueError,
             "Rprop: eta_plus must be finite and above 1, got ", o.eta_plus);
  detail::check_at_least_zero(kName, "step_min", o.step_min);
  HONE_CHECK(o.step_max >= o.step_min && std::isfinite(o.step_max), ValueError,
             "Rprop: step_max must be finite and at least step_min (", o.step_min, "), got ", o.step_max);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
}

Tensor Rprop::initial_state(int group, int slot, const Tensor& value) const {
  Tensor s = GroupedOptimizer::initial_state(group, slot, value);
  if (slot == 1) s.fill_(options(group).lr);
  return s;
}

detail::UpdateKernels Rprop::kernels(int) const { return detail::update_rules().rprop; }

void Rprop::coefficients(Entry& e, double* c) const {
  const RpropOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.eta_minus;
  c[4] = o.eta_plus;
  c[5] = o.step_min;
  c[6] = o.step_max;
}

}  // namespace hone::optim
