#include "hone/compress/quantize/affine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"

namespace hone::compress::quantize {
namespace {

void check_spec(const char* what, const AffineSpec& s) {
  HONE_CHECK(s.bits >= 2 && s.bits <= 8, ValueError, what, ": ", s.bits, " bits; must be 2 to 8");
  HONE_CHECK(s.granularity != Granularity::group || s.group >= 1, ValueError, what, ": a group of ", s.group,
             " elements");
}
void check_bits(const char* what, int64_t bits) {
  HONE_CHECK(bits >= 1 && bits <= 8, ValueError, what, ": ", bits, " bits; must be 1 to 8");
}
int64_t bytes_of(int64_t n, int64_t bits) { return (n * bits + 7) / 8; }
int64_t row_of(const Shape& shape) { return shape.ndim() == 0 || shape[0] == 0 ? 1 : shape.numel() / shape[0]; }

struct ScaleAndZero {
  double scale;
  int64_t zero_point;
};
ScaleAndZero scale_of(Interval r, const AffineSpec& spec) {
  HONE_CHECK(std::isfinite(r.low) && std::isfinite(r.high), NumericError, "Affine: the range [", r.low, ", ", r.high,
             "] is not finite");
  HONE_CHECK(r.low <= r.high, ValueError, "Affine: the range [", r.low, ", ", r.high, "] is upside down");
  const double low = std::min(r.low, 0.0), high = std::max(r.high, 0.0), most = std::max(-low, high);
  // Divided before they are added: high − low may pass the largest number.
  const auto levels = static_cast<double>(spec.high());
  const double scale = spec.symmetric ? most / levels : high / levels - low / levels;
  if (scale < std::numeric_limits<float>::min()) return {1, 0};
  return {scale, spec.symmetric ? 0 : std::clamp<int64_t>(std::lrint(-low / scale), 0, spec.high())};
}

}  // namespace

int64_t Affine::parts(const AffineSpec& spec, const Shape& shape) {
  check_spec("Affine", spec);
  if (spec.granularity == Granularity::tensor) return 1;
  HONE_CHECK(shape.ndim() >= 1, ValueError, "Affine: a tensor without dims has no channels");
  return spec.granularity == Granularity::channel ? shape[0]
                                                  : shape[0] * ((row_of(shape) + spec.group - 1) / spec.group);
}
int64_t Affine::part(const Shape& shape, int64_t i) const {
  const int64_t row = row_of(shape);
  switch (spec.granularity) {
    case Granularity::tensor: return 0;
    case Granularity::channel: return i / row;
    default: return i / row * ((row + spec.group - 1) / spec.group) + i % row / spec.group;
  }
}

Affine Affine::of(Interval range, AffineSpec spec) {
  check_spec("Affine", spec);
  const ScaleAndZero s = scale_of(range, spec);
  return {spec, {s.scale}, {s.zero_point}};
}
Affine Affine::of(const Tensor& x, AffineSpec spec) {
  HONE_CHECK(is_floating(x.dtype()), DTypeError, "Affine: x must be floating, not ", x.dtype());
  Affine a{spec, {}, {}};
  std::vector<Interval> ranges(static_cast<size_t>(parts(spec, x.shape())));
  const std::vector<double> v = x.to_vector<double>();
  for (size_t i = 0; i < v.size(); ++i) {
    HONE_CHECK(std::isfinite(v[i]), NumericError, "Affine: element ", i, " is ", v[i]);
    Interval& r = ranges[static_cast<size_t>(a.part(x.shape(), static_cast<int64_t>(i)))];
    r.low = std::min(r.low, v[i]), r.high = std::max(r.high, v[i]);
  }
  for (const Interval& r : ranges) {
    const ScaleAndZero s = scale_of(r, spec);
    a.scale.push_back(s.scale);
    a.zero_point.push_back(s.zero_point);
  }
  return a;
}

Tensor Affine::codes(const Tensor& x) const {
  HONE_CHECK(static_cast<int64_t>(scale.size()) == parts(spec, x.shape()), ValueError, "Affine: ", scale.size(),
             " scales do not fit x ", x.shape());
  const auto low = static_cast<double>(spec.low()), high = static_cast<double>(spec.high());
  const std::vector<double> v = x.to_vector<double>();
  std::vector<int64_t> q(v.size());
  for (size_t i = 0; i < v.size(); ++i) {
    HONE_CHECK(!std::isnan(v[i]), NumericError, "Affine: element ", i, " is NaN");
    const auto p = static_cast<size_t>(part(x.shape(), static_cast<int64_t>(i)));
    q[i] = static_cast<int64_t>(
        std::clamp(static_cast<double>(zero_point[p]) + std::nearbyint(v[i] / scale[p]), low, high));
  }
  return cast(tensor(q, x.shape()), spec.symmetric ? i8 : u8);
}
Tensor Affine::values(const Tensor& codes) const {
  HONE_CHECK(static_cast<int64_t>(scale.size()) == parts(spec, codes.shape()), ValueError, "Affine: ", scale.size(),
             " scales do not fit codes ", codes.shape());
  const std::vector<int64_t> q = codes.to_vector<int64_t>();
  std::vector<float> v(q.size());
  for (size_t i = 0; i < q.size(); ++i) {
    const auto p = static_cast<size_t>(part(codes.shape(), static_cast<int64_t>(i)));
    v[i] = static_cast<float>(scale[p] * static_cast<double>(q[i] - zero_point[p]));
  }
  return tensor(v, codes.shape());
}

Tensor pack_bits(const Tensor& codes, int64_t bits) {
  check_bits("pack_bits", bits);
  HONE_CHECK(codes.dtype() == u8 || codes.dtype() == i8, DTypeError, "pack_bits: codes must be u8 or i8, not ",
             codes.dtype());
  const int64_t low = codes.dtype() == u8 ? 0 : -(int64_t{1} << (bits - 1)), high = low + (int64_t{1} << bits) - 1;
  const std::vector<int64_t> q = codes.to_vector<int64_t>();
  const Tensor bytes = zeros({bytes_of(codes.numel(), bits)}, u8);
  for (size_t i = 0; i < q.size(); ++i) {
    HONE_CHECK(q[i] >= low && q[i] <= high, ValueError, "pack_bits: code ", q[i], " does not fit ", bits, " bits");
    const int64_t at = static_cast<int64_t>(i) * bits;
    const auto placed = static_cast<unsigned>(q[i] & ((1 << bits) - 1)) << (at % 8);
    uint8_t* const byte = bytes.data<uint8_t>() + at / 8;
    byte[0] = static_cast<uint8_t>(byte[0] | placed);
    if (placed >> 8) byte[1] = static_cast<uint8_t>(byte[1] | placed >> 8);
  }
  return bytes;
}

Tensor unpack_bits(const Tensor& bytes, int64_t bits, const Shape& shape, DType dtype) {
  check_bits("unpack_bits", bits);
  HONE_CHECK(dtype == u8 || dtype == i8, DTypeError, "unpack_bits: codes are u8 or i8, not ", dtype);
  const int64_t n = shape.numel(), size = bytes_of(n, bits);
  HONE_CHECK(bytes.dtype() == u8 && bytes.shape() == Shape{size}, FormatError, "unpack_bits: ", n, " codes of ", bits,
             " bits are u8 of shape [", size, "], not ", bytes.dtype(), " ", bytes.shape());
  const Tensor packed = contiguous(bytes);
  const uint8_t* const from = packed.data<uint8_t>();
  HONE_CHECK(n * bits % 8 == 0 || from[size - 1] >> (n * bits % 8) == 0, FormatError,
             "unpack_bits: unused bits of the last byte are not 0");
  std::vector<int64_t> q(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = i * bits, byte = at / 8;
    const unsigned word = from[byte] | (byte + 1 < size ? static_cast<unsigned>(from[byte + 1]) << 8 : 0u);
    int64_t code = (word >> (at % 8)) & ((1u << bits) - 1);
    if (dtype == i8 && code >> (bits - 1)) code -= int64_t{1} << bits;
    q[static_cast<size_t>(i)] = code;
  }
  return cast(tensor(q, shape), dtype);
}

}  // namespace hone::compress::quantize
