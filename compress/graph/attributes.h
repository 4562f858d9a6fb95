#pragma once
// Attributes by field, shapes by op: what building, tracing and files share. Internal.

#include <string>
#include <vector>

#include "hone/compress/graph/network.h"

namespace hone::graph::detail {

struct Inferred {
  DType dtype;
  Dims shape;
};
/// Outputs of a node by its op's own rule, at two batch sizes and in both modes. GraphError naming node and rule.
std::vector<Inferred> infer(const std::vector<Value>& values, const Node& node);

/// Multiply-adds of one node; 0 for an op that counts none.
int64_t node_macs(const Network& net, const Node& node, int64_t batch);

/// A tensor of that shape with every element `element`.
Tensor materialize(const Tensor& element, const Shape& shape);

}  // namespace hone::graph::detail
