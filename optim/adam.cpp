#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/optim/adam.cpp"
#include "hwy/foreach_target.h"
// After foreach_target, which needs to come first.
#include "hone/optim/fused-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::optim {
namespace HWY_NAMESPACE {

// c: sign of the gradient, λ of the L2 penalty, 1 − ηλ, β₁, 1−β₁, β₂, 1−β₂, η/(1−β₁ᵗ), 1/√(1−β₂ᵗ), ε.
template <class T> struct AdamRule {
  const double* c;
  template <class D, class V> HWY_ATTR HWY_INLINE void operator()(D d, V& p, V g, V& m, V& v) const {
    const auto at = [&](int i) HWY_ATTR { return hn::Set(d, static_cast<T>(c[i])); };
    g = hn::MulAdd(at(1), p, hn::Mul(at(0), g));
    m = hn::MulAdd(at(3), m, hn::Mul(at(4), g));
    v = hn::MulAdd(at(5), v, hn::Mul(at(6), hn::Mul(g, g)));
    const V root = hn::MulAdd(hn::Sqrt(v), at(8), at(9));
    p = hn::NegMulAdd(at(7), hn::Div(m, root), hn::Mul(at(2), p));
  }
};

template <class T> HWY_ATTR void adam(void* p, const void* g, void* const* state, int64_t n, const double* c) {
  fused_update<T, 2>(static_cast<T*>(p), static_cast<const T*>(g), state, n, AdamRule<T>{c});
}
void adam_f32(void* p, const void* g, void* const* state, int64_t n, const double* c) {
  adam<float>(p, g, state, n, c);
}
#if HWY_HAVE_FLOAT64
void adam_f64(void* p, const void* g, void* const* state, int64_t n, const double* c) {
  adam<double>(p, g, state, n, c);
}
#else
#error "Hone's optimizers need vectors of f64"
#endif

}  // namespace HWY_NAMESPACE
}  // namespace hone::optim
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "hone/core/error.h"
#include "hone/optim/adam.h"

namespace hone::optim {

HWY_EXPORT(adam_f32);
HWY_EXPORT(adam_f64);

namespace {

void run_adam_f32(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  HWY_DYNAMIC_DISPATCH(adam_f32)(p, g, s, n, c);
}
void run_adam_f64(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  HWY_DYNAMIC_DISPATCH(adam_f64)(p, g, s, n, c);
}

void check(const char* name, const AdamOptions& o) {
  detail::check_at_least_zero(name, "lr", o.lr);
  detail::check_unit_interval(name, "beta1", o.beta1);
  detail::check_unit_interval(name, "beta2", o.beta2);
  detail::check_at_least_zero(name, "eps", o.eps);
  detail::check_at_least_zero(name, "weight_decay", o.weight_decay);
}

AdamOptions widen(const AdamWOptions& o) {
  return {.lr = o.lr,
          .beta1 = o.beta1,
          .beta2 = o.beta2,
          .eps = o.eps,
          .weight_decay = o.weight_decay,
          .bias_correction = o.bias_correction,
          .decoupled_decay = true,
          .maximize = o.maximize};
}

std::vector<ParameterGroup<AdamOptions>> widen(const std::vector<ParameterGroup<AdamWOptions>>& groups) {
  std::vector<ParameterGroup<AdamOptions>> out;
  for (const auto& g : groups) out.push_back({g.parameters, widen(g.options)});
  return out;
}

}  // namespace

Adam::Adam(std::vector<ParameterGroup<AdamOptions>> groups, const char* name) {
  for (const auto& g : groups) {
    check(name, g.options);
    add_parameters(name, g.parameters);
    options_.push_back(g.options);
  }
  finish_groups(name);
}
Adam::Adam(const std::vector<ParameterRef>& parameters, AdamOptions options) : Adam({{parameters, options}}, "Adam") {}
Adam::Adam(std::vector<ParameterGroup<AdamOptions>> groups) : Adam(std::move(groups), "Adam") {}
AdamW::AdamW(const std::vector<ParameterRef>& parameters, AdamWOptions options)
    : Adam({{parameters, widen(options)}}, "AdamW") {}
AdamW::AdamW(const std::vector<ParameterGroup<AdamWOptions>>& groups) : Adam(widen(groups), "AdamW") {}

const AdamOptions& Adam::options(int group) const {
  check_group(group);
  return options_[static_cast<size_t>(group)];
}
void Adam::set_lr(double lr, int group) {
  check_group(group);
  detail::check_at_least_zero(name(), "lr", lr);
  options_[static_cast<size_t>(group)].lr = lr;
}
void Adam::set_momentum(double value, int group) {
  check_group(group);
  detail::check_unit_interval(name(), "beta1", value);
  options_[static_cast<size_t>(group)].beta1 = value;
}

int Adam::slots(int) const { return 2; }
detail::UpdateKernels Adam::kernels(int) const { return {run_adam_f32, run_adam_f64}; }

void Adam::coefficients(int group, int64_t t, double* c) const {
  const AdamOptions& o = options_[static_cast<size_t>(group)];
  const double n = static_cast<double>(t);
  const double correction1 = o.bias_correction ? 1 - std::pow(o.beta1, n) : 1;
  const double correction2 = o.bias_correction ? 1 - std::pow(o.beta2, n) : 1;
  c[0] = o.maximize ? -1 : 1;
  c[1] = o.decoupled_decay ? 0 : o.weight_decay;
  c[2] = o.decoupled_decay ? 1 - o.lr * o.weight_decay : 1;
  c[3] = o.beta1;
  c[4] = 1 - o.beta1;
  c[5] = o.beta2;
  c[6] = 1 - o.beta2;
  c[7] = o.lr / correction1;
  c[8] = 1 / std::sqrt(correction2);
  c[9] = o.eps;
}

}  // namespace hone::optim
#endif
