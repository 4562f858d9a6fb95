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

/// Weights of one group, 8 bits in panels, as the kernel reads them.
void pair_weights(const RowConv& s, const int8_t* panels, int64_t depth, int64_t together, int32_t* to) {
  const SumOrder order = simd::sum_order(s.kh);
  const int64_t step = depth / s.kh * kBlock, taps = s.row_taps();
  for (int64_t first = 0; first < s.outs; first += together, to += together * s.steps()) {
    const int64_t outs = std::min(together, s.outs - first);
    for (int64_t o = 0; o < outs; ++o) {
      const int64_t out = first + o;
      const int8_t* const panel = panels + out / kInt8Outs * depth * kBlock + out % kInt8Outs * kInt8Group;
      const auto tap = [&](int64_t c, int64_t j) {
        const int64_t k = j * s.c + c;
        const int8_t* const column = panel + k / kInt8Group * kBlock + k % kInt8Group;
        return simd::combined_weights(s.kh, [&](int64_t i) { return column[i * step]; });
      };
      each_pair(s, [&](int64_t p, int64_t c, int64_t j) {
        const CombinedWeights low = tap(c, j);
        const CombinedWeights high = c + 1 < s.c ? tap(c + 1, j) : j + 1 < s.kw ? tap(c, j + 1) : CombinedWeights{};
        for (int64_t i = 0; i < s.combined(); ++i)
          to[(i * taps + p) * outs + o] = static_cast<int32_t>(
              (low.product[order.product[i]] & 0xffff) | static_cast<uint32_t>(high.product[order.product[i]]) << 16);
      });
    }
  }
}

/// Each value of a table `times` times: kernels that take a factor for each of so many outputs see one output's
/// positions.
template <class T> const T* spread(const T* table, int64_t n, int64_t times, Workspace& workspace) {
  return workspace.once<T>(n * times + simd::kInt8Slack, [&](T* to) {
    for (int64_t i = 0; i < n; ++i) std::fill_n(to + i * times, times, table[i]);
  });
}

/// The panels with 8 bits.
const int8_t* bytes_of(const ConvGeometry& s, const Int8Weight& w, Workspace& workspace) {
  if (w.bits == 8) return w.panels;
  const int64_t blocks = s.groups * simd::int8_columns(s.o) / kInt8Outs * int8_depth(s.c, s.kh, s.kw, 1);
  auto* const unpacked = workspace.get<int8_t>(blocks * kBlock);
  simd::int8_kernels().unpack4(w.panels, blocks, unpacked);
  return unpacked;
}

int64_t aligned(int64_t bytes) { return ceil_div(bytes, 64) * 64; }

/// Sums by pairs of rows: the band's pairs, combined rows, and what the kernel adds up are its scratch.
class PairSums {
 public:
  PairSums(const ConvGeometry& s, const RowConv& whole, const Int8Weight& w, Workspace& workspace)
      : start_(w.start), outs_(s.o), steps_(whole.steps()) {
    const int64_t line = whole.line(), planes = whole.planes();
    weights_ = workspace.once<int32_t>(s.groups * s.o * steps_, [&](int32_t* to) {
      const int64_t depth = int8_depth(s.c, s.kh, s.kw, 1), size = simd::int8_columns(s.o) * depth * kInt8Group;
      const int8_t* const panels = bytes_of(s, w, workspace);
      for (int64_t g = 0; g < s.groups; ++g)
        pair_weights(whole, panels + g * size, depth, kernels_.together, to + g * s.o * steps_);
    });
    offsets_ = workspace.once<int32_t>(steps_, [&](int32_t* to) {
      const SumOrder order = simd::sum_order(s.kh);
      each_pair(whole, [&](int64_t p, int64_t c, int64_t j) {
        for (int64_t i = 0; i < whole.combined(); ++i)
          to[i * whole.row_taps() + p] = static_cast<int32_t>((order.product[i] * planes + c / 2) * line + j);
      });
    });
    pairs_ = aligned((whole.rows + s.kh) * planes * line * 4);
    combined_ = aligned(whole.combined() * planes * line * 4);
    room_ = aligned(kernels_.together * kRowBlock * 4);
  }
  int64_t scratch() const { return pairs_ + combined_ + room_; }
  void operator()(const RowConv& band, const uint8_t* x, uint8_t zero_point, int64_t group, std::byte* scratch,
                  int32_t* y) const {
    auto* const pairs = reinterpret_cast<int32_t*>(scratch);
    kernels_.pack(band, x, zero_point, pairs);
    kernels_.product(band, pairs, offsets_, weights_ + group * outs_ * steps_, start_ + group * outs_,
                     reinterpret_cast<int32_t*>(scratch + pairs_),
                     reinterpret_cast<int32_t*>(scratch + pairs_ + combined_), y);
  }

 private:
  const simd::RowKernels& kernels_ = simd::row_kernels();
  const int32_t *start_, *weights_ = nullptr, *offsets_ = nullptr;
  int64_t outs_, steps_, pairs_ = 0, combined_ = 0, room_ = 0;
};

