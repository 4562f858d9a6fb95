#include "hone/compress/graph/trace.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "hone/compress/graph/attributes.h"
#include "hone/compress/graph/buffer_scope.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/random.h"
#include "hone/ops/indexing.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/table.h"

namespace hone::graph {
namespace {

// ---- one run of forward, written down ----

struct RecordedNode {
  const OpDef* op;
  Attrs attrs;
  std::vector<ValueId> inputs, outputs;
  std::string scope;   // the innermost module that was being called
  bool alone = false;  // the only op of that call
};
struct RecordedValue {
  ValueKind kind;
  int32_t index;  // a parameter's or buffer's place, a result's node
  Shape shape;
  DType dtype;
  Tensor constant = {};  // a copy
};
struct Recording {
  int64_t batch = 0;
  std::vector<RecordedValue> values;
  std::vector<RecordedNode> nodes;
  ValueId output = kNone;
};

/// Where a tensor's elements lie: two handles of one key are the same value.
using Key = std::tuple<const Storage*, int64_t, std::vector<int64_t>, std::vector<int64_t>, DType>;
Key key_of(const Tensor& t) {
  const Shape &sizes = t.shape(), &strides = t.strides();
  return {t.storage().get(), t.offset(), {sizes.begin(), sizes.end()}, {strides.begin(), strides.end()}, t.dtype()};
}

class Tracer : public OpRecorder {
 public:
  Tracer(nn::Module& module, std::span<const OpDef* const> ops) : ops_(ops) {
    int32_t index = 0;
    for (const auto& [name, p] : module.named_parameters()) {
      const ValueId v = add({ValueKind::parameter, index++, p.shape(), p.raw().dtype()});
      keep_.push_back(p.raw());
      storages_[p.raw().storage().get()] = Owner::parameter;
      if (p.type() == WeightType::dense)
        known_[key_of(p.raw())] = v;
      else
        weights_[p.id()] = v;
    }
    index = 0;
    for (const auto& [name, b] : module.named_buffers()) {
      know(b->tensor(), add({ValueKind::buffer, index++, b->tensor().shape(), b->tensor().dtype()}), Owner::buffer);
    }
  }

  void set_input(const Tensor& x) { know(x, add({ValueKind::input, 0, x.shape(), x.dtype()}), Owner::result); }
  void set_output(const Tensor& y) { recording.output = find(y, "the result"); }
  void enter(const std::string& module) { calls_.push_back({module, recording.nodes.size()}); }
  void leave() {
    if (recording.nodes.size() == calls_.back().first_node + 1) recording.nodes.back().alone = true;
    calls_.pop_back();
  }

  void record(const OpDef& op, const Attrs& attrs, std::span<const Tensor> inputs, const Outputs& outputs) override {
    const auto listed = [&op](std::span<const OpDef* const> table) {
      return std::find(table.begin(), table.end(), &op) != table.end();
    };
    HONE_CHECK(listed(op_table()) || listed(ops_), GraphError, "trace: op ", op.name,
               " is in no table; name it in TraceOptions::ops");
    RecordedNode node{&op, attrs, {}, {}, calls_.empty() ? std::string() : calls_.back().module};
    for (const Tensor& x : inputs) node.inputs.push_back(x.defined() ? find(x, op.name) : kNone);
    const auto place = static_cast<int32_t>(recording.nodes.size());
    for (int o = 0; o < outputs.size(); ++o) {
      const ValueId v = add({ValueKind::result, place, outputs[o].shape(), outputs[o].dtype()});
      node.outputs.push_back(v);
      const bool aux = (op.aux_outputs >> o & 1) != 0;
      // A view of a parameter or buffer is known as theirs.
      const auto owner = storages_.find(outputs[o].storage().get());
      know(outputs[o], v, aux ? Owner::aux : owner != storages_.end() ? owner->second : Owner::result);
    }
    recording.nodes.push_back(std::move(node));
  }

