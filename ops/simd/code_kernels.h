#pragma once
// Between f32 and codes, and sums of codes, on every SIMD target to the same bits.

#include <cstdint>

#include "hone/ops/packed/fixed_point.h"

namespace hone::simd {

struct CodeRange {
  int32_t zero_point, low, high;
};

/// y[i] = the code of x[i] · inverse_scale, rounded to the nearest, ties to the even; NaN gives low.
void quantize(const float* x, int64_t n, float inverse_scale, const CodeRange& r, uint8_t* y);
/// y[i] = scale · (x[i] − zero_point).
void dequantize(const uint8_t* x, int64_t n, float scale, int32_t zero_point, float* y);
/// y[i] = requantize_sum(a[i] − a_zero_point, b[i] − b_zero_point, f, …).
void add_codes(const uint8_t* a, int32_t a_zero_point, const uint8_t* b, int32_t b_zero_point, const FixedPair& f,
               int64_t n, const CodeRange& r, uint8_t* y);

}  // namespace hone::simd
