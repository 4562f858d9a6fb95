#pragma once
// Integer convolutions of few channels and square kernels: int8_row_kernels.h along columns as well, which is
// winograd_kernels.h with neighbouring tiles of 2 × 2 outputs in the lanes, so that few outputs leave none idle.
//
// Two values of 16 bits share a lane: those of two channels; of an odd last channel, of the two combined rows that one
// place adds up. Columns are combined as they are read.

#include <cstdint>
#include <initializer_list>

#include "hone/ops/simd/int8_row_kernels.h"

namespace hone::simd {

inline constexpr int64_t kMostTileTaps = 1 << 14;       // 4 · 2^14 · 255 · 127 < 2^31
inline constexpr int64_t kTileColumns = 2 * kRowBlock;  ///< RowConv::across
inline constexpr int64_t kTileRoom = 2 * kSumPlaces * kRowBlock;

/// What the steps of a convolution of `kernel` × `kernel` taps and c channels read.
struct TileSteps {
  int64_t kernel, c;
  int64_t planes() const { return c / 2; }  ///< of two channels each
  int64_t odd() const { return c % 2; }
  /// Rows that a pair of rows is combined to: combined_count for each plane of two, one a place for an odd channel.
  int64_t rows() const { return combined_count(kernel) * planes() + kSumPlaces * odd(); }
  int64_t steps() const { return combined_count(kernel) * rows(); }
  /// f(step, column, plane, row, second): in the order of the steps. `column` numbers the combination of columns (as
  /// two_outputs.h does), row and second those of rows: for an odd channel (plane == planes()) the rows of one place,
  /// of which the first has the place's number and the second is −1 where there is none; else second is −1.
  template <class F> void each(const F& f) const {
    const SumOrder order = sum_order(kernel);
    for (int64_t step = 0, across = 0; across < kSumPlaces; ++across) {
      for (const int64_t down : {1, 2, 0, 3}) {
        for (int64_t j = order.first[across]; j < order.first[across + 1]; ++j) {
          for (int64_t p = 0; p < planes(); ++p)
            for (int64_t i = order.first[down]; i < order.first[down + 1]; ++i)
              f(step++, order.product[j], p, order.product[i], int64_t{-1});
          if (odd() == 0) continue;
          const int64_t i = order.first[down];
          f(step++, order.product[j], planes(), order.product[i],
            i + 1 < order.first[down + 1] ? order.product[i + 1] : int64_t{-1});
        }
      }
    }
  }
};

/// Where a step finds its two elements, from a block's first tile: they are subtracted, or added for column 1; column 5
/// is the first alone.
struct TileOffsets {
  int32_t first, second;
};

/// One set per SIMD target whose Int8Kernels have elements of 16 bits; none elsewhere. Bands are RowConvs, `across`
/// kTileColumns, whose lines hold the even columns and then the odd ones.
struct TileKernels {
  int64_t together;  ///< outputs
  /// Rows [s.top − pad_h, + s.rows + kh) of x as pairs [rows, planes, line]; `code` outside x.
  void (*pack)(const RowConv& s, const uint8_t* x, uint8_t code, int32_t* pairs);
  /// y [outs, plane] = start + the sums, rows of `pitch`. offsets [steps]; w: for each `together` outputs, pairs
  /// [steps, outputs]. combined: [TileSteps::rows, line], room: kTileRoom · together, 64-byte aligned: for the kernel.
  /// Combined rows are [combined_count, planes of two, line] and, for an odd channel, [kSumPlaces, line].
  void (*product)(const RowConv& s, const int32_t* pairs, const TileOffsets* offsets, const int32_t* w,
                  const int32_t* start, int32_t* combined, int32_t* room, int32_t* y);
};

/// The set for the best target of this machine (or the one chosen for a test).
const TileKernels& tile_kernels();

}  // namespace hone::simd
