#pragma once
// Convolution as matrix products over im2col: for f64, and in f32 for what the direct kernels leave (many channels,
// large kernels, sizes beyond their offsets). Any stride, padding, dilation and groups; columns are made in bands of
// bounded size. Split over threads by size: the same bits at any thread count. T: float or double.

#include "hone/core/op.h"
#include "hone/ops/simd/conv_geometry.h"

namespace hone::detail {

/// y = x ⋆ weight + bias; bias may be null.
template <class T> void conv_gemm(const ConvGeometry& s, const T* x, const T* weight, const T* bias, T* y);
/// dx: the gradient of x for the gradient g of y.
template <class T> void conv_gemm_input_grad(const ConvGeometry& s, const T* g, const T* weight, T* dx);
/// dw, and db = sum of g over images and positions where db is not null. Partial sums live in the workspace.
template <class T>
void conv_gemm_weight_grad(const ConvGeometry& s, const T* x, const T* g, T* dw, T* db, Workspace& workspace);

}  // namespace hone::detail
