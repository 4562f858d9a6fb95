#include "hone/ops/packed/sparse_run.h"

#include <algorithm>
#include <limits>

#include "hone/core/error.h"
#include "hone/core/parallel.h"
#include "hone/ops/contiguous_view.h"
#include "hone/ops/conv_shapes.h"
#include "hone/ops/packed/panel_run.h"
#include "hone/ops/simd/conv_kernels.h"

namespace hone::detail {
namespace {

constexpr int64_t kPieceMacs = 500'000;    // of one piece of parallel work: some 20 microseconds
constexpr int64_t kNearFloats = 4 * 1024;  // of x, to stay in the first-level cache
constexpr int64_t kStepTaps = 32;          // fewest taps of a list that is cut for that
constexpr int64_t kBandPositions = 64;     // fewest positions of a convolution's band, where it has them
constexpr int64_t kPanelOuts = 64;         // outputs computed before they are transposed back

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Multiply-adds of one list of taps at one position, on average.
int64_t list_macs(const SparseWeight& w) {
  return std::max<int64_t>(w.taps * w.rows.height / std::max<int64_t>(w.rows.lists(), 1), 1);
}

void check_bias(ShapeContext& c, int64_t rows, int bias) {
  if (!c.has(bias)) return;
  check_same_dtype(c, 0, bias);
  HONE_CHECK(c.shape(bias) == Shape{rows}, ShapeError, c.op, ": bias ", c.shape(bias), " must have shape [", rows, "]");
}

// One x after the other: few of them.
void linear_one_by_one(const SparseWeight& w, const float* x, int64_t batch, int64_t cols, const float* bias, float* y,
                       Workspace& workspace) {
  const int64_t pitch = w.cols + simd::kSparseSlack, units = ceil_div(w.rows.outs, w.unit);
  float* const padded = workspace.get<float>(batch * pitch);
  for (int64_t b = 0; b < batch; ++b) {
    std::copy_n(x + b * cols, cols, padded + b * pitch);
    std::fill(padded + b * pitch + cols, padded + (b + 1) * pitch, 0.0f);
  }
  const int64_t macs = list_macs(w) * ceil_div(w.unit, w.rows.height) * batch;
  parallel_for(units, kPieceMacs / macs, [&](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < batch; ++b) w.one(begin, end, padded + b * pitch, bias, y + b * w.rows.outs);
  });
}

// Side by side, lists run through the same columns at the same pace: cut into steps, what a step reads of x stays in
// the first-level cache. (Cutting lists of their own columns costs more than it gives below a density of a half.)
simd::SparseRows step_of(simd::SparseRows rows, int64_t i, int64_t steps) {
  if (steps == 1) return rows;
  const int64_t first = rows.count * i / steps;
  rows.count = rows.count * (i + 1) / steps - first;
  rows.values += first * simd::kInterleave, rows.offsets += first * simd::kInterleave;
  return rows;
}

// x is transposed into panels of some positions each, [panel][column][position]; outputs are transposed back.
void linear_panels(const SparseWeight& w, const float* x, int64_t batch, int64_t cols, const float* bias, float* y,
                   Workspace& workspace) {
  const simd::SparseKernels& kernels = simd::sparse_kernels();
  const int64_t lanes = kernels.lanes, most = std::max<int64_t>(4 * lanes, 16);
  const int64_t width = std::min(most, ceil_div(batch, lanes) * lanes);
  const int64_t panels = ceil_div(batch, width), size = w.cols * width, outs = w.rows.outs;
  float* const turned = workspace.get<float>(panels * size);
  parallel_for(panels, kPieceMacs / std::max<int64_t>(size, 1), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t n = std::min(width, batch - p * width);
      float* const to = turned + p * size;
      kernels.transpose(x + p * width * cols, cols, n, cols, to, width);
      for (int64_t j = 0; n < width && j < cols; ++j) std::fill(to + j * width + n, to + (j + 1) * width, 0.0f);
      std::fill(to + cols * width, to + size, 0.0f);
    }
  });
  simd::SparseRows rows = w.rows;
  rows.offsets = workspace.once<int32_t>(w.taps, [&](int32_t* to) {
    w.fill({nullptr, static_cast<int32_t>(width)}, to);
  });
  const int64_t steps =
      rows.starts ? 1
                  : std::clamp<int64_t>(ceil_div(size, kNearFloats), 1, std::max<int64_t>(rows.count / kStepTaps, 1));
  const int64_t together = std::max<int64_t>(kPanelOuts / rows.height, 1), pieces = ceil_div(rows.lists(), together);
  const int64_t macs = list_macs(w) * together * width;
  parallel_for_scratch<float>(
      panels * pieces, kPieceMacs / macs, together * rows.height * width, [&](int64_t begin, int64_t end, float* out) {
        for (int64_t u = begin; u < end; ++u) {
          const int64_t p = u / pieces, list = u % pieces * together, stop = std::min(list + together, rows.lists());
          const int64_t n = std::min(width, batch - p * width), o = list * rows.height;
          for (int64_t i = 0; i < steps; ++i)
            kernels.panel(step_of(rows, i, steps), list, stop, turned + p * size, ceil_div(n, lanes) * lanes, bias,
                          i > 0, out, width);
          kernels.transpose(out, width, std::min(stop * rows.height, outs) - o, n, y + p * width * outs + o, outs);
        }
      });
}

