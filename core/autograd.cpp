// Modes, BackwardContext and the engine that walks recorded nodes from the newest to the oldest.

#include "hone/core/autograd.h"

#include <algorithm>
#include <unordered_map>

#include "hone/core/basic_ops.h"
#include "hone/core/modes.h"
#include "hone/core/node.h"

namespace hone {

bool grad_enabled() { return modes().grad; }
bool inference_mode() { return modes().inference; }
bool anomaly_mode() { return modes().anomaly; }
NoGrad::NoGrad() : former_(std::exchange(modes().grad, false)) {}
NoGrad::~NoGrad() { modes().grad = former_; }
EnableGrad::EnableGrad() : former_(std::exchange(modes().grad, true)) {}
EnableGrad::~EnableGrad() { modes().grad = former_; }
InferenceMode::InferenceMode()
    : former_grad_(std::exchange(modes().grad, false)), former_(std::exchange(modes().inference, true)) {}
InferenceMode::~InferenceMode() {
  modes().grad = former_grad_;
  modes().inference = former_;
}
AnomalyMode::AnomalyMode(bool on) : former_(std::exchange(modes().anomaly, on)) {}
AnomalyMode::~AnomalyMode() { modes().anomaly = former_; }

void intrusive_retain(Node* n) { n->references.fetch_add(1, std::memory_order_relaxed); }
int64_t intrusive_count(const Node* n) { return n->references.load(std::memory_order_acquire); }
// Destroys iteratively: a long chain must not recurse.
void intrusive_release(Node* n) {
  if (n->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  // A list through the nodes: nothing here is destroyed before tensors with static storage.
  static constinit thread_local Node* doomed = nullptr;
  static constinit thread_local bool draining = false;
  n->next_doomed = std::exchange(doomed, n);
  if (draining) return;  // reached from a destructor below: the loop there takes it
  draining = true;
  while (doomed) {
    Node* const next = std::exchange(doomed, doomed->next_doomed);
    delete next;
  }
  draining = false;
}

// ---------------------------------------------------------------------------------------------- BackwardContext

BackwardContext::BackwardContext(Node& node, std::span<const Tensor> grads, std::span<const uint8_t> needs,
                                 std::span<Tensor> results)
    : node_(node), grads_(grads), needs_(needs), results_(results) {}
const char* BackwardContext::op() const { return node_.op->name; }
int BackwardContext::inputs() const { return static_cast<int>(node_.inputs.size()); }
bool BackwardContext::has(int i) const { return i < inputs() && node_.inputs[static_cast<size_t>(i)].given; }
const Shape& BackwardContext::input_shape(int i) const { return node_.inputs[static_cast<size_t>(i)].shape; }
DType BackwardContext::input_dtype(int i) const { return node_.inputs[static_cast<size_t>(i)].dtype; }
const Shape& BackwardContext::output_shape(int o) const { return node_.outputs[static_cast<size_t>(o)].shape; }
const Attrs& BackwardContext::raw_attrs() const { return node_.attrs; }

namespace {
const Tensor& checked_saved(const Node& node, const PoolVector<SavedTensor>& saved, int i, const char* what) {
  HONE_CHECK(!node.freed, GradError, "backward of ", node.op->name,
             ": its graph was walked and freed before; walk it the first time with retain_graph");
  HONE_ASSERT(static_cast<size_t>(i) < saved.size() && saved[static_cast<size_t>(i)].tensor.defined());
  const SavedTensor& s = saved[static_cast<size_t>(i)];
  HONE_CHECK(s.tensor.version() == s.version, GradError, "backward of ", node.op->name, ": its ", what, " ", i,
             " of shape ", s.tensor.shape(), " was changed in place after it was saved (version ", s.version, ", now ",
             s.tensor.version(), ")");
  return s.tensor;
}
}  // namespace

Tensor BackwardContext::input(int i) const { return checked_saved(node_, node_.saved_inputs, i, "input"); }
Tensor BackwardContext::output(int o) const {
  const Tensor saved = checked_saved(node_, node_.saved_outputs, o, "output");
  if (!grad_enabled() || !is_floating(saved.dtype()) || (node_.op->aux_outputs >> o & 1)) return saved;
  Tensor attached = saved.detach();
  attached.impl()->requires_grad = true;
  attached.impl()->node = Handle<Node>(&node_);
  attached.impl()->node_index = o;
  return attached;
}
Tensor BackwardContext::grad(int o) const {
  const Tensor& g = grads_[static_cast<size_t>(o)];
  if (g.defined()) return g;
  const Node::Output& out = node_.outputs[static_cast<size_t>(o)];
  return zeros(out.shape, {out.dtype, out.device});
}

// ---------------------------------------------------------------------------------------------- Engine

namespace {
template <class K, class V>
using PoolMap = std::unordered_map<K, V, std::hash<K>, std::equal_to<K>, detail::PoolAllocator<std::pair<const K, V>>>;

// Can `t` be changed without anyone else seeing it? The engine's own buffers are; views and shared gradients are not.
bool owned(const Tensor& t) { return t.handle().unique() && t.storage().unique() && t.is_contiguous(); }

void add_gradient(Tensor& sum, Tensor g, bool create_graph) {
  if (!sum.defined()) {
    sum = std::move(g);
  } else if (!create_graph && sum.device() == cpu && owned(sum) && g.is_contiguous()) {
    detail::accumulate_into(g.view(), sum.view());
  } else if (!create_graph && g.device() == cpu && owned(g) && sum.is_contiguous()) {
    detail::accumulate_into(sum.view(), g.view());
    sum = std::move(g);
  } else {
    sum = apply(kAccumulate, {}, {sum, g});
  }
}

class Engine {
 public:
  Engine(bool retain, bool create) : retain_(retain || create), create_(create) {}

  // What to return for each wanted tensor (grad()); none wanted means: add to the leaves' grad() (backward()).
  void want(const Tensor& t) {
    Edge e = edge_of(t);
    if (!e.defined()) {
      wanted_.push_back({});
      return;
    }
    if (e.leaf) {
      floor_ = 0;
      wanted_leaves_.emplace(e.leaf.get(), true);
    } else {
      floor_ = std::min(floor_, e.node->sequence);
      wanted_nodes_[e.node.get()].push_back(wanted_.size());
    }
    wanted_.push_back({std::move(e), {}});
  }

  void seed(const Tensor& output, Tensor g) { route(edge_of(output), std::move(g)); }

  void run() {
    if (!wanted_.empty()) find_paths();
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), older);
      Handle<Node> node = std::move(heap_.back());
      heap_.pop_back();
      auto it = buffers_.find(node.get());
      PoolVector<Tensor> grads = std::move(it->second);
      buffers_.erase(it);
      step(*node, grads);
    }
    if (wanted_.empty()) finish_leaves();
  }

