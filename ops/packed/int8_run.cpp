#include "hone/ops/packed/int8_run.h"

#include <algorithm>

#include "hone/core/parallel.h"
#include "hone/ops/packed/conv_bands.h"
#include "hone/ops/simd/winograd_kernels.h"

namespace hone::detail {
namespace {

using simd::int8_columns;
using simd::kInt8Group;
using simd::kInt8Outs;
using simd::kInt8Slack;
using simd::PoolGeometry;

constexpr int64_t kBlock = kInt8Outs * kInt8Group;
constexpr int64_t kTogether = 4;  // panels of one piece of a linear layer
constexpr int64_t kRows = 48;     // and rows

int64_t padded_row(int64_t channels, int64_t kw, int64_t dilation) {
  return ceil_div(((kw - 1) * dilation + 1) * channels, kInt8Group) * kInt8Group;
}

// f(place in panels of 8 bits, place in the codes) for each weight.
template <class F>
void each_weight(int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw, int64_t dilation, const F& f) {
  const int64_t depth = int8_depth(channels, kh, kw, dilation), row = padded_row(channels, kw, dilation);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t o = 0; o < outs; ++o) {
      const int64_t panel = (g * int8_columns(outs) + o / kInt8Outs * kInt8Outs) * depth * kInt8Group;
      for (int64_t i = 0; i < kh; ++i)
        for (int64_t j = 0; j < kw; ++j)
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t in = i * row + j * dilation * channels + c;
            f(panel + in / kInt8Group * kBlock + o % kInt8Outs * kInt8Group + in % kInt8Group,
              (((g * outs + o) * channels + c) * kh + i) * kw + j);
          }
    }
}
// Byte and half of place `at` in panels of 4 bits.
struct Half {
  int64_t byte;
  bool high;
  explicit Half(int64_t at) : byte(at / kBlock * (kBlock / 2) + at % (kBlock / 2)), high(at % kBlock >= kBlock / 2) {}
};

/// Of all groups, padded for the kernels.
template <class T> const T* padded(const T* table, int64_t groups, int64_t outs, T fill, Workspace& workspace) {
  const int64_t columns = int8_columns(outs), size = groups * columns + kInt8Slack;
  return workspace.once<T>(size, [&](T* to) {
    std::fill_n(to, size, fill);
    for (int64_t g = 0; g < groups; ++g) std::copy_n(table + g * outs, outs, to + g * columns);
  });
}
Int8Result padded(Int8Result r, int64_t groups, int64_t outs, Workspace& workspace) {
  if (r.scale) {
    r.scale = padded(r.scale, groups, outs, 0.0f, workspace);
  } else {
    r.multiplier = padded(r.multiplier, groups, outs, 0, workspace);
    r.shift = padded(r.shift, groups, outs, 31, workspace);
  }
  return r;
}
simd::Int8Codes codes_of(const Int8Result& r, int64_t first) {
  return {r.multiplier + first, r.shift + first, r.zero_point, r.low, r.high};
}

/// Panels [first, first + count) of `depth` groups, with 8 bits: as they are, or unpacked to `scratch`.
const int8_t* panels_of(const Int8Weight& w, int64_t first, int64_t count, int64_t depth, int8_t* scratch) {
  if (w.bits == 8) return w.panels + first * depth * kBlock;
  simd::int8_kernels().unpack4(w.panels + first * depth * (kBlock / 2), count * depth, scratch);
  return scratch;
}
int64_t panel_scratch(const Int8Weight& w, int64_t count, int64_t depth) {
  return w.bits == 8 ? 0 : count * depth * kBlock + kInt8Slack;
}
/// Scratch memory is cut into parts that begin where vectors like it.
int64_t aligned(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

/// Where each step finds its pair of channels in a block of tiles.
const int32_t* winograd_offsets(const simd::WinogradPlane& plane, int64_t together, Workspace& workspace) {
  return workspace.once<int32_t>(plane.steps(), [&](int32_t* to) {
    const simd::WinogradOrder order(plane.kernel);
    for (int64_t v = 0; v < plane.values(); ++v)
      for (int64_t k = 0; k < plane.pairs(); ++k)
        *to++ = static_cast<int32_t>(order.value[v] * together * plane.pitch() + 2 * k);
  });
}

}  // namespace

int64_t int8_depth(int64_t channels, int64_t kh, int64_t kw, int64_t dilation) {
  return kh * padded_row(channels, kw, dilation) / kInt8Group;
}
int64_t int8_elements(int64_t groups, int64_t outs, int64_t depth, int64_t bits) {
  return Shape{groups, int8_columns(outs), depth, kInt8Group}.numel() * bits / 8;
}

