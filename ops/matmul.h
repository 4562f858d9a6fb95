#pragma once
// Matrix products. f64 and f32 through BLAS; bf16 is computed in f32 and rounded once; integers in plain loops,
// wrapping. Inputs of which one of the two last strides is 1 are used as they lie, transposed or not; others are copied
// first.

#include "hone/core/op.h"

namespace hone {

extern const OpDef kMatmul, kLinear;

/// c[…, i, j] = sum_k a[…, i, k] b[…, k, j]: [n, k] by [k, m] gives [n, m]. A 1-d a counts as a row and a 1-d b as a
/// column, and that dim is not in the result; further dims are batches and broadcast (NumPy's rule). One dtype, not
/// bool. Returns a new contiguous tensor; twice differentiable. ShapeError, DTypeError.
Tensor matmul(const Tensor& a, const Tensor& b);

/// y = x Wᵀ + b. x [..., in], weight [out, in], bias [out] or absent; y [..., out], new and contiguous. Floating, one
/// dtype; twice differentiable. ShapeError, DTypeError.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace hone
