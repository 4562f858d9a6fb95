#pragma once
// What the ops on weights in panels share, whether of values or of codes: x is input 0, what holds the weight follows.

#include "hone/core/basic_ops.h"
#include "hone/core/op.h"
#include "hone/ops/packed/panel_run.h"
#include "hone/ops/packed/panels.h"

namespace hone::detail {

inline constexpr const char* kPanelsAreForInference = "packed weights are for inference; train the dense weight";

/// Describes y of the linear op: input 1 is the weight's panels, called `name`, of that dtype; the bias is input
/// `bias` (may be absent).
void panel_linear_shapes(ShapeContext& c, const char* name, DType dtype, int bias);
/// The same for the convolution.
void panel_conv2d_shapes(ShapeContext& c, const char* name, DType dtype, int bias);
void panel_linear_run(RunContext& c, const Panels& weight, int bias);
void panel_conv2d_run(RunContext& c, const Panels& weight, int bias);
int64_t panel_linear_macs(std::span<const View> in, std::span<const View> out, const Attrs&);
int64_t panel_conv2d_macs(std::span<const View> in, std::span<const View> out, const Attrs&);

/// A weight [out, in] or [O, C/groups, KH, KW]: sizes of a group.
struct PanelSizes {
  int64_t groups, outs, channels, kh, kw;
  PanelSizes(const Shape& weight, int64_t groups);
  int64_t elements() const { return panel_elements(groups, outs, channels * kh * kw); }
};
/// ShapeError unless it is such a weight, in groups that divide its outputs.
void check_panel_weight(const char* what, const Shape& weight, int64_t groups);
/// FormatError unless it is such a weight and `panels` are of that dtype, in one dim, as many as it asks for.
void check_panels(const char* what, const char* name, const Tensor& panels, DType dtype, const Shape& weight,
                  int64_t groups);
/// ShapeError, ValueError unless the packed weight suits the op.
void check_linear_weight(const char* op, const Shape& weight);
PanelConvAttrs panel_conv_attrs(const char* op, const Shape& weight, int64_t groups, const FusedConv2dOptions& options);

template <class T> Tensor to_panels(const Tensor& weight, int64_t groups) {
  const PanelSizes s(weight.shape(), groups);
  const Tensor dense = contiguous(weight.detach()), panels = empty({s.elements()}, dtype_of<T>);
  pack_panels(dense.data<T>(), groups, s.outs, s.channels, s.kh, s.kw, panels.data<T>());
  return panels;
}
template <class T> Tensor from_panels(const Tensor& panels, const Shape& weight, int64_t groups) {
  const PanelSizes s(weight, groups);
  const Tensor from = contiguous(panels), dense = empty(weight, dtype_of<T>);
  unpack_panels(from.data<T>(), groups, s.outs, s.channels, s.kh, s.kw, dense.data<T>());
  return dense;
}

}  // namespace hone::detail