/// Sums by pairs of rows and of columns: likewise.
class TileSums {
 public:
  TileSums(const ConvGeometry& s, const RowConv& whole, const Int8Weight& w, Workspace& workspace)
      : start_(w.start), outs_(s.o), tiles_{s.kh, s.c} {
    const int64_t line = whole.line(), half = line / 2, steps = tiles_.steps();
    weights_ = workspace.once<int32_t>(s.groups * s.o * steps, [&](int32_t* to) {
      const int64_t depth = int8_depth(s.c, s.kh, s.kw, 1), size = simd::int8_columns(s.o) * depth * kInt8Group;
      const int8_t* const panels = bytes_of(s, w, workspace);
      auto* const all = workspace.get<CombinedWeights>(7 * s.c);
      for (int64_t g = 0; g < s.groups; ++g)
        tile_weights(panels + g * size, depth, kernels_.together, all, to + g * s.o * steps);
    });
    offsets_ = workspace.once<TileOffsets>(steps, [&](TileOffsets* to) {
      // x_0 − x_2 and so on; even columns lie before odd ones.
      const int64_t places[][2] = {{0, 1},        {half, 1}, {1, half},    {half + 1, half},
                                   {half + 1, 2}, {2, 2},    {half + 2, 2}};
      tiles_.each([&](int64_t step, int64_t column, int64_t plane, int64_t row, int64_t) {
        const int64_t at = plane < tiles_.planes() ? (row * tiles_.planes() + plane) * line
                                                   : (tiles_.rows() - simd::kSumPlaces + row) * line;
        to[step] = {static_cast<int32_t>(at + places[column][0]), static_cast<int32_t>(at + places[column][1])};
      });
    });
    pairs_ = aligned((whole.rows + s.kh) * whole.planes() * line * 4);
    combined_ = aligned(tiles_.rows() * line * 4);
    room_ = aligned(simd::kTileRoom * kernels_.together * 4);
  }
  int64_t scratch() const { return pairs_ + combined_ + room_; }
  void operator()(const RowConv& band, const uint8_t* x, uint8_t zero_point, int64_t group, std::byte* scratch,
                  int32_t* y) const {
    auto* const pairs = reinterpret_cast<int32_t*>(scratch);
    kernels_.pack(band, x, zero_point, pairs);
    kernels_.product(band, pairs, offsets_, weights_ + group * outs_ * tiles_.steps(), start_ + group * outs_,
                     reinterpret_cast<int32_t*>(scratch + pairs_),
                     reinterpret_cast<int32_t*>(scratch + pairs_ + combined_), y);
  }

 private:
  /// Weights of one group, 8 bits in panels, as the kernel reads them. all: room for 7 a channel.
  void tile_weights(const int8_t* panels, int64_t depth, int64_t together, CombinedWeights* all, int32_t* to) const {
    const int64_t kernel = tiles_.kernel, step_of_row = depth / kernel * kBlock;
    for (int64_t first = 0; first < outs_; first += together, to += together * tiles_.steps()) {
      const int64_t outs = std::min(together, outs_ - first);
      for (int64_t o = 0; o < outs; ++o) {
        const int64_t out = first + o;
        const int8_t* const panel = panels + out / kInt8Outs * depth * kBlock + out % kInt8Outs * kInt8Group;
        for (int64_t c = 0; c < tiles_.c; ++c) {  // combined along columns, then rows
          CombinedWeights rows[5] = {}, *const columns = all + c * 7;
          for (int64_t i = 0; i < kernel; ++i)
            rows[i] = simd::combined_weights(kernel, [&](int64_t j) {
              const int64_t k = j * tiles_.c + c;
              return panel[i * step_of_row + k / kInt8Group * kBlock + k % kInt8Group];
            });
          for (int64_t j = 0; j < simd::combined_count(kernel); ++j)
            columns[j] = simd::combined_weights(kernel, [&](int64_t i) { return rows[i].product[j]; });
        }
        tiles_.each([&](int64_t step, int64_t column, int64_t plane, int64_t row, int64_t second) {
          const auto weight = [&](int64_t c, int64_t i) { return all[c * 7 + column].product[i]; };
          const bool two = plane < tiles_.planes();
          const int32_t low = weight(2 * plane, row);
          const int32_t high = two ? weight(2 * plane + 1, row) : second >= 0 ? weight(2 * plane, second) : 0;
          to[step * outs + o] = static_cast<int32_t>((low & 0xffff) | static_cast<uint32_t>(high) << 16);
        });
      }
    }
  }

  const simd::TileKernels& kernels_ = simd::tile_kernels();
  const int32_t *start_, *weights_ = nullptr;
  const TileOffsets* offsets_ = nullptr;
  int64_t outs_, pairs_ = 0, combined_ = 0, room_ = 0;
  simd::TileSteps tiles_;
};

/// Sums by quads, from the panels as they are: the band's elements and quads are its scratch.
class QuadSums {
 public:
  QuadSums(const ConvGeometry& s, const RowConv& whole, const Int8Weight& w, Workspace& workspace)
      : start_(w.start),
        panels_(bytes_of(s, w, workspace)),
        outs_(s.o),
        size_(simd::int8_columns(s.o) * int8_depth(s.c, s.kh, s.kw, 1) * kInt8Group) {
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
    run_rows(TileSums(s, whole, w, workspace), s, whole, x, x_zero_point, pools, r, workspace);
  } else {
    run_rows(PairSums(s, whole, w, workspace), s, whole, x, x_zero_point, pools, r, workspace);
  }
}

}  // namespace hone::detail