// A band of output rows is computed from a packed copy of the input rows that it reads: padded, and split by the
// residues of row and column modulo the strides, so that every tap reads consecutive elements. With rows of one pitch
// for input and output, a tap is a shift by a constant, and vectors run over the flattened positions of the band; the
// positions between the output's width and the pitch are computed for nothing.
struct ConvBand {
  int64_t classes_h, classes_w, halo, pitch, rows, count;

  explicit ConvBand(const ConvGeometry& s)
      : classes_h(std::min(s.stride_h, (s.kh - 1) * s.dilation_h + 1)),
        classes_w(std::min(s.stride_w, (s.kw - 1) * s.dilation_w + 1)),
        halo((s.kh - 1) * s.dilation_h / s.stride_h),
        pitch(s.ow + (s.kw - 1) * s.dilation_w / s.stride_w),
        rows(1) {
    const int64_t row = std::max<int64_t>(size(s, 1) / (halo + 1), 1);
    rows = std::min(std::max({kNearFloats / row - halo, ceil_div(kBandPositions, pitch), int64_t{1}}), s.oh);
    count = ceil_div(s.oh, rows);
    rows = ceil_div(s.oh, count);
    count = ceil_div(s.oh, rows);
  }
  int64_t class_size(int64_t band_rows) const { return (band_rows + halo) * pitch; }
  /// kTooLarge where it is beyond.
  int64_t size(const ConvGeometry& s, int64_t band_rows) const {
    int64_t n = s.c;
    for (const int64_t factor : {classes_h, classes_w, band_rows + halo, pitch})
      n = n > kTooLarge / factor ? kTooLarge : n * factor;
    return n;
  }
  static constexpr int64_t kTooLarge = int64_t{1} << 28;
};

// Rows [row, row + rows) of one image and group. Only what lies inside x is written: the rest of `to` is zero.
void pack_band(const ConvGeometry& s, const ConvBand& b, const float* x, int64_t row, int64_t rows, float* to) {
  const simd::SparseKernels& kernels = simd::sparse_kernels();
  struct Span {
    int64_t low, high;
  };
  // Of `count` packed elements of a class from `first` on, those inside the `size` elements of x.
  const auto inside = [](int64_t residue, int64_t stride, int64_t pad, int64_t size, int64_t first, int64_t count) {
    const int64_t low = std::clamp<int64_t>(ceil_div(pad - residue, stride) - first, 0, count);
    return Span{low, std::clamp<int64_t>(ceil_div(size + pad - residue, stride) - first, low, count)};
  };
  for (int64_t c = 0; c < s.c; ++c, x += s.in_plane()) {
    for (int64_t i = 0; i < b.classes_h; ++i) {
      const Span r = inside(i, s.stride_h, s.pad_h, s.h, row, rows + b.halo);
      for (int64_t j = 0; j < b.classes_w; ++j, to += b.class_size(rows)) {
        const Span q = inside(j, s.stride_w, s.pad_w, s.w, 0, b.pitch);
        if (r.low == r.high || q.low == q.high) continue;
        const float* from = x + ((row + r.low) * s.stride_h + i - s.pad_h) * s.w + q.low * s.stride_w + j - s.pad_w;
        float* at = to + r.low * b.pitch + q.low;
        if (s.stride_w == 1) {
          kernels.copy_rows(from, s.stride_h * s.w, r.high - r.low, q.high - q.low, at, b.pitch);
          continue;
        }
        for (int64_t k = r.low; k < r.high; ++k, from += s.stride_h * s.w, at += b.pitch)
          for (int64_t l = 0; l < q.high - q.low; ++l) at[l] = from[l * s.stride_w];
      }
    }
  }
}

