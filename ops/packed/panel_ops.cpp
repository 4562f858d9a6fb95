#include "hone/ops/packed/panel_ops.h"

#include <algorithm>

#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/conv_shapes.h"

namespace hone::detail {
namespace {

constexpr int64_t kMostInputs = int64_t{1} << 25;

void check_stored(const ShapeContext& c, const char* name, DType dtype, int64_t groups, int64_t outs, int64_t depth) {
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  HONE_CHECK(c.dtype(1) == dtype, DTypeError, c.op, ": ", name, " must be ", dtype, ", not ", c.dtype(1));
  check_ndim(c, 1, 1, name);
  const int64_t expected = panel_elements(groups, outs, depth);
  HONE_CHECK(c.shape(1)[0] == expected, ShapeError, c.op, ": ", name, " ", c.shape(1), " of ", groups * outs,
             " outputs by ", depth, " taps must have shape [", expected, "]");
}
void check_outs(const ShapeContext& c, int64_t outs) {
  HONE_CHECK(outs >= 1 && outs < (int64_t{1} << 31), ValueError, c.op, ": outs ", outs,
             " must be at least 1 and below 2^31");
}
const float* bias_of(RunContext& c, int bias) {
  return c.has(bias) ? contiguous_input<float>(c.in[static_cast<size_t>(bias)], c.workspace) : nullptr;
}

/// conv2d's inputs with the weight as it was before packing, and conv2d's attributes.
struct Dense {
  View in[3];
  ConvAttrs conv;
  std::span<const View> inputs() const { return {in, in[2].defined() ? size_t{3} : size_t{2}}; }
};
Dense dense_of(std::span<const View> in, const PanelConvAttrs& a, int bias) {
  const auto b = static_cast<size_t>(bias);
  Dense d{{in[0], {}, in.size() > b ? in[b] : View()}, a.fused.conv};
  const int64_t groups = std::max<int64_t>(a.fused.conv.groups, 1);
  d.in[1] = dense_view(f32, {a.outs, in[0].sizes[1] / groups, a.fused.conv.size_h, a.fused.conv.size_w});
  return d;
}
ConvGeometry geometry(const Dense& d, const Shape& y) {
  return conv_geometry(d.conv, d.in[0], d.in[1].sizes[2], d.in[1].sizes[3], dense_view(f32, y));
}
Shape conv_output(const char* op, const Dense& d) {
  const Attrs conv(d.conv);
  ShapeContext shapes{op, d.inputs(), conv};
  kConv2d.shapes(shapes);
  return shapes.out[0].shape;
}
bool is_weight(const Shape& s, int64_t groups) {
  return (s.ndim() == 2 || s.ndim() == 4) && groups >= 1 && s[0] >= 1 && s[0] % groups == 0 &&
         (s.ndim() == 4 || groups == 1);
}

}  // namespace

void panel_linear_shapes(ShapeContext& c, const char* name, DType dtype, int bias) {
  const auto& a = c.attrs.as<PanelLinearAttrs>();
  check_inputs(c, bias, bias + 1);
  check_outs(c, a.outs);
  check_activation(c, a.activation);
  Shape y = c.shape(0);
  HONE_CHECK(y.ndim() >= 1 && y.back() < kMostInputs, ShapeError, c.op, ": x ", y,
             " must have at least one dim and fewer than 2^25 features");
  check_stored(c, name, dtype, 1, a.outs, y.back());
  if (c.has(bias)) {
    check_same_dtype(c, 0, bias);
    HONE_CHECK(c.shape(bias) == Shape{a.outs}, ShapeError, c.op, ": bias ", c.shape(bias), " must have shape [", a.outs,
               "]");
  }
  y[y.ndim() - 1] = a.outs;
  c.add(y, f32);
}
void panel_linear_run(RunContext& c, const Panels& weight, int bias) {
  const auto& a = c.attrs.as<PanelLinearAttrs>();
  panel_linear(c.out[0].numel() / a.outs, c.in[0].size(-1), a.outs, contiguous_input<float>(c.in[0], c.workspace),
               weight, bias_of(c, bias), a.activation, c.out[0].as<float>(), c.workspace);
}
int64_t panel_linear_macs(std::span<const View> in, std::span<const View> out, const Attrs&) {
  return out[0].numel() * in[0].size(-1);
}

void panel_conv2d_shapes(ShapeContext& c, const char* name, DType dtype, int bias) {
  const auto& a = c.attrs.as<PanelConvAttrs>();
  check_inputs(c, bias, bias + 1);
  check_outs(c, a.outs);
  check_ndim(c, 0, 4, "x");
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  const Dense d = dense_of(c.in, a, bias);
  const ConvGeometry s = geometry(d, fused_conv_shapes(c, a.fused, d.inputs()));
  check_stored(c, name, dtype, s.groups, s.o, s.taps());
  HONE_CHECK(panel_conv_fits(s, a.fused.pool), ShapeError, c.op, ": x ", c.shape(0),
             " is too wide for places of 32 bits");
}
void panel_conv2d_run(RunContext& c, const Panels& weight, int bias) {
  const auto& a = c.attrs.as<PanelConvAttrs>();
  const ConvGeometry& s = *c.workspace.once<ConvGeometry>(1, [&](ConvGeometry* to) {
    const Dense d = dense_of(c.in, a, bias);
    *to = geometry(d, conv_output(c.op, d));
  });
  panel_conv(s, contiguous_input<float>(c.in[0], c.workspace), weight, bias_of(c, bias), a.fused.activation,
             a.fused.pool, c.out[0].as<float>(), c.workspace);
}
int64_t panel_conv2d_macs(std::span<const View> in, std::span<const View>, const Attrs& attrs) {
  const Dense d = dense_of(in.first(2), attrs.as<PanelConvAttrs>(), 2);
  const View y = dense_view(f32, conv_output("panel_conv2d", d));
  return kConv2d.macs(d.inputs(), {&y, 1}, Attrs(d.conv));
}

PanelSizes::PanelSizes(const Shape& s, int64_t in_groups)
    : groups(in_groups),
      outs(s[0] / in_groups),
      channels(s[1]),
      kh(s.ndim() == 4 ? s[2] : 1),
      kw(s.ndim() == 4 ? s[3] : 1) {}
void check_panel_weight(const char* what, const Shape& weight, int64_t groups) {
  HONE_CHECK(is_weight(weight, groups), ShapeError, what, ": weight ", weight, " in ", groups,
             " groups: it must be [out, in], or [O, C/groups, KH, KW] with groups that divide O");
}
void check_panels(const char* what, const char* name, const Tensor& panels, DType dtype, const Shape& weight,
                  int64_t groups) {
  HONE_CHECK(is_weight(weight, groups), FormatError, what, ": shape ", weight, " in ", groups, " groups is no weight");
  for (const int64_t n : weight)
    HONE_CHECK(n >= 0 && n < (int64_t{1} << 31), FormatError, what, ": shape ", weight, " has a size out of range");
  const int64_t expected = PanelSizes(weight, groups).elements();
  HONE_CHECK(panels.defined() && panels.dtype() == dtype && panels.shape() == Shape{expected}, FormatError, what, ": ",
             name, " of a weight ", weight, " must be ", dtype, " of shape [", expected, "]");
}

void check_linear_weight(const char* op, const Shape& weight) {
  HONE_CHECK(weight.ndim() == 2, ShapeError, op, ": the packed weight has shape ", weight, ", not [out, in]");
}
PanelConvAttrs panel_conv_attrs(const char* op, const Shape& weight, int64_t groups,
                                const FusedConv2dOptions& options) {
  HONE_CHECK(weight.ndim() == 4, ShapeError, op, ": the packed weight has shape ", weight,
             ", not [O, C/groups, KH, KW]");
  HONE_CHECK(options.conv.groups == groups, ValueError, op, ": groups ", options.conv.groups,
             " of a weight that was packed in ", groups);
  PanelConvAttrs a{weight[0], fused_conv_attrs(op, options)};
  a.fused.conv.size_h = weight[2], a.fused.conv.size_w = weight[3];
  return a;
}

}  // namespace hone::detail
