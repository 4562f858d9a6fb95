#include "hone/ops/conv.h"

#include "hone/core/autograd.h"
#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/conv_gemm.h"
#include "hone/ops/conv_shapes.h"
#include "hone/ops/simd/conv_direct.h"

namespace hone {
namespace {

constexpr int64_t kLargest = int64_t{1} << 60;  // of sizes: beyond any tensor, and twice it is no overflow

// Of numbers of at least 0; kLargest where it would pass that.
int64_t product(int64_t a, int64_t b) { return b == 0 || a <= kLargest / b ? a * b : kLargest; }

int64_t at(const char* op, const char* what, const Shape& s, int i) {
  HONE_CHECK(s.ndim() == 1 || s.ndim() == 2, ShapeError, op, ": ", what, " ", s, " must have one or two values");
  return s[s.ndim() == 1 ? 0 : i];
}

}  // namespace

namespace detail {

void check_conv_attrs(const ShapeContext& c, const ConvAttrs& a) {
  HONE_CHECK(a.stride_h >= 1 && a.stride_w >= 1, ValueError, c.op, ": stride [", a.stride_h, ", ", a.stride_w,
             "] must be at least 1");
  HONE_CHECK(a.dilation_h >= 1 && a.dilation_w >= 1, ValueError, c.op, ": dilation [", a.dilation_h, ", ", a.dilation_w,
             "] must be at least 1");
  HONE_CHECK(a.pad_h >= 0 && a.pad_w >= 0, ValueError, c.op, ": padding [", a.pad_h, ", ", a.pad_w,
             "] must not be negative");
  HONE_CHECK(a.groups >= 1, ValueError, c.op, ": groups ", a.groups, " must be at least 1");
  constexpr int64_t kLimit = int64_t{1} << 31;  // sizes computed from these stay within int64_t
  HONE_CHECK(a.stride_h < kLimit && a.stride_w < kLimit && a.dilation_h < kLimit && a.dilation_w < kLimit &&
                 a.pad_h < kLimit && a.pad_w < kLimit,
             ValueError, c.op, ": stride, padding and dilation must be below 2^31");
}

std::array<int64_t, 2> check_conv(const ShapeContext& c, const ConvAttrs& a, const Shape& x, const Shape& weight) {
  HONE_CHECK(weight[1] >= 1 && weight[2] >= 1 && weight[3] >= 1, ShapeError, c.op, ": weight ", weight,
             " has an empty kernel");
  HONE_CHECK(weight[0] % a.groups == 0, ShapeError, c.op, ": groups ", a.groups, " do not divide the ", weight[0],
             " output channels of weight ", weight);
  const int64_t channels = product(weight[1], a.groups);
  HONE_CHECK(x[1] == channels, ShapeError, c.op, ": weight ", weight, " expects ", channels, " input channels",
             a.groups > 1 ? str(" in ", a.groups, " groups") : std::string(), ", x is ", x);
  const int64_t extent_h = product(a.dilation_h, weight[2] - 1) + 1,
                extent_w = product(a.dilation_w, weight[3] - 1) + 1;
  const int64_t height = x[2] + 2 * a.pad_h, width = x[3] + 2 * a.pad_w;
  HONE_CHECK(extent_h <= height && extent_w <= width, ShapeError, c.op, ": kernel of ", extent_h, "x", extent_w,
             " (with dilation) is larger than the padded input of ", height, "x", width);
  return {(height - extent_h) / a.stride_h + 1, (width - extent_w) / a.stride_w + 1};
}

ConvAttrs conv_attrs(const char* op, const Conv2dOptions& o) {
  ConvAttrs a;
  a.stride_h = at(op, "stride", o.stride, 0), a.stride_w = at(op, "stride", o.stride, 1);
  a.pad_h = at(op, "padding", o.padding, 0), a.pad_w = at(op, "padding", o.padding, 1);
  a.dilation_h = at(op, "dilation", o.dilation, 0), a.dilation_w = at(op, "dilation", o.dilation, 1);
  a.groups = o.groups;
  return a;
}

ConvGeometry conv_geometry(const ConvAttrs& a, const View& x, int64_t kh, int64_t kw, const View& y) {
  ConvGeometry s;
  s.n = x.sizes[0], s.groups = a.groups;
  s.c = x.sizes[1] / a.groups, s.h = x.sizes[2], s.w = x.sizes[3];
  s.o = y.sizes[1] / a.groups, s.kh = kh, s.kw = kw;
  s.oh = y.sizes[2], s.ow = y.sizes[3];
  s.stride_h = a.stride_h, s.stride_w = a.stride_w, s.pad_h = a.pad_h, s.pad_w = a.pad_w;
  s.dilation_h = a.dilation_h, s.dilation_w = a.dilation_w;
  return s;
}

}  // namespace detail

namespace {

void check_size(const ShapeContext& c) {
  const auto& a = c.attrs.as<ConvAttrs>();
  HONE_CHECK(a.size_h >= 0 && a.size_w >= 0, ShapeError, c.op, ": size [", a.size_h, ", ", a.size_w, "] is negative");
  HONE_CHECK(a.size_h < kLargest && a.size_w < kLargest, ShapeError, c.op, ": size [", a.size_h, ", ", a.size_w,
             "] is beyond any tensor");
}
void check_gradient(const ShapeContext& c, int i, const Shape& expected) {
  HONE_CHECK(c.shape(i) == expected, ShapeError, c.op, ": gradient ", c.shape(i), " must have conv2d's output shape ",
             expected);
}

void conv_shapes(ShapeContext& c) {
  check_inputs(c, 2, 3);
  check_floating(c, 0, "x");
  check_same_dtype(c, 0, 1);
  check_ndim(c, 0, 4, "x");
  check_ndim(c, 1, 4, "weight");
  detail::check_conv_attrs(c, c.attrs.as<ConvAttrs>());
  const Shape x = c.shape(0), weight = c.shape(1);
  const auto [oh, ow] = detail::check_conv(c, c.attrs.as<ConvAttrs>(), x, weight);
  if (c.has(2)) {
    check_same_dtype(c, 0, 2);
    HONE_CHECK(c.shape(2) == Shape{weight[0]}, ShapeError, c.op, ": bias ", c.shape(2), " must have shape ",
               Shape{weight[0]});
  }
  c.add({x[0], weight[0], oh, ow}, c.dtype(0));
}
void input_grad_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "gradient");
  check_same_dtype(c, 0, 1);
  check_ndim(c, 0, 4, "gradient");
  check_ndim(c, 1, 4, "weight");
  detail::check_conv_attrs(c, c.attrs.as<ConvAttrs>());
  const auto& a = c.attrs.as<ConvAttrs>();
  check_size(c);
  const Shape g = c.shape(0), weight = c.shape(1), x = {g[0], product(weight[1], a.groups), a.size_h, a.size_w};
  const auto [oh, ow] = detail::check_conv(c, c.attrs.as<ConvAttrs>(), x, weight);
  check_gradient(c, 0, {g[0], weight[0], oh, ow});
  c.add(x, c.dtype(0));
}
void weight_grad_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "x");
  check_same_dtype(c, 0, 1);
  check_ndim(c, 0, 4, "x");
  check_ndim(c, 1, 4, "gradient");
  detail::check_conv_attrs(c, c.attrs.as<ConvAttrs>());
  const auto& a = c.attrs.as<ConvAttrs>();
  const Shape x = c.shape(0), g = c.shape(1);
  HONE_CHECK(x[1] % a.groups == 0, ShapeError, c.op, ": groups ", a.groups, " do not divide the ", x[1],
             " channels of x ", x);
  check_size(c);
  const Shape weight = {g[1], x[1] / a.groups, a.size_h, a.size_w};
  const auto [oh, ow] = detail::check_conv(c, c.attrs.as<ConvAttrs>(), x, weight);
  check_gradient(c, 1, {x[0], g[1], oh, ow});
  c.add(weight, c.dtype(0));
  if (a.bias) c.add({g[1]}, c.dtype(0));
}

