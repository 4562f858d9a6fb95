#include "hone/ops/packed/codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/simd/code_kernels.h"

namespace hone {
namespace {

constexpr const char* kInferenceOnly = "codes are integers";
constexpr int64_t kPiece = 1 << 15;  // elements

void check_codes(const ShapeContext& c, int i, const char* what) {
  HONE_CHECK(c.dtype(i) == u8, DTypeError, c.op, ": ", what, " must be u8, not ", c.dtype(i));
}
void check_zero_point(const ShapeContext& c, int64_t z, const char* what) {
  HONE_CHECK(z >= 0 && z <= 255, ValueError, c.op, ": ", what, "'s zero point ", z, " must be in [0, 255]");
}
simd::CodeRange range_of(const Int8Range& r) {
  return {static_cast<int32_t>(r.zero_point), static_cast<int32_t>(r.low), static_cast<int32_t>(r.high)};
}
/// f(begin, end) over pieces of the output's elements.
template <class F> void over(const RunContext& c, const F& f) { parallel_for(c.out[0].numel(), kPiece, f); }

// ---- quantize, dequantize

void check_scale(const ShapeContext& c, const QuantizeAttrs& a) {
  // Both the scale and its inverse are numbers of f32.
  HONE_CHECK(
      std::isfinite(static_cast<float>(a.scale)) && std::isnormal(static_cast<float>(1 / a.scale)) && a.scale > 0,
      ValueError, c.op, ": scale ", a.scale, " must be a positive number of f32");
  detail::check_int8_range(c.op, a.range);
}
void quantize_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  check_scale(c, c.attrs.as<QuantizeAttrs>());
  c.add(c.shape(0), u8);
}
void quantize_run(RunContext& c) {
  const auto& a = c.attrs.as<QuantizeAttrs>();
  const float* const x = detail::contiguous_input<float>(c.in[0], c.workspace);
  over(c, [&](int64_t begin, int64_t end) {
    simd::quantize(x + begin, end - begin, static_cast<float>(1 / a.scale), range_of(a.range),
                   c.out[0].as<uint8_t>() + begin);
  });
}
void rows_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  Shape scales = c.shape(0);
  HONE_CHECK(scales.ndim() >= 1, ShapeError, c.op, ": x ", scales, " has no rows");
  for (int d = 1; d < scales.ndim(); ++d) scales[d] = 1;
  c.add(c.shape(0), u8);
  c.add(scales, f32);
}
/// The largest |x|: of floats that are not negative, the order is that of their bits; NaN and infinity come last.
float largest(const float* x, int64_t n) {
  uint32_t most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return std::bit_cast<float>(most);
}
void rows_run(RunContext& c) {
  const int64_t rows = c.in[0].sizes[0], n = rows == 0 ? 0 : c.in[0].numel() / rows;
  const float* const x = detail::contiguous_input<float>(c.in[0], c.workspace);
  parallel_for(rows, kPiece / std::max<int64_t>(n, 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float most = largest(x + r * n, n);
      float scale = std::isfinite(most) ? most / 127.0f : std::numeric_limits<float>::quiet_NaN();
      if (std::isinf(1 / scale)) scale = 1;  // zeros, or next to nothing
      simd::quantize(x + r * n, n, 1 / scale, {128, 1, 255}, c.out[0].as<uint8_t>() + r * n);
      c.out[1].as<float>()[r] = scale;
    }
  });
}
void dequantize_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_codes(c, 0, "q");
  check_scale(c, c.attrs.as<QuantizeAttrs>());
  c.add(c.shape(0), f32);
}
void dequantize_run(RunContext& c) {
  const auto& a = c.attrs.as<QuantizeAttrs>();
  const uint8_t* const x = detail::contiguous_input<uint8_t>(c.in[0], c.workspace);
  over(c, [&](int64_t begin, int64_t end) {
    simd::dequantize(x + begin, end - begin, static_cast<float>(a.scale), static_cast<int32_t>(a.range.zero_point),
                     c.out[0].as<float>() + begin);
  });
}

