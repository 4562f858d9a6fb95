// The kernels that need no SIMD of Hone's own: integers, comparisons, pow. Plain loops, vectorized by the compiler.

#include "hone/ops/scalar_math.h"
#include "hone/ops/simd/pointwise.h"

namespace hone::detail {
namespace {

#define HONE_FN inline
#define HONE_FN_HOST inline
#include "hone/ops/functors.h"
#undef HONE_FN
#undef HONE_FN_HOST

template <class T, class Functor>
void integer_unary(const void* const* in, void* out, int64_t n, const double* scalars) {
  using V = Wrapping<T>;
  const ScalarMath<T> m;
  const Functor functor = make_functor<Functor>(scalars);
  const T* x = static_cast<const T*>(in[0]);
  T* y = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = functor.f(m, V{x[i]}).v;
}

constexpr bool keeps_integers(Unary op) {
  switch (op) {
    case Unary::abs:
    case Unary::sign:
    case Unary::square:
    case Unary::relu:
    case Unary::clamp:
    case Unary::neg:
    case Unary::round:
    case Unary::floor:
    case Unary::ceil: return true;
    default: return false;
  }
}

template <class T> ElementwiseKernel integer_unary_of(Unary op) {
  switch (op) {
    case Unary::abs: return integer_unary<T, Abs>;
    case Unary::sign: return integer_unary<T, Sign>;
    case Unary::square: return integer_unary<T, Square>;
    case Unary::relu: return integer_unary<T, Relu>;
    case Unary::clamp: return integer_unary<T, Clamp>;
    case Unary::neg: return integer_unary<T, Neg>;
    default: return integer_unary<T, Round>;  // round, floor, ceil: integers stay as they are
  }
}

template <class T, class Functor> void plain_binary(const void* const* in, void* out, int64_t n, const double*) {
  using V = typename ScalarMath<T>::V;
  const ScalarMath<T> m;
  const Functor functor;
  const T *a = static_cast<const T*>(in[0]), *b = static_cast<const T*>(in[1]);
  using Result = decltype(raw(functor.f(m, V{a[0]}, V{b[0]})));
  Result* y = static_cast<Result*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = raw(functor.f(m, V{a[i]}, V{b[i]}));
}

template <class T> ElementwiseKernel plain_binary_of(Binary op) {
  return visit_binary(op, []<class F>(FunctorTag<F>) -> ElementwiseKernel { return plain_binary<T, F>; });
}

}  // namespace

ElementwiseKernel unary_kernel(Unary op, int order, DType compute) {
  if (is_floating(compute)) return simd_unary_kernel(op, order, compute == DType::f64);
  if (order != 0 || !keeps_integers(op)) return nullptr;
  switch (compute) {
    case DType::i64: return integer_unary_of<int64_t>(op);
    case DType::i32: return integer_unary_of<int32_t>(op);
    case DType::i8: return integer_unary_of<int8_t>(op);
    case DType::u8: return integer_unary_of<uint8_t>(op);
    default: return nullptr;
  }
}

ElementwiseKernel binary_kernel(Binary op, DType compute) {
  if (is_floating(compute))
    if (ElementwiseKernel k = simd_binary_kernel(op, compute == DType::f64)) return k;
  switch (compute) {
    case DType::f64: return plain_binary_of<double>(op);
    case DType::f32: return plain_binary_of<float>(op);
    case DType::i64: return plain_binary_of<int64_t>(op);
    case DType::i32: return plain_binary_of<int32_t>(op);
    case DType::i8: return plain_binary_of<int8_t>(op);
    case DType::u8: return plain_binary_of<uint8_t>(op);
    case DType::boolean: return is_comparison(op) ? plain_binary_of<uint8_t>(op) : nullptr;
    default: return nullptr;
  }
}

}  // namespace hone::detail
