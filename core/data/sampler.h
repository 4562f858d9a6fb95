#pragma once
// Which samples a pass of a Loader shows, and in what order: a function of (seed, epoch) alone. What is rare in the
// data can so be shown as often as the rest.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "hone/core/data/dataset.h"

namespace hone::data {

/// Fills the places of a pass with positions in the dataset, which may repeat.
using SampleOrder = std::function<void(std::span<int64_t> order, uint64_t seed, int64_t epoch)>;

/// Goes into LoaderOptions::sampler. Made by the functions below, or of a function of your own.
class Sampler {
 public:
  Sampler() = default;  ///< none
  /// `length`: places in a pass. ValueError if it is negative or there is no function.
  Sampler(int64_t length, SampleOrder order);
  int64_t length() const { return length_; }
  void fill(std::span<int64_t> order, uint64_t seed, int64_t epoch) const { (*order_)(order, seed, epoch); }
  explicit operator bool() const { return order_ != nullptr; }

 private:
  int64_t length_ = 0;
  std::shared_ptr<const SampleOrder> order_;
};

/// Each place is sample i with probability w_i / Σ w, independently (with replacement). One weight a sample, finite and
/// at least 0, with a finite sum above 0 (ValueError). O(1) a draw (Walker's aliases as Vose, 1991, builds them).
/// length 0: as many places as weights.
Sampler weighted_sampler(std::span<const double> weights, int64_t length = 0);

/// Every sample once, in shuffled order: the order of LoaderOptions::shuffle. ValueError if `samples` is negative.
Sampler shuffled_sampler(int64_t samples);

/// For a dataset of `samples` samples and then as many other views of them, such as mirrored copies. Each place shows
/// sample i of `order` as its other view, position samples + i, with this probability. ValueError unless order is there
/// and the probability in [0, 1]; what `order` fills in must lie in [0, samples) (ValueError of fill).
Sampler two_view_sampler(int64_t samples, double probability, const Sampler& order);

// By class. Each class's samples come in a shuffled order, anew whenever it is used up, so that no two of a class are
// shown a different number of times by more than one. Targets as for class_labels; ValueError for a class without
// samples or a negative length. length 0: as many places as samples.

/// Every class once in each C places, the C in shuffled order. Shen, Lin, Huang, "Relay backpropagation for effective
/// learning of deep convolutional neural networks", 2016.
Sampler class_aware_sampler(const Dataset& dataset, int64_t length = 0);
/// Class c with probability n_c^power / Σ n_k^power: 1 shows the classes as they are, 0 all alike, 1/2 is square-root
/// sampling (Mikolov et al., 2013; Mahajan et al., 2018). ValueError unless power is finite.
Sampler class_power_sampler(const Dataset& dataset, double power, int64_t length = 0);
inline Sampler square_root_sampler(const Dataset& dataset, int64_t length = 0) {
  return class_power_sampler(dataset, 0.5, length);
}
/// Class c in epoch t with probability (1 − t/T) n_c/N + (t/T)/C, T = epochs >= 1 (ValueError); t >= T counts as T.
/// Kang et al., "Decoupling representation and classifier for long-tailed recognition", 2020.
Sampler progressively_balanced_sampler(const Dataset& dataset, int64_t epochs, int64_t length = 0);

}  // namespace hone::data
