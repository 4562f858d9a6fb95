#pragma once
// Buffers of a module that runs for what it computes alone: traced or scored. Internal.

#include <utility>
#include <vector>

#include "hone/core/tensor.h"
#include "hone/ops/nn/module.h"

namespace hone::graph::detail {

/// Handles of a module's buffers: they follow it when it moves.
std::vector<Tensor> buffers_of(nn::Module& module);

/// After it all buffers hold what they held before it: running statistics move where a module in training mode
/// runs.
class BufferScope {
 public:
  explicit BufferScope(const std::vector<Tensor>& buffers);
  ~BufferScope();
  BufferScope(const BufferScope&) = delete;
  BufferScope& operator=(const BufferScope&) = delete;

 private:
  std::vector<std::pair<Tensor, Tensor>> saved_;
};

}  // namespace hone::graph::detail
