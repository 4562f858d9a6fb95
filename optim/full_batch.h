#pragma once
// Gradient descent on the full batch, and when to stop.

#include <cmath>
#include <limits>

#include "hone/core/autograd.h"
#include "hone/core/error.h"
#include "hone/core/tensor.h"

namespace hone::optim {

/// The exact gradient of the mean loss over a whole pass of `batches` (a data::Loader), added to what the parameters
/// hold: one update a pass. loss(inputs, targets) is the mean over a batch; it counts by its share of the samples.
/// Returns the mean loss. ValueError if the pass leaves samples out (drop_last) or has none, or a sampler chooses them.
///
///   gd.zero_grad();
///   double loss = optim::full_batch(batches, [&](const Tensor& x, const Tensor& y) {
///     return cross_entropy(net(x), y);
///   });
///   gd.step();
template <class Loader, class Loss> double full_batch(Loader& batches, Loss&& loss) {
  HONE_CHECK(!batches.options().sampler, ValueError, "full_batch: a sampler may leave samples out or repeat them");
  const int64_t samples = batches.dataset().size();
  const EnableGrad enable;
  double total = 0;
  int64_t seen = 0;
  for (auto& [inputs, targets] : batches) {
    const int64_t n = inputs.size(0);
    const double share = static_cast<double>(n) / static_cast<double>(samples);
    const Tensor value = loss(inputs, targets);
    value.backward(full(value.shape(), share, value.dtype()));
    total += share * value.item();
    seen += n;
  }
  HONE_CHECK(seen > 0 && seen == samples, ValueError, "full_batch: the pass had ", seen, " of ", samples,
             " samples; a full batch needs all (no drop_last)");
  return total;
}

struct ConvergedOptions {
  double tolerance = 1e-6;  ///< ≥ 0
  int64_t patience = 1;     ///< ≥ 1
};

/// The documents' rule "repeat until convergence": true at the `patience`-th call in a row in which the loss changed
/// from the call before by at most tolerance · max(1, |loss|). NumericError for a loss that is NaN or infinite.
class Converged {
 public:
  explicit Converged(ConvergedOptions options = {}) : options_(options) {
    HONE_CHECK(std::isfinite(options.tolerance) && options.tolerance >= 0, ValueError,
               "Converged: tolerance must be finite and at least 0, got ", options.tolerance);
    HONE_CHECK(options.patience >= 1, ValueError, "Converged: patience must be at least 1, got ", options.patience);
  }
  bool operator()(double loss) {
    HONE_CHECK(std::isfinite(loss), NumericError, "Converged: the loss is ", loss);
    const double change = std::abs(loss - last_);  // at first: NaN, which is no rest
    resting_ = change <= options_.tolerance * std::fmax(1, std::abs(loss)) ? resting_ + 1 : 0;
    last_ = loss;
    return resting_ >= options_.patience;
  }

 private:
  ConvergedOptions options_;
  double last_ = std::numeric_limits<double>::quiet_NaN();
  int64_t resting_ = 0;
};

}  // namespace hone::optim
