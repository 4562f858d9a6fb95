#pragma once
// The arithmetic of affine integers, written once: the ops of ops/packed/int8.h and codes.h, their SIMD kernels and
// training against them compute exactly this.
//
//   x ≈ scale_x (q_x − z_x)        activations: codes u8 with a zero point, one scale a tensor
//   w_o ≈ scale_o q_o              weights: codes in [−127, 127], symmetric, one scale an output
//   a_o = Σ_k q_ok (q_xk − z_x) + b_o                      i32, exact; b_o in units of scale_x · scale_o
//   q_y = clamp(z_y + ⌊a_o · M_o / 2^s_o + ½⌋, low, high)   M_o / 2^s_o ≈ scale_x scale_o / scale_y
//
// There is one rounding, to the nearest, ties upwards. low and high are the range of the codes; with low = z_y they are
// a ReLU as well. Each step is exact or has this rounding, so every kernel gives the same codes.
// Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018.

#include <cstdint>

namespace hone {

/// multiplier / 2^shift: multiplier in [0, 2^31), shift in [31, 62].
struct FixedPoint {
  int32_t multiplier = 0, shift = 31;
};

/// The nearest to `real`, which must be in [0, 1) (ValueError): within 2^-31 of it, relatively, from 2^-32 upwards.
FixedPoint fixed_point(double real);

/// ⌊a · f + ½⌋.
constexpr int32_t rescale(int32_t a, FixedPoint f) {
  return static_cast<int32_t>((int64_t{a} * f.multiplier + (int64_t{1} << (f.shift - 1))) >> f.shift);
}

/// The code of the sum a.
constexpr uint8_t requantize(int32_t a, FixedPoint f, int64_t zero_point, int64_t low = 0, int64_t high = 255) {
  const int64_t q = zero_point + rescale(a, f);
  return static_cast<uint8_t>(q < low ? low : q > high ? high : q);
}

/// Two factors with one shift, for sums of two: multipliers in [−2^15, 2^15), shift in [1, 30].
struct FixedPair {
  int32_t first = 0, second = 0, shift = 1;
};

/// Nearest to (a, b): within 2^-15 of the larger, relatively, from 2^-15 upwards. Both at least 0 and below 2^13
/// (ValueError).
FixedPair fixed_pair(double a, double b);

/// The code of a sum of two: clamp(z_y + ⌊((q_a − z_a) M_a + (q_b − z_b) M_b) / 2^s + ½⌋, low, high). The differences
/// are in [−255, 255].
constexpr uint8_t requantize_sum(int32_t a, int32_t b, FixedPair f, int64_t zero_point, int64_t low = 0,
                                 int64_t high = 255) {
  const int64_t q = zero_point + ((a * f.first + b * f.second + (1 << (f.shift - 1))) >> f.shift);
  return static_cast<uint8_t>(q < low ? low : q > high ? high : q);
}

/// Most taps of a product, and most units of a bias: their sum stays below 2^31. What is beyond wraps modulo 2^32.
inline constexpr int64_t kMostInt8Taps = int64_t{1} << 15, kMostInt8Bias = int64_t{1} << 30;
static_assert(kMostInt8Taps * 127 * 255 + kMostInt8Bias <= INT32_MAX);

}  // namespace hone