void pack_int8(const int8_t* codes, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw,
               int64_t dilation, int64_t bits, int8_t* panels) {
  std::fill_n(panels, int8_elements(groups, outs, int8_depth(channels, kh, kw, dilation), bits), int8_t{0});
  each_weight(groups, outs, channels, kh, kw, dilation, [&](int64_t to, int64_t from) {
    if (bits == 8) {
      panels[to] = codes[from];
    } else {
      const Half h(to);
      panels[h.byte] = static_cast<int8_t>(panels[h.byte] | (codes[from] & 15) << (h.high ? 4 : 0));
    }
  });
}
void unpack_int8(const int8_t* panels, int64_t groups, int64_t outs, int64_t channels, int64_t kh, int64_t kw,
                 int64_t dilation, int64_t bits, int8_t* codes) {
  each_weight(groups, outs, channels, kh, kw, dilation, [&](int64_t from, int64_t to) {
    if (bits == 8) {
      codes[to] = panels[from];
    } else {
      const Half h(from);
      codes[to] = static_cast<int8_t>(h.high ? panels[h.byte] >> 4 : ((panels[h.byte] & 15) ^ 8) - 8);
    }
  });
}

void run_int8_linear(int64_t rows, int64_t in, int64_t outs, const uint8_t* x, const Int8Weight& w, const Int8Result& r,
                     Workspace& workspace) {
  const simd::Int8Kernels& kernels = simd::int8_kernels();
  const int64_t depth = ceil_div(in, kInt8Group), width = depth * kInt8Group, together = std::min(kRows, rows);
  auto* const elements = workspace.get<std::byte>((rows * width + kInt8Slack) * kernels.element);
  parallel_for(rows, (1 << 16) / std::max<int64_t>(width, 1), [&](int64_t begin, int64_t end) {
    if (in == width) return kernels.widen(x + begin * in, (end - begin) * in, elements + begin * in * kernels.element);
    for (int64_t i = begin; i < end; ++i) {
      kernels.widen(x + i * in, in, elements + i * width * kernels.element);
      std::fill_n(elements + (i * width + in) * kernels.element, (width - in) * kernels.element, std::byte{0});
    }
  });
  const int32_t* const groups = workspace.once<int32_t>(depth + together, [&](int32_t* to) {
    for (int64_t t = 0; t < depth; ++t) *to++ = static_cast<int32_t>(t * kInt8Group);
    for (int64_t i = 0; i < together; ++i) *to++ = static_cast<int32_t>(i * width);
  });
  const int32_t* const positions = groups + depth;
  const int32_t* const start = padded(w.start, 1, outs, 0, workspace);
  const Int8Result to = padded(r, 1, outs, workspace);

  const int64_t block = std::min(kTogether * kInt8Outs, int8_columns(outs)), blocks = ceil_div(outs, block);
  const int64_t sums = aligned((together * block + kInt8Slack) * 4);
  const int64_t macs = std::max<int64_t>(together * in * block, 1);
  pieces<std::byte>(ceil_div(rows, together) * blocks, kPieceMacs / macs, sums + panel_scratch(w, kTogether, depth),
                    workspace, [&](int64_t begin, int64_t end, std::byte* scratch) {
                      auto* const made = reinterpret_cast<int32_t*>(scratch);
                      for (int64_t u = begin; u < end; ++u) {
                        const int64_t row = u / blocks * together, first = u % blocks * block,
                                      o = std::min(block, outs - first);
                        const int64_t count = std::min(together, rows - row);
                        const int8_t* const panels = panels_of(w, first / kInt8Outs, ceil_div(o, kInt8Outs), depth,
                                                               reinterpret_cast<int8_t*>(scratch + sums));
                        kernels.product({elements + row * width * kernels.element, positions, count, groups, depth,
                                         panels, start + first, o, made, block});
                        if (to.scale) {
                          kernels.scale(made, count, block, o, to.scale + first,
                                        static_cast<float*>(to.y) + row * outs + first, outs);
                        } else {
                          kernels.requantize(made, count, block, o, codes_of(to, first),
                                             static_cast<uint8_t*>(to.y) + row * outs + first, outs);
                        }
                      }
                    });
}

