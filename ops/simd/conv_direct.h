#pragma once
// Direct 2-d convolution in f32: fast where a gemm over im2col loses, with few channels and small kernels. Any stride,
// padding, dilation and groups. Split over threads by size: the same bits at any thread count.

#include "hone/ops/simd/conv_geometry.h"

namespace hone::simd {

/// Whether the functions below are the better choice, from sizes alone.
bool conv_direct_suits(const ConvGeometry& s);

/// y = x ⋆ weight + bias; bias may be null.
void conv_direct(const ConvGeometry& s, const float* x, const float* weight, const float* bias, float* y);
/// dx: the gradient of x for the gradient g of y.
void conv_direct_input_grad(const ConvGeometry& s, const float* g, const float* weight, float* dx);
/// dw, and db = sum of g over images and positions where db is not null.
void conv_direct_weight_grad(const ConvGeometry& s, const float* x, const float* g, float* dw, float* db);

}  // namespace hone::simd