// ---- add

void add_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<Int8AddAttrs>();
  check_inputs(c, 2, 2);
  check_codes(c, 0, "a");
  check_codes(c, 1, "b");
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": a ", c.shape(0), " and b ", c.shape(1),
             " must have one shape");
  check_zero_point(c, a.a_zero_point, "a");
  check_zero_point(c, a.b_zero_point, "b");
  detail::check_int8_range(c.op, a.y);
  constexpr int64_t most = INT16_MAX;
  HONE_CHECK(
      a.a_factor >= 0 && a.a_factor <= most && a.b_factor >= 0 && a.b_factor <= most && a.shift >= 1 && a.shift <= 30,
      ValueError, c.op, ": factors ", a.a_factor, " and ", a.b_factor, " / 2^", a.shift,
      "; they must be in [0, 2^15), the shift in [1, 30]");
  c.add(c.shape(0), u8);
}
void add_run(RunContext& c) {
  const auto& a = c.attrs.as<Int8AddAttrs>();
  const uint8_t* const x = detail::contiguous_input<uint8_t>(c.in[0], c.workspace);
  const uint8_t* const y = detail::contiguous_input<uint8_t>(c.in[1], c.workspace);
  const FixedPair f{static_cast<int32_t>(a.a_factor), static_cast<int32_t>(a.b_factor), static_cast<int32_t>(a.shift)};
  over(c, [&](int64_t begin, int64_t end) {
    simd::add_codes(x + begin, static_cast<int32_t>(a.a_zero_point), y + begin, static_cast<int32_t>(a.b_zero_point), f,
                    end - begin, range_of(a.y), c.out[0].as<uint8_t>() + begin);
  });
}

// ---- pooling

void max_pool_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_codes(c, 0, "x");
  HONE_CHECK(!c.attrs.as<PoolAttrs>().adaptive, ValueError, c.op, ": adaptive windows are not for codes");
  View x = c.in[0];
  x.dtype = f32;
  ShapeContext pooled{c.op, {&x, 1}, c.attrs};
  kMaxPool2d.shapes(pooled);
  c.add(pooled.out[0].shape, u8);
}
void max_pool_run(RunContext& c) {
  const auto& a = c.attrs.as<PoolAttrs>();
  const int64_t h = c.in[0].sizes[2], w = c.in[0].sizes[3], oh = c.out[0].sizes[2], ow = c.out[0].sizes[3];
  const uint8_t* const x = detail::contiguous_input<uint8_t>(c.in[0], c.workspace);
  parallel_for(c.in[0].sizes[0] * c.in[0].sizes[1], kPiece / std::max<int64_t>(h * w, 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t p = begin; p < end; ++p) {
                   const uint8_t* const from = x + p * h * w;
                   uint8_t* to = c.out[0].as<uint8_t>() + p * oh * ow;
                   for (int64_t i = 0; i < oh; ++i)
                     for (int64_t j = 0; j < ow; ++j) {
                       uint8_t best = 0;
                       for (int64_t r = 0; r < a.kernel_h; ++r)
                         for (int64_t q = 0; q < a.kernel_w; ++q) {
                           const int64_t row = i * a.stride_h - a.pad_h + r * a.dilation_h;
                           const int64_t col = j * a.stride_w - a.pad_w + q * a.dilation_w;
                           if (row >= 0 && row < h && col >= 0 && col < w) best = std::max(best, from[row * w + col]);
                         }
                       *to++ = best;
                     }
                 }
               });
}