// Where the taps of the weight begin in a packed band of `rows`; columns that only pad the weight read zeros behind it.
const int32_t* band_offsets(const ConvGeometry& s, const ConvBand& b, int64_t rows, const SparseWeight& w,
                            Workspace& workspace) {
  return workspace.once<int32_t>(w.taps, [&](int32_t* to) {
    int32_t* const table = workspace.get<int32_t>(w.cols);
    const int64_t plane = b.classes_h * b.classes_w * b.class_size(rows);
    for (int64_t i = 0; i < s.kh; ++i) {
      const int64_t class_h = i * s.dilation_h % s.stride_h, row = i * s.dilation_h / s.stride_h;
      for (int64_t j = 0; j < s.kw; ++j) {
        const int64_t class_w = j * s.dilation_w % s.stride_w, column = j * s.dilation_w / s.stride_w;
        const int64_t first = (class_h * b.classes_w + class_w) * b.class_size(rows) + row * b.pitch + column;
        for (int64_t c = 0; c < s.c; ++c) table[(c * s.kh + i) * s.kw + j] = static_cast<int32_t>(c * plane + first);
      }
    }
    std::fill(table + s.taps(), table + w.cols, static_cast<int32_t>(b.size(s, rows)));
    w.fill({table, 0}, to);
  });
}

void conv_panels(const ConvGeometry& s, const ConvBand& b, const SparseWeight& w, const float* x, const float* bias,
                 float* y, Workspace& workspace) {
  const simd::SparseKernels& kernels = simd::sparse_kernels();
  const int64_t last_rows = s.oh - (b.count - 1) * b.rows;
  simd::SparseRows whole = w.rows, last = w.rows;
  whole.offsets = band_offsets(s, b, b.rows, w, workspace);
  last.offsets = last_rows == b.rows ? whole.offsets : band_offsets(s, b, last_rows, w, workspace);
  const int64_t length = b.rows * b.pitch, out_pitch = ceil_div(length, 16) * 16;
  const int64_t size = b.size(s, b.rows) + length + simd::kSparseSlack;
  const int64_t lists = w.rows.lists() / s.groups, list_size = out_pitch * w.rows.height;
  const int64_t together = b.pitch == s.ow ? lists : std::clamp<int64_t>(kNearFloats / list_size, 1, lists);
  const int64_t macs = std::max<int64_t>(list_macs(w) * lists * length, 1);
  parallel_for_scratch<float>(
      s.n * s.groups * b.count, kPieceMacs / macs, size + (b.pitch == s.ow ? 0 : together * list_size),
      [&](int64_t begin, int64_t end, float* band) {
        float* const out = band + size;
        for (int64_t u = begin; u < end; ++u) {
          const int64_t image = u / b.count, group = image % s.groups, row = u % b.count * b.rows;  // image: × groups
          const int64_t rows = std::min(b.rows, s.oh - row);
          const simd::SparseRows& weights = rows == b.rows ? whole : last;
          if (u == begin || b.count > 1) std::fill_n(band, size, 0.0f);
          pack_band(s, b, x + image * s.c * s.in_plane(), row, rows, band);
          float* const to = y + image * s.o * s.out_plane() + row * s.ow;
          for (int64_t list = 0; list < lists; list += together) {
            const int64_t first = group * lists + list, stop = group * lists + std::min(list + together, lists);
            const int64_t o = list * w.rows.height, outs = std::min(stop * w.rows.height - group * s.o, s.o) - o;
            if (b.pitch == s.ow) {
              kernels.panel(weights, first, stop, band, rows * s.ow, bias, false, to, s.out_plane());
              continue;
            }
            kernels.panel(weights, first, stop, band, (rows - 1) * b.pitch + s.ow, bias, false, out, out_pitch);
            for (int64_t k = 0; k < outs; ++k)
              kernels.copy_rows(out + k * out_pitch, b.pitch, rows, s.ow, to + (o + k) * s.out_plane(), s.ow);
          }
        }
      });
}