  // After run(): the gradients of the wanted tensors, undefined where nothing flowed.
  Tensor take(size_t i) {
    Wanted& w = wanted_[i];
    if (w.edge.leaf) {
      auto it = leaves_.find(w.edge.leaf.get());
      if (it == leaves_.end()) return {};
      if (!it->second.hooked) {
        it->second.hooked = true;
        it->second.grad = hooked_leaf(*w.edge.leaf, it->second.grad);
      }
      return it->second.grad;
    }
    return w.grad;
  }

 private:
  struct Wanted {
    Edge edge;
    Tensor grad;
  };
  struct Leaf {
    Handle<TensorImpl> leaf;
    Tensor grad;
    uint64_t order = 0;
    bool hooked = false;
  };

  static bool older(const Handle<Node>& a, const Handle<Node>& b) { return a->sequence < b->sequence; }

  bool flows(const Edge& e) const {
    if (!e.defined()) return false;
    if (wanted_.empty()) return true;
    if (e.leaf) return wanted_leaves_.contains(e.leaf.get());
    const auto it = useful_.find(e.node.get());
    return it != useful_.end() && it->second;
  }

  // Marks the nodes that lead to a wanted tensor. Nodes older than every wanted one cannot.
  void find_paths() {
    PoolVector<Node*> reached;
    for (auto& [node, grads] : buffers_) {
      useful_.emplace(node, false);
      reached.push_back(node);
    }
    for (size_t i = 0; i < reached.size(); ++i) {
      for (const Edge& e : reached[i]->edges) {
        if (e.node && e.node->sequence >= floor_ && useful_.emplace(e.node.get(), false).second)
          reached.push_back(e.node.get());
      }
    }
    std::sort(reached.begin(), reached.end(), [](const Node* a, const Node* b) { return a->sequence < b->sequence; });
    for (Node* n : reached) {
      bool useful = wanted_nodes_.contains(n);
      for (const Edge& e : n->edges) useful = useful || flows(e);
      useful_[n] = useful;
    }
  }

  void route(const Edge& e, Tensor g) {
    if (e.leaf) {
      Leaf& l = leaves_[e.leaf.get()];
      if (!l.leaf) {
        l.leaf = e.leaf;
        l.order = leaves_.size();
      }
      add_gradient(l.grad, std::move(g), create_);
      return;
    }
    auto [it, fresh] = buffers_.try_emplace(e.node.get());
    if (fresh) {
      it->second.resize(e.node->outputs.size());
      heap_.push_back(e.node);
      std::push_heap(heap_.begin(), heap_.end(), older);
    }
    add_gradient(it->second[static_cast<size_t>(e.index)], std::move(g), create_);
  }

