#pragma once
// Datasets in memory: N samples and their targets. A value; copies and subsets share the arrays.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hone/core/data/transforms.h"
#include "hone/core/tensor.h"

namespace hone::data {

/// A few samples and their targets: `auto& [images, labels] = batch`.
struct Batch {
  Tensor inputs;   ///< [n, …]
  Tensor targets;  ///< [n, …]
};

/// x [N, …] and y [N, …], such as images u8 [N, C, H, W] and labels i64 [N], or f32 features and f32 values.
class Dataset {
 public:
  Dataset() = default;
  /// ShapeError unless both have as many rows (at least one dimension each). Non-contiguous tensors are copied.
  Dataset(Tensor x, Tensor y);

  int64_t size() const { return indices_ ? static_cast<int64_t>(indices_->size()) : rows_; }
  /// The row of x and y that sample i is; i in [0, size()).
  int64_t row(int64_t i) const { return indices_ ? (*indices_)[static_cast<size_t>(i)] : i; }
  /// All rows, of which this may be a subset.
  const Tensor& all_inputs() const { return x_; }
  const Tensor& all_targets() const { return y_; }
  Shape input_shape() const;   ///< of one sample, before transforms
  Shape target_shape() const;  ///< of one target

  /// The samples at `indices`, which may repeat; ValueError where one is outside [0, size()). Copies no sample.
  Dataset subset(std::vector<int64_t> indices) const;
  /// The first min(n, size()) samples.
  Dataset first(int64_t n) const;
  /// Samples [begin, end) as a batch, as a Loader with these transforms would deliver them (its epoch 0, this seed).
  Batch get(int64_t begin, int64_t end, const Transforms& transform = {}, uint64_t seed = 0) const;

 private:
  Tensor x_, y_;
  int64_t rows_ = 0;
  std::shared_ptr<const std::vector<int64_t>> indices_;  // null: all rows
};

namespace detail {
std::vector<Dataset> split(const Dataset& d, std::span<const double> fractions, uint64_t seed);
}

/// Disjoint random subsets holding these fractions of the samples; a function of (size, fractions, seed) alone.
/// ValueError unless each fraction is positive and their sum is at most 1.
///   auto [train, validation] = random_split(fashion.train, {0.9, 0.1}, 1);
template <size_t K> std::array<Dataset, K> random_split(const Dataset& d, const double (&fractions)[K], uint64_t seed) {
  std::vector<Dataset> parts = detail::split(d, fractions, seed);
  std::array<Dataset, K> out;
  for (size_t i = 0; i < K; ++i) out[i] = std::move(parts[i]);
  return out;
}

}  // namespace hone::data