  void read(const Tensor& t, const char* how) override {
    const auto it = storages_.find(t.storage().get());
    if (it == storages_.end() || it->second == Owner::buffer || it->second == Owner::aux) return;
    throw GraphError(str("trace: ", how, " reads a ", what(it->second), " of shape ", t.shape(), where(),
                         ": what depends on its elements cannot be traced; compute it with ops"));
  }
  void write(const Tensor& t, const char* how) override {
    const auto it = storages_.find(t.storage().get());
    if (it == storages_.end()) return;
    throw GraphError(str("trace: ", how, " changes a ", what(it->second), " of shape ", t.shape(), " in place", where(),
                         "; write a new tensor instead"));
  }

  void weight(const ParameterState* p, const Tensor& value) override {
    if (const auto it = weights_.find(p); it != weights_.end()) know(value, it->second, Owner::parameter);
  }

  Recording recording;

 private:
  enum class Owner : uint8_t { parameter, buffer, result, aux };
  static const char* what(Owner o) {
    return o == Owner::parameter ? "parameter" : o == Owner::buffer ? "buffer" : "traced value";
  }
  std::string where() const {
    std::string s;
    if (!calls_.empty()) s += " in module '" + calls_.back().module + "'";
    if (!recording.nodes.empty()) s += str(" after op ", recording.nodes.back().op->name);
    return s;
  }
  ValueId add(RecordedValue v) {
    recording.values.push_back(std::move(v));
    return static_cast<ValueId>(recording.values.size()) - 1;
  }
  void know(const Tensor& t, ValueId v, Owner owner) {
    known_[key_of(t)] = v;
    storages_.emplace(t.storage().get(), owner);
    keep_.push_back(t);  // so that no other tensor gets its place
  }
  ValueId find(const Tensor& t, const char* reader) {
    const Key key = key_of(t);
    if (const auto it = known_.find(key); it != known_.end()) return it->second;
    const auto owner = storages_.find(t.storage().get());
    HONE_CHECK(owner == storages_.end(), GraphError, "trace: ", reader, " takes a view of shape ", t.shape(), " of a ",
               what(owner->second), " that no op made", where());
    NoGrad no_grad;
    RecorderScope unseen(nullptr);
    const ValueId v = add({ValueKind::constant, 0, t.shape(), t.dtype(), clone(t.detach())});
    known_[key] = v;
    keep_.push_back(t);
    return v;
  }

  struct Call {
    std::string module;
    size_t first_node;
  };
  std::span<const OpDef* const> ops_;
  std::map<Key, ValueId> known_;
  std::map<const ParameterState*, ValueId> weights_;  // those that are not plainly dense
  std::map<const Storage*, Owner> storages_;
  std::vector<Tensor> keep_;
  std::vector<Call> calls_;
};

/// The sample's rows, in turn, as a batch of `batch`.
Tensor batch_of_rows(const Tensor& sample, int64_t batch) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < batch; ++i) rows.push_back(i % sample.size(0));
  return index_select(sample, 0, tensor(rows));
}

Recording record_forward(nn::Module& module, const Tensor& x, const TraceOptions& options) {
  struct Hooks {
    ~Hooks() {
      for (auto& h : handles) h.remove();
    }
    std::vector<HookHandle> handles;
  } hooks;
  Tracer tracer(module, options.ops);
  for (const auto& [name, m] : module.named_modules()) {
    if (name.empty()) continue;
    hooks.handles.push_back(
        m->register_forward_pre_hook([&tracer, n = name](nn::Module&, Tensor&) { tracer.enter(n); }));
    hooks.handles.push_back(
        m->register_forward_hook([&tracer](nn::Module&, const Tensor&, Tensor&) { tracer.leave(); }));
  }
  GeneratorScope same_draws(GeneratorState{});
  tracer.set_input(x);
  Tensor y;
  {
    RecorderScope scope(&tracer);
    y = module.call(x);
  }
  HONE_CHECK(y.defined(), GraphError, "trace: forward of ", module.type_name(), " returned an undefined tensor");
  tracer.set_output(y);
  tracer.recording.batch = x.size(0);
  return std::move(tracer.recording);
}

// ---- several recordings as one graph ----