bool int8_conv_fits(const ConvGeometry& s, const FusedPoolAttrs& pool) {
  if (s.oh < 1 || s.ow < 1) return true;
  int64_t places = std::max<int64_t>(s.c, kInt8Outs);
  const int64_t rows = pool.present() ? std::min(pool.kernel_h, s.oh) : 1;
  for (const int64_t factor : {s.w + 2 * s.pad_w, (rows - 1) * s.stride_h + (s.kh - 1) * s.dilation_h + 1})
    if (__builtin_mul_overflow(places, factor, &places)) return false;
  return places < kMostPlaces;
}

bool int8_winograd_fits(const ConvGeometry& s) {
  if (simd::int8_kernels().element != 2 || s.kh != s.kw || (s.kh != 3 && s.kh != 5) || s.stride_h != 1 ||
      s.stride_w != 1 || s.dilation_h != 1 || s.dilation_w != 1 || s.taps() > simd::kMostWinogradTaps)
    return false;
  if (s.c < (s.kh == 3 ? 16 : 4)) return false;
  const simd::WinogradPlane plane{s.c, s.kh, s.oh, s.ow};
  return s.n * plane.tiles() >= 8 && 3 * plane.tiles() * plane.steps() * int8_columns(s.o) <=
                                         4 * s.oh * s.ow * int8_depth(s.c, s.kh, s.kw, 1) * ceil_div(s.o, 8) * 8;
}

