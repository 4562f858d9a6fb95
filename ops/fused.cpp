#include "hone/ops/fused.h"

#include "hone/core/autograd.h"
#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/conv_shapes.h"
#include "hone/ops/matmul.h"
#include "hone/ops/packed/panel_run.h"
#include "hone/ops/simd/pointwise.h"
#include "hone/ops/unary.h"

namespace hone {
namespace {

struct Known {
  const OpDef* op;
  detail::Unary function;
};
// In the order of Activation, from relu on.
constexpr Known kKnown[] = {{&kRelu, detail::Unary::relu},          {&kLeakyRelu, detail::Unary::leaky_relu},
                            {&kClamp, detail::Unary::clamp},        {&kTanh, detail::Unary::tanh},
                            {&kSigmoid, detail::Unary::sigmoid},    {&kGelu, detail::Unary::gelu},
                            {&kGeluTanh, detail::Unary::gelu_tanh}, {&kSilu, detail::Unary::silu}};

/// nullptr for none. Checked attributes alone.
const Known* known(const ActivationAttrs& a) { return a.kind == 0 ? nullptr : &kKnown[a.kind - 1]; }

Attrs attrs_of(const ActivationAttrs& a) {
  if (a.activation() == Activation::leaky_relu) return LeakyReluAttrs{a.a};
  if (a.activation() == Activation::clamp) return ClampAttrs{a.a, a.b};
  return {};
}

View contiguous_like(const View& like, const Shape& shape) {
  View v = detail::dense_view(like.dtype, shape);
  v.device = like.device;
  return v;
}
View scratch(const View& like, const Shape& shape, Workspace& workspace) {
  View v = contiguous_like(like, shape);
  v.data = workspace.get<std::byte>(shape.numel() * size_of(like.dtype));
  return v;
}

void run_op(RunContext& c, const OpDef& op, const Attrs& attrs, std::span<const View> in, std::span<const View> out) {
  RunContext inner{c.op, in, out, attrs, c.workspace};
  op.run(inner);
}

Tensor activate(const Tensor& x, const ActivationAttrs& a) {
  const Known* k = known(a);
  return k ? Tensor(apply(*k->op, attrs_of(a), {x})) : x;
}
Tensor optional(std::span<const Tensor> in, size_t i) { return i < in.size() ? in[i] : Tensor(); }

// ---- convolution

void conv_shapes(ShapeContext& c) { detail::fused_conv_shapes(c, c.attrs.as<FusedConvAttrs>(), c.in); }

// One op after the other, through scratch memory.
void staged(RunContext& c, const FusedConvAttrs& a, const Shape& conv_shape) {
  const View& out = c.out[0];
  const Known* function = known(a.activation);
  View y = function || a.pool.present() ? scratch(out, conv_shape, c.workspace) : out;
  run_op(c, kConv2d, a.conv, c.in, {&y, 1});
  if (function) {
    const View shown = a.pool.present() ? scratch(out, conv_shape, c.workspace) : out;
    run_op(c, *function->op, attrs_of(a.activation), {&y, 1}, {&shown, 1});
    y = shown;
  }
  if (!a.pool.present()) return;
  View index = out;
  index.dtype = DType::i32;
  index.data = c.workspace.get<int32_t>(out.numel());
  const View pooled[] = {out, index};
  run_op(c, kMaxPool2d, detail::pool_attrs(a.pool), {&y, 1}, pooled);
}

void conv_run(RunContext& c) {
  const auto& a = c.attrs.as<FusedConvAttrs>();
  const View &x = c.in[0], &weight = c.in[1], &out = c.out[0];
  if (out.numel() == 0) return;
  const Attrs conv(a.conv);
  ShapeContext shapes{c.op, c.in, conv};
  kConv2d.shapes(shapes);
  const Shape& y = shapes.out[0].shape;
  const ConvGeometry s = detail::conv_geometry(a.conv, x, weight.sizes[2], weight.sizes[3], contiguous_like(out, y));
  if (out.dtype != f32 || !detail::panel_conv_suits(s) || !detail::panel_conv_fits(s, a.pool)) return staged(c, a, y);
  float* const panels = c.workspace.get<float>(detail::panel_elements(s.groups, s.o, s.taps()));
  detail::pack_panels(detail::contiguous_input<float>(weight, c.workspace), s.groups, s.o, s.c, s.kh, s.kw, panels);
  detail::panel_conv(s, detail::contiguous_input<float>(x, c.workspace), {.values = panels},
                     c.has(2) ? detail::contiguous_input<float>(c.in[2], c.workspace) : nullptr, a.activation, a.pool,
                     out.as<float>(), c.workspace);
}

Outputs conv_composite(std::span<const Tensor> in, const Attrs& attrs) {
  const auto& a = attrs.as<FusedConvAttrs>();
  const Tensor y = activate(apply(kConv2d, a.conv, {in[0], in[1], optional(in, 2)}), a.activation);
  Outputs out;
  out.push_back(a.pool.present() ? Tensor(apply(kMaxPool2d, detail::pool_attrs(a.pool), {y})) : y);
  return out;
}

// Of the convolution's output, which pooling makes smaller.
int64_t conv_macs(std::span<const View> in, std::span<const View> out, const Attrs& attrs) {
  const Attrs conv(attrs.as<FusedConvAttrs>().conv);
  ShapeContext shapes{"conv2d_fused", in, conv};
  kConv2d.shapes(shapes);
  const View y = contiguous_like(out[0], shapes.out[0].shape);
  return kConv2d.macs(in, {&y, 1}, conv);
}

// ---- linear

void linear_shapes(ShapeContext& c) {
  detail::check_activation(c, c.attrs.as<ActivationAttrs>());
  kLinear.shapes(c);
}
void linear_run(RunContext& c) {
  const auto& a = c.attrs.as<ActivationAttrs>();
  const Known* function = known(a);
  if (c.out[0].numel() == 0) return;
  if (!function) return kLinear.run(c);
  const Shape shape(std::span<const int64_t>(c.out[0].sizes, static_cast<size_t>(c.out[0].ndim)));
  const View y = scratch(c.out[0], shape, c.workspace);
  run_op(c, kLinear, {}, c.in, {&y, 1});
  run_op(c, *function->op, attrs_of(a), {&y, 1}, c.out);
}
Outputs linear_composite(std::span<const Tensor> in, const Attrs& attrs) {
  Outputs out;
  out.push_back(activate(linear(in[0], in[1], optional(in, 2)), attrs.as<ActivationAttrs>()));
  return out;
}

int64_t one_of_two(const char* op, const char* what, const Shape& s, int i) {
  HONE_CHECK(s.ndim() == 1 || s.ndim() == 2, ShapeError, op, ": ", what, " ", s, " must have one or two values");
  return s[s.ndim() == 1 ? 0 : i];
}

}  // namespace

const OpDef kConv2dFused = {.name = "conv2d_fused",
                            .attributes = attributes<FusedConvAttrs>(),
                            .shapes = conv_shapes,
                            .run = conv_run,
                            .saves = {.inputs = kAllInputs},
                            .backward = [](BackwardContext& c) { composite_backward(c, conv_composite); },
                            .macs = conv_macs};
const OpDef kLinearFused = {.name = "linear_fused",
                            .attributes = attributes<ActivationAttrs>(),
                            .shapes = linear_shapes,
                            .run = linear_run,
                            .saves = {.inputs = kAllInputs},
                            .backward = [](BackwardContext& c) { composite_backward(c, linear_composite); },
                            .macs = [](std::span<const View> in, std::span<const View> out,
                                       const Attrs& attrs) { return kLinear.macs(in, out, attrs); }};

namespace detail {

std::optional<ActivationAttrs> activation_of(const OpDef& op, const Attrs& attrs) {
  for (int64_t k = 0; k < static_cast<int64_t>(std::size(kKnown)); ++k) {
    if (kKnown[k].op != &op) continue;
    ActivationAttrs a(static_cast<Activation>(k + 1));
    if (a.activation() == Activation::leaky_relu) a.a = attrs.as<LeakyReluAttrs>().slope;
    if (a.activation() == Activation::clamp) a.a = attrs.as<ClampAttrs>().low, a.b = attrs.as<ClampAttrs>().high;
    return a;
  }
  return std::nullopt;
}

ElementwiseKernel activation_kernel(const ActivationAttrs& a, DType compute) {
  const Known* k = known(a);
  return k ? unary_kernel(k->function, 0, compute) : nullptr;
}

void check_activation(const ShapeContext& c, const ActivationAttrs& a) {
  HONE_CHECK(a.kind >= 0 && a.kind <= static_cast<int64_t>(std::size(kKnown)), ValueError, c.op, ": activation ",
             a.kind, " is none of the ", std::size(kKnown) + 1, " known");
  const Known* k = known(a);
  if (!k) return;
  const Attrs attrs = attrs_of(a);
  ShapeContext shapes{c.op, c.in.first(1), attrs};
  k->op->shapes(shapes);
}

PoolAttrs pool_attrs(const FusedPoolAttrs& a) {
  PoolAttrs p;
  p.kernel_h = a.kernel_h, p.kernel_w = a.kernel_w, p.stride_h = a.stride_h, p.stride_w = a.stride_w;
  p.pad_h = a.pad_h, p.pad_w = a.pad_w;
  return p;
}

FusedConvAttrs fused_conv_attrs(const char* op, const FusedConv2dOptions& o) {
  FusedConvAttrs a{conv_attrs(op, o.conv), o.activation, {}};
  if (o.pool.empty()) return a;
  const MaxPool2dOptions& p = o.pool_options;
  const Shape& stride = p.stride.empty() ? o.pool : p.stride;
  HONE_CHECK(one_of_two(op, "dilation", p.dilation, 0) == 1 && one_of_two(op, "dilation", p.dilation, 1) == 1,
             ValueError, op, ": the pool's dilation ", p.dilation, " must be 1");
  a.pool = {one_of_two(op, "pool", o.pool, 0),       one_of_two(op, "pool", o.pool, 1),
            one_of_two(op, "stride", stride, 0),     one_of_two(op, "stride", stride, 1),
            one_of_two(op, "padding", p.padding, 0), one_of_two(op, "padding", p.padding, 1)};
  HONE_CHECK(a.pool.present(), ValueError, op, ": pool ", o.pool, " must be at least 1");
  return a;
}

void add_fused_output(ShapeContext& c, const FusedConvAttrs& a, const Shape& y) {
  check_activation(c, a.activation);
  if (!a.pool.present()) return c.add(y, c.dtype(0));
  const View plane = contiguous_like(c.in[0], y);
  const Attrs pool(pool_attrs(a.pool));
  ShapeContext pooled{c.op, {&plane, 1}, pool};
  kMaxPool2d.shapes(pooled);
  c.add(pooled.out[0].shape, c.dtype(0));
}

Shape fused_conv_shapes(ShapeContext& c, const FusedConvAttrs& a, std::span<const View> in) {
  const Attrs conv(a.conv);
  ShapeContext shapes{c.op, in, conv};
  kConv2d.shapes(shapes);
  add_fused_output(c, a, shapes.out[0].shape);
  return shapes.out[0].shape;
}

}  // namespace detail

Tensor conv2d_fused(const Tensor& x, const Tensor& weight, const Tensor& bias, const FusedConv2dOptions& options) {
  return apply(kConv2dFused, detail::fused_conv_attrs("conv2d_fused", options), {x, weight, bias});
}
Tensor linear_fused(const Tensor& x, const Tensor& weight, const Tensor& bias, ActivationAttrs activation) {
  return apply(kLinearFused, activation, {x, weight, bias});
}

}  // namespace hone
