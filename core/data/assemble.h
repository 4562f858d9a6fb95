#pragma once
// Batches from a dataset: gather, convert and transform sample by sample. Private to core/data.

#include <span>
#include <vector>

#include "hone/core/data/dataset.h"

namespace hone::data::detail {

/// What the upper half of Philox's stream number says a draw is for; the lower half is the epoch. The process's
/// generator counts its streams from 0 and does not come here.
enum Purpose : uint64_t {
  kShuffle = 0xD1,
  kSplit = 0xD2,
  kAugment = 0xD3,
  kMixup = 0xD4,
  kCutmix = 0xD5,
  kSample = 0xD6,
  kLongTail = 0xD7,
  kView = 0xD8
};
inline uint64_t stream_of(Purpose purpose, int64_t epoch) {
  return static_cast<uint64_t>(purpose) << 56 | (static_cast<uint64_t>(epoch) & ((uint64_t{1} << 56) - 1));
}

/// 0 … n−1 in an order that (seed, stream) decides.
void permutation(std::span<int64_t> order, uint64_t seed, uint64_t stream);

/// Checks the steps against the dataset once; then fills batches without allocating. Single-threaded on purpose: a
/// loader's thread must not take the thread pool from the training step.
class Assembler {
 public:
  /// ShapeError, DTypeError or ValueError for steps that do not fit the samples.
  Assembler(Dataset dataset, Transforms transform, uint64_t seed);

  Shape input_shape(int64_t n) const { return with_rows(n, out_shape_); }
  Shape target_shape(int64_t n) const { return with_rows(n, dataset_.target_shape()); }
  DType input_dtype() const { return out_dtype_; }
  DType target_dtype() const { return dataset_.all_targets().dtype(); }
  const Dataset& dataset() const { return dataset_; }
  void set_seed(uint64_t seed) { seed_ = seed; }  ///< not while fill() runs
  /// Writes samples `positions` of the dataset to contiguous x and y. Random words belong to the position, or, where
  /// `first_place` is given, to first_place, first_place + 1, …: what is shown twice then looks different.
  void fill(std::span<const int64_t> positions, int64_t epoch, void* x, void* y, int64_t first_place = -1);

 private:
  static Shape with_rows(int64_t n, Shape s) { return s.insert(0, n), s; }
  void plan();
  void sample(int64_t position, int64_t epoch, int64_t words, float* out);
  template <class T> void convert(const T* from, float* to) const;

  Dataset dataset_;
  Transforms steps_;
  uint64_t seed_;
  Shape out_shape_;
  DType out_dtype_;
  bool raw_ = false;                  // rows are copied as they are
  size_t first_ = 0;                  // steps before it are folded into scale_ and shift_
  std::vector<float> scale_, shift_;  // per channel of the source, or one for all
  std::vector<Shape> shapes_;         // before each step
  size_t last_move_ = 0;              // 1 + the last step that does not work in place: it writes to the batch
  std::vector<float> scratch_[2];
};

}  // namespace hone::data::detail