void avg_pool_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<Int8AvgPoolAttrs>();
  check_inputs(c, 1, 1);
  check_codes(c, 0, "x");
  check_ndim(c, 0, 4, "x");
  check_zero_point(c, a.x_zero_point, "x");
  detail::check_int8_range(c.op, a.y);
  HONE_CHECK(a.kernel_h >= 1 && a.kernel_w >= 1 && a.stride_h >= 1 && a.stride_w >= 1 && a.kernel_h <= 1 << 11 &&
                 a.kernel_w <= 1 << 11,
             ValueError, c.op, ": kernel ", a.kernel_h, "x", a.kernel_w, " and stride ", a.stride_h, "x", a.stride_w,
             " must be at least 1, the kernel at most 2048");
  HONE_CHECK(a.multiplier >= 0 && a.multiplier <= INT32_MAX && a.shift >= 31 && a.shift <= 62, ValueError, c.op,
             ": factor ", a.multiplier, " / 2^", a.shift, " must not be negative, its shift in [31, 62]");
  Shape y = c.shape(0);
  HONE_CHECK(y[2] >= a.kernel_h && y[3] >= a.kernel_w, ShapeError, c.op, ": kernel ", a.kernel_h, "x", a.kernel_w,
             " is larger than x ", y);
  y[2] = (y[2] - a.kernel_h) / a.stride_h + 1;
  y[3] = (y[3] - a.kernel_w) / a.stride_w + 1;
  c.add(y, u8);
}
void avg_pool_run(RunContext& c) {
  const auto& a = c.attrs.as<Int8AvgPoolAttrs>();
  const int64_t h = c.in[0].sizes[2], w = c.in[0].sizes[3], oh = c.out[0].sizes[2], ow = c.out[0].sizes[3];
  const FixedPoint f{static_cast<int32_t>(a.multiplier), static_cast<int32_t>(a.shift)};
  const auto zeros = static_cast<int32_t>(a.kernel_h * a.kernel_w * a.x_zero_point);
  const uint8_t* const x = detail::contiguous_input<uint8_t>(c.in[0], c.workspace);
  parallel_for(c.in[0].sizes[0] * c.in[0].sizes[1], kPiece / std::max<int64_t>(h * w, 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t p = begin; p < end; ++p) {
                   uint8_t* to = c.out[0].as<uint8_t>() + p * oh * ow;
                   for (int64_t i = 0; i < oh; ++i)
                     for (int64_t j = 0; j < ow; ++j) {
                       const uint8_t* row = x + (p * h + i * a.stride_h) * w + j * a.stride_w;
                       int32_t sum = -zeros;
                       for (int64_t r = 0; r < a.kernel_h; ++r, row += w)
                         for (int64_t q = 0; q < a.kernel_w; ++q) sum += row[q];
                       *to++ = requantize(sum, f, a.y.zero_point, a.y.low, a.y.high);
                     }
                 }
               });
}

// ---- lookup

void lookup_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_codes(c, 0, "x");
  check_codes(c, 1, "table");
  HONE_CHECK(c.shape(1) == Shape{256}, ShapeError, c.op, ": table ", c.shape(1), " must have shape [256]");
  c.add(c.shape(0), u8);
}
void lookup_run(RunContext& c) {
  const uint8_t* const x = detail::contiguous_input<uint8_t>(c.in[0], c.workspace);
  const uint8_t* const table = detail::contiguous_input<uint8_t>(c.in[1], c.workspace);
  over(c, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) c.out[0].as<uint8_t>()[i] = table[x[i]];
  });
}

int64_t one_of_two(const char* op, const Shape& s, int i) {
  HONE_CHECK(s.ndim() == 1 || s.ndim() == 2, ShapeError, op, ": ", s, " must have one or two values");
  return s[s.ndim() == 1 ? 0 : i];
}

}  // namespace

const OpDef kInt8Quantize = {.name = "int8_quantize",
                             .attributes = attributes<QuantizeAttrs>(),
                             .shapes = quantize_shapes,
                             .run = quantize_run,
                             .not_differentiable = kInferenceOnly};
const OpDef kInt8QuantizeRows = {
    .name = "int8_quantize_rows", .shapes = rows_shapes, .run = rows_run, .not_differentiable = kInferenceOnly};
