#pragma once
// Matrix products. f64 and f32 through BLAS, bf16 in f32, integers by plain loops. Twice differentiable.

#include "hone/core/op.h"

namespace hone {

extern const OpDef kMatmul, kLinear;

/// a @ b. 2-d: [n,k]·[k,m] = [n,m]. A 1-d a is a row, a 1-d b a column, and the added dim goes away again. More dims are
/// batches and broadcast (NumPy's rule). One dtype. ShapeError, DTypeError.
Tensor matmul(const Tensor& a, const Tensor& b);

/// y = x Wᵀ + b. x [..., in], W [out, in], b [out] or absent; y [..., out]. Floating, one dtype.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace hone