// Adds value · the column's part of a plane of x to a plane of y, for geometries whose packed rows would be huge.
void add_column(const ConvGeometry& s, int64_t column, float value, const float* x, float* y) {
  const int64_t j = column % s.kw, i = column / s.kw % s.kh, c = column / (s.kw * s.kh);
  for (int64_t oi = 0; oi < s.oh; ++oi) {
    const int64_t row = oi * s.stride_h + i * s.dilation_h - s.pad_h;
    if (row < 0 || row >= s.h) continue;
    const float* from = x + (c * s.h + row) * s.w;
    const int64_t shift = j * s.dilation_w - s.pad_w;  // x's column = oj · stride + shift
    const int64_t low = shift < 0 ? std::min(ceil_div(-shift, s.stride_w), s.ow) : 0;
    const int64_t high = s.w > shift ? std::min(ceil_div(s.w - shift, s.stride_w), s.ow) : 0;
    for (int64_t oj = low; oj < high; ++oj) y[oi * s.ow + oj] += value * from[oj * s.stride_w + shift];
  }
}
void conv_plain(const ConvGeometry& s, const SparseWeight& w, const float* x, const float* bias, float* y,
                Workspace& workspace) {
  simd::SparseRows rows = w.rows;
  rows.offsets = workspace.once<int32_t>(w.taps, [&](int32_t* to) { w.fill({nullptr, 1}, to); });
  const int64_t all = s.groups * s.o;
  parallel_for(s.n * all, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t image = u / all, o = u % all;
      float* const plane = y + u * s.out_plane();
      std::fill_n(plane, s.out_plane(), bias ? bias[o] : 0.0f);
      const simd::SparseRows::Taps t = rows.taps(o / rows.height);
      for (int64_t k = 0; k < t.count; ++k) {
        const int64_t column = t.offsets[k * t.offset_step];
        if (column < s.taps())
          add_column(s, column, t.values[k * t.value_step + o % rows.height],
                     x + (image * s.groups + o / s.o) * s.c * s.in_plane(), plane);
      }
    }
  });
}

/// The convolution's output, before pooling.
Shape conv_output(const ShapeContext& c, const SparseConvAttrs& a) {
  const ConvAttrs& conv = a.fused.conv;
  const int64_t kh = conv.size_h, kw = conv.size_w;
  const auto [oh, ow] = check_conv(c, conv, c.shape(0), {a.weight.rows, a.weight.cols / (kh * kw), kh, kw});
  return {c.shape(0)[0], a.weight.rows, oh, ow};
}

/// Products that finish_planes() goes on with.
float* unfinished(int64_t floats, Workspace& workspace) { return workspace.get<float>(floats + simd::kConvSlack); }

}  // namespace

SparseConvAttrs sparse_conv_attrs(const char* op, const Shape& kernel, const FusedConv2dOptions& options,
                                  const SparseAttrs& weight) {
  HONE_CHECK(kernel.ndim() == 1 || kernel.ndim() == 2, ShapeError, op, ": kernel ", kernel,
             " must have one or two values");
  SparseConvAttrs a{fused_conv_attrs(op, options), weight};
  a.fused.conv.size_h = kernel[0], a.fused.conv.size_w = kernel.back();
  return a;
}
void check_sparse_size(const char* op, const SparseAttrs& a) {
  HONE_CHECK(a.rows >= 0 && a.rows <= kMostSparse && a.cols >= 0 && a.cols <= kMostSparse, ValueError, op,
             ": a weight of ", a.rows, " rows and ", a.cols, " columns; each must be in [0, ", kMostSparse, "]");
}
void check_sparse_input(const ShapeContext& c, int i, DType dtype, int ndim, const char* what) {
  HONE_CHECK(c.dtype(i) == dtype, DTypeError, c.op, ": ", what, " must be ", dtype, ", not ", c.dtype(i));
  check_ndim(c, i, ndim, what);
  HONE_CHECK(c.shape(i).numel() <= std::numeric_limits<int32_t>::max(), ValueError, c.op, ": ", what, " ", c.shape(i),
             " pass 2^31 - 1 elements");
}

