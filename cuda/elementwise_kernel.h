#pragma once
// The loop under every elementwise kernel: any strides, broadcasting, bf16 through f32. For CUDA sources alone.

#include <algorithm>
#include <cstdint>
#include <utility>

#include "hone/core/view.h"
#include "hone/cuda/launch.h"

namespace hone::cuda {

/// Inputs laid over a contiguous output; dims that all of them walk as one are merged.
template <size_t kInputs> struct Operands {
  const void* data[kInputs];
  int64_t sizes[View::kDims];
  int64_t strides[kInputs][View::kDims];
  int64_t count;
  int ndim;
  bool contiguous;  ///< every input is walked as the output is
};

template <size_t kInputs> Operands<kInputs> operands_of(const View* in, const View& out) {
  Operands<kInputs> o = {};
  o.count = out.numel();
  for (size_t k = 0; k < kInputs; ++k) o.data[k] = in[k].data;
  for (int d = 0; d < out.ndim; ++d) {
    if (out.sizes[d] == 1) continue;
    int64_t strides[kInputs];
    bool merges = o.ndim > 0;
    for (size_t k = 0; k < kInputs; ++k) {
      const int at = d - (out.ndim - in[k].ndim);
      strides[k] = at < 0 || in[k].sizes[at] == 1 ? 0 : in[k].strides[at];
      merges = merges && o.strides[k][o.ndim - 1] == strides[k] * out.sizes[d];
    }
    if (!merges) o.sizes[o.ndim++] = 1;
    o.sizes[o.ndim - 1] *= out.sizes[d];
    for (size_t k = 0; k < kInputs; ++k) o.strides[k][o.ndim - 1] = strides[k];
  }
  o.contiguous = o.ndim <= 1;
  for (size_t k = 0; k < kInputs && o.ndim == 1; ++k) o.contiguous = o.contiguous && o.strides[k][0] == 1;
  return o;
}

/// What a kernel computes a stored type in.
template <class T> struct Computes { using type = T; };
template <> struct Computes<BFloat16> { using type = float; };
template <class T> using compute_t = typename Computes<T>::type;

template <class T> HONE_DEVICE compute_t<T> load(const void* data, int64_t at) {
  return static_cast<compute_t<T>>(static_cast<const T*>(data)[at]);
}

template <class... In, class Body, size_t... kAt>
HONE_DEVICE auto call(const Body& body, const Operands<sizeof...(In)>& o, const int64_t* at,
                      std::index_sequence<kAt...>) {
  return body(load<In>(o.data[kAt], at[kAt])...);
}

/// y[i] = body(a[i], …); the inputs' element types are In….
template <class Out, class Body, class... In>
HONE_KERNEL elementwise_kernel(Operands<sizeof...(In)> o, Out* y, Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < o.count; i += step) {
    int64_t at[sizeof...(In)];
    for (size_t k = 0; k < sizeof...(In); ++k) at[k] = o.contiguous ? i : 0;
    if (!o.contiguous) {
      int64_t rest = i;
      for (int d = o.ndim - 1; d >= 0; --d) {
        const int64_t index = rest % o.sizes[d];
        rest /= o.sizes[d];
        for (size_t k = 0; k < sizeof...(In); ++k) at[k] += index * o.strides[k][d];
      }
    }
    y[i] = static_cast<Out>(call<In...>(body, o, at, std::make_index_sequence<sizeof...(In)>()));
  }
}

template <class Out, class... In, class Body> void elementwise(const View* in, const View& out, Body body) {
  const auto o = operands_of<sizeof...(In)>(in, out);
  if (o.count == 0) return;
  constexpr int64_t threads = 256, most_blocks = 1 << 16;
  const int64_t blocks = std::min((o.count + threads - 1) / threads, most_blocks);
  HONE_LAUNCH((elementwise_kernel<Out, Body, In...>), static_cast<unsigned>(blocks), static_cast<unsigned>(threads), o,
              static_cast<Out*>(out.data), body);
}

}  // namespace hone::cuda
