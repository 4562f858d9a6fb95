#include "hone/optim/schedule_free.h"

#include <algorithm>
#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/error.h"
#include "hone/core/op.h"
#include "hone/core/parallel.h"
#include "hone/optim/parameter_list.h"
#include "hone/optim/update_rules.h"

namespace hone::optim {
namespace {

// p ← p + a (z − p)
template <class T, class S> void lerp(T* p, const S* z, int64_t n, double a) {
  const S weight = static_cast<S>(a);
  parallel_for(n, int64_t{1} << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const S v = static_cast<S>(p[i]);
      p[i] = static_cast<T>(v + weight * (z[i] - v));
    }
  });
}

}  // namespace

void ScheduleFreeAdamWOptions::fields(FieldVisitor& v) {
  v("lr", lr);
  v("beta1", beta1);
  v("beta2", beta2);
  v("eps", eps);
  v("weight_decay", weight_decay);
  v("decoupled_decay", decoupled_decay);
  v("warmup_steps", warmup_steps);
  v("maximize", maximize);
  v("eps_inside_sqrt", eps_inside_sqrt);
}

void ScheduleFreeAdamW::check(const ScheduleFreeAdamWOptions& o) {
  detail::check_at_least_zero(kName, "lr", o.lr);
  HONE_CHECK(o.beta1 > 0 && o.beta1 < 1, ValueError, kName, ": beta1 must be in (0, 1), got ", o.beta1);
  detail::check_unit_interval(kName, "beta2", o.beta2);
  detail::check_at_least_zero(kName, "eps", o.eps);
  detail::check_at_least_zero(kName, "weight_decay", o.weight_decay);
  HONE_CHECK(o.warmup_steps >= 0, ValueError, kName, ": warmup_steps must be at least 0, got ", o.warmup_steps);
}

Tensor ScheduleFreeAdamW::initial_state(int group, int slot, const Tensor& value) const {
  Tensor s = GroupedOptimizer::initial_state(group, slot, value);
  if (slot == 0) s.copy_(cast(value, s.dtype()));
  return s;
}

detail::UpdateKernels ScheduleFreeAdamW::kernels(int) const { return detail::update_rules().schedule_free; }

void ScheduleFreeAdamW::coefficients(Entry& e, double* c) const {
  const ScheduleFreeAdamWOptions& o = of(e);
  const double t = static_cast<double>(e.steps);
  const double warmup = o.warmup_steps > 0 ? std::min(1.0, t / static_cast<double>(o.warmup_steps)) : 1;
  const double rate = o.lr * warmup;
  double& sum = e.scalars[0];
  sum += rate * rate;
  const double share = sum > 0 ? rate * rate / sum : 0;
  c[0] = o.maximize ? -1 : 1;
  c[1] = o.decoupled_decay ? 0 : o.weight_decay;
  c[2] = 1;
  c[3] = o.beta2;
  c[4] = 1 - o.beta2;
  c[5] = 1 / (1 - std::pow(o.beta2, t));
  detail::place_epsilon(o.eps, o.eps_inside_sqrt, c + 6);
  c[8] = rate;
  c[9] = share;
  c[10] = rate * (o.beta1 * (1 - share) - 1);
  c[11] = o.decoupled_decay ? o.weight_decay : 0;  // taken within the rule, at y
}

void ScheduleFreeAdamW::visit_options(int group, FieldVisitor& v) {
  GroupedOptimizer::visit_options(group, v);
  v("eval", eval_);
}

void ScheduleFreeAdamW::step() {
  HONE_CHECK(training(), ValueError, kName, ".step: the parameters hold the average; call train() first");
  GroupedOptimizer::step();
}

void ScheduleFreeAdamW::eval() {
  if (!eval_) move_towards_z(true);
}
void ScheduleFreeAdamW::train() {
  if (eval_) move_towards_z(false);
}

void ScheduleFreeAdamW::move_towards_z(bool to_eval) {
  NoGrad no_grad;
  for (const Entry& e : entries())
    HONE_CHECK(e.parameter.generation() == e.generation, GradError, kName, to_eval ? ".eval" : ".train", ": parameter ",
               &e - entries().data(), " changed its shape (now ", e.parameter.raw().shape(),
               ") after the optimizer was made; its state is stale");
  for (const Entry& e : entries()) {
    if (!e.state[0].defined()) continue;  // x = y = z
    const double beta = of(e).beta1, weight = to_eval ? 1 - 1 / beta : 1 - beta;
    const Tensor& z = e.state[0];
    detail::change_elements(e.parameter.raw(),
                            [&]<class T>(T* p) { lerp(p, z.data<detail::Compute<T>>(), z.numel(), weight); });
  }
  eval_ = to_eval;
}

}  // namespace hone::optim