struct MergedNode {
  const OpDef* op;
  Attributes attributes;
  std::vector<ValueId> inputs, outputs;
  std::string scope;
  bool alone;
};
struct MergedValue {
  ValueKind kind;
  int32_t index;
  DType dtype;
  Dims shape;
  Tensor constant;
  bool uniform = false;
};
struct Merged {
  std::vector<MergedValue> values;
  std::vector<MergedNode> nodes;
  ValueId output = kNone;
};

std::string node_label(const RecordedNode& n, size_t i) {
  return str("op ", i, " (", n.op->name, n.scope.empty() ? std::string() : " in module '" + n.scope + "'", ")");
}

/// The first element, in a tensor of its own.
Tensor first_element(const Tensor& t) { return clone(slice(reshape(t, {-1}), 0, 0, 1)); }

bool is_uniform(const Tensor& t) {
  const Tensor plain = contiguous(t);
  const auto* p = static_cast<const std::byte*>(plain.raw_data());
  const int64_t size = size_of(plain.dtype());
  for (int64_t i = 1; i < plain.numel(); ++i) {
    if (std::memcmp(p, p + i * size, static_cast<size_t>(size)) != 0) return false;
  }
  return plain.numel() > 0;
}

Merged merge_batches(const std::vector<Recording>& runs, const char* mode) {
  const Recording &a = runs[0], &b = runs[1];
  for (const Recording& r : runs) {
    for (size_t i = 0; i < std::min(a.nodes.size(), r.nodes.size()); ++i) {
      const RecordedNode &x = a.nodes[i], &y = r.nodes[i];
      HONE_CHECK(x.op == y.op && x.inputs == y.inputs, GraphError, "trace: in ", mode, " mode ", node_label(x, i),
                 " at batch ", a.batch, " is ", node_label(y, i), " at batch ", r.batch,
                 x.op == y.op ? " with other inputs" : "", ": control flow that depends on the batch");
    }
    HONE_CHECK(a.nodes.size() == r.nodes.size() && a.values.size() == r.values.size() && a.output == r.output,
               GraphError, "trace: in ", mode, " mode the graph has ", a.nodes.size(), " ops at batch ", a.batch,
               " and ", r.nodes.size(), " at batch ", r.batch, ": control flow that depends on the batch");
  }
  Merged m;
  m.output = a.output;
  for (size_t i = 0; i < a.values.size(); ++i) {
    const RecordedValue &x = a.values[i], &y = b.values[i];
    const auto who = [&] {
      if (x.kind == ValueKind::constant) return str("a constant of shape ", x.shape);
      return str(name(x.kind), x.kind == ValueKind::result ? " of " + node_label(a.nodes[static_cast<size_t>(x.index)],
                                                                                 static_cast<size_t>(x.index))
                                                           : std::string());
    };
    MergedValue v{x.kind, x.index, x.dtype, {}, x.constant};
    for (const Recording& r : runs) {
      const RecordedValue& z = r.values[i];
      HONE_CHECK(z.kind == x.kind && z.dtype == x.dtype && z.shape.ndim() == x.shape.ndim(), GraphError,
                 "trace: ", who(), " changes its kind, dtype or dims with the batch");
    }
    for (int d = 0; d < x.shape.ndim(); ++d) {
      const int64_t per = (y.shape[d] - x.shape[d]) / (b.batch - a.batch);
      const Dim dim{x.shape[d] - per * a.batch, per};
      for (const Recording& r : runs)
        HONE_CHECK(dim.at(r.batch) == r.values[i].shape[d], GraphError, "trace: dim ", d, " of ", who(), " is ",
                   r.values[i].shape[d], " at batch ", r.batch, ", not linear in the batch");
      v.shape.push_back(dim);
    }
    if (x.kind == ValueKind::constant) {
      const bool grows = std::any_of(v.shape.begin(), v.shape.end(), [](const Dim& d) { return d.per_batch != 0; });
      for (const Recording& r : runs) {
        const Tensor& z = r.values[i].constant;
        const bool fits =
            grows ? is_uniform(z) && equal(first_element(z), first_element(x.constant)) : equal(z, x.constant);
        HONE_CHECK(
            fits, GraphError, "trace: ", who(),
            " differs from call to call or with the batch in other than its sizes: random numbers or values made "
            "outside of ops");
      }
      v.uniform = grows;
      if (grows) v.constant = first_element(x.constant);
    }
    m.values.push_back(std::move(v));
  }
  for (size_t i = 0; i < a.nodes.size(); ++i) {
    const RecordedNode& x = a.nodes[i];
    const auto joined = Attributes::join(x.attrs, a.batch, b.nodes[i].attrs, b.batch);
    bool fits = joined.has_value();
    for (const Recording& r : runs) fits = fits && same(joined->at(r.batch), r.nodes[i].attrs);
    HONE_CHECK(fits, GraphError, "trace: an attribute of ", node_label(x, i),
               " depends on the batch other than as an integer linear in it");
    m.nodes.push_back({x.op, *joined, x.inputs, x.outputs, x.scope, x.alone});
  }
  return m;
}

