#include "hone/ops/packed/panel_run.h"

#include <algorithm>

#include "hone/core/parallel.h"
#include "hone/ops/packed/conv_bands.h"
#include "hone/ops/simd/conv_direct.h"

namespace hone::detail {
namespace {

using simd::kConvSlack;
using simd::kPanel;
using simd::kPanelSlack;
using simd::panel_columns;
using simd::panel_width;
using simd::PoolGeometry;

constexpr int64_t kTogether = 4;            // panels of one piece of a linear layer
constexpr int64_t kRows = 48;               // and rows
constexpr int64_t kTaps = 256;              // looked up together: of kTogether panels 64 KiB
constexpr int64_t kFinishFloats = 1 << 14;  // of one piece of finish_planes()

/// [columns of all groups]: the bias, zeros beside it.
const float* padded_bias(const float* bias, int64_t groups, int64_t outs, Workspace& workspace) {
  const int64_t columns = panel_columns(outs), size = groups * columns + kPanelSlack;
  return workspace.once<float>(size, [&](float* start) {
    std::fill_n(start, size, 0.0f);
    for (int64_t g = 0; bias && g < groups; ++g) std::copy_n(bias + g * outs, outs, start + g * columns);
  });
}

// f(place in the panels, place in the weight) for each weight.
template <class F>
void each_weight(int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw, const F& f) {
  const int64_t depth = channels * kh * kw;
  int64_t to = 0;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t first = 0; first < outs; first += kPanel) {
      const int64_t width = panel_width(outs - first), n = std::min(width, outs - first);
      const int64_t from = (g * outs + first) * depth;
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t j = 0; j < kw; ++j)
          for (int64_t i = 0; i < kh; ++i, to += width)
            for (int64_t o = 0; o < n; ++o) f(to + o, from + o * depth + (c * kh + i) * kw + j);
    }
  }
}

/// A convolution whose vectors run over positions instead of outputs: rows of the input follow each other, and what
/// lies between an output row's end and the next row's begin is computed and left out.
bool runs_over_positions(const ConvGeometry& s, int64_t lanes) {
  if (s.stride_h != 1 || s.stride_w != 1) return false;
  const double columns = static_cast<double>(ceil_div(s.o, std::min(lanes, kPanel)) * std::min(lanes, kPanel));
  return static_cast<double>(s.w + 2 * s.pad_w) / static_cast<double>(s.ow) < columns / static_cast<double>(s.o);
}

}  // namespace

int64_t panel_elements(int64_t groups, int64_t outs, int64_t depth) {
  return Shape{groups, panel_columns(outs), depth}.numel() + kPanelSlack;
}
template <class T>
void pack_panels(const T* weight, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw, T* panels) {
  std::fill_n(panels, panel_elements(groups, outs, channels * kh * kw), T{0});
  each_weight(groups, outs, channels, kh, kw, [&](int64_t to, int64_t from) { panels[to] = weight[from]; });
}
template <class T>
void unpack_panels(const T* panels, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw, T* weight) {
  each_weight(groups, outs, channels, kh, kw, [&](int64_t from, int64_t to) { weight[to] = panels[from]; });
}
template void pack_panels(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, float*);
template void pack_panels(const uint8_t*, int64_t, int64_t, int64_t, int64_t, int64_t, uint8_t*);
template void unpack_panels(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, float*);
template void unpack_panels(const uint8_t*, int64_t, int64_t, int64_t, int64_t, int64_t, uint8_t*);

const float* Panels::taps(int64_t first, int64_t outs, int64_t depth, int64_t t, int64_t n, float* scratch) const {
  if (values) return values + first * depth;
  for (int64_t o = 0; o < outs; o += kPanel) {
    const int64_t width = panel_width(outs - o);
    simd::look_up(codes + (first + o) * depth + t * width, n * width, table, used, scratch + o * n);
  }
  return scratch;
}

bool panel_conv_suits(const ConvGeometry& s) {
  if (!simd::conv_direct_suits(s)) return false;
  const int64_t lanes = simd::panel_kernels().lanes;
  return runs_over_positions(s, lanes) || ceil_div(s.o, std::min(lanes, kPanel)) * std::min(lanes, kPanel) <= 2 * s.o;
}

bool panel_conv_fits(const ConvGeometry& s, const FusedPoolAttrs& pool) {
  if (s.oh < 1 || s.ow < 1) return true;
  int64_t places = s.c;
  const int64_t rows = pool.present() ? std::min(pool.kernel_h, s.oh) : 1;
  for (const int64_t factor : {s.w + 2 * s.pad_w, (rows - 1) * s.stride_h + (s.kh - 1) * s.dilation_h + 1})
    if (__builtin_mul_overflow(places, factor, &places)) return false;
  int64_t products = rows * kPanel;
  if (__builtin_mul_overflow(products, s.w + 2 * s.pad_w, &products)) return false;
  return places < kMostPlaces && products < kMostPlaces && s.taps() < kMostPlaces;
}

