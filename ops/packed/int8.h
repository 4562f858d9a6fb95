#pragma once
// Linear layers and convolutions on integers: codes of 8 bits times weights of 8 or 4 bits, summed in 32 bits exactly,
// then brought to the codes of the result by a fixed-point factor for each output (ops/packed/fixed_point.h has the
// formulas), or to f32. The same bits on every machine, at any thread count and any batch.
//
//   Int8Matrix w = Int8Matrix::pack(codes);                 // i8 [out, in] or [O, C/groups, KH, KW]
//   Int8Output to = Int8Output::codes(ratio, zero_point);    // ratio_o = scale_x scale_o / scale_y
//   Tensor y = int8_linear(x, w, w.start(bias, x_zero_point), to);
//
// Layout: panels of 16 outputs, group by group. A panel holds, for each group of four inputs, the four weights of each
// of its outputs side by side: panel, inputs / 4, 16, 4. Inputs are ordered by kernel row, then kernel column, then
// channel, and each kernel row ends on a multiple of four; zeros fill what is missing. Columns left out by a dilation
// are zeros too. With 4 bits, byte i < 32 of each block of 64 weights has weight i in its low and weight i + 32 in its
// high half. The same on every machine.

#include <vector>

#include "hone/core/op.h"
#include "hone/ops/fused.h"
#include "hone/ops/packed/fixed_point.h"

namespace hone {

struct Int8Matrix {
  Tensor values;  ///< i8, one dim
  Shape shape;    ///< of the weight
  int64_t groups = 1, bits = 8;
  int64_t dilation = 1;  ///< of kernel columns

  /// Codes [out, in] or [O, C/groups, KH, KW] of dtype i8 in [−127, 127], or [−7, 7] for 4 bits; at most 2^15 taps.
  /// ShapeError, DTypeError, ValueError.
  static Int8Matrix pack(const Tensor& codes, int64_t bits = 8, int64_t groups = 1, int64_t dilation = 1);
  Tensor dense() const;  ///< the codes; throws what check() throws
  /// FormatError unless values have the dtype and size that the rest asks for.
  void check() const;
  /// i32 [O]: b_o − z_x Σ_k w_ok, what sums start with, so that they need not take z_x off each input. bias: i32 [O] or
  /// undefined. It wraps modulo 2^32, as sums do.
  Tensor start(const Tensor& bias, int64_t x_zero_point) const;
};

/// What becomes of the sums: codes u8 (multiplier and shift i32 [O]) or f32 (multiplier f32 [O], no shift).
struct Int8Output {
  Tensor multiplier, shift;
  int64_t zero_point = 0, low = 0, high = 255;

  /// Factors in [0, 1), one an output. ValueError: those or the range.
  static Int8Output codes(const std::vector<double>& ratio, int64_t zero_point, int64_t low = 0, int64_t high = 255);
  /// y_o = f32(sum_o) · scale_o.
  static Int8Output real(const Tensor& scale);
};

struct Int8Range {
  int64_t zero_point = 0, low = 0, high = 255;
  void fields(FieldVisitor& v) { v("zero_point", zero_point), v("low", low), v("high", high); }
};
struct Int8LinearAttrs {
  int64_t outs = 0, bits = 8;
  Int8Range y;
  void fields(FieldVisitor& v) { v("outs", outs), v("bits", bits), y.fields(v); }
};
/// size_h and size_w of `conv` are the kernel's.
struct Int8ConvAttrs {
  int64_t outs = 0, bits = 8;
  int64_t x_zero_point = 0;  ///< what padding is
  ConvAttrs conv;
  FusedPoolAttrs pool;
  Int8Range y;
  void fields(FieldVisitor& v) {
    v("outs", outs), v("bits", bits), v("x_zero_point", x_zero_point), conv.fields(v), pool.fields(v), y.fields(v);
  }
};

struct Int8ConvOptions {
  Conv2dOptions conv = {};
  Shape pool = {};  ///< kernel of max pooling; empty: none
  MaxPool2dOptions pool_options = {};
  int64_t x_zero_point = 0;
};

extern const OpDef kInt8Linear, kInt8Conv2d;

/// x: u8 [..., in]; start: i32 [out]. Returns [..., out], u8 or f32. For inference: not differentiable. Throws
/// ShapeError, DTypeError; ValueError for a range outside [0, 255], more than 2^15 inputs, a shift outside [31, 62] or
/// a negative multiplier.
Tensor int8_linear(const Tensor& x, const Int8Matrix& weight, const Tensor& start, const Int8Output& output);

/// conv2d() and max pooling of codes: x u8 [N, C, H, W], start i32 [O]. Pooling is done on the sums, which gives the
/// same codes since the output's factor is not negative. Any options of conv2d and of an undilated pool. Throws as
/// int8_linear and conv2d_fused.
Tensor int8_conv2d(const Tensor& x, const Int8Matrix& weight, const Tensor& start, const Int8Output& output,
                   const Int8ConvOptions& options = {});

namespace detail {
/// ValueError unless 0 <= low <= high <= 255 and the zero point is in [0, 255].
void check_int8_range(const char* op, const Int8Range& r);
}  // namespace detail

}  // namespace hone
