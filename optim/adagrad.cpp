#include "hone/optim/adagrad.h"

#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void AdagradOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("lr_decay", lr_decay);
  v("weight_decay", weight_decay);
  v("initial_accumulator", initial_accumulator);
  v("eps", eps);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
  v("eps_inside_sqrt", eps_inside_sqrt);
}

void Adagrad::check(const AdagradOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_at_least_zero(kName, "lr_decay", o.lr_decay);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  detail::check_at_least_zero(kName, "initial_accumulator", o.initial_accumulator);
  detail::check_at_least_zero(kName, "eps", o.eps);
}

Tensor Adagrad::initial_state(int group, int slot, const Tensor& value) const {
  Tensor s = GroupedOptimizer::initial_state(group, slot, value);
  s.fill_(options(group).initial_accumulator);
  return s;
}

detail::UpdateKernels Adagrad::kernels(int) const { return detail::update_rules().adagrad; }

void Adagrad::coefficients(Entry& e, double* c) const {
  const AdagradOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.lr / (1 + static_cast<double>(e.steps - 1) * o.lr_decay);
  detail::place_epsilon(o.eps, o.eps_inside_sqrt, c + 4);
}

}  // namespace hone::optim
