#pragma once
// Lanes along one dim, for the indexing ops.

#include <algorithm>
#include <cstdint>

#include "hone/core/op.h"
#include "hone/core/parallel.h"

namespace hone::detail {

/// A shape seen as [outer, n, inner] around one dim.
struct Lanes {
  int64_t outer = 1, n = 1, inner = 1;
  Lanes(const View& v, int64_t dim) {
    if (v.ndim == 0) return;
    n = v.sizes[dim];
    for (int d = 0; d < dim; ++d) outer *= v.sizes[d];
    for (int d = static_cast<int>(dim) + 1; d < v.ndim; ++d) inner *= v.sizes[d];
  }
};

/// Where the lanes of `shape` around `dim` start in an array with the strides of `v`, which may be larger.
class LaneOffsets {
 public:
  LaneOffsets(const View& shape, const View& v, int64_t dim, Workspace& workspace) {
    const Lanes lanes(shape, dim);
    outer_ = workspace.get<int64_t>(lanes.outer);
    inner_ = workspace.get<int64_t>(lanes.inner);
    fill(outer_, shape, v, 0, static_cast<int>(dim));
    fill(inner_, shape, v, static_cast<int>(dim) + 1, shape.ndim);
    step_ = v.ndim == 0 ? 1 : v.strides[dim];
  }
  int64_t operator()(int64_t o, int64_t i, int64_t j) const { return outer_[o] + i * step_ + inner_[j]; }

 private:
  static void fill(int64_t* at, const View& shape, const View& v, int first, int last) {
    int64_t n = 1;
    for (int d = first; d < last; ++d) n *= shape.sizes[d];
    if (n == 0) return;
    at[0] = 0;
    int64_t filled = 1;  // entries of the dims behind d, which repeat for each of its indices
    for (int d = last - 1; d >= first; --d) {
      for (int64_t i = 1; i < shape.sizes[d]; ++i)
        for (int64_t k = 0; k < filled; ++k) at[i * filled + k] = at[k] + i * v.strides[d];
      filled *= shape.sizes[d];
    }
  }
  int64_t* outer_;
  int64_t* inner_;
  int64_t step_;
};

/// Calls body(o, j0, j1) for pieces of lanes that no two threads share: outer index o, inner indices [j0, j1).
template <class F> void for_lanes(const Lanes& lanes, F&& body) {
  if (lanes.inner == 0) return;
  constexpr int64_t kWidth = 256, kGrain = 16384;
  const int64_t width = std::min(lanes.inner, kWidth), pieces = (lanes.inner + width - 1) / width;
  parallel_for(lanes.outer * pieces, std::max<int64_t>(kGrain / std::max<int64_t>(lanes.n * width, 1), 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t u = begin; u < end; ++u) {
                   const int64_t j0 = u % pieces * width;
                   body(u / pieces, j0, std::min(j0 + width, lanes.inner));
                 }
               });
}

}  // namespace hone::detail
