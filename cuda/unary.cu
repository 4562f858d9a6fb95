// Unary functors and their derivatives on the device.

#include "hone/cuda/elementwise_api.h"
#include "hone/cuda/elementwise_kernel.h"
#include "hone/cuda/math.h"
#include "hone/ops/functor_ids.h"

namespace hone::cuda {
namespace functors {
#define HONE_FN HONE_DEVICE
#define HONE_FN_HOST inline
#include "hone/ops/functors.h"

template <class F> struct Value {
  F functor;
  template <class T> HONE_DEVICE T operator()(T s) const {
    using V = typename Math<T>::V;
    return raw(functor.f(Math<T>(), V{s}));
  }
};
template <class F> struct Gradient {
  F functor;
  template <class T> HONE_DEVICE T operator()(T g, T s) const { return grad_of(functor, Math<T>(), g, s); }
};
template <class F> struct SecondGradient {
  F functor;
  template <class T> HONE_DEVICE T operator()(T g, T h, T s) const { return g * h * functor.d2f(Math<T>(), s); }
};

}  // namespace functors

namespace {
using namespace functors;

[[noreturn]] void refuse(DType d) { throw DeviceError(str("cuda: this elementwise function has no kernel for ", d)); }

/// Only the functors that keep integers.
template <class F>
constexpr bool kKeepsIntegers = std::is_same_v<F, Abs> || std::is_same_v<F, Sign> || std::is_same_v<F, Square> ||
                                std::is_same_v<F, Relu> || std::is_same_v<F, Clamp> || std::is_same_v<F, Neg>;

template <class T, class F> void run(int order, const View* in, const View& out, const double* scalars) {
  const F functor = make_functor<F>(scalars);
  if (order == 0) return elementwise<T, T>(in, out, Value<F>{functor});
  using V = compute_t<T>;
  if constexpr (kHasGrad<F, Math<V>, V>) {
    if (order == 1) return elementwise<T, T, T>(in, out, Gradient<F>{functor});
    if constexpr (!F::linear) return elementwise<T, T, T, T>(in, out, SecondGradient<F>{functor});
  }
  refuse(out.dtype);
}
}  // namespace

void unary(int op, int order, const View* in, const View& out, const double* scalars) {
  visit_unary(static_cast<detail::Unary>(op), [&]<class F>(FunctorTag<F>) {
    switch (out.dtype) {
      case DType::f64: return run<double, F>(order, in, out, scalars);
      case DType::f32: return run<float, F>(order, in, out, scalars);
      case DType::bf16: return run<BFloat16, F>(order, in, out, scalars);
      default: break;
    }
    if (order != 0) refuse(out.dtype);
    if constexpr (std::is_same_v<F, Round> || std::is_same_v<F, Floor> || std::is_same_v<F, Ceil>) {
      copy_strided(in[0], out);
    } else if constexpr (kKeepsIntegers<F>) {
      const F functor = make_functor<F>(scalars);
      switch (out.dtype) {
        case DType::i64: return elementwise<int64_t, int64_t>(in, out, Value<F>{functor});
        case DType::i32: return elementwise<int32_t, int32_t>(in, out, Value<F>{functor});
        case DType::i8: return elementwise<int8_t, int8_t>(in, out, Value<F>{functor});
        case DType::u8: return elementwise<uint8_t, uint8_t>(in, out, Value<F>{functor});
        default: refuse(out.dtype);
      }
    } else {
      refuse(out.dtype);
    }
  });
}

}  // namespace hone::cuda
