#pragma once
// Ops on codes: 8-bit activations q with x ≈ scale (q − zero_point). ops/packed/fixed_point.h has the formulas. Ops
// that only move elements (flatten, reshape, slice …) take codes as they are. For inference: none is differentiable.

#include "hone/core/op.h"
#include "hone/ops/packed/int8.h"
#include "hone/ops/pool.h"

namespace hone {

struct QuantizeAttrs {
  double scale = 1;
  Int8Range range;
  void fields(FieldVisitor& v) { v("scale", scale), range.fields(v); }
};
struct Int8AddAttrs {
  int64_t a_factor = 0, b_factor = 0, shift = 1;  ///< a FixedPair
  int64_t a_zero_point = 0, b_zero_point = 0;
  Int8Range y;
  void fields(FieldVisitor& v) {
    v("a_factor", a_factor), v("b_factor", b_factor), v("shift", shift);
    v("a_zero_point", a_zero_point), v("b_zero_point", b_zero_point), y.fields(v);
  }
};
struct Int8AvgPoolAttrs {
  int64_t kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1;
  int64_t multiplier = 0, shift = 31;  ///< a FixedPoint
  int64_t x_zero_point = 0;
  Int8Range y;
  void fields(FieldVisitor& v) {
    v("kernel_h", kernel_h), v("kernel_w", kernel_w), v("stride_h", stride_h), v("stride_w", stride_w);
    v("multiplier", multiplier), v("shift", shift), v("x_zero_point", x_zero_point), y.fields(v);
  }
};

extern const OpDef kInt8Quantize, kInt8QuantizeRows, kInt8Dequantize, kInt8Add, kInt8MaxPool2d, kInt8AvgPool2d,
    kInt8Lookup;

/// q = clamp(zero_point + round(x · (1/scale)), low, high), u8; ties to the even; 1/scale and the product in f32; NaN
/// gives low. x: f32, any shape; scale > 0. ValueError, DTypeError.
Tensor int8_quantize(const Tensor& x, double scale, const Int8Range& range);
/// {codes u8 of x's shape, scales f32 [N, 1, …]}: each row x[n] by a scale that it brings: scale_n = max |x_n| / 127
/// and q = 128 + round(x · (1/scale_n)). A row of zeros has scale 1, one with a NaN or infinity NaN. x: f32, [N, …].
/// ShapeError, DTypeError.
Outputs int8_quantize_rows(const Tensor& x);
/// scale (q − zero_point), f32. q: u8. ValueError, DTypeError.
Tensor int8_dequantize(const Tensor& q, double scale, int64_t zero_point);

/// The code of a + b: requantize_sum() of the codes less their zero points. a_ratio = scale_a / scale_y and b_ratio
/// likewise, in [0, 8192). a, b: u8 of one shape. ShapeError, ValueError, DTypeError.
Tensor int8_add(const Tensor& a, int64_t a_zero_point, double a_ratio, const Tensor& b, int64_t b_zero_point,
                double b_ratio, const Int8Range& y);

/// max_pool2d() of codes [N, C, H, W]: scale and zero point stay. Throws as max_pool2d.
Tensor int8_max_pool2d(const Tensor& x, const Shape& kernel, const MaxPool2dOptions& options = {});

/// The code of the mean over windows of `kernel` elements: requantize(Σ (q − z_x), ratio / count), ratio = scale_x /
/// scale_y, in [0, count). No padding; a stride of none is the kernel. x: u8 [N, C, H, W]. ShapeError, ValueError,
/// DTypeError.
Tensor int8_avg_pool2d(const Tensor& x, int64_t x_zero_point, const Shape& kernel, const Shape& stride, double ratio,
                       const Int8Range& y);

/// table[x]: any function of one code, changes of scale among them. x: u8; table: u8 [256]. ShapeError, DTypeError.
Tensor int8_lookup(const Tensor& x, const Tensor& table);

}  // namespace hone
