#pragma once
// Classes of unequal size: how many samples each has, what follows for a loss, and how to make such data.

#include <cstdint>
#include <span>
#include <vector>

#include "hone/core/data/dataset.h"

namespace hone::data {

/// The label of each sample, in the dataset's order. Targets: integers [N], none negative (ShapeError, DTypeError,
/// ValueError).
std::vector<int64_t> class_labels(const Dataset& dataset);
/// Samples of each class 0 … classes − 1; `classes` 0: one more than the largest label. ValueError for a label outside.
std::vector<int64_t> class_counts(const Dataset& dataset, int64_t classes = 0);

// Per class c with n_c samples, C classes: f32 [C], for a loss's `weight` and log priors. ValueError for no classes, a
// negative count, or a class without samples (it has no frequency to invert: leave it out).

/// w_c = (1/n_c) / mean_k(1/n_k): inverse frequency, mean 1 over the classes.
Tensor inverse_frequency_weights(std::span<const int64_t> counts);
/// w_c ∝ (1 − β) / (1 − β^n_c), mean 1: the inverse of the effective number of samples. β = 0 weighs all alike, β → 1
/// is inverse frequency. ValueError unless β is in [0, 1). Cui et al., "Class-balanced loss based on effective number
/// of samples", 2019 (β of 0.9, 0.99, 0.999, 0.9999).
Tensor effective_number_weights(std::span<const int64_t> counts, double beta = 0.999);
/// log π_c = log(n_c / Σ n): what logit adjustment takes (ops/logit_adjustment.h).
Tensor log_priors(std::span<const int64_t> counts);

struct LongTailedOptions {
  double ratio = 100;   ///< n_0 / n_{C−1} >= 1: how many times more samples the first class has than the last
  int64_t classes = 0;  ///< C; 0: one more than the largest label
  int64_t largest = 0;  ///< n_0; 0: as many as all classes can follow
  uint64_t seed = 0;    ///< of which samples stay
};
/// A subset in which class c has n_c = ⌊n_0 · ratio^(−c/(C−1))⌋ samples, at least 1, chosen at random: Cui et al.'s
/// long-tailed data. A function of (labels, options) alone; samples stay in their order, and with one seed a steeper
/// subset of equal n_0 is part of a flatter one. ValueError for ratio below 1 or not finite, or a class that has too
/// few.
Dataset long_tailed(const Dataset& dataset, const LongTailedOptions& options = {});

}  // namespace hone::data
