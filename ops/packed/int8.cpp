#include "hone/ops/packed/int8.h"

#include <algorithm>

#include "hone/core/error.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/conv_shapes.h"
#include "hone/ops/packed/int8_run.h"

namespace hone {
namespace {

constexpr const char* kInferenceOnly = "integer weights are for inference; train the dense weight";

/// Inputs x, panels, start, multiplier, shift.
DType check_product(const ShapeContext& c, int64_t outs, int64_t bits, const Int8Range& y) {
  check_inputs(c, 4, 5);
  HONE_CHECK(outs >= 1 && outs < (int64_t{1} << 31), ValueError, c.op, ": outs ", outs,
             " must be at least 1 and below 2^31");
  HONE_CHECK(bits == 8 || bits == 4, ValueError, c.op, ": weights of ", bits, " bits; there are kernels for 8 and 4");
  detail::check_int8_range(c.op, y);
  const DType result = c.dtype(3);
  HONE_CHECK(c.dtype(0) == u8 && c.dtype(1) == i8 && c.dtype(2) == i32 && (result == i32 || result == f32), DTypeError,
             c.op, ": x, panels, start and multiplier must be u8, i8, i32 and i32 or f32, not ", c.dtype(0), ", ",
             c.dtype(1), ", ", c.dtype(2), " and ", result);
  HONE_CHECK(c.has(4) == (result == i32) && (!c.has(4) || c.dtype(4) == i32), DTypeError, c.op,
             ": a shift of dtype i32 goes with a multiplier of i32, none with one of f32");
  for (const int i : {2, 3, 4}) {
    if (c.has(i))
      HONE_CHECK(c.shape(i) == Shape{outs}, ShapeError, c.op, ": start, multiplier and shift must have shape [", outs,
                 "], got ", c.shape(i));
  }
  return result == i32 ? u8 : f32;
}
void check_panels(const ShapeContext& c, int64_t groups, int64_t outs, int64_t taps, int64_t depth, int64_t bits) {
  HONE_CHECK(taps <= kMostInt8Taps, ValueError, c.op, ": ", taps, " taps; 32 bits hold sums of up to ", kMostInt8Taps);
  check_ndim(c, 1, 1, "panels");
  const int64_t expected = detail::int8_elements(groups, outs, depth, bits);
  HONE_CHECK(c.shape(1)[0] == expected, ShapeError, c.op, ": panels ", c.shape(1), " of ", groups * outs,
             " outputs by ", taps, " taps of ", bits, " bits must have shape [", expected, "]");
}

detail::Int8Weight weight_of(RunContext& c, int64_t bits) {
  return {detail::contiguous_input<int8_t>(c.in[1], c.workspace), bits,
          detail::contiguous_input<int32_t>(c.in[2], c.workspace)};
}
detail::Int8Result result_of(RunContext& c, const Int8Range& y) {
  detail::Int8Result r;
  r.y = c.out[0].data;
  if (!c.has(4)) {
    r.scale = detail::contiguous_input<float>(c.in[3], c.workspace);
    return r;
  }
  r.multiplier = detail::contiguous_input<int32_t>(c.in[3], c.workspace);
  r.shift = detail::contiguous_input<int32_t>(c.in[4], c.workspace);
  r.zero_point = static_cast<int32_t>(y.zero_point);
  r.low = static_cast<int32_t>(y.low), r.high = static_cast<int32_t>(y.high);
  c.workspace.once([&] {
    for (int64_t o = 0, n = c.in[3].sizes[0]; o < n; ++o)
      HONE_CHECK(r.multiplier[o] >= 0 && r.shift[o] >= 31 && r.shift[o] <= 62, ValueError, c.op,
                 ": the factor of output ", o, " is ", r.multiplier[o], " / 2^", r.shift[o],
                 "; it must not be negative, its shift in [31, 62]");
  });
  return r;
}

// ---- linear

void linear_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<Int8LinearAttrs>();
  const DType result = check_product(c, a.outs, a.bits, a.y);
  Shape y = c.shape(0);
  HONE_CHECK(y.ndim() >= 1, ShapeError, c.op, ": x ", y, " must have at least one dim");
  check_panels(c, 1, a.outs, y.back(), detail::int8_depth(y.back(), 1, 1, 1), a.bits);
  y[y.ndim() - 1] = a.outs;
  c.add(y, result);
}
void linear_run(RunContext& c) {
  const auto& a = c.attrs.as<Int8LinearAttrs>();
  const int64_t rows = c.out[0].numel() / a.outs;
  if (rows == 0) return;
  detail::run_int8_linear(rows, c.in[0].size(-1), a.outs, detail::contiguous_input<uint8_t>(c.in[0], c.workspace),
                          weight_of(c, a.bits), result_of(c, a.y), c.workspace);
}

// ---- convolution

struct Sizes {
  int64_t outs, channels, kh, kw;
};

/// conv2d's inputs in a dtype that it takes, with the weight as it was before packing.
struct Dense {
  View in[2];
  FusedConvAttrs fused;
};
Dense dense_of(std::span<const View> in, const Int8ConvAttrs& a) {
  Dense d{{in[0], {}}, {a.conv, {}, a.pool}};
  d.in[0].dtype = f32;
  const int64_t groups = std::max<int64_t>(a.conv.groups, 1);
  d.in[1] = detail::dense_view(f32, {a.outs, in[0].sizes[1] / groups, a.conv.size_h, a.conv.size_w});
  return d;
}
ConvGeometry geometry(const Dense& d, const Shape& y) {
  return detail::conv_geometry(d.fused.conv, d.in[0], d.in[1].sizes[2], d.in[1].sizes[3], detail::dense_view(f32, y));
}
Shape conv_output(const Dense& d) {
  const Attrs conv(d.fused.conv);
  ShapeContext shapes{"int8_conv2d", d.in, conv};
  kConv2d.shapes(shapes);
  return shapes.out[0].shape;
}

void conv_shapes(ShapeContext& c) {
  const auto& a = c.attrs.as<Int8ConvAttrs>();
  const DType result = check_product(c, a.outs, a.bits, a.y);
  HONE_CHECK(a.x_zero_point >= 0 && a.x_zero_point <= 255, ValueError, c.op, ": x's zero point ", a.x_zero_point,
             " must be in [0, 255]");
  check_ndim(c, 0, 4, "x");
  const Dense d = dense_of(c.in, a);
  const Attrs attrs(d.fused);
  ShapeContext inner{c.op, d.in, attrs};
  const ConvGeometry s = geometry(d, detail::fused_conv_shapes(inner, d.fused, d.in));
  check_panels(c, s.groups, s.o, s.taps(), detail::int8_depth(s.c, s.kh, s.kw, s.dilation_w), a.bits);
  HONE_CHECK(detail::int8_conv_fits(s, a.pool), ShapeError, c.op, ": x ", c.shape(0),
             " is too wide for places of 32 bits");
  c.add(inner.out[0].shape, result);
}
void conv_run(RunContext& c) {
  const auto& a = c.attrs.as<Int8ConvAttrs>();
  if (c.out[0].numel() == 0) return;
  const ConvGeometry& s = *c.workspace.once<ConvGeometry>(1, [&](ConvGeometry* to) {
    const Dense d = dense_of(c.in, a);
    *to = geometry(d, conv_output(d));
  });
  detail::run_int8_conv(s, detail::contiguous_input<uint8_t>(c.in[0], c.workspace),
                        static_cast<uint8_t>(a.x_zero_point), weight_of(c, a.bits), a.pool, result_of(c, a.y),
                        c.workspace);
}
int64_t conv_macs(std::span<const View> in, std::span<const View>, const Attrs& attrs) {
  const Dense d = dense_of(in, attrs.as<Int8ConvAttrs>());
  const View y = detail::dense_view(f32, conv_output(d));
  return kConv2d.macs(std::span<const View>(d.in), {&y, 1}, Attrs(d.fused.conv));
}

// ---- weights

bool is_weight(const Shape& s, int64_t groups) {
  return (s.ndim() == 2 || s.ndim() == 4) && groups >= 1 && s[0] >= 1 && s[0] % groups == 0 &&
         (s.ndim() == 4 || groups == 1);
}
Sizes sizes_of(const Shape& s, int64_t groups) {
  const bool conv = s.ndim() == 4;
  return {s[0] / groups, s[1], conv ? s[2] : 1, conv ? s[3] : 1};
}
int64_t depth_of(const Sizes& s, int64_t dilation) { return detail::int8_depth(s.channels, s.kh, s.kw, dilation); }

Int8Range range_of(const Int8Output& o) { return {o.zero_point, o.low, o.high}; }

}  // namespace