ConvGeometry geometry(const RunContext& c, const View& x, const View& weight, const View& y) {
  return detail::conv_geometry(c.attrs.as<ConvAttrs>(), x, weight.sizes[2], weight.sizes[3], y);
}
bool empty(const ConvGeometry& s) { return s.n == 0 || s.o == 0; }

// The direct kernels where they suit, else products over im2col.
template <class T> void correlate(const ConvGeometry& s, const T* x, const T* weight, const T* bias, T* y) {
  if constexpr (std::is_same_v<T, float>) {
    if (simd::conv_direct_suits(s)) return simd::conv_direct(s, x, weight, bias, y);
  }
  detail::conv_gemm(s, x, weight, bias, y);
}
template <class T> void correlate_input_grad(const ConvGeometry& s, const T* g, const T* weight, T* dx) {
  if constexpr (std::is_same_v<T, float>) {
    if (simd::conv_direct_suits(s)) return simd::conv_direct_input_grad(s, g, weight, dx);
  }
  detail::conv_gemm_input_grad(s, g, weight, dx);
}
template <class T>
void correlate_weight_grad(const ConvGeometry& s, const T* x, const T* g, T* dw, T* db, Workspace& workspace) {
  if constexpr (std::is_same_v<T, float>) {
    if (simd::conv_direct_suits(s)) return simd::conv_direct_weight_grad(s, x, g, dw, db);
  }
  detail::conv_gemm_weight_grad(s, x, g, dw, db, workspace);
}

