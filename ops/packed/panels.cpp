#include "hone/ops/packed/panels.h"

#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/conv_shapes.h"
#include "hone/ops/packed/panel_run.h"

namespace hone {
namespace {

constexpr const char* kInferenceOnly = "packed weights are for inference; train the dense weight";
constexpr int64_t kMostInputs = int64_t{1} << 25;

void check_panels(const ShapeContext& c, int64_t groups, int64_t outs, int64_t depth) {
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  HONE_CHECK(c.dtype(1) == f32, DTypeError, c.op, ": panels must be f32, not ", c.dtype(1));
  check_ndim(c, 1, 1, "panels");
  const int64_t expected = detail::panel_elements(groups, outs, depth);
  HONE_CHECK(c.shape(1)[0] == expected, ShapeError, c.op, ": panels ", c.shape(1), " of ", groups * outs,
             " outputs by ", depth, " taps must have shape [", expected, "]");
}
void check_outs(const ShapeContext& c, int64_t outs) {
  HONE_CHECK(outs >= 1 && outs < (int64_t{1} << 31), ValueError, c.op, ": outs ", outs,
             " must be at least 1 and below 2^31");
}

void linear_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<PanelLinearAttrs>();
  check_inputs(c, 2, 3);
  check_outs(c, a.outs);
  detail::check_activation(c, a.activation);
  Shape y = c.shape(0);
  HONE_CHECK(y.ndim() >= 1 && y.back() < kMostInputs, ShapeError, c.op, ": x ", y,
             " must have at least one dim and fewer than 2^25 features");
  check_panels(c, 1, a.outs, y.back());
  if (c.has(2)) {
    check_same_dtype(c, 0, 2);
    HONE_CHECK(c.shape(2) == Shape{a.outs}, ShapeError, c.op, ": bias ", c.shape(2), " must have shape [", a.outs, "]");
  }
  y[y.ndim() - 1] = a.outs;
  c.add(y, f32);
}
void linear_run(RunContext& c) {
  const auto& a = c.attrs.as<PanelLinearAttrs>();
  const int64_t rows = c.out[0].numel() / a.outs;
  if (rows == 0) return;
  detail::panel_linear(rows, c.in[0].size(-1), a.outs, detail::contiguous_input<float>(c.in[0], c.workspace),
                       detail::contiguous_input<float>(c.in[1], c.workspace),
                       c.has(2) ? detail::contiguous_input<float>(c.in[2], c.workspace) : nullptr, a.activation,
                       c.out[0].as<float>(), c.workspace);
}
int64_t linear_macs(std::span<const View> in, std::span<const View> out, const Attrs&) {
  return out[0].numel() * in[0].size(-1);
}

/// conv2d's inputs with the weight as it was before packing, and conv2d's attributes.
struct Dense {
  View in[3];
  ConvAttrs conv;
  std::span<const View> inputs() const { return {in, in[2].defined() ? size_t{3} : size_t{2}}; }
};
Dense dense_of(std::span<const View> in, const PanelConvAttrs& a) {
  Dense d{{in[0], {}, in.size() > 2 ? in[2] : View()}, a.fused.conv};
  const int64_t groups = std::max<int64_t>(a.fused.conv.groups, 1);
  d.in[1] = detail::dense_view(f32, {a.outs, in[0].sizes[1] / groups, a.fused.conv.size_h, a.fused.conv.size_w});
  return d;
}
ConvGeometry geometry(const Dense& d, const Shape& y) {
  return detail::conv_geometry(d.conv, d.in[0], d.in[1].sizes[2], d.in[1].sizes[3], detail::dense_view(f32, y));
}

void conv_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<PanelConvAttrs>();
  check_inputs(c, 2, 3);
  check_outs(c, a.outs);
  check_ndim(c, 0, 4, "x");
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  const Dense d = dense_of(c.in, a);
  const ConvGeometry s = geometry(d, detail::fused_conv_shapes(c, a.fused, d.inputs()));
  check_panels(c, s.groups, s.o, s.taps());
  HONE_CHECK(detail::panel_conv_fits(s, a.fused.pool), ShapeError, c.op, ": x ", c.shape(0),
             " is too wide for places of 32 bits");
}
Shape conv_output(const Dense& d) {
  const Attrs conv(d.conv);
  ShapeContext shapes{"panel_conv2d", d.inputs(), conv};
  kConv2d.shapes(shapes);
  return shapes.out[0].shape;
}
void conv_run(RunContext& c) {
  const auto& a = c.attrs.as<PanelConvAttrs>();
  if (c.out[0].numel() == 0) return;
  const Dense d = dense_of(c.in, a);
  detail::panel_conv(geometry(d, conv_output(d)), detail::contiguous_input<float>(c.in[0], c.workspace),
                     detail::contiguous_input<float>(c.in[1], c.workspace),
                     c.has(2) ? detail::contiguous_input<float>(c.in[2], c.workspace) : nullptr, a.fused.activation,
                     a.fused.pool, c.out[0].as<float>(), c.workspace);
}
int64_t conv_macs(std::span<const View> in, std::span<const View>, const Attrs& attrs) {
  const Dense d = dense_of(in, attrs.as<PanelConvAttrs>());
  const View y = detail::dense_view(f32, conv_output(d));
  return kConv2d.macs(d.inputs(), {&y, 1}, Attrs(d.conv));
}