void panel_conv(const ConvGeometry& s, const float* x, const Panels& weight, const float* bias,
                const ActivationAttrs& activation, const FusedPoolAttrs& pool, float* y, Workspace& workspace) {
  const simd::PanelKernels& kernels = simd::panel_kernels();
  const bool flat = runs_over_positions(s, kernels.lanes), pools = pool.present();
  const PoolGeometry g = pool_geometry(pool, s.oh, s.ow);
  const Bands bands(s, g, pools);
  const bool relu = activation.activation() == Activation::relu;
  const ElementwiseKernel function = relu ? nullptr : activation_kernel(activation, f32);
  const int64_t depth = s.taps(), columns = panel_columns(s.o);
  const int32_t* const taps = workspace.once<int32_t>(depth, [&](int32_t* to) {
    for (int64_t c = 0; c < s.c; ++c)
      for (int64_t j = 0; j < s.kw; ++j)
        for (int64_t i = 0; i < s.kh; ++i)
          *to++ = static_cast<int32_t>(c * bands.plane + i * s.dilation_h * bands.width + j * s.dilation_w);
  });
  const int32_t* const positions = flat ? nullptr : workspace.once<int32_t>(bands.conv_rows * s.ow, [&](int32_t* to) {
    for (int64_t i = 0; i < bands.conv_rows; ++i)
      for (int64_t j = 0; j < s.ow; ++j) *to++ = static_cast<int32_t>(i * s.stride_h * bands.width + j * s.stride_w);
  });
  const float* const start = padded_bias(bias, s.groups, s.o, workspace);

  // Scratch of one piece: the band's input; products, with and without the function; pooled positions; a panel.
  const int64_t input = s.c * bands.plane + kConvSlack;
  const int64_t products = kPanel * bands.conv_rows * (flat ? bands.width : s.ow) + kConvSlack;
  const int64_t pooled = pools && !flat ? kPanel * bands.rows * g.out_cols + kConvSlack : 0;
  const int64_t macs = std::max<int64_t>(depth * bands.conv_rows * s.ow * s.o, 1);
  const int64_t panel_count = ceil_div(s.o, kPanel), blocks = std::clamp<int64_t>(macs / kPieceMacs, 1, panel_count);
  const int64_t block = ceil_div(panel_count, blocks) * kPanel;  // outputs
  const auto band_of_image = [&](int64_t image, int64_t band, int64_t first, float* scratch) {
    float *const in = scratch, *const made = in + input, *const shown = function ? made + products : made;
    float *const windows = shown + products, *const panel = windows + pooled;
    const int64_t begin = band * bands.rows, end = std::min(begin + bands.rows, g.out_rows);
    const int64_t row = pools ? g.first_row(begin) : begin, stop = pools ? g.end_row(end - 1) : end, rows = stop - row;
    const int64_t group = image % s.groups;
    kernels.copy_rows(x + image * s.c * s.in_plane(), s.c, s.h, s.w, s.pad_w, row * s.stride_h - s.pad_h,
                      (rows - 1) * s.stride_h + (s.kh - 1) * s.dilation_h + 1, bands.plane, in);
    const int64_t out_plane = g.out_rows * g.out_cols, last = std::min(first + block, s.o);
    for (int64_t o = first; o < last; o += kPanel) {
      const int64_t width = panel_width(s.o - o), outs = std::min(width, s.o - o);
      const float* const w = weight.taps(group * columns + o, outs, depth, 0, depth, panel);
      float* const to = y + (image * s.o + o) * out_plane + begin * g.out_cols;
      const int64_t length = flat ? (rows - 1) * bands.width + s.ow : rows * s.ow;
      if (flat) {
        simd::conv_kernels().correlate(in, taps, depth, w, width, outs, length, start + group * columns + o, false,
                                       made, length);
      } else {
        kernels.product({in, positions, length, taps, depth, w, start + group * columns + o, width, relu, made, width});
      }
      if (function) {
        const void* const from[] = {made};
        function(from, shown, length * (flat ? outs : width), &activation.a);
      }
      if (flat && pools) {
        kernels.pool_planes(shown, length, bands.width, g, row, begin, end, outs, relu, to, out_plane);
      } else if (flat) {
        kernels.copy_planes(shown, length, bands.width, rows, s.ow, outs, relu, to, out_plane);
      } else if (pools) {
        kernels.pool_positions(shown, g, row, begin, end, width, windows);
        kernels.spread(windows, (end - begin) * g.out_cols, width, outs, to, out_plane);
      } else {
        kernels.spread(shown, length, width, outs, to, out_plane);
      }
    }
  };
  const int64_t in_block = ceil_div(s.o, block);
  pieces<float>(s.n * s.groups * bands.count * in_block, kPieceMacs / std::max<int64_t>(macs / in_block, 1),
                input + (function ? 2 : 1) * products + pooled + weight.scratch_floats(std::min(s.o, kPanel), depth),
                workspace, [&](int64_t begin, int64_t end, float* scratch) {
                  for (int64_t u = begin; u < end; ++u)
                    band_of_image(u / (bands.count * in_block), u / in_block % bands.count, u % in_block * block,
                                  scratch);
                });
}

