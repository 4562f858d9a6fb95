#pragma once
// Which indices of which dims of a network's values can only go together. Private to compress/prune.

#include <cstdint>
#include <string>
#include <vector>

#include "hone/compress/graph/network.h"

namespace hone::compress::detail {

/// Every index of every dim whose size does not depend on the batch belongs to one class: what must go as a whole, all
/// else staying as it is. The classes are the finest partition that every op of the network respects.
struct Coupling {
  /// [value][dim][index]; empty for a dim that grows with the batch.
  std::vector<std::vector<std::vector<int32_t>>> classes;
  std::vector<std::string> blocked;  ///< [class]: why it cannot go, naming op and value; empty where it can
  size_t size() const { return blocked.size(); }
  const std::vector<int32_t>& at(graph::ValueId v, int64_t dim) const {
    return classes[static_cast<size_t>(v)][static_cast<size_t>(dim)];
  }
};

Coupling couple(const graph::Network& network);

/// A node that makes channels of its own: conv2d and linear, fused or not, matmul by a parameter.
struct Layer {
  size_t node;
  graph::ValueId out;
  int64_t out_dim;
  graph::ValueId weight;  ///< kNone if it is no parameter
  int64_t weight_dim;     ///< of its output channels
};
std::vector<Layer> layers_of(const graph::Network& network);

bool is_elementwise(const OpDef* op);  ///< element i of the result is made of elements i of the inputs, broadcast
bool is_pool(const OpDef* op);
/// An output kept for backward alone (statistics of a norm): of whatever shape, it binds nothing.
bool is_unread_aux(const graph::Network& network, const std::vector<std::vector<int32_t>>& uses, graph::ValueId v);

/// The dim of a node's output that holds channels: the last one of linear and matmul, else dim 1. GraphError.
int64_t channel_dim(const graph::Network& network, const graph::Node& node);

}  // namespace hone::compress::detail
