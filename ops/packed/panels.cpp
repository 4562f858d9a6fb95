#include "hone/ops/packed/panels.h"

#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/packed/panel_ops.h"

namespace hone {
namespace {

enum { kX, kPanels, kBias };  // inputs of both ops

void linear_shapes(ShapeContext& c) { detail::panel_linear_shapes(c, "panels", f32, kBias); }
void conv2d_shapes(ShapeContext& c) { detail::panel_conv2d_shapes(c, "panels", f32, kBias); }

detail::Panels panels_of(RunContext& c) {
  return {.values = detail::contiguous_input<float>(c.in[kPanels], c.workspace)};
}
void linear_run(RunContext& c) {
  if (c.out[0].numel() > 0) detail::panel_linear_run(c, panels_of(c), kBias);
}
void conv2d_run(RunContext& c) {
  if (c.out[0].numel() > 0) detail::panel_conv2d_run(c, panels_of(c), kBias);
}

}  // namespace

const OpDef kPanelLinear = {.name = "panel_linear",
                            .attributes = attributes<PanelLinearAttrs>(),
                            .shapes = linear_shapes,
                            .run = linear_run,
                            .not_differentiable = detail::kPanelsAreForInference,
                            .macs = detail::panel_linear_macs};
const OpDef kPanelConv2d = {.name = "panel_conv2d",
                            .attributes = attributes<PanelConvAttrs>(),
                            .shapes = conv2d_shapes,
                            .run = conv2d_run,
                            .not_differentiable = detail::kPanelsAreForInference,
                            .macs = detail::panel_conv2d_macs};

PanelMatrix PanelMatrix::pack(const Tensor& weight, int64_t groups) {
  constexpr const char* what = "PanelMatrix::pack";
  HONE_CHECK(weight.defined(), ValueError, what, ": the weight is an undefined tensor");
  HONE_CHECK(weight.dtype() == f32, DTypeError, what, ": the weight must be f32, not ", weight.dtype());
  detail::check_panel_weight(what, weight.shape(), groups);
  return {detail::to_panels<float>(weight, groups), weight.shape(), groups};
}
Tensor PanelMatrix::dense() const {
  check();
  return detail::from_panels<float>(values, shape, groups);
}
void PanelMatrix::check() const { detail::check_panels("PanelMatrix", "values", values, f32, shape, groups); }

Tensor panel_linear(const Tensor& x, const PanelMatrix& w, const Tensor& bias, ActivationAttrs activation) {
  detail::check_linear_weight("panel_linear", w.shape);
  return apply(kPanelLinear, PanelLinearAttrs{w.shape[0], activation}, {x, w.values, bias});
}
Tensor panel_conv2d(const Tensor& x, const PanelMatrix& w, const Tensor& bias, const FusedConv2dOptions& options) {
  return apply(kPanelConv2d, detail::panel_conv_attrs("panel_conv2d", w.shape, w.groups, options), {x, w.values, bias});
}

}  // namespace hone