void sparse_linear_shapes(ShapeContext& c, const SparseLinearAttrs& attrs, int bias) {
  const SparseAttrs& a = attrs.weight;
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  Shape y = c.shape(0);
  HONE_CHECK(y.ndim() >= 1 && y.back() == a.cols, ShapeError, c.op, ": weight [", a.rows, ", ", a.cols, "] takes ",
             a.cols, " features, x is ", y);
  check_bias(c, a.rows, bias);
  check_activation(c, attrs.activation);
  y[y.ndim() - 1] = a.rows;
  c.add(y, f32);
}
void sparse_conv2d_shapes(ShapeContext& c, const SparseConvAttrs& a, int bias) {
  HONE_CHECK(c.dtype(0) == f32, DTypeError, c.op, ": x must be f32, not ", c.dtype(0));
  check_ndim(c, 0, 4, "x");
  check_conv_attrs(c, a.fused.conv);
  const int64_t kh = a.fused.conv.size_h, kw = a.fused.conv.size_w;
  HONE_CHECK(kh >= 1 && kw >= 1 && kh <= kMostSparse && kw <= kMostSparse && a.weight.cols % (kh * kw) == 0, ShapeError,
             c.op, ": a kernel of ", kh, "x", kw, " does not divide the ", a.weight.cols, " columns of the weight");
  const Shape y = conv_output(c, a);
  check_bias(c, a.weight.rows, bias);
  add_fused_output(c, a.fused, y);
}

int64_t sparse_linear_macs(std::span<const View> in, std::span<const View>, const Attrs&) {
  const int64_t cols = in[0].size(-1);
  return cols == 0 ? 0 : in[0].numel() / cols * in[1].numel();
}
int64_t sparse_conv2d_macs(std::span<const View> in, std::span<const View>, const Attrs& attrs) {
  const Shape y = conv_output({"sparse conv2d", in, attrs}, attrs.as<SparseConvAttrs>());
  return y[0] * y[2] * y[3] * in[1].numel();
}

void sparse_linear_run(RunContext& c, const SparseWeight& w, const ActivationAttrs& activation, int bias_input) {
  const int64_t outs = w.rows.outs, cols = c.in[0].size(-1), batch = c.out[0].numel() / outs;
  const float* x = contiguous_input<float>(c.in[0], c.workspace);
  const float* bias = c.has(bias_input) ? contiguous_input<float>(c.in[bias_input], c.workspace) : nullptr;
  const bool plain = activation.activation() == Activation::none;
  float *const y = c.out[0].as<float>(), *const made = plain ? y : unfinished(c.out[0].numel(), c.workspace);
  const auto run = batch < w.panel_batch ? linear_one_by_one : linear_panels;
  run(w, x, batch, cols, bias, made, c.workspace);
  if (!plain) finish_planes(batch, 1, outs, made, activation, {}, y, c.workspace);
}
void sparse_conv2d_run(RunContext& c, const SparseWeight& w, const SparseConvAttrs& a, int bias_input) {
  View conv = c.out[0];
  const Shape made_shape = conv_output({c.op, c.in, c.attrs}, a);
  std::copy(made_shape.begin(), made_shape.end(), conv.sizes);
  const ConvGeometry s = conv_geometry(a.fused.conv, c.in[0], a.fused.conv.size_h, a.fused.conv.size_w, conv);
  const float* x = contiguous_input<float>(c.in[0], c.workspace);
  const float* bias = c.has(bias_input) ? contiguous_input<float>(c.in[bias_input], c.workspace) : nullptr;
  const bool plain = a.fused.activation.activation() == Activation::none && !a.fused.pool.present();
  float *const y = c.out[0].as<float>(), *const made = plain ? y : unfinished(made_shape.numel(), c.workspace);
  if (const ConvBand band(s); band.size(s, band.rows) < ConvBand::kTooLarge) {
    conv_panels(s, band, w, x, bias, made, c.workspace);
  } else {
    conv_plain(s, w, x, bias, made, c.workspace);
  }
  if (!plain) finish_planes(s.n * s.groups * s.o, s.oh, s.ow, made, a.fused.activation, a.fused.pool, y, c.workspace);
}

void check_starts(const char* op, const int32_t* starts, int64_t lists, int64_t taps) {
  bool falls = false;
  for (int64_t i = 0; i < lists; ++i) falls |= starts[i + 1] < starts[i];
  HONE_CHECK(!falls && starts[0] == 0 && starts[lists] == taps, ValueError, op, ": row starts must rise from 0 to the ",
             taps, " stored values");
}
void check_columns(const char* op, const int32_t* columns, int64_t n, int64_t cols) {
  HONE_CHECK(simd::sparse_kernels().all_below(columns, n, cols), ValueError, op, ": a column is outside [0, ", cols,
             ")");
}

}  // namespace hone::detail
