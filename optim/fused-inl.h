// The loop under every update rule: included once per SIMD target, inside no namespace.

#if defined(HONE_OPTIM_FUSED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HONE_OPTIM_FUSED_INL_H_
#undef HONE_OPTIM_FUSED_INL_H_
#else
#define HONE_OPTIM_FUSED_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hone/optim/optimizer.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::optim {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Coefficients as vectors: k(i) is c[i] in every lane. A copy in T, which no store to a parameter can alias.
template <class T> struct Coefficients {
  T c[detail::kMaxCoefficients];
  HWY_ATTR explicit Coefficients(const double* from) {
    for (int i = 0; i < detail::kMaxCoefficients; ++i) c[i] = static_cast<T>(from[i]);
  }
  HWY_ATTR HWY_INLINE hn::Vec<hn::ScalableTag<T>> operator()(int i) const {
    return hn::Set(hn::ScalableTag<T>(), c[i]);
  }
};

/// The leading slots of a rule that are written: all, unless it says kStored.
template <class Rule> constexpr int stored_slots() {
  if constexpr (requires { Rule::kStored; })
    return Rule::kStored;
  else
    return Rule::kSlots;
}

/// Applies Rule::apply(d, k, p, g, s) to every vector of elements: p and the kSlots state vectors s are read and
/// written (of the latter the first kStored, where the rule says so), g is read. The last elements go through a padded
/// copy, so that each sees the same arithmetic wherever it stands.
template <class T, class Rule>
HWY_ATTR void fused_update(T* p, const T* g, T* const* state, int64_t n, const double* c) {
  constexpr int kSlots = Rule::kSlots, kStored = stored_slots<Rule>();
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const Coefficients<T> k(c);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  T* s[kSlots + 1] = {};
  for (int j = 0; j < kSlots; ++j) s[j] = state[j];
  const auto step = [&](T* pp, const T* gg, T* const* ss) HWY_ATTR {
    V vp = hn::LoadU(d, pp), v[kSlots + 1];
    const V vg = hn::MulAdd(k(1), vp, hn::Mul(k(0), hn::LoadU(d, gg)));
    vp = hn::Mul(k(2), vp);
    for (int j = 0; j < kSlots; ++j) v[j] = hn::LoadU(d, ss[j]);
    Rule::apply(d, k, vp, vg, v);
    hn::StoreU(vp, d, pp);
    for (int j = 0; j < kStored; ++j) hn::StoreU(v[j], d, ss[j]);
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    T* at[kSlots + 1] = {};
    for (int j = 0; j < kSlots; ++j) at[j] = s[j] + i;
    step(p + i, g + i, at);
  }
  const int64_t rest = n - i;
  if (rest == 0) return;
  HWY_ALIGN T buffer[kSlots + 2][HWY_MAX_BYTES / sizeof(T)] = {};
  T* at[kSlots + 1] = {};
  std::copy(p + i, p + n, buffer[0]);
  std::copy(g + i, g + n, buffer[1]);
  for (int j = 0; j < kSlots; ++j) std::copy(s[j] + i, s[j] + n, at[j] = buffer[2 + j]);
  step(buffer[0], buffer[1], at);
  std::copy(buffer[0], buffer[0] + rest, p + i);
  for (int j = 0; j < kStored; ++j) std::copy(at[j], at[j] + rest, s[j] + i);
}

/// sums[0], sums[1] += over the elements, what Sum::apply(d, k, p, g, s, a, b) adds to a and b (in f64).
template <class T, class Sum>
HWY_ATTR void fused_sum(const T* p, const T* g, T* const* state, int64_t n, const double* c, double* sums) {
  constexpr int kSlots = Sum::kSlots;
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  const Coefficients<T> k(c);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  // f32 partial sums are short: what they hold goes to f64 after so many vectors.
  constexpr int64_t kShort = 64;
  const auto load = [&](const T* pp, const T* gg, int64_t at, V& a, V& b) HWY_ATTR {
    V v[kSlots + 1];
    for (int j = 0; j < kSlots; ++j) v[j] = hn::LoadU(d, state[j] + at);
    Sum::apply(d, k, hn::LoadU(d, pp + at), hn::LoadU(d, gg + at), v, a, b);
  };
  int64_t i = 0;
  while (i + lanes <= n) {
    V a = hn::Zero(d), b = hn::Zero(d);
    for (int64_t j = 0; j < kShort && i + lanes <= n; ++j, i += lanes) load(p, g, i, a, b);
    sums[0] += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, a)));
    sums[1] += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, b)));
  }
  if (i == n) return;
  HWY_ALIGN T buffer[kSlots + 2][HWY_MAX_BYTES / sizeof(T)] = {};
  std::copy(p + i, p + n, buffer[0]);
  std::copy(g + i, g + n, buffer[1]);
  V v[kSlots + 1], a = hn::Zero(d), b = hn::Zero(d);
  for (int j = 0; j < kSlots; ++j) {
    std::copy(state[j] + i, state[j] + n, buffer[2 + j]);
    v[j] = hn::Load(d, buffer[2 + j]);
  }
  Sum::apply(d, k, hn::Load(d, buffer[0]), hn::Load(d, buffer[1]), v, a, b);
  sums[0] += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, a)));
  sums[1] += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, b)));
}

/// A rule's kernels: Rule<T> has kSlots and apply.
template <class T, template <class> class Rule>
HWY_ATTR void update_kernel(void* p, const void* g, void* const* state, int64_t n, const double* c) {
  T* s[detail::kMaxSlots] = {};
  for (int j = 0; j < detail::kMaxSlots; ++j) s[j] = static_cast<T*>(state[j]);
  fused_update<T, Rule<T>>(static_cast<T*>(p), static_cast<const T*>(g), s, n, c);
}
template <class T, template <class> class Sum>
HWY_ATTR void sum_kernel(const void* p, const void* g, void* const* state, int64_t n, const double* c, double* sums) {
  T* s[detail::kMaxSlots] = {};
  for (int j = 0; j < detail::kMaxSlots; ++j) s[j] = static_cast<T*>(state[j]);
  fused_sum<T, Sum<T>>(static_cast<const T*>(p), static_cast<const T*>(g), s, n, c, sums);
}
template <template <class> class Rule>
inline constexpr detail::UpdateKernels kUpdate = {update_kernel<float, Rule>, update_kernel<double, Rule>};
template <template <class> class Sum>
inline constexpr detail::SumKernels kSum = {sum_kernel<float, Sum>, sum_kernel<double, Sum>};

}  // namespace HWY_NAMESPACE
}  // namespace hone::optim
HWY_AFTER_NAMESPACE();

#endif
