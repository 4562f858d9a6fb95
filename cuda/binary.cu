// Binary functors, selection, logic, copies and fills on the device.

#include "hone/cuda/elementwise_api.h"
#include "hone/cuda/elementwise_kernel.h"
#include "hone/cuda/math.h"
#include "hone/ops/functor_ids.h"

namespace hone::cuda {
namespace functors {
#define HONE_FN HONE_DEVICE
#define HONE_FN_HOST inline
#include "hone/ops/functors.h"

template <class F> struct Pair {
  template <class T> HONE_DEVICE auto operator()(T a, T b) const {
    using V = typename Math<T>::V;
    return raw(F().f(Math<T>(), V{a}, V{b}));
  }
};
struct Select {
  template <class T> HONE_DEVICE T operator()(uint8_t condition, T a, T b) const { return condition ? a : b; }
};
struct And {
  HONE_DEVICE bool operator()(uint8_t a, uint8_t b) const { return a && b; }
};
struct Or {
  HONE_DEVICE bool operator()(uint8_t a, uint8_t b) const { return a || b; }
};
struct Not {
  HONE_DEVICE bool operator()(uint8_t a) const { return !a; }
};
/// Through the source's compute type; bool is non-zero.
template <class To> struct Convert {
  template <class T> HONE_DEVICE compute_t<To> operator()(T x) const { return static_cast<compute_t<To>>(x); }
};
template <class T> HONE_KERNEL fill_kernel(Operands<1> o, T* y, T value) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < o.count; i += step) {
    int64_t at = 0, rest = i;
    for (int d = o.ndim - 1; d >= 0; --d) {
      at += rest % o.sizes[d] * o.strides[0][d];
      rest /= o.sizes[d];
    }
    y[at] = value;
  }
}

}  // namespace functors

namespace {
using namespace functors;

template <class T, class F>
constexpr bool kHasKernel = !std::is_integral_v<T> || !(std::is_same_v<F, Div> || std::is_same_v<F, Pow>);

template <class F> void run(const View* in, const View& out) {
  const auto launch_for = [&]<class T>() {
    using V = typename Math<compute_t<T>>::V;
    if constexpr (kHasKernel<T, F>) {
      using Result = decltype(raw(F().f(Math<compute_t<T>>(), V{}, V{})));
      if constexpr (std::is_same_v<Result, bool>)
        elementwise<bool, T, T>(in, out, Pair<F>());
      else
        elementwise<T, T, T>(in, out, Pair<F>());
    } else {
      throw DeviceError(str("cuda: integer division and powers have no kernel for ", in[0].dtype));
    }
  };
  switch (in[0].dtype) {
    case DType::f64: return launch_for.template operator()<double>();
    case DType::f32: return launch_for.template operator()<float>();
    case DType::bf16: return launch_for.template operator()<BFloat16>();
    case DType::i64: return launch_for.template operator()<int64_t>();
    case DType::i32: return launch_for.template operator()<int32_t>();
    case DType::i8: return launch_for.template operator()<int8_t>();
    default: return launch_for.template operator()<uint8_t>();  // bool too: only comparisons take it
  }
}
}  // namespace

void binary(int op, const View* in, const View& out) {
  visit_binary(static_cast<detail::Binary>(op), [&]<class F>(FunctorTag<F>) { run<F>(in, out); });
}

void where(const View& condition, const View& a, const View& b, const View& out) {
  const View in[] = {condition, a, b};
  switch (size_of(out.dtype)) {  // bits are moved, not computed with
    case 8: return elementwise<uint64_t, uint8_t, uint64_t, uint64_t>(in, out, Select());
    case 4: return elementwise<uint32_t, uint8_t, uint32_t, uint32_t>(in, out, Select());
    case 2: return elementwise<uint16_t, uint8_t, uint16_t, uint16_t>(in, out, Select());
    default: return elementwise<uint8_t, uint8_t, uint8_t, uint8_t>(in, out, Select());
  }
}

void logical(int op, const View* in, const View& out) {
  if (op == 0)
    elementwise<bool, uint8_t, uint8_t>(in, out, And());
  else if (op == 1)
    elementwise<bool, uint8_t, uint8_t>(in, out, Or());
  else
    elementwise<bool, uint8_t>(in, out, Not());
}

void copy_strided(const View& from, const View& to) {
  if (!to.is_contiguous()) throw DeviceError("cuda: copies go to contiguous arrays");
  visit_dtype(from.dtype, [&]<class From>() {
    visit_dtype(to.dtype, [&]<class To>() { elementwise<To, From>(&from, to, Convert<To>()); });
  });
}

void fill(const View& to, double value) {
  Operands<1> o = operands_of<1>(&to, to);
  if (o.count == 0) return;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((o.count + 255) / 256, 1 << 16));
  visit_dtype(to.dtype, [&]<class T>() {
    HONE_LAUNCH((fill_kernel<T>), blocks, 256u, o, static_cast<T*>(to.data),
                static_cast<T>(static_cast<compute_t<T>>(value)));
  });
}

}  // namespace hone::cuda
