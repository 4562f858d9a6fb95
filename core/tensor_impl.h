#pragma once
// What a Tensor handle points at. Private to core.

#include <memory>

#include "hone/core/tensor.h"

namespace hone {

/// A way back into the graph: output `index` of `node`, or a leaf that collects its gradient.
struct Edge {
  Handle<Node> node;
  int index = 0;
  Handle<TensorImpl> leaf;
  bool defined() const { return node || leaf; }
};

/// Where backward leaves a non-leaf's gradient after retain_grad(): shared by the tensor and its node (no cycle).
struct GradCell : detail::Pooled, Counted {
  Tensor grad;
};
inline void intrusive_retain(GradCell* c) { c->references.fetch_add(1, std::memory_order_relaxed); }
inline void intrusive_release(GradCell* c) {
  if (c->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete c;
}

/// The hooks of a leaf or of a node's outputs. Handles hold it weakly, so they keep no graph alive.
struct HookList {
  struct Hook {
    int output;
    uint32_t id;
    GradHook call;
  };
  uint32_t next_id = 0;
  PoolVector<Hook> hooks;
};

struct TensorImpl : detail::Pooled, Counted {
  StoragePtr storage;
  Shape sizes, strides;
  int64_t offset = 0;  // elements
  DType dtype = DType::f32;
  bool requires_grad = false;
  bool inference = false;  // made in InferenceMode
  int node_index = 0;      // which output of `node` this is
  Handle<Node> node;       // the op that made it; none for leaves
  Tensor grad;             // of a leaf
  Handle<GradCell> retained;
  std::shared_ptr<HookList> hooks;  // of a leaf, once it has some; a non-leaf's lie in its node
};

/// A tensor on existing storage.
Tensor make_view(const StoragePtr& storage, const Shape& sizes, const Shape& strides, int64_t offset, DType dtype);
/// The edge that a consumer of `t` records; undefined where `t` does not require grad.
Edge edge_of(const Tensor& t);

}  // namespace hone
