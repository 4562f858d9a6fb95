// apply(): the one door into every op.

#include "hone/core/op.h"

#include <cmath>
#include <utility>

#include "hone/core/modes.h"
#include "hone/core/node.h"
#include "hone/core/parallel.h"

namespace hone {

namespace detail {
Blocks::~Blocks() {
  for (auto& [p, n] : blocks_) free_data(p, n);
}
void* Blocks::next(size_t n) {
  if (n == 0) n = 1;
  if (used_ == blocks_.size()) blocks_.emplace_back(nullptr, 0);
  auto& [p, size] = blocks_[used_++];
  if (size < n) {
    free_data(std::exchange(p, nullptr), std::exchange(size, 0));
    p = allocate_data(n);
    size = n;
  }
  return p;
}
size_t Blocks::bytes() const {
  size_t sum = 0;
  for (const auto& [p, n] : blocks_) sum += n;
  return sum;
}
}  // namespace detail

namespace {
// The graph part of apply(): a node with an edge per input, if any output can have a gradient.
void record(const OpDef& op, const Attrs& attrs, std::span<const Tensor> inputs, Outputs& out) {
  Handle<Node> node;
  for (int o = 0; o < out.size(); ++o) {
    if (!is_floating(out[o].dtype()) || (op.aux_outputs >> o & 1)) continue;
    if (!node) {
      static std::atomic<uint64_t> sequence{1};
      node = Handle<Node>(new Node);
      node->op = &op;
      node->attrs = attrs;
      node->sequence = sequence.fetch_add(1, std::memory_order_relaxed);
    }
    TensorImpl& t = *out[o].impl();
    t.requires_grad = true;
    t.node = node;
    t.node_index = o;
  }
  if (!node) return;
  node->edges.reserve(inputs.size());
  node->inputs.reserve(inputs.size());
  for (const Tensor& x : inputs) {
    node->edges.push_back(edge_of(x));
    if (x.defined())
      node->inputs.push_back({x.shape(), x.dtype(), true});
    else
      node->inputs.emplace_back();
  }
  node->outputs.reserve(static_cast<size_t>(out.size()));
  for (int o = 0; o < out.size(); ++o) node->outputs.push_back({out[o].shape(), out[o].dtype(), out[o].device()});
  if (op.saves.inputs) {
    node->saved_inputs.resize(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!(op.saves.inputs >> std::min<size_t>(i, 31) & 1) || !inputs[i].defined()) continue;
      HONE_CHECK(!inputs[i].impl()->inference, GradError, op.name, ": input ", i,
                 " was made in inference mode and cannot be saved for backward");
      node->saved_inputs[i] = {inputs[i], inputs[i].version()};
    }
  }
  if (op.saves.outputs) {
    node->saved_outputs.resize(static_cast<size_t>(out.size()));
    for (int o = 0; o < out.size(); ++o) {
      // Without its node: a node that held its own output would never be freed.
      if (op.saves.outputs >> o & 1) node->saved_outputs[static_cast<size_t>(o)] = {out[o].detach(), out[o].version()};
    }
  }
}
}  // namespace

