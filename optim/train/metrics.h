#pragma once
// What a classifier is judged by. Nothing here is differentiable.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hone/core/tensor.h"

namespace hone::train {

/// Share of rows whose label is the predicted class, in [0, 1]. `predictions`: logits or probabilities [N, C],
/// floating, whose largest element counts (the first among equals), or classes [N], integer. labels: [N], integer.
/// Empty input gives NaN. ShapeError, DTypeError; ValueError naming the first label outside [0, C); NumericError for a
/// NaN logit.
double accuracy(const Tensor& predictions, const Tensor& labels);

/// Share of rows whose label is among the k largest logits (equal ones: the lower class first). logits: [N, C], 1 ≤ k ≤
/// C.
double top_k_accuracy(const Tensor& logits, const Tensor& labels, int64_t k);

struct ClassScores {
  double precision = 0;  ///< of what was predicted as the class, the part that is of it; 0 where nothing was
  double recall = 0;     ///< of what is of the class, the part that was predicted so; 0 where there is none
  double f1 = 0;         ///< harmonic mean of both; 0 where both are
  int64_t support = 0;   ///< samples of the class
};

/// C_ij: how often a sample of class i (label) was predicted as class j.
class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(int64_t classes);  ///< ValueError below 1
  /// From counts [classes][classes], row-major; ValueError for a negative one or a count of them that is no square.
  static ConfusionMatrix from_counts(std::vector<int64_t> counts);

  /// Adds a batch; arguments as for accuracy(). On an error nothing has been added.
  void update(const Tensor& predictions, const Tensor& labels);
  void reset();

  int64_t classes() const { return classes_; }
  int64_t operator()(int64_t label, int64_t predicted) const;
  int64_t total() const;
  int64_t support(int64_t label) const;        ///< row sum
  int64_t predicted(int64_t predicted) const;  ///< column sum

  double accuracy() const;  ///< trace / total; NaN while empty
  ClassScores scores(int64_t c) const;
  ClassScores macro() const;         ///< unweighted means over all classes; support is the total
  double balanced_accuracy() const;  ///< mean recall over the classes that have samples; NaN while empty

  /// Confusion entropy (Wei, Yuan, Hu, Wang, "A novel measure for evaluating classifiers based on confusion matrix",
  /// 2010): CEN = Σ_j P_j CEN_j, P_j = Σ_k (C_jk + C_kj) / 2 Σ C. 0: no error; 1: every prediction wrong, spread evenly
  /// over the wrong cells. With two classes some matrices lie above 1 ([[1, 2], [2, 1]]: 1.057), with more none does.
  /// NaN while empty.
  double confusion_entropy() const;
  /// CEN_j = −Σ_{k≠j} (P^j_jk log P^j_jk + P^j_kj log P^j_kj), P^j_ik = C_ik / Σ_m (C_jm + C_mj), logarithm to base
  /// 2(classes − 1), 0·log 0 = 0.
  double class_confusion_entropy(int64_t j) const;

 private:
  int64_t classes_;
  std::vector<int64_t> counts_;
};

enum class EntropyUnit : uint8_t { nats, bits };

/// H = −Σ p log p with 0·log 0 = 0. ValueError for a negative or non-finite p, or a sum further than 1e-6 from 1.
double entropy(std::span<const double> probabilities, EntropyUnit unit = EntropyUnit::nats);
/// H of each row's distribution, averaged over rows [N, C]; of the one distribution [C]. Sums may be off by 1e-3 in
/// f32, 3e-2 in bf16.
double entropy(const Tensor& probabilities, EntropyUnit unit = EntropyUnit::nats);
/// H(Y) of the classes' frequencies among integer labels [N]; 0 for no labels.
double label_entropy(const Tensor& labels, EntropyUnit unit = EntropyUnit::nats);

/// The largest element of each row of [N, C], first among equals: i64 classes.
std::vector<int64_t> predicted_classes(const Tensor& logits);

}  // namespace hone::train
