#pragma once
// Tensors whose runs of a row are each whole multiples of a scale of their own: weights quantized by channel or by
// group. Internal; docs/format.md.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "hone/compress/pack/tensor_elements.h"

namespace hone::compress::detail {

/// f32(scale · k) as a pattern: the product rounded to f64, then to f32.
uint64_t multiple(double scale, int64_t k);

/// A scale of which all these f32 values are whole multiples, of at most `most` in size, as multiple() has them; 0:
/// none was found, or a value is no ordinary number. It is sought at the least distance between neighbouring
/// magnitudes, 0 being one of them, and at whole parts of it; of all numbers that would do there it has the fewest
/// mantissa bits. The values are used up.
double scale_of_multiples(std::vector<double>& values, int64_t most);

/// Runs of `length` elements of a row, the last of a row shorter; a run has a scale where an element of it is kept.
struct RowGrid {
  int64_t length = 0, low = 0;       // the least multiple
  uint32_t count = 0;                // low + count − 1 is the largest
  std::vector<double> scales = {};   // of the runs, in order
  std::vector<uint16_t> codes = {};  // of the kept elements: multiple − low
};

inline constexpr int64_t kShortestRun = 4;

/// Calls f(first kept element, end) for each run that keeps one, in order, until it returns false.
template <class F> void each_run(const Kept& kept, int64_t cols, int64_t length, const F& f) {
  const auto n = static_cast<int64_t>(kept.data.size());
  for (int64_t row = 0; row < n; row += cols)
    for (int64_t begin = row; begin < row + cols; begin += length) {
      const int64_t end = std::min(begin + length, row + cols);
      int64_t i = begin;
      while (i < end && !kept.at(static_cast<size_t>(i))) ++i;
      if (i < end && !f(static_cast<size_t>(i), static_cast<size_t>(end))) return;
    }
}

/// The grid of the longest runs, whole rows or a power of two of elements, on which all kept f32 values lie with at
/// most `most` multiples; none: there is none.
std::optional<RowGrid> row_grid_of(const Kept& kept, int64_t cols, int64_t most);

}  // namespace hone::compress::detail
