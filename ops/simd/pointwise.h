#pragma once
// The CPU kernels under elementwise ops, chosen by number, type and the processor's SIMD target.

#include "hone/ops/elementwise.h"
#include "hone/ops/functor_ids.h"

namespace hone::detail {

/// f(s), g·f′(s) or g·h·f″(s) for `order` 0, 1, 2: inputs (s), (g, s), (g, h, s). nullptr where the functor has no such
/// derivative or does not take the dtype: f64 and f32 all of it; integers the order 0 of those that keep integers.
ElementwiseKernel unary_kernel(Unary op, int order, DType compute);
/// f(a, b); comparisons write bool. nullptr for a dtype it does not take: arithmetic on bool.
ElementwiseKernel binary_kernel(Binary op, DType compute);

// The floating kernels of the best target; the functions above add the rest.
ElementwiseKernel simd_unary_kernel(Unary op, int order, bool f64);
ElementwiseKernel simd_binary_kernel(Binary op, bool f64);
ElementwiseKernel simd_select32_kernel();  ///< bool condition ? a : b, elements of 4 bytes

}  // namespace hone::detail
