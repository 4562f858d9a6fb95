#include "hone/optim/rmsprop.h"

#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {

void RMSpropOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("beta", beta);
  v("eps", eps);
  v("weight_decay", weight_decay);
  v("momentum", momentum);
  v("centered", centered);
  v("decoupled_decay", decoupled_decay);
  v("maximize", maximize);
  v("eps_inside_sqrt", eps_inside_sqrt);
}

void RMSprop::check(const RMSpropOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  detail::check_unit_interval(kName, "beta", o.beta);
  detail::check_at_least_zero(kName, "eps", o.eps);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  detail::check_at_least_zero(kName, "momentum", o.momentum);
}

RMSprop::RMSprop(const std::vector<ParameterRef>& parameters, RMSpropOptions options)
    : RMSprop({{parameters, options}}) {}
RMSprop::RMSprop(const std::vector<ParameterGroup<RMSpropOptions>>& groups) : GroupedOptimizer(groups) {
  for (const auto& g : groups) {
    centered_ = centered_ || g.options.centered;
    with_momentum_ = with_momentum_ || g.options.momentum > 0;
  }
}

void RMSprop::check_options(int group) const {
  GroupedOptimizer::check_options(group);
  HONE_CHECK(with_momentum_ || options(group).momentum == 0, ValueError,
             "RMSprop: made without momentum; it cannot be set later");
  HONE_CHECK(centered_ || !options(group).centered, ValueError,
             "RMSprop: no group was made centered; it cannot be set later");
}
void RMSprop::set_momentum(double value, int group) {
  HONE_CHECK(with_momentum_, ValueError, "RMSprop: made without momentum; it cannot be set later");
  GroupedOptimizer::set_momentum(value, group);
}

std::vector<std::string> RMSprop::state_names() const {
  std::vector<std::string> names = {"square_avg"};
  if (centered_) names.push_back("grad_avg");
  if (with_momentum_) names.push_back("momentum_buffer");
  return names;
}

detail::UpdateKernels RMSprop::kernels(int) const { return detail::update_rules().rmsprop[centered_][with_momentum_]; }

void RMSprop::coefficients(Entry& e, double* c) const {
  const RMSpropOptions& o = of(e);
  detail::common_coefficients(o, o.decoupled_decay, c);
  c[3] = o.beta;
  c[4] = 1 - o.beta;
  c[5] = o.lr;
  detail::place_epsilon(o.eps, o.eps_inside_sqrt, c + 6);
  c[8] = o.centered ? 1 : 0;
  c[9] = o.momentum;
}

}  // namespace hone::optim
