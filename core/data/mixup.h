#pragma once
// Batches mixed with themselves. What is mixed is a function of (seed, step) alone, the same bits on every machine.

#include <cstdint>
#include <optional>

#include "hone/core/data/dataset.h"
#include "hone/core/random.h"

namespace hone::data {

struct MixOptions {
  int64_t classes = 0;  ///< C ≥ 1
  double alpha = 1;     ///< α in (0, 1000]: λ ~ Beta(α, α); small: mostly near 0 and 1; 1: uniform
  std::optional<uint64_t> seed = std::nullopt;  ///< else that of manual_seed()
};

/// x_i ← λ x_i + (1 − λ) x_π(i) and y_i ← λ y_i + (1 − λ) y_π(i), one λ and one permutation π for the batch.
/// Zhang et al., "mixup: beyond empirical risk minimization", 2018.
/// inputs: [N, …], f32 or f64. targets: labels i64 [N] in [0, C), or class probabilities [N, C] of the inputs' dtype.
/// The result is a new batch with class probabilities [N, C], which cross_entropy takes. step ≥ 0: a number that is not
/// used twice. ValueError, ShapeError, DTypeError.
Batch mixup(const Batch& batch, const MixOptions& options, int64_t step);

/// A rectangle of each image is that of image π(i): centre uniform over the plane, sides √(1 − λ) of its, cut at the
/// borders; y_i ← λ′ y_i + (1 − λ′) y_π(i), 1 − λ′ the rectangle's share of the plane. inputs: [N, C, H, W]; the rest
/// as mixup. Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", 2019.
Batch cutmix(const Batch& batch, const MixOptions& options, int64_t step);

namespace detail {
/// A draw from Beta(α, α) from the words of `random` at this counter and, where it must try again, the next. Arithmetic
/// and square roots alone, so that every machine makes the same bits: the C library's log and exp do not.
double sample_beta(double alpha, const Philox& random, uint64_t counter = 0);
double portable_log(double x);  ///< of a finite x > 0
double portable_exp(double x);  ///< 0 below −700, infinity above 700
}  // namespace detail

}  // namespace hone::data
