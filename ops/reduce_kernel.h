#pragma once
// The loop under every reduction: any strides, any set of dims, blocks fixed by the sizes alone.

#include <algorithm>
#include <cstdint>

#include "hone/core/op.h"
#include "hone/core/parallel.h"

namespace hone::detail {

/// The dims of an array, split into those kept and those reduced (row-major each, merged where strides allow; both
/// lists hold at least one dim).
struct ReducePlan {
  struct Dim {
    int64_t size, stride;
  };
  Dim kept[View::kDims], reduced[View::kDims];
  int kept_dims = 0, reduced_dims = 0;
  int64_t outputs = 1;  ///< product of kept sizes
  int64_t terms = 1;    ///< product of reduced sizes
};
ReducePlan plan_reduction(const View& in, uint32_t mask);
/// `shape` without the masked dims, or with size 1 in their place.
Shape reduced_shape(const Shape& shape, uint32_t mask, bool keepdim);

/// Walks a list of dims from a flat row-major index on, run by run along the innermost dim.
class DimWalker {
 public:
  DimWalker(const ReducePlan::Dim* dims, int count, int64_t flat) : dims_(dims), count_(count) {
    for (int d = count - 1; d >= 0; --d) {
      index_[d] = dims[d].size > 0 ? flat % dims[d].size : 0;
      flat /= std::max<int64_t>(dims[d].size, 1);
      offset_ += index_[d] * dims[d].stride;
    }
  }
  int64_t offset() const { return offset_; }
  int64_t left() const { return dims_[count_ - 1].size - index_[count_ - 1]; }  ///< steps left in this run
  /// n <= left()
  void advance(int64_t n) {
    int d = count_ - 1;
    index_[d] += n;
    offset_ += n * dims_[d].stride;
    while (d > 0 && index_[d] == dims_[d].size) {
      offset_ -= index_[d] * dims_[d].stride;
      index_[d] = 0;
      --d;
      ++index_[d];
      offset_ += dims_[d].stride;
    }
  }

