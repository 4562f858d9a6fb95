#include "hone/optim/sgd.h"

#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void SGDOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("momentum", momentum);
  v("dampening", dampening);
  v("weight_decay", weight_decay);
  v("nesterov", nesterov);
  v("maximize", maximize);
  v("decoupled_decay", decoupled_decay);
}

void SGD::check(const SGDOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_at_least_zero(kName, "momentum", o.momentum);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  detail::check_finite(kName, "dampening", o.dampening);
  HONE_CHECK(!o.nesterov || (o.momentum > 0 && o.dampening == 0), ValueError,
             "SGD: nesterov needs momentum > 0 and dampening 0, got momentum ", o.momentum, ", dampening ",
             o.dampening);
}

SGD::SGD(const std::vector<ParameterRef>& parameters, SGDOptions options) : SGD({{parameters, options}}) {}
SGD::SGD(const std::vector<ParameterGroup<SGDOptions>>& groups) : GroupedOptimizer(groups) {
  for (const auto& g : groups) with_momentum_ = with_momentum_ || g.options.momentum > 0;
}

void SGD::check_options(int group) const {
  GroupedOptimizer::check_options(group);
  HONE_CHECK(with_momentum_ || options(group).momentum == 0, ValueError,
             "SGD: made without momentum; it cannot be set later");
}
void SGD::set_momentum(double value, int group) {
  HONE_CHECK(with_momentum_, ValueError, "SGD: made without momentum; it cannot be set later");
  GroupedOptimizer::set_momentum(value, group);
}

std::vector<std::string> SGD::state_names() const {
  if (with_momentum_) return {"momentum_buffer"};
  return {};
}
int SGD::slots(int) const { return with_momentum_ ? 1 : 0; }
detail::UpdateKernels SGD::kernels(int) const {
  const detail::UpdateRules& rules = detail::update_rules();
  return with_momentum_ ? rules.sgd_momentum : rules.sgd;
}

void SGD::coefficients(Entry& e, double* c) const {
  const SGDOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = with_momentum_ ? o.momentum : o.lr;
  c[4] = e.steps == 1 ? 1 : 1 - o.dampening;
  const bool direct = o.momentum == 0;  // a group without momentum steps along g itself
  c[5] = direct || o.nesterov ? o.lr : 0;
  c[6] = direct ? 0 : o.nesterov ? o.lr * o.momentum : o.lr;
}

}  // namespace hone::optim
