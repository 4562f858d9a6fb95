#include "hone/optim/asgd.h"

#include <algorithm>
#include <cmath>

#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void ASGDOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("lambd", lambd);
  v("alpha", alpha);
  v("t0", t0);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
}

void ASGD::check(const ASGDOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_at_least_zero(kName, "lambd", o.lambd);
  detail::check_at_least_zero(kName, "alpha", o.alpha);
  detail::check_at_least_zero(kName, "t0", o.t0);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
}

detail::UpdateKernels ASGD::kernels(int) const { return detail::update_rules().asgd; }

void ASGD::coefficients(Entry& e, double* c) const {
  const ASGDOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  const double before = static_cast<double>(e.steps - 1);
  const double rate = o.lr / std::pow(1 + o.lambd * o.lr * before, o.alpha);
  c[2] *= 1 - o.lambd * rate;
  c[3] = rate;
  c[4] = 1 / std::max(1.0, before - o.t0);
  c[5] = 1 - c[4];
}

}  // namespace hone::optim