 private:
  const ReducePlan::Dim* dims_;
  int count_;
  int64_t index_[View::kDims] = {};
  int64_t offset_ = 0;
};

/// A policy has a type Acc, identity(), add(Acc&, T x, output, term) and merge(Acc&, const Acc&).
/// finish(output, const Acc&) is called once for every output, from any thread.
template <class Policy, class T, class Finish> class Reducer {
  using Acc = typename Policy::Acc;
  static constexpr int kLanes = 16;         // independent sums: hides the latency of an add, fills SIMD registers
  static constexpr int64_t kTile = 128;     // outputs side by side whose accumulators stay in cache
  static constexpr int64_t kBlock = 16384;  // terms of one partial result
  static constexpr int64_t kGrain = 32768;  // elements worth handing to a thread

 public:
  Reducer(const ReducePlan& plan, const T* x, const Policy& policy, const Finish& finish)
      : plan_(plan), x_(x), policy_(policy), finish_(finish) {}

  void run(Workspace& workspace) const {
    if (plan_.outputs == 0) return;
    if (plan_.terms == 0) {  // no array to point into
      for (int64_t o = 0; o < plan_.outputs; ++o) finish_(o, policy_.identity());
      return;
    }
    const ReducePlan::Dim& kept = plan_.kept[plan_.kept_dims - 1];
    const ReducePlan::Dim& reduced = plan_.reduced[plan_.reduced_dims - 1];
    const bool columns = kept.size > 1 && (reduced.size == 1 || (kept.stride < reduced.stride && reduced.stride != 1));
    const int64_t width = columns ? std::min(kept.size, kTile) : 1;
    const int64_t tiles = columns ? (kept.size + width - 1) / width : 1;
    const int64_t groups = columns ? plan_.outputs / kept.size * tiles : plan_.outputs;
    const int64_t block = columns ? std::max<int64_t>(4 * kBlock / width, 64) : kBlock;
    const int64_t blocks = std::max<int64_t>((plan_.terms + block - 1) / block, 1);
    Acc* partial = blocks > 1 ? workspace.get<Acc>(plan_.outputs * blocks) : nullptr;

    const int64_t unit = std::max<int64_t>(std::min(block, plan_.terms) * width, 1);
    parallel_for(groups * blocks, std::max<int64_t>(kGrain / unit, 1), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t group = u / blocks, b = u % blocks;
        const int64_t t0 = b * block, t1 = std::min(t0 + block, plan_.terms);
        if (columns) {
          const int64_t j0 = group % tiles * width, n = std::min(width, kept.size - j0);
          column_block(group / tiles * kept.size + j0, n, kept.stride, t0, t1, partial, blocks, b);
        } else {
          emit(group, row_block(group, t0, t1), partial, blocks, b);
        }
      }
    });
    if (blocks == 1) return;
    parallel_for(plan_.outputs, std::max<int64_t>(kGrain / blocks, 1), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        Acc a = partial[o * blocks];
        for (int64_t b = 1; b < blocks; ++b) policy_.merge(a, partial[o * blocks + b]);
        finish_(o, a);
      }
    });
  }

 private:
  void emit(int64_t o, const Acc& a, Acc* partial, int64_t blocks, int64_t b) const {
    if (partial)
      partial[o * blocks + b] = a;
    else
      finish_(o, a);
  }
  const T* start(int64_t o) const { return x_ + DimWalker(plan_.kept, plan_.kept_dims, o).offset(); }

  // Terms [t0, t1) of one output.
  Acc row_block(int64_t o, int64_t t0, int64_t t1) const {
    const T* base = start(o);
    const int64_t stride = plan_.reduced[plan_.reduced_dims - 1].stride;
    DimWalker walk(plan_.reduced, plan_.reduced_dims, t0);
    Acc lanes[kLanes];
    if (t1 - t0 < 2 * kLanes) {
      Acc a = policy_.identity();
      for (int64_t t = t0; t < t1;) {
        const T* p = base + walk.offset();
        const int64_t n = std::min(walk.left(), t1 - t);
        for (int64_t i = 0; i < n; ++i) policy_.add(a, p[i * stride], o, t + i);
        walk.advance(n);
        t += n;
      }
      return a;
    }
    for (Acc& a : lanes) a = policy_.identity();
    for (int64_t t = t0; t < t1;) {
      const T* p = base + walk.offset();
      const int64_t n = std::min(walk.left(), t1 - t);
      if (stride == 1)
        run_lanes(lanes, p, 1, n, o, t);
      else
        run_lanes(lanes, p, stride, n, o, t);
      walk.advance(n);
      t += n;
    }
    for (int w = kLanes / 2; w > 0; w /= 2)
      for (int i = 0; i < w; ++i) policy_.merge(lanes[i], lanes[i + w]);
    return lanes[0];
  }
  [[gnu::always_inline]] void run_lanes(Acc* lanes, const T* p, int64_t stride, int64_t n, int64_t o, int64_t t) const {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      for (int j = 0; j < kLanes; ++j) policy_.add(lanes[j], p[(i + j) * stride], o, t + i + j);
    for (int j = 0; i < n; ++i, ++j) policy_.add(lanes[j], p[i * stride], o, t + i);
  }

  // Terms [t0, t1) of n outputs side by side, from output o on.
  void column_block(int64_t o, int64_t n, int64_t stride, int64_t t0, int64_t t1, Acc* partial, int64_t blocks,
                    int64_t b) const {
    const T* base = start(o);
    Acc acc[kTile];
    for (int64_t j = 0; j < n; ++j) acc[j] = policy_.identity();
    DimWalker walk(plan_.reduced, plan_.reduced_dims, t0);
    for (int64_t t = t0; t < t1; ++t) {
      const T* p = base + walk.offset();
      if (stride == 1)
        for (int64_t j = 0; j < n; ++j) policy_.add(acc[j], p[j], o + j, t);
      else
        for (int64_t j = 0; j < n; ++j) policy_.add(acc[j], p[j * stride], o + j, t);
      walk.advance(1);
    }
    for (int64_t j = 0; j < n; ++j) emit(o + j, acc[j], partial, blocks, b);
  }

  const ReducePlan& plan_;
  const T* x_;
  const Policy& policy_;
  const Finish& finish_;
};

template <class Policy, class T, class Finish>
void reduce(const ReducePlan& plan, const T* x, const Policy& policy, Workspace& workspace, const Finish& finish) {
  Reducer<Policy, T, Finish>(plan, x, policy, finish).run(workspace);
}

}  // namespace hone::detail