const OpDef kInt8Linear = {.name = "int8_linear",
                           .attributes = attributes<Int8LinearAttrs>(),
                           .shapes = linear_shapes,
                           .run = linear_run,
                           .not_differentiable = kInferenceOnly,
                           .macs = [](std::span<const View> in, std::span<const View> out, const Attrs&) {
                             return out[0].numel() * in[0].size(-1);
                           }};
const OpDef kInt8Conv2d = {.name = "int8_conv2d",
                           .attributes = attributes<Int8ConvAttrs>(),
                           .shapes = conv_shapes,
                           .run = conv_run,
                           .not_differentiable = kInferenceOnly,
                           .macs = conv_macs};

namespace detail {
void check_int8_range(const char* op, const Int8Range& r) {
  HONE_CHECK(r.low >= 0 && r.low <= r.high && r.high <= 255 && r.zero_point >= 0 && r.zero_point <= 255, ValueError, op,
             ": codes in [", r.low, ", ", r.high, "] with zero point ", r.zero_point, " must lie in [0, 255]");
}
}  // namespace detail

Int8Matrix Int8Matrix::pack(const Tensor& codes, int64_t bits, int64_t groups, int64_t dilation) {
  constexpr const char* what = "Int8Matrix::pack";
  HONE_CHECK(codes.defined(), ValueError, what, ": the codes are an undefined tensor");
  HONE_CHECK(codes.dtype() == i8, DTypeError, what, ": the codes must be i8, not ", codes.dtype());
  HONE_CHECK(bits == 8 || bits == 4, ValueError, what, ": weights of ", bits, " bits; there are kernels for 8 and 4");
  HONE_CHECK(is_weight(codes.shape(), groups), ShapeError, what, ": codes ", codes.shape(), " in ", groups,
             " groups: they must be [out, in], or [O, C/groups, KH, KW] with groups that divide O");
  const Sizes s = sizes_of(codes.shape(), groups);
  HONE_CHECK(dilation >= 1 && dilation <= kMostInt8Taps && s.channels * s.kh * s.kw <= kMostInt8Taps, ValueError, what,
             ": codes ", codes.shape(), " with dilation ", dilation, " pass ", kMostInt8Taps, " taps");
  const Tensor dense = contiguous(codes);
  const int8_t* const q = dense.data<int8_t>();
  const int most = bits == 8 ? 127 : 7;
  for (int64_t i = 0; i < dense.numel(); ++i)
    HONE_CHECK(q[i] >= -most && q[i] <= most, ValueError, what, ": code ", static_cast<int>(q[i]), " is outside [-",
               most, ", ", most, "]");
  const Tensor values = empty({detail::int8_elements(groups, s.outs, depth_of(s, dilation), bits)}, i8);
  detail::pack_int8(q, groups, s.outs, s.channels, s.kh, s.kw, dilation, bits, values.data<int8_t>());
  return {values, codes.shape(), groups, bits, dilation};
}

