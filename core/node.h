#pragma once
// A recorded op. Private to core.

#include "hone/core/autograd.h"
#include "hone/core/tensor_impl.h"

namespace hone {

struct SavedTensor {
  Tensor tensor;         // an input as it was (its edge is the node's), or an output without its node
  uint64_t version = 0;  // of the storage when saved
};

struct Node : detail::Pooled, Counted {
  const OpDef* op = nullptr;
  Attrs attrs;
  uint64_t sequence = 0;  // creation order: inputs' nodes have smaller numbers
  bool freed = false;     // saved tensors given up after a walk
  Node* next_doomed = nullptr;
  struct Input {
    Shape shape;
    DType dtype = DType::f32;
    bool given = false;
  };
  struct Output {
    Shape shape;
    DType dtype = DType::f32;
    Device device;
  };
  PoolVector<Edge> edges;  // one an input
  PoolVector<Input> inputs;
  PoolVector<Output> outputs;
  PoolVector<SavedTensor> saved_inputs, saved_outputs;  // empty, or one an input / output
  std::shared_ptr<HookList> hooks;                      // once there are some
  PoolVector<std::pair<int, Handle<GradCell>>> retained;
};

}  // namespace hone