void conv_run(RunContext& c) {
  detail::with_compute_type(c.out[0].dtype, [&]<class T>() {
    const ConvGeometry s = geometry(c, c.in[0], c.in[1], c.out[0]);
    if (empty(s)) return;
    const T* x = detail::contiguous_input<T>(c.in[0], c.workspace);
    const T* weight = detail::contiguous_input<T>(c.in[1], c.workspace);
    const T* bias = c.has(2) ? detail::contiguous_input<T>(c.in[2], c.workspace) : nullptr;
    T* y = detail::begin_output<T>(c.out[0], c.workspace);
    correlate(s, x, weight, bias, y);
    detail::finish_output(y, c.out[0]);
  });
}
void input_grad_run(RunContext& c) {
  detail::with_compute_type(c.out[0].dtype, [&]<class T>() {
    const ConvGeometry s = geometry(c, c.out[0], c.in[1], c.in[0]);
    T* dx = detail::begin_output<T>(c.out[0], c.workspace);
    const T* g = detail::contiguous_input<T>(c.in[0], c.workspace);
    const T* weight = detail::contiguous_input<T>(c.in[1], c.workspace);
    if (empty(s)) {
      std::fill_n(dx, c.out[0].numel(), T(0));
    } else {
      correlate_input_grad(s, g, weight, dx);
    }
    detail::finish_output(dx, c.out[0]);
  });
}
void weight_grad_run(RunContext& c) {
  detail::with_compute_type(c.out[0].dtype, [&]<class T>() {
    const ConvGeometry s = geometry(c, c.in[0], c.out[0], c.in[1]);
    const bool bias = c.out.size() > 1;
    T* dw = detail::begin_output<T>(c.out[0], c.workspace);
    T* db = bias ? detail::begin_output<T>(c.out[1], c.workspace) : nullptr;
    const T* x = detail::contiguous_input<T>(c.in[0], c.workspace);
    const T* g = detail::contiguous_input<T>(c.in[1], c.workspace);
    if (empty(s)) {
      std::fill_n(dw, c.out[0].numel(), T(0));
      if (bias) std::fill_n(db, c.out[1].numel(), T(0));
    } else {
      correlate_weight_grad(s, x, g, dw, db, c.workspace);
    }
    detail::finish_output(dw, c.out[0]);
    if (bias) detail::finish_output(db, c.out[1]);
  });
}

Tensor input_grad(const Tensor& g, const Tensor& weight, int64_t h, int64_t w, ConvAttrs a) {
  a.size_h = h, a.size_w = w, a.bias = false;
  return apply(kConv2dInputGrad, a, {g, weight});
}
Outputs weight_grad(const Tensor& x, const Tensor& g, int64_t kh, int64_t kw, ConvAttrs a, bool bias) {
  a.size_h = kh, a.size_w = kw, a.bias = bias;
  return apply(kConv2dWeightGrad, a, {x, g});
}
Tensor forward(const Tensor& x, const Tensor& weight, const Tensor& bias, ConvAttrs a) {
  a.size_h = a.size_w = 0, a.bias = false;
  return apply(kConv2d, a, {x, weight, bias});
}