/// Where training mode's value v is eval mode's value.
class Alignment {
 public:
  Alignment(const Merged& train, const Merged& eval)
      : train_(train), to_eval_(train.values.size(), kNone), stands_for_(train.values.size(), kNone), eval_(eval) {
    size_t e = 0;
    for (size_t t = 0; t < train.nodes.size(); ++t) {
      const MergedNode& node = train.nodes[t];
      if (e < eval.nodes.size() && fits(node, eval.nodes[e])) {
        for (size_t o = 0; o < node.outputs.size(); ++o) set(node.outputs[o], eval.nodes[e].outputs[o]);
        matched_.push_back(static_cast<int32_t>(e++));
        continue;
      }
      matched_.push_back(-1);
      HONE_CHECK(!node.inputs.empty() && node.inputs[0] != kNone && !node.outputs.empty() &&
                     shape(node.inputs[0]) == shape(node.outputs[0]),
                 GraphError, "trace: op ", node.op->name,
                 node.scope.empty() ? std::string() : " in module '" + node.scope + "'",
                 " runs in training mode alone, and its output cannot stand for its input in eval mode: the shapes "
                 "differ");
      stands_for_[static_cast<size_t>(node.outputs[0])] = node.inputs[0];
    }
    HONE_CHECK(e == eval.nodes.size(), GraphError, "trace: op ", e < eval.nodes.size() ? eval.nodes[e].op->name : "",
               " of eval mode has no match in training mode: trace with {.training = false}");
    HONE_CHECK(same_value(train.output, eval.output), GraphError,
               "trace: eval and training mode return different values: trace with {.training = false}");
  }
  /// The eval node that a training node is; -1: it runs in training mode alone.
  int32_t matched(size_t t) const { return matched_[t]; }

 private:
  const Dims& shape(ValueId t) const { return train_.values[static_cast<size_t>(t)].shape; }
  void set(ValueId t, ValueId e) { to_eval_[static_cast<size_t>(t)] = e; }
  bool fits(const MergedNode& t, const MergedNode& e) {
    if (t.op != e.op || t.inputs.size() != e.inputs.size() || t.outputs.size() != e.outputs.size()) return false;
    for (size_t i = 0; i < t.inputs.size(); ++i)
      if (!same_value(t.inputs[i], e.inputs[i])) return false;
    return true;
  }
  bool same_value(ValueId t, ValueId e) {
    if (t == kNone || e == kNone) return t == e;
    while (stands_for_[static_cast<size_t>(t)] != kNone) t = stands_for_[static_cast<size_t>(t)];
    const MergedValue &x = train_.values[static_cast<size_t>(t)], &y = eval_.values[static_cast<size_t>(e)];
    if (x.kind != y.kind) return false;
    if (x.kind == ValueKind::result) return to_eval_[static_cast<size_t>(t)] == e;
    if (x.kind != ValueKind::constant) return x.index == y.index;
    return x.shape == y.shape && x.uniform == y.uniform && equal(x.constant, y.constant);
  }
  const Merged& train_;
  std::vector<ValueId> to_eval_, stands_for_;  // by training value
  const Merged& eval_;
  std::vector<int32_t> matched_;
};

