#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/optim/sgd.cpp"
#include "hwy/foreach_target.h"
// After foreach_target, which needs to come first.
#include "hone/optim/fused-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::optim {
namespace HWY_NAMESPACE {

// c: sign of the gradient, λ, μ, 1−τ (1 at the first update), η times the weight of g, η times the weight of b.
template <class T> struct PlainRule {
  const double* c;
  template <class D, class V> HWY_ATTR HWY_INLINE void operator()(D d, V& p, V g, V&, V&) const {
    const auto at = [&](int i) HWY_ATTR { return hn::Set(d, static_cast<T>(c[i])); };
    g = hn::MulAdd(at(1), p, hn::Mul(at(0), g));
    p = hn::NegMulAdd(at(4), g, p);
  }
};
template <class T> struct MomentumRule {
  const double* c;
  template <class D, class V> HWY_ATTR HWY_INLINE void operator()(D d, V& p, V g, V& b, V&) const {
    const auto at = [&](int i) HWY_ATTR { return hn::Set(d, static_cast<T>(c[i])); };
    g = hn::MulAdd(at(1), p, hn::Mul(at(0), g));
    b = hn::MulAdd(at(2), b, hn::Mul(at(3), g));
    p = hn::NegMulAdd(at(4), g, hn::NegMulAdd(at(5), b, p));
  }
};

template <class T> HWY_ATTR void plain(void* p, const void* g, void* const* state, int64_t n, const double* c) {
  fused_update<T, 0>(static_cast<T*>(p), static_cast<const T*>(g), state, n, PlainRule<T>{c});
}
template <class T> HWY_ATTR void momentum(void* p, const void* g, void* const* state, int64_t n, const double* c) {
  fused_update<T, 1>(static_cast<T*>(p), static_cast<const T*>(g), state, n, MomentumRule<T>{c});
}
void plain_f32(void* p, const void* g, void* const* s, int64_t n, const double* c) { plain<float>(p, g, s, n, c); }
void plain_f64(void* p, const void* g, void* const* s, int64_t n, const double* c) { plain<double>(p, g, s, n, c); }
void momentum_f32(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  momentum<float>(p, g, s, n, c);
}
void momentum_f64(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  momentum<double>(p, g, s, n, c);
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::optim
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "hone/core/error.h"
#include "hone/optim/sgd.h"

namespace hone::optim {

HWY_EXPORT(plain_f32);
HWY_EXPORT(plain_f64);
HWY_EXPORT(momentum_f32);
HWY_EXPORT(momentum_f64);

namespace {

void run_plain_f32(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  HWY_DYNAMIC_DISPATCH(plain_f32)(p, g, s, n, c);
}
void run_plain_f64(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  HWY_DYNAMIC_DISPATCH(plain_f64)(p, g, s, n, c);
}
void run_momentum_f32(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  HWY_DYNAMIC_DISPATCH(momentum_f32)(p, g, s, n, c);
}
void run_momentum_f64(void* p, const void* g, void* const* s, int64_t n, const double* c) {
  HWY_DYNAMIC_DISPATCH(momentum_f64)(p, g, s, n, c);
}

}  // namespace

SGD::SGD(const std::vector<ParameterRef>& parameters, SGDOptions options)
    : SGD(std::vector<ParameterGroup<SGDOptions>>{{parameters, options}}) {}

SGD::SGD(std::vector<ParameterGroup<SGDOptions>> groups) {
  for (const auto& g : groups) {
    const SGDOptions& o = g.options;
    detail::check_at_least_zero("SGD", "lr", o.lr);
    detail::check_at_least_zero("SGD", "momentum", o.momentum);
    detail::check_at_least_zero("SGD", "weight_decay", o.weight_decay);
    HONE_CHECK(std::isfinite(o.dampening), ValueError, "SGD: dampening must be finite, got ", o.dampening);
    HONE_CHECK(!o.nesterov || (o.momentum > 0 && o.dampening == 0), ValueError,
               "SGD: nesterov needs momentum > 0 and dampening 0, got momentum ", o.momentum, ", dampening ",
               o.dampening);
    add_parameters("SGD", g.parameters);
    options_.push_back(o);
    with_momentum_ = with_momentum_ || o.momentum > 0;
  }
  finish_groups("SGD");
}

const SGDOptions& SGD::options(int group) const {
  check_group(group);
  return options_[static_cast<size_t>(group)];
}
void SGD::set_lr(double lr, int group) {
  check_group(group);
  detail::check_at_least_zero("SGD", "lr", lr);
  options_[static_cast<size_t>(group)].lr = lr;
}
void SGD::set_momentum(double value, int group) {
  check_group(group);
  detail::check_at_least_zero("SGD", "momentum", value);
  HONE_CHECK(with_momentum_, ValueError, "SGD: made without momentum; it cannot be set later");
  options_[static_cast<size_t>(group)].momentum = value;
}

std::vector<std::string> SGD::state_names() const {
  if (with_momentum_) return {"momentum_buffer"};
  return {};
}
int SGD::slots(int) const { return with_momentum_ ? 1 : 0; }
detail::UpdateKernels SGD::kernels(int) const {
  if (with_momentum_) return {run_momentum_f32, run_momentum_f64};
  return {run_plain_f32, run_plain_f64};
}

void SGD::coefficients(int group, int64_t t, double* c) const {
  const SGDOptions& o = options_[static_cast<size_t>(group)];
  c[0] = o.maximize ? -1 : 1;
  c[1] = o.weight_decay;
  c[2] = o.momentum;
  c[3] = t == 1 ? 1 : 1 - o.dampening;
  const bool direct = o.momentum == 0 || !with_momentum_;  // a group without momentum steps along g itself
  c[4] = direct || o.nesterov ? o.lr : 0;
  c[5] = direct ? 0 : o.nesterov ? o.lr * o.momentum : o.lr;
}

}  // namespace hone::optim
#endif