  void step(Node& node, PoolVector<Tensor>& grads) {
    const auto list = node.hooks;
    for (size_t h = 0; list && h < list->hooks.size(); ++h) {  // by index: a hook may add hooks
      const GradHook call = list->hooks[h].call;
      Tensor& g = grads[static_cast<size_t>(list->hooks[h].output)];
      if (!g.defined()) continue;
      if (Tensor replaced = call(g); replaced.defined()) {
        HONE_CHECK(replaced.shape() == g.shape() && replaced.dtype() == g.dtype(), GradError, "hook on the result of ",
                   node.op->name, ": returned ", replaced.dtype(), " ", replaced.shape(), " for a gradient of ",
                   g.dtype(), " ", g.shape());
        g = std::move(replaced);
      }
    }
    for (auto& [o, cell] : node.retained) {
      const Tensor& g = grads[static_cast<size_t>(o)];
      if (g.defined() && wanted_.empty()) add_gradient(cell->grad, g, create_);
    }
    if (const auto it = wanted_nodes_.find(&node); it != wanted_nodes_.end()) {
      for (size_t i : it->second) wanted_[i].grad = grads[static_cast<size_t>(wanted_[i].edge.index)];
    }
    PoolVector<uint8_t> needs(node.edges.size());
    bool any = false;
    for (size_t i = 0; i < needs.size(); ++i) any |= (needs[i] = flows(node.edges[i])) != 0;
    if (!any) return;

    HONE_CHECK(node.op->backward, GradError, "backward of ", node.op->name, ": not differentiable: ",
               node.op->not_differentiable ? node.op->not_differentiable : "no backward was given");
    PoolVector<Tensor> results(node.edges.size());
    BackwardContext context(node, grads, needs, results);
    node.op->backward(context);
    if (modes().anomaly) check_anomaly(node, grads, results);
    grads.clear();
    if (!retain_ && !(node.saved_inputs.empty() && node.saved_outputs.empty())) {
      node.saved_inputs.clear();
      node.saved_outputs.clear();
      node.freed = true;
    }
    for (size_t i = 0; i < results.size(); ++i) {
      if (!needs[i] || !results[i].defined()) continue;
      const Node::Input& in = node.inputs[i];
      HONE_CHECK(results[i].shape() == in.shape && results[i].dtype() == in.dtype, GradError, "backward of ",
                 node.op->name, ": gradient ", i, " is ", results[i].dtype(), " ", results[i].shape(), ", its input ",
                 in.dtype, " ", in.shape);
      route(node.edges[i], std::move(results[i]));
    }
  }

  static void check_anomaly(const Node& node, std::span<const Tensor> grads, std::span<const Tensor> results) {
    PoolVector<Tensor> seen(grads.begin(), grads.end());  // what backward read
    for (const SavedTensor& s : node.saved_inputs) seen.push_back(s.tensor);
    for (const SavedTensor& s : node.saved_outputs) seen.push_back(s.tensor);
    for (const Tensor& r : results) {
      Outputs one;
      one.push_back(r);
      if (r.defined()) detail::check_no_new_nan(node.op->name, " (backward)", seen, one);
    }
  }

  static Tensor hooked_leaf(TensorImpl& leaf, Tensor g) {
    const auto list = leaf.hooks;
    for (size_t h = 0; list && h < list->hooks.size(); ++h) {
      const GradHook call = list->hooks[h].call;
      if (Tensor replaced = call(g); replaced.defined()) {
        HONE_CHECK(replaced.shape() == g.shape() && replaced.dtype() == g.dtype(), GradError,
                   "hook on a leaf: returned ", replaced.dtype(), " ", replaced.shape(), " for a gradient of ",
                   g.dtype(), " ", g.shape());
        g = std::move(replaced);
      }
    }
    return g;
  }

  void finish_leaves() {
    PoolVector<Leaf*> ordered;
    for (auto& [p, l] : leaves_) ordered.push_back(&l);
    std::sort(ordered.begin(), ordered.end(), [](const Leaf* a, const Leaf* b) { return a->order < b->order; });
    for (Leaf* l : ordered) {
      Tensor g = !l->leaf->hooks ? std::move(l->grad) : hooked_leaf(*l->leaf, std::move(l->grad));
      // A gradient that others can see must not be changed by the next accumulation.
      if (!create_ && !owned(g)) g = clone(g);
      add_gradient(l->leaf->grad, std::move(g), create_);
    }
  }

