#pragma once
// Affine quantization of tensors: x ≈ scale (q − zero_point), q an integer of 2 to 8 bits, with one scale a tensor, a
// channel or a group. ops/packed has the arithmetic on such codes.
//
//   const Affine a = Affine::of(weight, {.bits = 4, .granularity = Granularity::channel});
//   Tensor codes = a.codes(weight), back = a.values(codes);
//   Tensor bytes = pack_bits(codes, 4);                       // what a file holds

#include <cstdint>
#include <vector>

#include "hone/core/tensor.h"

namespace hone::compress::quantize {

/// What has a scale of its own: the tensor; each index of dim 0; each run of `group` elements of such a row (dims after
/// the first folded into one; the last run may be shorter).
enum class Granularity : uint8_t { tensor, channel, group };

struct AffineSpec {
  int64_t bits = 8;  ///< 2 to 8
  /// true: zero point 0, codes i8 in [−(2^(bits−1) − 1), 2^(bits−1) − 1]; false: codes u8 in [0, 2^bits − 1].
  bool symmetric = true;
  Granularity granularity = Granularity::tensor;
  int64_t group = 0;

  int64_t low() const { return symmetric ? 1 - (int64_t{1} << (bits - 1)) : 0; }
  int64_t high() const { return symmetric ? (int64_t{1} << (bits - 1)) - 1 : (int64_t{1} << bits) - 1; }
};

/// Of real values.
struct Interval {
  double low = 0, high = 0;
};

struct Affine {
  AffineSpec spec;
  std::vector<double> scale;        ///< one a tensor, channel or group, in order; above 0
  std::vector<int64_t> zero_point;  ///< likewise; a code

  /// Of one range, which is widened to hold 0, so that 0 has a code: asymmetric, scale = (high − low) / (2^bits − 1)
  /// and zero_point = round(−low / scale); symmetric, scale = max(|low|, |high|) / (2^(bits−1) − 1). A range so narrow
  /// that f32 has no normal number for its scale counts as nothing but 0, whose scale is 1. ValueError: low above high,
  /// bits. NumericError: not finite.
  static Affine of(Interval range, AffineSpec spec = {});
  /// Of the smallest and largest element of each part of x, floating. NumericError for a NaN or infinity; ValueError
  /// for a spec that x does not fit. An empty x has one part's range of nothing but 0.
  static Affine of(const Tensor& x, AffineSpec spec = {});

  /// clamp(zero_point + round(x / scale)), ties to the even; NumericError for NaN. i8 or u8, of x's shape.
  Tensor codes(const Tensor& x) const;
  /// scale (q − zero_point), f32.
  Tensor values(const Tensor& codes) const;
  /// The part that element i of a tensor of that shape belongs to.
  int64_t part(const Shape& shape, int64_t i) const;
  /// Parts of a tensor of that shape. ValueError where the spec does not fit it.
  static int64_t parts(const AffineSpec& spec, const Shape& shape);
};

/// Codes of `bits` bits one after another, the lowest bit first, as u8 of ⌈n · bits / 8⌉ bytes; unused bits are 0.
/// codes: u8 in [0, 2^bits), or i8 in [−2^(bits−1), 2^(bits−1)), of which the low bits are kept. ValueError,
/// DTypeError.
Tensor pack_bits(const Tensor& codes, int64_t bits);
/// Its inverse: codes of dtype u8 or i8 and that shape. FormatError unless `bytes` has their size and unused bits are
/// 0.
Tensor unpack_bits(const Tensor& bytes, int64_t bits, const Shape& shape, DType dtype);

}  // namespace hone::compress::quantize