void conv_backward(BackwardContext& c) {
  const auto& a = c.attrs<ConvAttrs>();
  const Shape& x = c.input_shape(0);
  const Shape& weight = c.input_shape(1);
  const Tensor g = c.grad();
  if (c.needs(0)) c.set(0, input_grad(g, c.input(1), x[2], x[3], a));
  const bool bias = c.inputs() > 2 && c.needs(2);
  if (c.needs(1) || bias) {
    Outputs d = weight_grad(c.input(0), g, weight[2], weight[3], a, bias);
    if (c.needs(1)) c.set(1, d[0]);
    if (bias) c.set(2, d[1]);
  }
}
void input_grad_backward(BackwardContext& c) {
  const auto& a = c.attrs<ConvAttrs>();
  const Shape& weight = c.input_shape(1);
  const Tensor gx = c.grad();
  if (c.needs(0)) c.set(0, forward(gx, c.input(1), {}, a));
  if (c.needs(1)) c.set(1, weight_grad(gx, c.input(0), weight[2], weight[3], a, false)[0]);
}
void weight_grad_backward(BackwardContext& c) {
  const auto& a = c.attrs<ConvAttrs>();
  const Shape& x = c.input_shape(0);
  const Tensor gw = c.grad(0);
  if (c.needs(0)) c.set(0, input_grad(c.input(1), gw, x[2], x[3], a));
  if (c.needs(1)) c.set(1, forward(c.input(0), gw, a.bias && c.has_grad(1) ? c.grad(1) : Tensor(), a));
}

int64_t macs(const View& y, const View& weight) {
  return y.numel() * weight.sizes[1] * weight.sizes[2] * weight.sizes[3];
}
int64_t conv_macs(std::span<const View> in, std::span<const View> out, const Attrs&) { return macs(out[0], in[1]); }
int64_t input_grad_macs(std::span<const View> in, std::span<const View>, const Attrs&) { return macs(in[0], in[1]); }
int64_t weight_grad_macs(std::span<const View> in, std::span<const View> out, const Attrs&) {
  return macs(in[1], out[0]);
}

}  // namespace

const OpDef kConv2d = {.name = "conv2d",
                       .attributes = attributes<ConvAttrs>(),
                       .shapes = conv_shapes,
                       .run = conv_run,
                       .saves = {.inputs = 0b11},
                       .backward = conv_backward,
                       .macs = conv_macs};
const OpDef kConv2dInputGrad = {.name = "conv2d_input_grad",
                                .attributes = attributes<ConvAttrs>(),
                                .shapes = input_grad_shapes,
                                .run = input_grad_run,
                                .saves = {.inputs = 0b11},
                                .backward = input_grad_backward,
                                .macs = input_grad_macs};
const OpDef kConv2dWeightGrad = {.name = "conv2d_weight_grad",
                                 .attributes = attributes<ConvAttrs>(),
                                 .shapes = weight_grad_shapes,
                                 .run = weight_grad_run,
                                 .saves = {.inputs = 0b11},
                                 .backward = weight_grad_backward,
                                 .macs = weight_grad_macs};

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  return apply(kConv2d, detail::conv_attrs("conv2d", options), {x, weight, bias});
}
Tensor conv2d_input_grad(const Tensor& g, const Tensor& weight, const Shape& size, const Conv2dOptions& options) {
  constexpr const char* op = "conv2d_input_grad";
  return input_grad(g, weight, at(op, "size", size, 0), at(op, "size", size, 1), detail::conv_attrs(op, options));
}
Outputs conv2d_weight_grad(const Tensor& x, const Tensor& g, const Shape& kernel, const Conv2dOptions& options,
                           bool bias) {
  constexpr const char* op = "conv2d_weight_grad";
  return weight_grad(x, g, at(op, "kernel", kernel, 0), at(op, "kernel", kernel, 1), detail::conv_attrs(op, options),
                     bias);
}

}  // namespace hone
