#pragma once
// Max pooling over disjoint 2×2 windows in f32: the case of most networks.

#include <cstdint>

namespace hone::simd {

/// y, index [planes, h/2, w/2] of x [planes, h, w]: the largest of each window and its place i·w + j in its plane. Odd
/// last rows and columns are left out. NaN wins. `x_end`: the end of what may be read from x.
void max_pool_2x2(const float* x, const float* x_end, int64_t planes, int64_t h, int64_t w, float* y, int32_t* index);

/// dx [planes, 2·oh, 2·ow]: g at each index of max_pool_2x2, 0 elsewhere. `readable`: elements of g and index that may
/// be read, at least planes·oh·ow.
void max_pool_2x2_grad(const float* g, const int32_t* index, int64_t readable, int64_t planes, int64_t oh, int64_t ow,
                       float* dx);

}  // namespace hone::simd