void run_int8_conv(const ConvGeometry& s, const uint8_t* x, uint8_t x_zero_point, const Int8Weight& w,
                   const FusedPoolAttrs& pool, const Int8Result& r, Workspace& workspace) {
  const bool fast = int8_winograd_fits(s);
  if (!fast && int8_rows_fit(s, pool)) return run_int8_rows(s, x, x_zero_point, w, pool.present(), r, workspace);
  const simd::Int8Kernels& kernels = simd::int8_kernels();
  const bool pools = pool.present();
  const PoolGeometry g = pool_geometry(pool, s.oh, s.ow);
  const simd::WinogradKernels& winograd = simd::winograd_kernels();
  const Bands bands(s, g, pools, fast ? 2 : 1);
  const int64_t row = padded_row(s.c, s.kw, s.dilation_w), depth = int8_depth(s.c, s.kh, s.kw, s.dilation_w);
  const int64_t columns = int8_columns(s.o), panels = columns / kInt8Outs;
  const int32_t* const groups =
      fast ? nullptr : workspace.once<int32_t>(depth + bands.conv_rows * s.ow, [&](int32_t* to) {
        for (int64_t i = 0; i < s.kh; ++i)
          for (int64_t k = 0; k < row; k += kInt8Group)
            *to++ = static_cast<int32_t>(i * s.dilation_h * bands.width * s.c + k);
        for (int64_t i = 0; i < bands.conv_rows; ++i)
          for (int64_t j = 0; j < s.ow; ++j)
            *to++ = static_cast<int32_t>((i * s.stride_h * bands.width + j * s.stride_w) * s.c);
      });
  const int32_t* const start = padded(w.start, s.groups, s.o, 0, workspace);
  const Int8Result to = padded(r, s.groups, s.o, workspace);
  const simd::WinogradPlane most{s.c, s.kh, bands.conv_rows, s.ow};
  const int64_t panel_size = most.steps() * kInt8Outs * 2;  // in Winograd's form
  const int32_t* const places = fast ? winograd_offsets(most, winograd.together, workspace) : nullptr;
  const int16_t* const transformed =
      fast ? workspace.once<int16_t>(s.groups * panels * panel_size,
                                     [&](int16_t* to) {
                                       auto* const room = workspace.get<int8_t>(panel_scratch(w, 1, depth));
                                       for (int64_t i = 0; i < s.groups * panels; ++i)
                                         winograd.weights(panels_of(w, i, 1, depth, room), most, to + i * panel_size);
                                     })
           : nullptr;

  // Scratch of one piece: the band's input, sums, sums of windows, codes, weights; Winograd's tiles, sums and rows.
  // After the input comes what packing writes, the last group of the last position reads past it, and half a tile.
  const int64_t input = aligned(((bands.plane + bands.width) * s.c + 16 * s.c + kInt8Slack) * kernels.element);
  const int64_t sums = aligned((bands.conv_rows * s.ow * kInt8Outs + kInt8Slack) * 4);
  const int64_t windows = pools ? aligned((bands.rows * g.out_cols * kInt8Outs + kInt8Slack) * 4) : 0;
  const int64_t results = aligned((bands.rows * g.out_cols * kInt8Outs + kInt8Slack) * (to.scale ? 4 : 1));
  const int64_t weights = aligned(fast ? 0 : panel_scratch(w, 1, depth));
  const int64_t blocks_of_tiles = fast ? ceil_div(most.tiles(), winograd.together) : 0;
  const int64_t tiles = aligned((blocks_of_tiles * winograd.together * most.values() * most.pitch() + kInt8Slack) * 2);
  const int64_t tile_rows = fast ? aligned((most.row_elements(bands.width * s.c) + kInt8Slack) * 2) : 0;
  const int64_t tile_sums = fast ? aligned(16 * winograd.together * kInt8Outs * 4) : 0;
  const int64_t macs = std::max<int64_t>(depth * kInt8Group * bands.conv_rows * s.ow * columns, 1);
  const int64_t blocks = std::clamp<int64_t>(macs / kPieceMacs, 1, panels), block = ceil_div(panels, blocks);
  const int64_t in_block = ceil_div(panels, block), out_plane = g.out_rows * g.out_cols;

  const auto band_of_image = [&](int64_t image, int64_t band, int64_t first, std::byte* scratch) {
    std::byte *const in = scratch, *const made = in + input, *const shown = made + sums, *const coded = shown + windows;
    auto* const unpacked = reinterpret_cast<int8_t*>(coded + results);
    auto* const tiled = reinterpret_cast<int16_t*>(coded + results + weights);
    auto* const tiled_sums = reinterpret_cast<int32_t*>(coded + results + weights + tiles);
    auto* const tiled_rows = reinterpret_cast<int16_t*>(coded + results + weights + tiles + tile_sums);
    const int64_t begin = band * bands.rows, end = std::min(begin + bands.rows, g.out_rows);
    const int64_t top = pools ? g.first_row(begin) : begin, stop = pools ? g.end_row(end - 1) : end, rows = stop - top;
    const int64_t group = image % s.groups, count = (end - begin) * g.out_cols;
    kernels.pack_rows(x + image * s.c * s.in_plane(), s.c, s.h, s.w, s.pad_w, top * s.stride_h - s.pad_h,
                      (rows - 1) * s.stride_h + (s.kh - 1) * s.dilation_h + 1 + (fast ? rows % 2 : 0), x_zero_point,
                      in);
    const simd::WinogradPlane plane{s.c, s.kh, rows, s.ow};
    if (fast) winograd.inputs(reinterpret_cast<const int16_t*>(in), bands.width * s.c, plane, tiled_rows, tiled);
    for (int64_t panel = first; panel < std::min(first + block, panels); ++panel) {
      const int64_t o = panel * kInt8Outs, outs = std::min(kInt8Outs, s.o - o), table = group * columns + o;
      auto *const all = reinterpret_cast<int32_t*>(made), *largest = all;
      if (fast) {
        winograd.product(tiled, transformed + (group * panels + panel) * panel_size, places, plane, start + table,
                         tiled_sums, all);
      } else {
        kernels.product({in, groups + depth, rows * s.ow, groups, depth,
                         panels_of(w, group * panels + panel, 1, depth, unpacked), start + table, outs, all,
                         kInt8Outs});
      }
      if (pools) kernels.pool(all, g, top, begin, end, outs, largest = reinterpret_cast<int32_t*>(shown));
      const int64_t place = (image * s.o + o) * out_plane + begin * g.out_cols;
      if (to.scale) {
        auto* const reals = reinterpret_cast<float*>(coded);
        kernels.scale(largest, count, kInt8Outs, outs, to.scale + table, reals, kInt8Outs);
        simd::panel_kernels().spread(reals, count, kInt8Outs, outs, static_cast<float*>(to.y) + place, out_plane);
      } else {
        auto* const codes = reinterpret_cast<uint8_t*>(coded);
        kernels.requantize(largest, count, kInt8Outs, outs, codes_of(to, table), codes, kInt8Outs);
        kernels.spread(codes, count, outs, static_cast<uint8_t*>(to.y) + place, out_plane);
      }
    }
  };
  pieces<std::byte>(s.n * s.groups * bands.count * in_block, kPieceMacs / std::max<int64_t>(macs / in_block, 1),
                    input + sums + windows + results + weights + tiles + tile_sums + tile_rows, workspace,
                    [&](int64_t begin, int64_t end, std::byte* scratch) {
                      for (int64_t u = begin; u < end; ++u)
                        band_of_image(u / (bands.count * in_block), u / in_block % bands.count, u % in_block * block,
                                      scratch);
                    });
}

}  // namespace hone::detail