void finish_planes(int64_t planes, int64_t rows, int64_t cols, const float* x, const ActivationAttrs& activation,
                   const FusedPoolAttrs& pool, float* y, Workspace& workspace) {
  const simd::PanelKernels& kernels = simd::panel_kernels();
  const bool relu = activation.activation() == Activation::relu;
  const ElementwiseKernel function = relu ? nullptr : activation_kernel(activation, f32);
  const PoolGeometry g = pool_geometry(pool, rows, cols);
  const int64_t plane = rows * cols, out_plane = g.out_rows * g.out_cols;
  float* const shown = function && pool.present() ? workspace.get<float>(planes * plane + kConvSlack) : y;
  parallel_for(planes, std::max<int64_t>(kFinishFloats / std::max<int64_t>(plane, 1), 1),
               [&](int64_t begin, int64_t end) {
                 const float* from = x + begin * plane;
                 float* const to = y + begin * out_plane;
                 if (function) {
                   const void* const in[] = {from};
                   function(in, shown + begin * plane, (end - begin) * plane, &activation.a);
                   from = shown + begin * plane;
                 }
                 if (pool.present())
                   kernels.pool_planes(from, plane, cols, g, 0, 0, g.out_rows, end - begin, relu, to, out_plane);
                 else if (!function)
                   kernels.copy_planes(from, plane, cols, rows, cols, end - begin, relu, to, plane);
               });
}

void panel_linear(int64_t rows, int64_t depth, int64_t outs, const float* x, const Panels& weight, const float* bias,
                  const ActivationAttrs& activation, float* y, Workspace& workspace) {
  const simd::PanelKernels& kernels = simd::panel_kernels();
  const bool relu = activation.activation() == Activation::relu;
  const ElementwiseKernel function = relu ? nullptr : activation_kernel(activation, f32);
  const int64_t together = std::min(kRows, rows);
  const int32_t* const taps = workspace.once<int32_t>(depth + together, [&](int32_t* to) {
    for (int64_t t = 0; t < depth; ++t) *to++ = static_cast<int32_t>(t);
    for (int64_t r = 0; r < together; ++r) *to++ = static_cast<int32_t>(r * depth);
  });
  const int32_t* const positions = taps + depth;
  const float* const start = padded_bias(bias, 1, outs, workspace);
  float* const made = function ? workspace.get<float>(rows * outs) : y;
  const int64_t block = kTogether * kPanel, blocks = ceil_div(outs, block);
  const int64_t macs = std::max<int64_t>(together * depth * std::min(outs, block), 1);
  // Codes are looked up a few taps at a time; the sums so far lie in scratch in between.
  const int64_t most = weight.codes ? std::min(depth, kTaps) : depth;
  const int64_t sums = most < depth ? together * block + kPanelSlack : 0;
  const auto of_block = [&](int64_t row, int64_t first, float* scratch) {
    const int64_t count = std::min(together, rows - row), width = std::min(block, outs - first);
    int64_t t = 0;
    do {
      const int64_t n = std::min(most, depth - t);
      const bool begins = t == 0, ends = t + n == depth;
      const float* const w = weight.taps(first, width, depth, t, n, scratch + sums);
      kernels.product({x + row * depth, positions, count, taps + t, n, w, begins ? start + first : scratch, width,
                       relu && ends, ends ? made + row * outs + first : scratch, ends ? outs : block,
                       begins ? 0 : block});
      t += n;
    } while (t < depth);
  };
  pieces<float>(ceil_div(rows, together) * blocks, kPieceMacs / macs,
                sums + weight.scratch_floats(std::min(outs, block), most), workspace,
                [&](int64_t begin, int64_t end, float* scratch) {
                  for (int64_t u = begin; u < end; ++u) of_block(u / blocks * together, u % blocks * block, scratch);
                });
  if (!function) return;
  parallel_for(rows * outs, 1 << 15, [&](int64_t begin, int64_t end) {
    const void* const from[] = {made + begin};
    function(from, y + begin, end - begin, &activation.a);
  });
}

}  // namespace hone::detail
