#pragma once
// The loop under every elementwise op, for your own too: broadcasting, any strides, any dtype. Kernels see contiguous
// runs only.

#include <cstdint>
#include <span>

#include "hone/core/op.h"

namespace hone {

/// out[i] = f(in0[i], in1[i], …) for i < n; contiguous arrays of the kernel's compute type. `scalars`: op attributes.
using ElementwiseKernel = void (*)(const void* const* in, void* out, int64_t n, const double* scalars);

inline constexpr int kMaxElementwiseInputs = 4;

/// Runs `kernel` over out's shape in chunks, in parallel. Inputs broadcast to out; strided or broadcast inputs are
/// gathered chunk by chunk, and converted to `compute` where their dtype differs (bool inputs to u8-sized bool).
/// `out_compute`: the type the kernel writes; converted to out's dtype where it differs.
void elementwise(std::span<const View> in, const View& out, DType compute, DType out_compute, ElementwiseKernel kernel,
                 const double* scalars = nullptr);

/// The type that elementwise kernels compute a dtype in: bf16 → f32, all others themselves.
constexpr DType compute_dtype(DType d) { return d == DType::bf16 ? DType::f32 : d; }

namespace detail {
/// Sum of `g` down to `shape`, which broadcasts to g's shape: the backward of broadcasting. Differentiable.
Tensor sum_to(const Tensor& g, const Shape& shape);
}  // namespace detail

}  // namespace hone
