#pragma once
// Integer convolutions of few channels: neighbouring positions of a row in the lanes, so that few outputs leave none
// idle, and two rows of the output at once with less products than apart: 4 in place of 6 for kernels of 3 rows, 7 in
// place of 10 for 5. With rows x_0 … of the input and w_0 … of the kernel, y the two rows,
//
//   2 y_0 = a + b + c    a = (x_0 − x_2) 2w_0            + (x_3 − x_4) 2w_3
//   2 y_1 = b − c + d    b = (x_1 + x_2)(w_0 + w_1 + w_2) + x_4 (2w_3 + 2w_4)
//                        c = (x_2 − x_1)(w_0 − w_1 + w_2)
//                        d = (x_3 − x_1) 2w_2            + (x_5 − x_4) 2w_4
//
// where the second summands are for 5 rows alone. Winograd's F(2, 3), Karatsuba's F(2, 2); exact, for sums are modulo
// 2^32 and 2 y has less than 2^31 up to kMostRowTaps.
//
// Two values of 16 bits share a lane: those of two channels, or of an odd last channel at two neighbouring columns.
// Winograd, "Arithmetic complexity of computations", 1980.

#include <cstdint>

namespace hone::simd {

inline constexpr int64_t kMostRowTaps = 1 << 15;  // 2 · 2^15 · 255 · 127 < 2^31
inline constexpr int64_t kRowBlock = 16;          ///< positions of a row that are made at once
inline constexpr int64_t kRowPlaces = 4;          ///< a, b, c, d

/// One band of the output, rows [top, top + rows) of a convolution of stride 1.
struct RowConv {
  int64_t c, h, w, kh, kw, pad_h, pad_w;  ///< kh: 3 or 5
  int64_t top, rows, cols, outs;
  bool pools;  ///< the largest of each 2 × 2 outputs

  int64_t planes() const { return (c + 1) / 2; }                            ///< of pairs
  int64_t row_taps() const { return c / 2 * kw + c % 2 * ((kw + 1) / 2); }  ///< pairs of one row of the kernel
  int64_t combined() const { return kh == 3 ? 4 : 7; }                      ///< rows that a pair of rows is made of
  int64_t steps() const { return combined() * row_taps(); }
  int64_t padded_cols() const { return (cols + kRowBlock - 1) / kRowBlock * kRowBlock; }
  int64_t line() const { return padded_cols() + kw + kRowBlock; }              ///< elements of a row of pairs
  int64_t pitch() const { return pools ? padded_cols() / 2 : padded_cols(); }  ///< of sums
  int64_t made_rows() const { return pools ? rows / 2 : rows; }
  /// Sums of an output: whole blocks, with room for what the last pooled one spills.
  int64_t plane() const { return (made_rows() * pitch() + kRowBlock / 2 + 15) / kRowBlock * kRowBlock; }
};

/// Combined rows in the order in which their products are added: those of a, then b, c and d; `first` has the bounds.
struct RowOrder {
  int64_t row[7], first[kRowPlaces + 1];
};
constexpr RowOrder row_order(int64_t kh) {
  if (kh == 3) return {{0, 1, 2, 3, 0, 0, 0}, {0, 1, 2, 3, 4}};
  return {{0, 4, 1, 5, 2, 3, 6}, {0, 2, 4, 5, 7}};
}

/// One set per SIMD target whose Int8Kernels have elements of 16 bits; none elsewhere.
struct RowKernels {
  int64_t together;  ///< outputs
  /// Rows [s.top − pad_h, + s.rows + kh) of x as pairs [rows, planes, line]; `code` outside x.
  void (*pack)(const RowConv& s, const uint8_t* x, uint8_t code, int32_t* pairs);
  /// y [outs, plane] = start + the sums, rows of `pitch`. offsets [steps]: of each pair in combined rows [combined,
  /// planes, line]; w: for each `together` outputs, pairs [steps, outputs]. combined and room are for the kernel:
  /// combined · planes · line, and kRowPlaces · together · kRowBlock elements.
  void (*product)(const RowConv& s, const int32_t* pairs, const int32_t* offsets, const int32_t* w,
                  const int32_t* start, int32_t* combined, int32_t* room, int32_t* y);
};

/// The set for the best target of this machine (or the one chosen for a test).
const RowKernels& row_kernels();

}  // namespace hone::simd