Network build(nn::Module& module, const Merged& m, const Merged* eval) {
  Network net;
  std::vector<ValueId> id(m.values.size(), kNone);
  const auto parameters = module.named_parameters();
  const auto buffers = module.named_buffers();
  const auto fill = [&](ValueKind kind) {
    for (size_t i = 0; i < m.values.size(); ++i) {
      const MergedValue& v = m.values[i];
      if (v.kind != kind) continue;
      const auto at = static_cast<size_t>(v.index);
      if (kind == ValueKind::input) id[i] = net.add_input("x", v.dtype, v.shape);
      if (kind == ValueKind::parameter) {
        id[i] = net.add_parameter(parameters[at].name, Parameter::copy_of(parameters[at].parameter));
      }
      if (kind == ValueKind::buffer) id[i] = net.add_buffer(buffers[at].name, *buffers[at].buffer);
      if (kind == ValueKind::constant)
        id[i] = v.uniform ? net.add_uniform("constant", v.constant, v.shape) : net.add_constant("constant", v.constant);
    }
  };
  for (const ValueKind k : {ValueKind::input, ValueKind::parameter, ValueKind::buffer, ValueKind::constant}) fill(k);
  std::optional<Alignment> alignment;
  if (eval) alignment.emplace(m, *eval);
  for (size_t i = 0; i < m.nodes.size(); ++i) {
    const MergedNode& n = m.nodes[i];
    Node node{.name = n.scope.empty() ? std::string(n.op->name)
                      : n.alone       ? n.scope
                                      : n.scope + "." + n.op->name,
              .op = n.op,
              .inputs = {},
              .outputs = {},
              .attributes = n.attributes};
    for (const ValueId v : n.inputs) node.inputs.push_back(v == kNone ? kNone : id[static_cast<size_t>(v)]);
    if (alignment) {
      const int32_t e = alignment->matched(i);
      node.train_only = e < 0;
      if (e >= 0) {
        node.attributes = eval->nodes[static_cast<size_t>(e)].attributes;
        if (!(node.attributes == n.attributes)) node.train = n.attributes;
      }
    }
    net.add_node(std::move(node));
    const Node& added = net.nodes().back();
    for (size_t o = 0; o < n.outputs.size(); ++o) id[static_cast<size_t>(n.outputs[o])] = added.outputs[o];
  }
  net.set_outputs({id[static_cast<size_t>(m.output)]});
  net.train(module.training());
  return net;
}

}  // namespace

namespace detail {

std::vector<Tensor> buffers_of(nn::Module& module) {
  std::vector<Tensor> buffers;
  for (const auto& [name, b] : module.named_buffers()) buffers.push_back(b->tensor());
  return buffers;
}
BufferScope::BufferScope(const std::vector<Tensor>& buffers) {
  const NoGrad no_grad;
  for (const Tensor& b : buffers) saved_.emplace_back(b, clone(b));
}
BufferScope::~BufferScope() {
  const NoGrad no_grad;
  for (auto& [b, former] : saved_)
    if (!equal(b, former)) b.copy_(former);  // what did not change keeps its version: graphs may hold it
}

}  // namespace detail

Network trace(nn::Module& module, const Tensor& sample, TraceOptions options) {
  HONE_CHECK(sample.defined() && sample.ndim() >= 1 && sample.size(0) >= 1, ShapeError,
             "trace: the sample must be a batch of at least one, ",
             sample.defined() ? "is " + hone::to_string(sample.shape()) : std::string("is undefined"));
  NoGrad no_grad;
  RecorderScope unseen(nullptr);
  const auto runs = [&](bool training) {
    // A module that trains does so in the modes that its parts are in: some may be frozen in eval mode.
    std::optional<nn::ModeScope> mode;
    if (!training || !module.training()) mode.emplace(module, training);
    std::optional<detail::BufferScope> buffers;  // put back also when forward throws
    if (training) buffers.emplace(detail::buffers_of(module));
    std::vector<Recording> recordings;
    for (const int64_t batch : {2, 3, 5})
      recordings.push_back(record_forward(module, batch_of_rows(sample, batch), options));
    return recordings;
  };
  const Merged eval = merge_batches(runs(false), "eval");
  if (!options.training) return build(module, eval, nullptr);
  const Merged train = merge_batches(runs(true), "training");
  return build(module, train, &eval);
}