struct Sizes {
  int64_t outs, channels, kh, kw, depth;
};
Sizes sizes_of(const Shape& s, int64_t groups) {
  const bool conv = s.ndim() == 4;
  const int64_t kh = conv ? s[2] : 1, kw = conv ? s[3] : 1;
  return {s[0] / groups, s[1], kh, kw, s[1] * kh * kw};
}
bool is_weight(const Shape& s, int64_t groups) {
  return (s.ndim() == 2 || s.ndim() == 4) && groups >= 1 && s[0] >= 1 && s[0] % groups == 0 &&
         (s.ndim() == 4 || groups == 1);
}

}  // namespace

const OpDef kPanelLinear = {.name = "panel_linear",
                            .attributes = attributes<PanelLinearAttrs>(),
                            .shapes = linear_shapes,
                            .run = linear_run,
                            .not_differentiable = kInferenceOnly,
                            .macs = linear_macs};
const OpDef kPanelConv2d = {.name = "panel_conv2d",
                            .attributes = attributes<PanelConvAttrs>(),
                            .shapes = conv_shapes,
                            .run = conv_run,
                            .not_differentiable = kInferenceOnly,
                            .macs = conv_macs};

PanelMatrix PanelMatrix::pack(const Tensor& weight, int64_t groups) {
  constexpr const char* what = "PanelMatrix::pack";
  HONE_CHECK(weight.defined(), ValueError, what, ": the weight is an undefined tensor");
  HONE_CHECK(weight.dtype() == f32, DTypeError, what, ": the weight must be f32, not ", weight.dtype());
  HONE_CHECK(is_weight(weight.shape(), groups), ShapeError, what, ": weight ", weight.shape(), " in ", groups,
             " groups: it must be [out, in], or [O, C/groups, KH, KW] with groups that divide O");
  const Sizes s = sizes_of(weight.shape(), groups);
  const Tensor dense = contiguous(weight.detach());
  const Tensor values = empty({detail::panel_elements(groups, s.outs, s.depth)});
  detail::pack_panels(dense.data<float>(), groups, s.outs, s.channels, s.kh, s.kw, values.data<float>());
  return {values, weight.shape(), groups};
}

Tensor PanelMatrix::dense() const {
  check();
  const Sizes s = sizes_of(shape, groups);
  const Tensor panels = contiguous(values), dense = empty(shape);
  detail::unpack_panels(panels.data<float>(), groups, s.outs, s.channels, s.kh, s.kw, dense.data<float>());
  return dense;
}

void PanelMatrix::check() const {
  HONE_CHECK(is_weight(shape, groups), FormatError, "PanelMatrix: shape ", shape, " in ", groups,
             " groups is no weight");
  for (const int64_t n : shape)
    HONE_CHECK(n >= 0 && n < (int64_t{1} << 31), FormatError, "PanelMatrix: shape ", shape, " has a size out of range");
  const Sizes s = sizes_of(shape, groups);
  const bool fits = values.defined() && values.dtype() == f32 && values.ndim() == 1 &&
                    values.numel() == detail::panel_elements(groups, s.outs, s.depth);
  HONE_CHECK(fits, FormatError, "PanelMatrix: values of a weight ", shape, " must be f32 of shape [",
             detail::panel_elements(groups, s.outs, s.depth), "]");
}

Tensor panel_linear(const Tensor& x, const PanelMatrix& w, const Tensor& bias, ActivationAttrs activation) {
  HONE_CHECK(w.shape.ndim() == 2, ShapeError, "panel_linear: the packed weight has shape ", w.shape, ", not [out, in]");
  return apply(kPanelLinear, PanelLinearAttrs{w.shape[0], activation}, {x, w.values, bias});
}
Tensor panel_conv2d(const Tensor& x, const PanelMatrix& w, const Tensor& bias, const FusedConv2dOptions& options) {
  HONE_CHECK(w.shape.ndim() == 4, ShapeError, "panel_conv2d: the packed weight has shape ", w.shape,
             ", not [O, C/groups, KH, KW]");
  HONE_CHECK(options.conv.groups == w.groups, ValueError, "panel_conv2d: groups ", options.conv.groups,
             " of a weight that was packed in ", w.groups);
  PanelConvAttrs a{w.shape[0], detail::fused_conv_attrs("panel_conv2d", options)};
  a.fused.conv.size_h = w.shape[2], a.fused.conv.size_w = w.shape[3];
  return apply(kPanelConv2d, a, {x, w.values, bias});
}

}  // namespace hone
