#pragma once
// From codes to what they stand for, on every SIMD target.

#include <cstdint>

namespace hone::simd {

/// Most values of a codebook, for codes are bytes; tables have room for so many.
inline constexpr int64_t kMostCodes = 256;
/// Elements past the n-th that look_up may read and write.
inline constexpr int64_t kLookUpSlack = 16;

/// to[i] = table[codes[i]] for i < n. table: kMostCodes floats, of which codes name the first `used`; up to 16 of them
/// stay in registers.
void look_up(const uint8_t* codes, int64_t n, const float* table, int64_t used, float* to);
/// The largest of n codes; 0 where there is none.
uint8_t largest_code(const uint8_t* codes, int64_t n);

}  // namespace hone::simd
