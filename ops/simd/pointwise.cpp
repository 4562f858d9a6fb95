// Floating elementwise kernels for every SIMD target.

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/simd/pointwise.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "hone/ops/simd/math-inl.h"
#include "hone/ops/simd/pointwise.h"

HWY_BEFORE_NAMESPACE();
namespace hone {
namespace HWY_NAMESPACE {
namespace {

#undef HONE_FN
#undef HONE_FN_HOST
#define HONE_FN HWY_INLINE
#define HONE_FN_HOST HWY_INLINE
#include "hone/ops/functors.h"

using detail::Binary;
using detail::Unary;

#if HWY_TARGET == HWY_SCALAR

template <class T, int kInputs, class Body>
HWY_INLINE void for_each(const void* const* in, void* out, int64_t n, const Body& body) {
  const T* HWY_RESTRICT a[kInputs];
  for (int k = 0; k < kInputs; ++k) a[k] = static_cast<const T*>(in[k]);
  T* HWY_RESTRICT y = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (kInputs == 1)
      y[i] = body(a[0][i]);
    else if constexpr (kInputs == 2)
      y[i] = body(a[0][i], a[1][i]);
    else
      y[i] = body(a[0][i], a[1][i], a[2][i]);
  }
}

#else

/// y = body(a, …) over whole vectors; the rest of the row through padded copies, so that every element sees the same
/// arithmetic wherever it stands.
template <class T, int kInputs, class Body>
HWY_INLINE void for_each(const void* const* in, void* out, int64_t n, const Body& body) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const T* HWY_RESTRICT a[kInputs];
  for (int k = 0; k < kInputs; ++k) a[k] = static_cast<const T*>(in[k]);
  T* HWY_RESTRICT y = static_cast<T*>(out);
  const auto step = [&](const T* const* p, T* to) HWY_ATTR {
    if constexpr (kInputs == 1)
      hn::StoreU(body(hn::LoadU(d, p[0])), d, to);
    else if constexpr (kInputs == 2)
      hn::StoreU(body(hn::LoadU(d, p[0]), hn::LoadU(d, p[1])), d, to);
    else
      hn::StoreU(body(hn::LoadU(d, p[0]), hn::LoadU(d, p[1]), hn::LoadU(d, p[2])), d, to);
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const T* p[kInputs];
    for (int k = 0; k < kInputs; ++k) p[k] = a[k] + i;
    step(p, y + i);
  }
  if (i < n) {
    HWY_ALIGN T rest[kInputs + 1][hn::MaxLanes(hn::ScalableTag<T>())] = {};
    const T* p[kInputs];
    for (int k = 0; k < kInputs; ++k) {
      for (int64_t j = i; j < n; ++j) rest[k][j - i] = a[k][j];
      p[k] = rest[k];
    }
    step(p, rest[kInputs]);
    for (int64_t j = i; j < n; ++j) y[j] = rest[kInputs][j - i];
  }
}

#endif

template <class T, class Functor, int kOrder>
void unary(const void* const* in, void* out, int64_t n, const double* scalars) {
  using V = typename Math<T>::V;
  const Math<T> m;
  const Functor functor = make_functor<Functor>(scalars);
  if constexpr (kOrder == 0) {
    for_each<T, 1>(in, out, n, [&](V x) HWY_ATTR { return functor.f(m, x); });
  } else if constexpr (kOrder == 1) {
    for_each<T, 2>(in, out, n, [&](V g, V s) HWY_ATTR { return grad_of(functor, m, g, s); });
  } else {
    for_each<T, 3>(in, out, n, [&](V g, V h, V s) HWY_ATTR { return g * h * functor.d2f(m, s); });
  }
}

template <class T, class Functor> void binary(const void* const* in, void* out, int64_t n, const double*) {
  using V = typename Math<T>::V;
  const Math<T> m;
  const Functor functor;
  for_each<T, 2>(in, out, n, [&](V a, V b) HWY_ATTR { return functor.f(m, a, b); });
}

template <class T> ElementwiseKernel unary_of(Unary op, int order) {
  return visit_unary(op, [order]<class F>(FunctorTag<F>) -> ElementwiseKernel {
    if (order == 0) return unary<T, F, 0>;
    if constexpr (kHasGrad<F, Math<T>, typename Math<T>::V>) {
      if (order == 1) return unary<T, F, 1>;
      if constexpr (!F::linear)
        if (order == 2) return unary<T, F, 2>;
    }
    return nullptr;
  });
}

template <class T> ElementwiseKernel binary_of(Binary op) {
  switch (op) {
    case Binary::add: return binary<T, Add>;
    case Binary::sub: return binary<T, Sub>;
    case Binary::mul: return binary<T, Mul>;
    case Binary::div: return binary<T, Div>;
    case Binary::maximum: return binary<T, Maximum>;
    case Binary::minimum: return binary<T, Minimum>;
    default: return nullptr;  // comparisons and pow: plain loops
  }
}

/// condition ? a : b for elements of 4 bytes, moved as bits.
void select32(const void* const* in, void* out, int64_t n, const double*) {
  const auto* condition = static_cast<const uint8_t*>(in[0]);
  const auto *a = static_cast<const uint32_t*>(in[1]), *b = static_cast<const uint32_t*>(in[2]);
  auto* y = static_cast<uint32_t*>(out);
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<uint32_t> d;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; i + lanes <= n; i += lanes) {
    const auto c = hn::PromoteTo(d, hn::LoadU(d8, condition + i));
    hn::StoreU(hn::IfThenElse(hn::Ne(c, hn::Zero(d)), hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i);
  }
#endif
  for (; i < n; ++i) {  // by mask: a branch would be mispredicted
    const uint32_t mask = 0u - condition[i];
    y[i] = (a[i] & mask) | (b[i] & ~mask);
  }
}
ElementwiseKernel ChooseSelect32() { return select32; }

ElementwiseKernel ChooseUnary(Unary op, int order, bool f64) {
  return f64 ? unary_of<double>(op, order) : unary_of<float>(op, order);
}
ElementwiseKernel ChooseBinary(Binary op, bool f64) { return f64 ? binary_of<double>(op) : binary_of<float>(op); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace hone
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone {

HWY_EXPORT(ChooseUnary);
HWY_EXPORT(ChooseBinary);
HWY_EXPORT(ChooseSelect32);

namespace detail {

ElementwiseKernel simd_unary_kernel(Unary op, int order, bool f64) {
  return HWY_DYNAMIC_DISPATCH(ChooseUnary)(op, order, f64);
}
ElementwiseKernel simd_binary_kernel(Binary op, bool f64) { return HWY_DYNAMIC_DISPATCH(ChooseBinary)(op, f64); }
ElementwiseKernel simd_select32_kernel() { return HWY_DYNAMIC_DISPATCH(ChooseSelect32)(); }

}  // namespace detail
}  // namespace hone
#endif  // HWY_ONCE