Outputs apply(const OpDef& op, const Attrs& attrs, std::span<const Tensor> inputs) {
  PoolVector<View> in;
  in.reserve(inputs.size());
  const Tensor* first = nullptr;
  bool any_grad = false;
  for (const Tensor& x : inputs) {
    in.push_back(x.view());
    if (!x.defined()) continue;
    if (!first) first = &x;
    HONE_CHECK(x.device() == first->device(), DeviceError, op.name, ": inputs on ", first->device(), " and ",
               x.device());
    any_grad = any_grad || x.impl()->requires_grad;
  }
  const Device device = first ? first->device() : cpu;

  ShapeContext shapes{op.name, in, attrs};
  op.shapes(shapes);

  Outputs out;
  View alias;
  if (op.alias && op.alias(in[0], attrs, alias)) {
    const Tensor& base = inputs[0];
    const int64_t shift =
        in[0].data ? (static_cast<std::byte*>(alias.data) - static_cast<std::byte*>(in[0].data)) / size_of(base.dtype())
                   : 0;
    const auto n = static_cast<size_t>(alias.ndim);
    out.push_back(make_view(base.storage(), Shape(std::span<const int64_t>(alias.sizes, n)),
                            Shape(std::span<const int64_t>(alias.strides, n)), base.offset() + shift, base.dtype()));
    if (base.impl()->inference) out[0].impl()->inference = true;
  } else {
    HONE_CHECK(device.type == DeviceType::cpu || op.runs_on_cuda, DeviceError, op.name,
               ": runs on cpu alone, its inputs are on ", device);
    std::array<View, kMaxOutputs> views;
    for (int o = 0; o < shapes.outputs; ++o) {
      out.push_back(
          empty(shapes.out[static_cast<size_t>(o)].shape, {shapes.out[static_cast<size_t>(o)].dtype, device}));
      views[static_cast<size_t>(o)] = out[o].view();
    }
    Workspace workspace;
    RunContext run{op.name, in, std::span<const View>(views.data(), static_cast<size_t>(shapes.outputs)), attrs,
                   workspace};
    op.run(run);
  }
  if (modes().anomaly) detail::check_no_new_nan(op.name, "", inputs, out);
  if (any_grad && modes().grad) record(op, attrs, inputs, out);
  if (modes().recorder) modes().recorder->record(op, attrs, inputs, out);
  return out;
}

RecorderScope::RecorderScope(OpRecorder* r) : former_(modes().recorder) { modes().recorder = r; }
RecorderScope::~RecorderScope() { modes().recorder = former_; }

namespace detail {
bool has_nan(const Tensor& t) {
  if (!t.defined() || !is_floating(t.dtype()) || t.device() != cpu) return false;
  // Only the mode that asks for it reads every element, so no kernel of its own.
  for (double v : t.to_vector<double>()) {
    if (std::isnan(v)) return true;
  }
  return false;
}
void check_no_new_nan(const char* op, const char* pass, std::span<const Tensor> inputs, const Outputs& out) {
  AnomalyMode off(false);
  RecorderScope unseen(nullptr);
  for (int o = 0; o < out.size(); ++o) {
    if (!has_nan(out[o])) continue;
    for (const Tensor& x : inputs) {
      if (has_nan(x)) return;  // it came from outside: another op is to blame
    }
    throw NumericError(str("anomaly: ", op, pass, " made a NaN in output ", o, " of shape ", out[o].shape(),
                           " from inputs without one"));
  }
}
}  // namespace detail

void check_inputs(const ShapeContext& c, int least, int most) {
  const auto n = static_cast<int>(c.in.size());
  HONE_CHECK(n >= least && n <= most, ValueError, c.op, ": takes ", least, " to ", most, " inputs, got ", n);
  for (int i = 0; i < least; ++i)
    HONE_CHECK(c.in[static_cast<size_t>(i)].defined(), ValueError, c.op, ": input ", i, " is an undefined tensor");
}
void check_floating(const ShapeContext& c, int i, const char* what) {
  HONE_CHECK(is_floating(c.dtype(i)), DTypeError, c.op, ": ", what, " must be floating, not ", c.dtype(i));
}
void check_same_dtype(const ShapeContext& c, int i, int j) {
  HONE_CHECK(c.dtype(i) == c.dtype(j), DTypeError, c.op, ": dtypes ", c.dtype(i), " and ", c.dtype(j),
             " differ; cast one of them");
}
void check_ndim(const ShapeContext& c, int i, int ndim, const char* what) {
  HONE_CHECK(c.in[static_cast<size_t>(i)].ndim == ndim, ShapeError, c.op, ": ", what, " must have ", ndim,
             " dims, not shape ", c.shape(i));
}

}  // namespace hone
