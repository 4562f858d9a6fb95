// Integer convolutions of few channels: ops/simd/int8_row_kernels.h has the arithmetic, and int8_quad_kernels.h that of
// targets whose elements have 8 bits.

#include <algorithm>
#include <cstring>

#include "hone/core/parallel.h"
#include "hone/ops/packed/conv_bands.h"
#include "hone/ops/packed/int8_run.h"
#include "hone/ops/simd/int8_quad_kernels.h"
#include "hone/ops/simd/int8_tile_kernels.h"

namespace hone::detail {
namespace {

using simd::CombinedWeights;
using simd::kInt8Group;
using simd::kInt8Outs;
using simd::kRowBlock;
using simd::RowConv;
using simd::SumOrder;
using simd::TileOffsets;

constexpr int64_t kBlock = kInt8Outs * kInt8Group;
constexpr int64_t kBandElements = 4096;  // of a band's input: half of the first-level cache
constexpr int64_t kBandQuads = 6144;     // that is larger where these are used

bool has_quads() { return simd::quad_kernels().product != nullptr; }

RowConv by_rows(const ConvGeometry& s, bool pools) {
  return {s.c, s.h, s.w, s.kh, s.kw, s.pad_h, s.pad_w, 0, 0, s.ow, s.o, pools, kRowBlock};
}

/// The bands of the output, `rows` of the convolution each, of which the last may have fewer.
RowConv band_of(const ConvGeometry& s, bool pools) {
  RowConv band = by_rows(s, pools);
  if (!has_quads() && int8_tiles_fit(s)) band.across = simd::kTileColumns;
  const int64_t fit =
      (has_quads() ? kBandQuads / simd::quad_row(band) : kBandElements / (band.planes() * band.line())) - s.kh;
  const int64_t all = pools ? s.oh / 2 * 2 : s.oh;
  const int64_t count = ceil_div(all, std::max<int64_t>(fit, 8));
  band.rows = std::min(ceil_div(ceil_div(all, count), 2) * 2, all);
  return band;
}

/// f(pair, channel, column) of the pairs of taps in a row of the kernel. The second tap is the next channel's at the
/// same column, or for an odd last channel the next column's.
template <class F> void each_pair(const RowConv& s, const F& f) {
  for (int64_t c = 0, p = 0; c < s.c; c += 2)
    for (int64_t j = 0; j < s.kw; j += c + 1 < s.c ? 1 : 2) f(p++, c, j);
}

/// f(panel, place of weight) for each output of a group, whose weights of 8 bits begin at `panel`: as kernels that take
/// outputs `together` read them, step k's weight is at to[place(k)].
template <class F>
void each_output(int64_t outs, int64_t depth, int64_t steps, int64_t together, const int8_t* panels, const F& f) {
  for (int64_t o = 0; o < outs; ++o) {
    const int64_t first = o / together * together, width = std::min(together, outs - first);
    f(panels + o / kInt8Outs * depth * kBlock + o % kInt8Outs * kInt8Group,
      [=](int64_t step) { return first * steps + step * width + o - first; });
  }
}
/// Weight k of a row of the kernel, from the row's first.
const int8_t* tap_of(const int8_t* row, int64_t k) { return row + k / kInt8Group * kBlock + k % kInt8Group; }
int32_t pair_of(int32_t low, int32_t high) {
  return static_cast<int32_t>((low & 0xffff) | static_cast<uint32_t>(high) << 16);
}

/// Weights of one group as the kernel of rows reads them.
void pair_weights(const RowConv& s, const int8_t* panels, int64_t depth, int64_t together, int32_t* to) {
  const SumOrder order = simd::sum_order(s.kh);
  const int64_t row = depth / s.kh * kBlock, taps = s.row_taps();
  each_output(s.outs, depth, s.steps(), together, panels, [&](const int8_t* panel, const auto& place) {
    const auto tap = [&](int64_t c, int64_t j) {
      const int8_t* const column = tap_of(panel, j * s.c + c);
      return simd::combined_weights(s.kh, [&](int64_t i) { return column[i * row]; });
    };
    each_pair(s, [&](int64_t p, int64_t c, int64_t j) {
      const CombinedWeights low = tap(c, j);
      const CombinedWeights high = c + 1 < s.c ? tap(c + 1, j) : j + 1 < s.kw ? tap(c, j + 1) : CombinedWeights{};
      for (int64_t i = 0; i < s.combined(); ++i)
        to[place(i * taps + p)] = pair_of(low.product[order.product[i]], high.product[order.product[i]]);
    });
  });
}

/// The same for tiles. all: room for 7 a channel.
void tile_weights(const ConvGeometry& s, const int8_t* panels, int64_t together, CombinedWeights* all, int32_t* to) {
  const simd::TileSteps tiles{s.kh, s.c};
  const int64_t kernel = s.kh, depth = int8_depth(s.c, s.kh, s.kw, 1), row_of_kernel = depth / kernel * kBlock;
  each_output(s.o, depth, tiles.steps(), together, panels, [&](const int8_t* panel, const auto& place) {
    for (int64_t c = 0; c < s.c; ++c) {  // combined along columns, then rows
      CombinedWeights rows[5] = {}, *const columns = all + c * 7;
      for (int64_t i = 0; i < kernel; ++i)
        rows[i] =
            simd::combined_weights(kernel, [&](int64_t j) { return *tap_of(panel + i * row_of_kernel, j * s.c + c); });
      for (int64_t j = 0; j < simd::combined_count(kernel); ++j)
        columns[j] = simd::combined_weights(kernel, [&](int64_t i) { return rows[i].product[j]; });
    }
    tiles.each([&](int64_t step, int64_t column, int64_t plane, int64_t row, int64_t second) {
      const auto weight = [&](int64_t c, int64_t i) { return all[c * 7 + column].product[i]; };
      const bool two = plane < tiles.planes();
      const int32_t high = two ? weight(2 * plane + 1, row) : second >= 0 ? weight(2 * plane, second) : 0;
      to[place(step)] = pair_of(weight(2 * plane, row), high);
    });
  });
}

/// Each value of a table `times` times: kernels that take a factor for each of so many outputs see one output's
/// positions.
template <class T> const T* spread(const T* table, int64_t n, int64_t times, Workspace& workspace) {
  return workspace.once<T>(n * times + simd::kInt8Slack, [&](T* to) {
    for (int64_t i = 0; i < n; ++i) std::fill_n(to + i * times, times, table[i]);
  });
}

int64_t panel_bytes(const ConvGeometry& s) {  // of one group, with 8 bits
  return simd::int8_columns(s.o) * int8_depth(s.c, s.kh, s.kw, 1) * kInt8Group;
}
void unpack(const ConvGeometry& s, const Int8Weight& w, int8_t* to) {
  simd::int8_kernels().unpack4(w.panels, s.groups * panel_bytes(s) / kBlock, to);
}

int64_t aligned(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

/// Sums of combined rows: the band's pairs, the rows, and what the kernel adds up are its scratch.
template <class Kernels, class Offset> class CombinedSums {
 public:
  /// weights(panels of a group, to) makes a group's [outs, steps], offsets(to) those of the steps; rows, room:
  /// elements.
  template <class Weights, class Offsets>
  CombinedSums(const Kernels& kernels, const ConvGeometry& s, const RowConv& whole, int64_t steps, int64_t rows,
               int64_t room, const Int8Weight& w, Workspace& workspace, const Weights& weights, const Offsets& offsets)
      : kernels_(kernels),
        start_(w.start),
        outs_(s.o),
        steps_(steps),
        pairs_(aligned((whole.rows + s.kh) * whole.planes() * whole.line() * 4)),
        rows_(aligned(rows * 4)),
        room_(aligned(room * 4)) {
    weights_ = workspace.once<int32_t>(s.groups * s.o * steps, [&](int32_t* to) {
      const int8_t* panels = w.panels;
      if (w.bits == 4) {
        auto* const unpacked = workspace.get<int8_t>(s.groups * panel_bytes(s));
        unpack(s, w, unpacked);
        panels = unpacked;
      }
      for (int64_t g = 0; g < s.groups; ++g) weights(panels + g * panel_bytes(s), to + g * s.o * steps);
    });
    offsets_ = workspace.once<Offset>(steps, offsets);
  }
  int64_t scratch() const { return pairs_ + rows_ + room_; }
  void operator()(const RowConv& band, const uint8_t* x, uint8_t zero_point, int64_t group, std::byte* scratch,
                  int32_t* y) const {
    auto* const pairs = reinterpret_cast<int32_t*>(scratch);
    kernels_.pack(band, x, zero_point, pairs);
    kernels_.product(band, pairs, offsets_, weights_ + group * outs_ * steps_, start_ + group * outs_,
                     reinterpret_cast<int32_t*>(scratch + pairs_), reinterpret_cast<int32_t*>(scratch + pairs_ + rows_),
                     y);
  }

 private:
  const Kernels& kernels_;
  const int32_t *start_, *weights_ = nullptr;
  const Offset* offsets_ = nullptr;
  int64_t outs_, steps_, pairs_, rows_, room_;
};

/// By pairs of rows.
CombinedSums<simd::RowKernels, int32_t> pair_sums(const ConvGeometry& s, const RowConv& whole, const Int8Weight& w,
                                                  Workspace& workspace) {
  const simd::RowKernels& kernels = simd::row_kernels();
  const int64_t line = whole.line(), planes = whole.planes(), depth = int8_depth(s.c, s.kh, s.kw, 1);
  return {kernels,
          s,
          whole,
          whole.steps(),
          whole.combined() * planes * line,
          kernels.together * kRowBlock,
          w,
          workspace,
          [&](const int8_t* panels, int32_t* to) { pair_weights(whole, panels, depth, kernels.together, to); },
          [&](int32_t* to) {
            const SumOrder order = simd::sum_order(s.kh);
            each_pair(whole, [&](int64_t p, int64_t c, int64_t j) {
              for (int64_t i = 0; i < whole.combined(); ++i)
                to[i * whole.row_taps() + p] = static_cast<int32_t>((order.product[i] * planes + c / 2) * line + j);
            });
          }};
}

/// By pairs of rows and of columns.
CombinedSums<simd::TileKernels, TileOffsets> tile_sums(const ConvGeometry& s, const RowConv& whole, const Int8Weight& w,
                                                       Workspace& workspace) {
  const simd::TileKernels& kernels = simd::tile_kernels();
  const simd::TileSteps tiles{s.kh, s.c};
  const int64_t line = whole.line(), half = line / 2;
  return {kernels,
          s,
          whole,
          tiles.steps(),
          tiles.rows() * line,
          simd::kTileRoom * kernels.together,
          w,
          workspace,
          [&](const int8_t* panels, int32_t* to) {
            tile_weights(s, panels, kernels.together, workspace.get<CombinedWeights>(7 * s.c), to);
          },
          [&](TileOffsets* to) {
            // x_0 − x_2 and so on; even columns lie before odd ones.
            const int64_t places[][2] = {{0, 1},        {half, 1}, {1, half},    {half + 1, half},
                                         {half + 1, 2}, {2, 2},    {half + 2, 2}};
            tiles.each([&](int64_t step, int64_t column, int64_t plane, int64_t row, int64_t) {
              const int64_t at = plane < tiles.planes() ? (row * tiles.planes() + plane) * line
                                                        : (tiles.rows() - simd::kSumPlaces + row) * line;
              to[step] = {static_cast<int32_t>(at + places[column][0]), static_cast<int32_t>(at + places[column][1])};
            });
          }};
}

/// Sums by quads, from the panels as they are: the band's elements and quads are its scratch.
class QuadSums {
 public:
  QuadSums(const ConvGeometry& s, const RowConv& whole, const Int8Weight& w, Workspace& workspace)
      : start_(w.start), panels_(w.panels), outs_(s.o), size_(panel_bytes(s)) {
    if (w.bits == 4) panels_ = workspace.once<int8_t>(s.groups * size_, [&](int8_t* to) { unpack(s, w, to); });
    // Vectors of positions and their last group read past the elements; packing writes past them.
    packed_ = aligned((whole.rows + s.kh) * (s.w + 2 * s.pad_w) * s.c + 16 * s.c + 64 + simd::kInt8Slack);
    quads_ = aligned((whole.rows + s.kh) * simd::quad_row(whole) * 4);
  }
  int64_t scratch() const { return packed_ + quads_; }
  void operator()(const RowConv& band, const uint8_t* x, uint8_t zero_point, int64_t group, std::byte* scratch,
                  int32_t* y) const {
    simd::int8_kernels().pack_rows(x, band.c, band.h, band.w, band.pad_w, band.top - band.pad_h, band.rows + band.kh,
                                   zero_point, scratch);
    auto* const quads = reinterpret_cast<int32_t*>(scratch + packed_);
    kernels_.quads(band, reinterpret_cast<const uint8_t*>(scratch), quads);
    kernels_.product(band, quads, panels_ + group * size_, start_ + group * outs_, y);
  }

 private:
  const simd::QuadKernels& kernels_ = simd::quad_kernels();
  const int32_t* start_;
  const int8_t* panels_;
  int64_t outs_, size_, packed_ = 0, quads_ = 0;
};

template <class SumsOfBand>
void run_rows(const SumsOfBand& sums_of_band, const ConvGeometry& s, const RowConv& whole, const uint8_t* x,
              uint8_t x_zero_point, bool pools, const Int8Result& r, Workspace& workspace) {
  const simd::Int8Kernels& after = simd::int8_kernels();
  const int64_t outs = s.groups * s.o, lanes = after.lanes;
  const float* const scale = r.scale ? spread(r.scale, outs, lanes, workspace) : nullptr;
  const int32_t* const multiplier = scale ? nullptr : spread(r.multiplier, outs, lanes, workspace);
  const int32_t* const shift = scale ? nullptr : spread(r.shift, outs, lanes, workspace);

  const int64_t sums = aligned((s.o * whole.plane() + simd::kInt8Slack) * 4);  // of one piece, and its results
  const int64_t results = aligned((whole.plane() + simd::kInt8Slack) * 4);
  const int64_t all = pools ? s.oh / 2 * 2 : s.oh, bands = ceil_div(all, whole.rows);
  const int64_t out_cols = pools ? s.ow / 2 : s.ow, out_plane = (pools ? s.oh / 2 : s.oh) * out_cols;

  const auto band_of_image = [&](int64_t image, int64_t index, std::byte* scratch) {
    std::byte *const made = scratch + sums_of_band.scratch(), *const shown = made + sums;
    RowConv band = whole;
    band.top = index * whole.rows;
    band.rows = std::min(whole.rows, all - band.top);
    const int64_t group = image % s.groups, plane = band.plane(), first = pools ? band.top / 2 : band.top;
    auto* const y = reinterpret_cast<int32_t*>(made);
    sums_of_band(band, x + image * s.c * s.in_plane(), x_zero_point, group, scratch, y);
    const auto put = [&]<class T>(const T* values, int64_t o) {
      T* to = static_cast<T*>(r.y) + (image * s.o + o) * out_plane + first * out_cols;
      T* const end = to + band.made_rows() * out_cols;
      for (; to < end; to += out_cols, values += band.pitch()) {
        // Whole blocks, as long as what they spill lies in rows that come later.
        if (out_cols <= kRowBlock && end - to >= kRowBlock) {
          std::memcpy(to, values, kRowBlock * sizeof(T));
        } else {
          std::copy_n(values, out_cols, to);
        }
      }
    };
    for (int64_t o = 0; o < s.o; ++o) {
      const int64_t table = (group * s.o + o) * lanes;
      if (scale) {
        auto* const reals = reinterpret_cast<float*>(shown);
        after.scale(y + o * plane, plane / lanes, lanes, lanes, scale + table, reals, lanes);
        put(reals, o);
      } else {
        auto* const coded = reinterpret_cast<uint8_t*>(shown);
        after.requantize(y + o * plane, plane / lanes, lanes, lanes,
                         {multiplier + table, shift + table, r.zero_point, r.low, r.high}, coded, lanes);
        put(coded, o);
      }
    }
  };
  const int64_t macs = std::max<int64_t>(whole.rows * s.ow * s.o * s.taps(), 1);
  pieces<std::byte>(s.n * s.groups * bands, kPieceMacs / macs, sums_of_band.scratch() + sums + results, workspace,
                    [&](int64_t begin, int64_t end, std::byte* scratch) {
                      for (int64_t u = begin; u < end; ++u) band_of_image(u / bands, u % bands, scratch);
                    });
}

}  // namespace

bool int8_tiles_fit(const ConvGeometry& s) {
  if (s.kh != s.kw || (s.kh != 3 && s.kh != 5) || s.taps() > simd::kMostTileTaps) return false;
  // Tiles combine columns at each step, one operation beside twelve products, and have more to add up behind the steps:
  // with six outputs at a time, AVX2 takes as long for that as for 24 steps, and by rows for 8.
  const int64_t rows = by_rows(s, false).padded_cols() * (by_rows(s, false).steps() + 8);
  const int64_t blocks = ceil_div(s.ow, simd::kTileColumns), steps = simd::TileSteps{s.kh, s.c}.steps();
  return blocks * kRowBlock * (steps * 13 / 12 + 24) < rows;
}

bool int8_rows_fit(const ConvGeometry& s, const FusedPoolAttrs& pool) {
  const bool pools = pool.present();
  if (s.stride_h != 1 || s.stride_w != 1 || s.dilation_h != 1 || s.dilation_w != 1 || s.kw > kRowBlock) return false;
  if (pools && (pool.kernel_h != 2 || pool.kernel_w != 2 || pool.stride_h != 2 || pool.stride_w != 2 ||
                pool.pad_h != 0 || pool.pad_w != 0))
    return false;
  if (has_quads()) {
    // As many sums a vector or more than outputs in the lanes would make.
    const int64_t vectors = ceil_div(s.ow, kRowBlock) * s.o, plain = s.ow * ceil_div(s.o, kInt8Outs);
    return s.c <= simd::kMostQuadChannels && s.ow >= 1 && vectors <= plain;
  }
  if (simd::int8_kernels().element != 2 || (s.kh != 3 && s.kh != 5) || s.taps() > simd::kMostRowTaps) return false;
  const int64_t depth = int8_depth(s.c, s.kh, s.kw, 1);
  const int64_t rows = ceil_div(s.oh, 2) * by_rows(s, false).padded_cols() * by_rows(s, false).steps() * s.o;
  const int64_t plain = s.oh * s.ow * depth * 2 * ceil_div(s.o, 8) * 8;
  return 10 * rows <= 9 * plain;
}

void run_int8_rows(const ConvGeometry& s, const uint8_t* x, uint8_t x_zero_point, const Int8Weight& w, bool pools,
                   const Int8Result& r, Workspace& workspace) {
  const RowConv whole = band_of(s, pools);
  if (has_quads()) {
    run_rows(QuadSums(s, whole, w, workspace), s, whole, x, x_zero_point, pools, r, workspace);
  } else if (whole.across == simd::kTileColumns) {
    run_rows(tile_sums(s, whole, w, workspace), s, whole, x, x_zero_point, pools, r, workspace);
  } else {
    run_rows(pair_sums(s, whole, w, workspace), s, whole, x, x_zero_point, pools, r, workspace);
  }
}

}  // namespace hone::detail
