#pragma once
// Values of a network and gradients of its loss, batch by batch. Private to compress/prune.

#include <functional>
#include <vector>

#include "hone/compress/graph/network.h"
#include "hone/compress/prune/data.h"

namespace hone::compress::detail {

/// What one batch gave, one tensor a watched value.
struct Observed {
  std::vector<Tensor> values;
  std::vector<Tensor> gradients;  ///< of the loss; undefined where it does not depend on the value
  double samples;                 ///< in the batch
};
enum class Watch : uint8_t { values, gradients };

/// Runs the network over the pass in eval mode and shows the watched values, and with Watch::gradients the loss'
/// gradients by them (of frozen parameters too). The network is left as it was. `who` begins messages: ValueError for
/// no data or no batch, or a loss that is not one number made of the output.
void observe(graph::Network& network, const char* who, const Pass& data, const std::vector<graph::ValueId>& watched,
             Watch what, const std::function<void(const Observed&)>& see);

/// Sums over all dims but one, in f64.
std::vector<double> sums_along(const Tensor& t, int64_t dim);

}  // namespace hone::compress::detail
