#pragma once
// The inner loops over sparse weights in f32, one set per SIMD target.
//
// Two ways to use the lanes: a *panel* has the vectors run over positions (the batch of a linear layer, the output
// positions of a convolution), so that every weight meets whole vectors whatever its place; the *dot* kernels serve a
// single position, where the lanes must come from the weights' own layout.

#include <cstdint>

namespace hone::simd {

/// Elements that kernels may read past the end of x.
inline constexpr int64_t kSparseSlack = 64;
/// Outputs that N:M weights keep side by side.
inline constexpr int64_t kInterleave = 16;

/// Weights as a panel reads them: lists of taps, each list shared by `height` consecutive outputs.
struct SparseRows {
  const float* values;     ///< [tap][height]
  const int32_t* offsets;  ///< [tap]: where the tap's positions begin in x
  const int32_t* starts;   ///< list i has taps [starts[i], starts[i + 1])
  /// Where starts is null: `count` taps a list, and the taps of kInterleave lists lie side by side,
  /// [list / kInterleave][stride][list mod kInterleave].
  int64_t count, stride;
  int64_t outs;  ///< the last list may have fewer than `height` of them
  int64_t height;

  int64_t lists() const { return (outs + height - 1) / height; }
  struct Taps {
    const int32_t* offsets;
    const float* values;
    int64_t count, offset_step, value_step;
  };
  Taps taps(int64_t list) const {
    if (starts) {
      const int64_t first = starts[list];
      return {offsets + first, values + first * height, starts[list + 1] - first, 1, height};
    }
    const int64_t first = list / kInterleave * kInterleave * stride + list % kInterleave;
    return {offsets + first, values + first, count, kInterleave, kInterleave};
  }
};

/// N:M weights, as ops/packed/n_m.h lays them out.
struct NMRows {
  const float* values;
  const int32_t* positions;
  int64_t groups, n, m, outs;
};

struct SparseKernels {
  int64_t lanes;
  /// to[j·to_pitch + i] = from[i·from_pitch + j] for i < rows, j < cols.
  void (*transpose)(const float* from, int64_t from_pitch, int64_t rows, int64_t cols, float* to, int64_t to_pitch);
  /// to[i·to_pitch + j] = from[i·from_pitch + j] for i < rows, j < cols.
  void (*copy_rows)(const float* from, int64_t from_pitch, int64_t rows, int64_t cols, float* to, int64_t to_pitch);
  /// Whether each of v[0, n), read as unsigned, is below `limit`, which is at most 2^31.
  bool (*all_below)(const int32_t* v, int64_t n, int64_t limit);
  /// y[o·pitch + q] = (accumulate ? y[…] : bias ? bias[o] : 0) + sum over o's taps t of value_t,o x[offset_t + q], for
  /// q < length and the outputs o of lists [begin, end); y begins with the first of them. x and, with accumulate, y are
  /// readable for a vector past their ends.
  void (*panel)(const SparseRows& rows, int64_t begin, int64_t end, const float* x, int64_t length, const float* bias,
                bool accumulate, float* y, int64_t pitch);
  /// y[r] = (bias ? bias[r] : 0) + sum_{k in [starts[r], starts[r + 1])} values[k] x[columns[k]] for r in [begin, end).
  void (*csr_dot)(const int32_t* starts, const int32_t* columns, const float* values, int64_t begin, int64_t end,
                  const float* x, const float* bias, float* y);
  /// As panel with one position: y[o] = bias + sum over blocks b of o's block row and c < width of
  /// values[b][c][o mod height] x[columns[b]·width + c]. height, width: powers of two up to 16.
  void (*block_dot)(const int32_t* starts, const int32_t* columns, const float* values, int64_t height, int64_t width,
                    int64_t outs, int64_t begin, int64_t end, const float* x, const float* bias, float* y);
  /// The column of each value, times scale, in the order of the values. Positions are read modulo m.
  void (*n_m_columns)(const NMRows& rows, int32_t scale, int32_t* columns);
  /// y[o] for the outputs of interleaved blocks [begin, end). x is readable for kSparseSlack past groups·m.
  void (*n_m_dot)(const NMRows& rows, int64_t begin, int64_t end, const float* x, const float* bias, float* y);
};

/// The set for the best target of this machine (or the one chosen for a test).
const SparseKernels& sparse_kernels();

}  // namespace hone::simd