  const bool retain_, create_;
  PoolVector<Wanted> wanted_;
  PoolMap<TensorImpl*, bool> wanted_leaves_;
  PoolMap<Node*, PoolVector<size_t>> wanted_nodes_;  // places in wanted_
  uint64_t floor_ = UINT64_MAX;
  PoolVector<Handle<Node>> heap_;
  PoolMap<Node*, PoolVector<Tensor>> buffers_;
  PoolMap<Node*, bool> useful_;
  PoolMap<TensorImpl*, Leaf> leaves_;
};

// The mode that backward functions run under.
struct GradModeScope {
  explicit GradModeScope(bool on) : former(std::exchange(modes().grad, on)) {}
  ~GradModeScope() { modes().grad = former; }
  bool former;
};

Tensor checked_seed(const char* what, const Tensor& output, const Tensor& seed) {
  HONE_CHECK(output.requires_grad(), GradError, what, ": the output does not require grad: nothing it came from does");
  if (!seed.defined()) {
    HONE_CHECK(output.numel() == 1, GradError, what, ": an output of shape ", output.shape(),
               " needs its own gradient; only a single element defaults to 1");
    return ones_like(output);
  }
  HONE_CHECK(seed.shape() == output.shape(), ShapeError, what, ": gradient of shape ", seed.shape(),
             " for an output of shape ", output.shape());
  HONE_CHECK(seed.dtype() == output.dtype(), DTypeError, what, ": gradient of dtype ", seed.dtype(),
             " for an output of dtype ", output.dtype());
  return seed;
}
}  // namespace

void Tensor::backward(const Tensor& seed, BackwardOptions options) const {
  GradModeScope mode(options.create_graph);
  Engine engine(options.retain_graph, options.create_graph);
  engine.seed(*this, checked_seed("backward", *this, seed));
  engine.run();
}

std::vector<Tensor> grad(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs, GradOptions options,
                         const std::vector<Tensor>& seeds) {
  HONE_CHECK(!outputs.empty() && !inputs.empty(), ValueError, "grad: needs at least one output and one input");
  HONE_CHECK(seeds.empty() || seeds.size() == outputs.size(), ValueError, "grad: ", seeds.size(), " seeds for ",
             outputs.size(), " outputs");
  GradModeScope mode(options.create_graph);
  Engine engine(options.retain_graph, options.create_graph);
  for (size_t i = 0; i < inputs.size(); ++i) {
    HONE_CHECK(inputs[i].requires_grad(), GradError, "grad: input ", i, " does not require grad");
    engine.want(inputs[i]);
  }
  for (size_t o = 0; o < outputs.size(); ++o) {
    engine.seed(outputs[o], checked_seed("grad", outputs[o], seeds.empty() ? Tensor() : seeds[o]));
  }
  engine.run();
  std::vector<Tensor> result;
  for (size_t i = 0; i < inputs.size(); ++i) {
    result.push_back(engine.take(i));
    HONE_CHECK(result.back().defined() || options.allow_unused, GradError, "grad: the outputs do not depend on input ",
               i, "; allow_unused gives an undefined tensor instead");
  }
  return result;
}

// ---------------------------------------------------------------------------------------------- composite_backward

void composite_backward(BackwardContext& c, Outputs (*composite)(std::span<const Tensor>, const Attrs&)) {
  const bool outer = grad_enabled();
  std::vector<Tensor> inputs, wanted;
  std::vector<int> index;
  std::vector<Tensor> outputs, seeds;
  {
    EnableGrad on;
    for (int i = 0; i < c.inputs(); ++i) {
      Tensor x = c.has(i) ? c.input(i) : Tensor();
      if (c.needs(i)) {
        // An alias of its own for each, so that the walk below ends there even where one input was made from another.
        x = outer ? Tensor(apply(kAlias, {}, {x})) : x.detach().requires_grad_();
        wanted.push_back(x);
        index.push_back(i);
      } else if (x.defined() && !outer) {
        x = x.detach();
      }
      inputs.push_back(std::move(x));
    }
    const Outputs made = composite(std::span<const Tensor>(inputs), c.raw_attrs());
    for (int o = 0; o < made.size(); ++o) {
      if (!made[o].defined() || !made[o].requires_grad() || !c.has_grad(o)) continue;
      outputs.push_back(made[o]);
      seeds.push_back(c.grad(o));
    }
  }
  if (outputs.empty()) return;
  const auto grads = grad(outputs, wanted, {.create_graph = outer, .allow_unused = true}, seeds);
  for (size_t k = 0; k < wanted.size(); ++k) c.set(index[k], grads[k]);
}

}  // namespace hone