std::string difference(const Network& a, const Network& b) {
  if (a.nodes().size() != b.nodes().size())
    return str("they have ", a.nodes().size(), " and ", b.nodes().size(), " nodes");
  std::vector<ValueId> to(a.values().size(), kNone);
  const auto equal_values = [&](ValueId x, ValueId y) {
    if (x == kNone || y == kNone) return x == y;
    const Value &u = a.value(x), &v = b.value(y);
    if (u.kind != v.kind || u.dtype != v.dtype || u.shape != v.shape) return false;
    if (u.kind == ValueKind::result) return to[static_cast<size_t>(x)] == y;
    if (u.kind == ValueKind::input) return u.index == v.index;
    if (u.kind == ValueKind::constant) return equal(a.constant(x).value, b.constant(y).value);
    return u.name == v.name;
  };
  for (size_t i = 0; i < a.nodes().size(); ++i) {
    const Node &x = a.nodes()[i], &y = b.nodes()[i];
    const std::string who = str("node ", i, " ('", x.name, "', ", x.op->name, ")");
    if (x.op != y.op) return str(who, " has another op: ", y.op->name);
    if (!(x.attributes == y.attributes)) return who + " has other attributes";
    if (x.train_only != y.train_only || x.train != y.train)
      return who + " has other attributes in training mode (is a module of one frozen in eval mode?)";
    if (x.inputs.size() != y.inputs.size() || x.outputs.size() != y.outputs.size())
      return who + " has another number of inputs or outputs";
    for (size_t k = 0; k < x.inputs.size(); ++k) {
      if (!equal_values(x.inputs[k], y.inputs[k])) return str(who, " reads something else as input ", k);
    }
    for (size_t k = 0; k < x.outputs.size(); ++k) to[static_cast<size_t>(x.outputs[k])] = y.outputs[k];
  }
  if (a.outputs().size() != b.outputs().size()) return "they have other numbers of outputs";
  for (size_t i = 0; i < a.outputs().size(); ++i) {
    if (!equal_values(a.outputs()[i], b.outputs()[i])) return str("output ", i, " is another value");
  }
  return {};
}

void write_back(Network& network, nn::Module& module, const Tensor& sample, TraceOptions options) {
  std::map<std::string, ParameterRef> parameters;
  std::map<std::string, Buffer*> buffers;
  for (const auto& [name, p] : network.named_parameters()) parameters.emplace(name, p);
  for (const auto& [name, b] : network.named_buffers()) buffers.emplace(name, b);
  const auto check_names = [](const char* what, const auto& from, const auto& to) {
    for (const auto& entry : to)
      HONE_CHECK(from.count(entry.name), GraphError, "write_back: the network has no ", what, " '", entry.name, "'");
    HONE_CHECK(from.size() == to.size(), GraphError, "write_back: the network has ", from.size(), " ", what,
               "s, the module ", to.size());
  };
  check_names("parameter", parameters, module.named_parameters());
  check_names("buffer", buffers, module.named_buffers());

  NoGrad no_grad;
  const auto write_to = [&](nn::Module& m) {
    for (const auto& [name, p] : m.named_parameters()) p.assign(parameters.at(name));
    for (const auto& [name, b] : m.named_buffers()) b->tensor() = clone(buffers.at(name)->tensor());
  };
  // On a copy first: what assign() does to gradients and generations could not be undone.
  try {
    const std::unique_ptr<nn::Module> copy = module.clone();
    write_to(*copy);
    const std::string differs = difference(network, trace(*copy, sample, options));
    HONE_CHECK(differs.empty(), GraphError, "write_back: the module does not compute what the network does: ", differs);
  } catch (const GraphError&) { throw; } catch (const Error& e) {
    throw GraphError(str("write_back: the module cannot take these parameters: ", e.what()));
  }
  write_to(module);
}

}  // namespace hone::graph
