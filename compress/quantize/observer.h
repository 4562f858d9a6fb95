#pragma once
// Observers: the range of an activation from batches seen one after another. What they keep does not grow with what
// they see: the ends, or counts in 4096 bins.
//
//   Observer o({.method = Observe::percentile, .percentile = 99.9});
//   for (const Tensor& x : batches) o.see(x);
//   const Affine a = Affine::of(o.range(), {.bits = 8, .symmetric = false});

#include <cstdint>
#include <vector>

#include "hone/compress/quantize/affine.h"

namespace hone::compress::quantize {

enum class Observe : uint8_t {
  min_max,         ///< the smallest and the largest element
  moving_average,  ///< of each batch's smallest and largest: low ← low + momentum (low_batch − low)
  percentile,      ///< what that many of 100 elements do not pass, on either side
  entropy,         ///< least Kullback-Leibler divergence of the quantized from the clipped distribution (Migacz, 2017)
  mse,             ///< least mean squared error of the quantized elements
};

struct ObserverOptions {
  Observe method = Observe::min_max;
  double momentum = 0.1;
  double percentile = 99.99;                          ///< in (50, 100]
  AffineSpec spec = {.bits = 8, .symmetric = false};  ///< for entropy and mse: what the range is for
};

/// min_max and moving_average are exact. The others count in bins of one width over [−r, r), r a power of two; where an
/// element lies outside, r doubles and neighbouring bins merge. The percentile is then within a bin's width of the
/// exact one, between the smallest and the largest element; entropy and mse try 128 clippings α · [min, max].
class Observer {
 public:
  static constexpr int64_t kBins = 4096;

  explicit Observer(ObserverOptions options = {});  ///< ValueError for options out of range
  /// x: floating, any shape; an empty one changes nothing. NumericError for a NaN or infinity: nothing has changed
  /// then.
  void see(const Tensor& x);
  int64_t seen() const { return seen_; }  ///< elements
  /// ValueError where nothing was seen.
  Interval range() const;
  double bin_width() const { return 2 * reach_ / static_cast<double>(kBins); }

 private:
  void count(const std::vector<double>& v, double most);
  double quantile(double share) const;
  template <class Loss> Interval least(const Loss& loss) const;
  double squared_error(Interval r) const;
  double divergence(Interval r) const;
  double center(int64_t bin) const { return (static_cast<double>(bin) + 0.5) * bin_width() - reach_; }

  ObserverOptions options_;
  int64_t seen_ = 0;
  Interval ends_, average_;
  double reach_ = 0;             // r; 0: nothing but zeros so far
  int64_t zeros_ = 0;            // elements that are 0, while reach_ is 0
  std::vector<int64_t> counts_;  // for the methods that need them
};

}  // namespace hone::compress::quantize