Tensor Int8Matrix::dense() const {
  check();
  const Sizes s = sizes_of(shape, groups);
  const Tensor panels = contiguous(values), codes = empty(shape, i8);
  detail::unpack_int8(panels.data<int8_t>(), groups, s.outs, s.channels, s.kh, s.kw, dilation, bits,
                      codes.data<int8_t>());
  return codes;
}

void Int8Matrix::check() const {
  HONE_CHECK(is_weight(shape, groups) && (bits == 8 || bits == 4) && dilation >= 1 && dilation <= kMostInt8Taps,
             FormatError, "Int8Matrix: shape ", shape, " in ", groups, " groups of ", bits, " bits is no weight");
  for (const int64_t n : shape)
    HONE_CHECK(n >= 0 && n < (int64_t{1} << 31), FormatError, "Int8Matrix: shape ", shape, " has a size out of range");
  const Sizes s = sizes_of(shape, groups);
  const int64_t expected = detail::int8_elements(groups, s.outs, depth_of(s, dilation), bits);
  HONE_CHECK(values.defined() && values.dtype() == i8 && values.ndim() == 1 && values.numel() == expected, FormatError,
             "Int8Matrix: values of a weight ", shape, " of ", bits, " bits must be i8 of shape [", expected, "]");
}

Tensor Int8Matrix::start(const Tensor& bias, int64_t x_zero_point) const {
  const Tensor codes = dense(), start = zeros({shape[0]}, i32);
  HONE_CHECK(!bias.defined() || (bias.dtype() == i32 && bias.shape() == start.shape()), ShapeError,
             "Int8Matrix::start: the bias must be i32 of shape ", start.shape());
  const std::vector<int64_t> b = bias.defined() ? bias.to_vector<int64_t>() : std::vector<int64_t>(shape[0], 0);
  const int64_t taps = codes.numel() / shape[0];
  for (int64_t o = 0; o < shape[0]; ++o) {
    int64_t sum = 0;
    for (int64_t k = 0; k < taps; ++k) sum += codes.data<int8_t>()[o * taps + k];
    start.data<int32_t>()[o] = static_cast<int32_t>(b[static_cast<size_t>(o)] - x_zero_point * sum);
  }
  return start;
}