const OpDef kInt8Dequantize = {.name = "int8_dequantize",
                               .attributes = attributes<QuantizeAttrs>(),
                               .shapes = dequantize_shapes,
                               .run = dequantize_run,
                               .not_differentiable = kInferenceOnly};
const OpDef kInt8Add = {.name = "int8_add",
                        .attributes = attributes<Int8AddAttrs>(),
                        .shapes = add_shapes,
                        .run = add_run,
                        .not_differentiable = kInferenceOnly};
const OpDef kInt8MaxPool2d = {.name = "int8_max_pool2d",
                              .attributes = attributes<PoolAttrs>(),
                              .shapes = max_pool_shapes,
                              .run = max_pool_run,
                              .not_differentiable = kInferenceOnly};
const OpDef kInt8AvgPool2d = {.name = "int8_avg_pool2d",
                              .attributes = attributes<Int8AvgPoolAttrs>(),
                              .shapes = avg_pool_shapes,
                              .run = avg_pool_run,
                              .not_differentiable = kInferenceOnly};
const OpDef kInt8Lookup = {
    .name = "int8_lookup", .shapes = lookup_shapes, .run = lookup_run, .not_differentiable = kInferenceOnly};

Tensor int8_quantize(const Tensor& x, double scale, const Int8Range& range) {
  return apply(kInt8Quantize, QuantizeAttrs{scale, range}, {x});
}
Outputs int8_quantize_rows(const Tensor& x) { return apply(kInt8QuantizeRows, Attrs(), {x}); }
Tensor int8_dequantize(const Tensor& q, double scale, int64_t zero_point) {
  return apply(kInt8Dequantize, QuantizeAttrs{scale, {zero_point, 0, 255}}, {q});
}
Tensor int8_add(const Tensor& a, int64_t a_zero_point, double a_ratio, const Tensor& b, int64_t b_zero_point,
                double b_ratio, const Int8Range& y) {
  const FixedPair f = fixed_pair(a_ratio, b_ratio);
  return apply(kInt8Add, Int8AddAttrs{f.first, f.second, f.shift, a_zero_point, b_zero_point, y}, {a, b});
}
Tensor int8_max_pool2d(const Tensor& x, const Shape& kernel, const MaxPool2dOptions& options) {
  constexpr const char* op = "int8_max_pool2d";
  const Shape& stride = options.stride.empty() ? kernel : options.stride;
  PoolAttrs a;
  a.kernel_h = one_of_two(op, kernel, 0), a.kernel_w = one_of_two(op, kernel, 1);
  a.stride_h = one_of_two(op, stride, 0), a.stride_w = one_of_two(op, stride, 1);
  a.pad_h = one_of_two(op, options.padding, 0), a.pad_w = one_of_two(op, options.padding, 1);
  a.dilation_h = one_of_two(op, options.dilation, 0), a.dilation_w = one_of_two(op, options.dilation, 1);
  return apply(kInt8MaxPool2d, a, {x});
}
Tensor int8_avg_pool2d(const Tensor& x, int64_t x_zero_point, const Shape& kernel, const Shape& stride, double ratio,
                       const Int8Range& y) {
  constexpr const char* op = "int8_avg_pool2d";
  const Shape& step = stride.empty() ? kernel : stride;
  Int8AvgPoolAttrs a;
  a.kernel_h = one_of_two(op, kernel, 0), a.kernel_w = one_of_two(op, kernel, 1);
  a.stride_h = one_of_two(op, step, 0), a.stride_w = one_of_two(op, step, 1);
  const auto count = static_cast<double>(std::max<int64_t>(a.kernel_h, 1) * std::max<int64_t>(a.kernel_w, 1));
  const FixedPoint f = fixed_point(ratio / count);
  a.multiplier = f.multiplier, a.shift = f.shift;
  a.x_zero_point = x_zero_point, a.y = y;
  return apply(kInt8AvgPool2d, a, {x});
}
Tensor int8_lookup(const Tensor& x, const Tensor& table) { return apply(kInt8Lookup, Attrs(), {x, table}); }

}  // namespace hone
