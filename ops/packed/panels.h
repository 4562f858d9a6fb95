#pragma once
// Dense weights in the order in which inference reads them: made once, where conv2d_fused would do it at each call.
//
//   PanelMatrix w = PanelMatrix::pack(fc1.weight.value());      // [out, in] or [O, C/groups, KH, KW]
//   Tensor y = panel_linear(x, w, bias, Activation::relu);
//
// Layout: panels of 16 outputs (the last 8 wide where at most 8 remain), one after the other, group by group. A panel
// holds its outputs side by side for each tap, taps in the order channel, kernel column, kernel row; zeros beside the
// last outputs, and 16 zeros at the end. The same on every machine.

#include "hone/ops/fused.h"

namespace hone {

struct PanelMatrix {
  Tensor values;  ///< f32, one dim
  Shape shape;    ///< of the dense weight
  int64_t groups = 1;

  /// f32, 2 or 4 dims, groups dividing the outputs. ShapeError, DTypeError, ValueError.
  static PanelMatrix pack(const Tensor& weight, int64_t groups = 1);
  Tensor dense() const;  ///< throws what check() throws
  /// FormatError unless values have the dtype and size that shape and groups ask for.
  void check() const;
};

struct PanelLinearAttrs {
  int64_t outs = 0;
  ActivationAttrs activation;
  void fields(FieldVisitor& v) { v("outs", outs), activation.fields(v); }
};
/// size_h and size_w of `conv` are the kernel's.
struct PanelConvAttrs {
  int64_t outs = 0;
  FusedConvAttrs fused;
  void fields(FieldVisitor& v) { v("outs", outs), fused.fields(v); }
};

extern const OpDef kPanelLinear, kPanelConv2d;

/// linear_fused() by a packed weight. x [..., in] f32. Each row's sum is one chain of multiply-adds, whatever the
/// batch: the same bits for a row alone and in any batch, within rounding of linear(). For inference: not
/// differentiable. ShapeError, DTypeError, ValueError.
Tensor panel_linear(const Tensor& x, const PanelMatrix& weight, const Tensor& bias = {},
                    ActivationAttrs activation = {});

/// conv2d_fused() by a packed weight, groups included; the same bits where both take their direct kernels (up to 1600
/// taps). x [N, C, H, W] f32. For inference: not differentiable. ShapeError, DTypeError, ValueError.
Tensor panel_conv2d(const Tensor& x, const PanelMatrix& weight, const Tensor& bias = {},
                    const FusedConv2dOptions& options = {});

}  // namespace hone
