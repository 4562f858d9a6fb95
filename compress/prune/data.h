#pragma once
// The data that structural pruning scores channels with.

#include <cstdint>
#include <functional>
#include <utility>

#include "hone/core/tensor.h"

namespace hone::compress {

/// The mean loss of a batch, one number, of the network's output for it.
using LossOf = std::function<Tensor(const Tensor& output)>;
/// A pass over data: calls `visit` with each batch's input and loss. The network is run by who asks for the pass, in
/// eval mode.
using Pass = std::function<void(const std::function<void(const Tensor& x, const LossOf& loss)>& visit)>;

/// The pass over the first `limit` of `batches` (a data::Loader, or any range of batches with `inputs` and `targets`,
/// which must outlive it) by loss(output, targets).
///
///   const auto data = compress::pass_over(batches, [](const Tensor& y, const Tensor& t) { return cross_entropy(y, t);
///   });
template <class Batches, class Loss> Pass pass_over(Batches& batches, Loss loss, int64_t limit = INT64_MAX) {
  return [&batches, loss = std::move(loss), limit](const auto& visit) {
    int64_t seen = 0;
    for (auto& batch : batches) {
      if (seen++ >= limit) break;
      visit(batch.inputs, [&](const Tensor& output) { return loss(output, batch.targets); });
    }
  };
}

}  // namespace hone::compress