Int8Output Int8Output::codes(const std::vector<double>& ratio, int64_t zero_point, int64_t low, int64_t high) {
  detail::check_int8_range("Int8Output", {zero_point, low, high});
  std::vector<int32_t> multiplier, shift;
  for (const double r : ratio) {
    const FixedPoint f = fixed_point(r);
    multiplier.push_back(f.multiplier);
    shift.push_back(f.shift);
  }
  const Shape shape{static_cast<int64_t>(ratio.size())};
  return {tensor(multiplier, shape), tensor(shift, shape), zero_point, low, high};
}
Int8Output Int8Output::real(const Tensor& scale) { return {scale, {}, 0, 0, 255}; }

Tensor int8_linear(const Tensor& x, const Int8Matrix& w, const Tensor& start, const Int8Output& output) {
  HONE_CHECK(w.shape.ndim() == 2, ShapeError, "int8_linear: the packed weight has shape ", w.shape, ", not [out, in]");
  return apply(kInt8Linear, Int8LinearAttrs{w.shape[0], w.bits, range_of(output)},
               {x, w.values, start, output.multiplier, output.shift});
}
Tensor int8_conv2d(const Tensor& x, const Int8Matrix& w, const Tensor& start, const Int8Output& output,
                   const Int8ConvOptions& options) {
  HONE_CHECK(w.shape.ndim() == 4, ShapeError, "int8_conv2d: the packed weight has shape ", w.shape,
             ", not [O, C/groups, KH, KW]");
  const FusedConvAttrs fused = detail::fused_conv_attrs(
      "int8_conv2d", {.conv = options.conv, .pool = options.pool, .pool_options = options.pool_options});
  HONE_CHECK(fused.conv.groups == w.groups && fused.conv.dilation_w == w.dilation, ValueError,
             "int8_conv2d: ", fused.conv.groups, " groups and dilation ", fused.conv.dilation_w,
             " of a weight that was packed for ", w.groups, " and ", w.dilation);
  Int8ConvAttrs a{w.shape[0], w.bits, options.x_zero_point, fused.conv, fused.pool, range_of(output)};
  a.conv.size_h = w.shape[2], a.conv.size_w = w.shape[3];
  return apply(kInt8Conv2d, a, {x, w.values, start, output.multiplier, output.shift});
}

}  // namespace hone
