#include "hone/compress/graph/network.h"

#include <algorithm>
#include <array>

#include "hone/compress/graph/attributes.h"
#include "hone/core/autograd.h"
#include "hone/core/text_table.h"

namespace hone::graph {

const char* name(ValueKind k) {
  constexpr const char* names[] = {"input", "parameter", "buffer", "constant", "result"};
  return names[static_cast<int>(k)];
}

Shape at(const Dims& dims, int64_t batch) {
  Shape s;
  for (const Dim& d : dims) s.push_back(d.at(batch));
  return s;
}

std::string to_string(const Dims& dims) {
  std::string s = "[";
  for (const Dim& d : dims) {
    if (s.size() > 1) s += ", ";
    if (d.per_batch == 0) {
      s += std::to_string(d.fixed);
      continue;
    }
    if (d.per_batch != 1) s += std::to_string(d.per_batch) + "*";
    s += "B";
    if (d.fixed != 0) s += (d.fixed > 0 ? "+" : "") + std::to_string(d.fixed);
  }
  return s + "]";
}

// ---- reading ----

const Value& Network::checked(ValueId v, ValueKind kind) const {
  HONE_CHECK(v >= 0 && static_cast<size_t>(v) < values_.size() && value(v).kind == kind, GraphError, "graph: value ", v,
             v >= 0 && static_cast<size_t>(v) < values_.size() ? " '" + value(v).name + "'" : std::string(), " is no ",
             name(kind));
  return value(v);
}
const Parameter& Network::parameter(ValueId v) const {
  return parameters_[static_cast<size_t>(checked(v, ValueKind::parameter).index)].second;
}
const Tensor& Network::buffer(ValueId v) const {
  return buffers_[static_cast<size_t>(checked(v, ValueKind::buffer).index)].second.tensor();
}
Buffer& Network::buffer_slot(ValueId v) {
  return buffers_[static_cast<size_t>(checked(v, ValueKind::buffer).index)].second;
}
const Constant& Network::constant(ValueId v) const {
  return constants_[static_cast<size_t>(checked(v, ValueKind::constant).index)];
}

ValueId Network::find(std::string_view name) const {
  std::vector<std::string> names;
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].name == name) return static_cast<ValueId>(i);
    names.push_back(values_[i].name);
  }
  throw GraphError(str("graph: no value is named '", name, "'", hone::detail::nearest_names(std::string(name), names)));
}

size_t Network::find_node(std::string_view name) const {
  std::vector<std::string> names;
  const std::string prefix = std::string(name) + ".";
  size_t inside = nodes_.size();
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].name == name) return i;
    if (inside == nodes_.size() && nodes_[i].name.starts_with(prefix)) inside = i;
    names.push_back(nodes_[i].name);
  }
  HONE_CHECK(inside < nodes_.size(), GraphError, "graph: no node is named '", name, "'",
             hone::detail::nearest_names(std::string(name), names));
  return inside;
}

std::vector<std::vector<int32_t>> Network::uses() const {
  std::vector<std::vector<int32_t>> uses(values_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (const ValueId v : nodes_[i].inputs) {
      if (v == kNone) continue;
      auto& list = uses[static_cast<size_t>(v)];
      if (list.empty() || list.back() != static_cast<int32_t>(i)) list.push_back(static_cast<int32_t>(i));
    }
  }
  return uses;
}

ValueId Network::in_eval(ValueId v) const {
  while (v != kNone && value(v).kind == ValueKind::result) {
    const Node& maker = nodes_[static_cast<size_t>(value(v).index)];
    if (!maker.train_only || maker.outputs[0] != v) break;
    v = maker.inputs[0];
  }
  return v;
}

int64_t Network::macs(int64_t batch) const {
  int64_t total = 0;
  for (const Node& n : nodes_) {
    if (!n.train_only) total += detail::node_macs(*this, n, batch);
  }
  return total;
}

int64_t Network::batch_of(const std::vector<Shape>& shapes) const {
  HONE_CHECK(shapes.size() == inputs_.size(), ValueError, "graph: takes ", inputs_.size(), " inputs, got ",
             shapes.size());
  int64_t batch = -1;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const Value& v = value(inputs_[i]);
    bool fits = shapes[i].ndim() == static_cast<int>(v.shape.size());
    for (int d = 0; fits && d < shapes[i].ndim(); ++d) {
      const Dim& dim = v.shape[static_cast<size_t>(d)];
      if (dim.per_batch != 0 && batch < 0) {
        fits = (shapes[i][d] - dim.fixed) % dim.per_batch == 0;
        if (fits) batch = (shapes[i][d] - dim.fixed) / dim.per_batch;
        fits = fits && batch >= 0;
      } else {
        fits = shapes[i][d] == dim.at(batch);
      }
    }
    HONE_CHECK(fits, ShapeError, "graph: input '", v.name, "' has shape ", shapes[i], ", the network takes ",
               to_string(v.shape));
  }
  return std::max<int64_t>(batch, 0);
}

// ---- building ----

std::string Network::unique(std::string name) const {
  const auto taken = [this](const std::string& n) { return names_.count(n) > 0; };
  if (!taken(name)) return name;
  for (int i = 1;; ++i) {
    std::string next = str(name, "_", i);
    if (!taken(next)) return next;
  }
}

ValueId Network::add_value(Value v) {
  v.name = unique(std::move(v.name));
  names_.insert(v.name);
  values_.push_back(std::move(v));
  released_.clear();
  return static_cast<ValueId>(values_.size()) - 1;
}

namespace {
Dims fixed_dims(const Shape& s) {
  Dims dims;
  for (const int64_t n : s) dims.push_back({n, 0});
  return dims;
}
}  // namespace

ValueId Network::add_input(std::string name, DType dtype, Dims shape) {
  const ValueId v =
      add_value({std::move(name), ValueKind::input, dtype, std::move(shape), static_cast<int32_t>(inputs_.size())});
  inputs_.push_back(v);
  return v;
}
ValueId Network::add_parameter(std::string name, Parameter p) {
  HONE_CHECK(p.defined(), ValueError, "graph: parameter '", name, "' is absent");
  const ValueId v = add_value({std::move(name), ValueKind::parameter, p.raw().dtype(), fixed_dims(p.shape()),
                               static_cast<int32_t>(parameters_.size())});
  parameters_.emplace_back(value(v).name, std::move(p));
  return v;
}
ValueId Network::add_buffer(std::string name, Buffer b) {
  HONE_CHECK(b.defined(), ValueError, "graph: buffer '", name, "' is absent");
  const ValueId v = add_value({std::move(name), ValueKind::buffer, b.tensor().dtype(), fixed_dims(b.tensor().shape()),
                               static_cast<int32_t>(buffers_.size())});
  buffers_.emplace_back(value(v).name, std::move(b));
  return v;
}
ValueId Network::add_constant(std::string name, Tensor t) {
  HONE_CHECK(t.defined(), ValueError, "graph: constant '", name, "' is an undefined tensor");
  const ValueId v = add_value({std::move(name), ValueKind::constant, t.dtype(), fixed_dims(t.shape()),
                               static_cast<int32_t>(constants_.size())});
  constants_.push_back({std::move(t), false});
  return v;
}
ValueId Network::add_uniform(std::string name, Tensor element, Dims shape) {
  HONE_CHECK(element.defined() && element.numel() == 1, ValueError, "graph: uniform constant '", name,
             "' takes one element");
  const ValueId v = add_value({std::move(name), ValueKind::constant, element.dtype(), std::move(shape),
                               static_cast<int32_t>(constants_.size())});
  constants_.push_back({std::move(element), true});
  return v;
}

ValueId Network::add_node(Node node, std::optional<size_t> before) {
  const size_t place = before.value_or(nodes_.size());
  HONE_CHECK(place <= nodes_.size(), GraphError, "graph: no node ", place, " to put '", node.name, "' before");
  for (const ValueId v : node.inputs) {
    HONE_CHECK(v >= kNone && v < static_cast<ValueId>(values_.size()), GraphError, "graph: node '", node.name,
               "' reads value ", v, ", which is not there");
    HONE_CHECK(v == kNone || value(v).kind != ValueKind::result || static_cast<size_t>(value(v).index) < place,
               GraphError, "graph: node '", node.name, "' reads '", value(v).name, "', which comes after it");
  }
  node.name = unique(std::move(node.name));
  node.outputs.clear();
  const std::vector<detail::Inferred> outputs = detail::infer(values_, node);
  for (size_t o = 0; o < outputs.size(); ++o) {
    node.outputs.push_back(add_value({o == 0 ? node.name : str(node.name, ".", o), ValueKind::result, outputs[o].dtype,
                                      outputs[o].shape, static_cast<int32_t>(place)}));
  }
  const ValueId first = node.outputs.empty() ? kNone : node.outputs[0];
  nodes_.insert(nodes_.begin() + static_cast<std::ptrdiff_t>(place), std::move(node));
  number_results();
  return first;
}

void Network::number_results() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (const ValueId v : nodes_[i].outputs) values_[static_cast<size_t>(v)].index = static_cast<int32_t>(i);
  }
  released_.clear();
}

void Network::set_outputs(std::vector<ValueId> outputs) {
  for (const ValueId v : outputs)
    HONE_CHECK(v >= 0 && v < static_cast<ValueId>(values_.size()), GraphError, "graph: output ", v, " is not there");
  outputs_ = std::move(outputs);
  released_.clear();
}

void Network::set_constant(ValueId v, Constant c) {
  constants_[static_cast<size_t>(checked(v, ValueKind::constant).index)] = std::move(c);
}

// ---- editing ----

Node& Network::node(size_t i) {
  released_.clear();
  return nodes_[i];
}

void Network::replace_uses(ValueId of, ValueId by) {
  for (Node& n : nodes_) std::replace(n.inputs.begin(), n.inputs.end(), of, by);
  std::replace(outputs_.begin(), outputs_.end(), of, by);
  released_.clear();
}

void Network::erase_node(size_t i) {
  for (const ValueId v : nodes_[i].outputs) {
    for (const Node& n : nodes_)
      HONE_CHECK(std::find(n.inputs.begin(), n.inputs.end(), v) == n.inputs.end(), GraphError, "graph: '",
                 nodes_[i].name, "' cannot be removed: '", n.name, "' reads it");
    HONE_CHECK(std::find(outputs_.begin(), outputs_.end(), v) == outputs_.end(), GraphError, "graph: '", nodes_[i].name,
               "' cannot be removed: it is an output");
  }
  std::vector<ValueId> gone = nodes_[i].outputs;
  nodes_.erase(nodes_.begin() + static_cast<std::ptrdiff_t>(i));
  std::vector<bool> keep(values_.size(), true);
  for (const ValueId v : gone) keep[static_cast<size_t>(v)] = false;
  compact(keep);
}

int64_t Network::remove_dead() {
  std::vector<bool> live(values_.size(), false), keep_node(nodes_.size(), false);
  for (const ValueId v : outputs_) live[static_cast<size_t>(v)] = true;
  for (const ValueId v : inputs_) live[static_cast<size_t>(v)] = true;
  for (size_t i = nodes_.size(); i-- > 0;) {
    const Node& n = nodes_[i];
    keep_node[i] =
        std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return live[static_cast<size_t>(v)]; });
    if (!keep_node[i]) continue;
    for (const ValueId v : n.inputs)
      if (v != kNone) live[static_cast<size_t>(v)] = true;
    for (const ValueId v : n.outputs) live[static_cast<size_t>(v)] = true;
  }
  size_t kept = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (!keep_node[i]) continue;
    if (kept != i) nodes_[kept] = std::move(nodes_[i]);
    ++kept;
  }
  const auto removed = static_cast<int64_t>(nodes_.size() - kept);
  nodes_.resize(kept);
  compact(live);
  return removed;
}

void Network::compact(const std::vector<bool>& keep) {
  std::vector<ValueId> to(values_.size(), kNone);
  std::vector<Value> values;
  std::vector<std::pair<std::string, Parameter>> parameters;
  std::vector<std::pair<std::string, Buffer>> buffers;
  std::vector<Constant> constants;
  names_.clear();
  for (size_t v = 0; v < values_.size(); ++v) {
    if (!keep[v]) continue;
    Value& value = values_[v];
    const auto from = static_cast<size_t>(value.index);
    const auto move_to = [&](auto& list, auto& source) {
      value.index = static_cast<int32_t>(list.size());
      list.push_back(std::move(source[from]));
    };
    if (value.kind == ValueKind::parameter) move_to(parameters, parameters_);
    if (value.kind == ValueKind::buffer) move_to(buffers, buffers_);
    if (value.kind == ValueKind::constant) move_to(constants, constants_);
    to[v] = static_cast<ValueId>(values.size());
    names_.insert(value.name);
    values.push_back(std::move(value));
  }
  const auto renumber = [&](std::vector<ValueId>& list) {
    for (ValueId& v : list)
      if (v != kNone) v = to[static_cast<size_t>(v)];
  };
  for (Node& n : nodes_) renumber(n.inputs), renumber(n.outputs);
  renumber(inputs_);
  renumber(outputs_);
  values_ = std::move(values);
  parameters_ = std::move(parameters);
  buffers_ = std::move(buffers);
  constants_ = std::move(constants);
  number_results();
}

void Network::refresh() {
  std::vector<Value> values = values_;
  for (Value& v : values) {
    const auto i = static_cast<size_t>(v.index);
    if (v.kind == ValueKind::parameter)
      v.dtype = parameters_[i].second.raw().dtype(), v.shape = fixed_dims(parameters_[i].second.shape());
    else if (v.kind == ValueKind::buffer)
      v.dtype = buffers_[i].second.tensor().dtype(), v.shape = fixed_dims(buffers_[i].second.tensor().shape());
    else if (v.kind == ValueKind::constant && !constants_[i].uniform)
      v.dtype = constants_[i].value.dtype(), v.shape = fixed_dims(constants_[i].value.shape());
  }
  for (const Node& n : nodes_) {
    const std::vector<detail::Inferred> outputs = detail::infer(values, n);
    HONE_CHECK(outputs.size() == n.outputs.size(), GraphError, "graph: node '", n.name, "' has ", n.outputs.size(),
               " outputs, its op ", n.op->name, " makes ", outputs.size());
    for (size_t o = 0; o < outputs.size(); ++o) {
      Value& v = values[static_cast<size_t>(n.outputs[o])];
      v.dtype = outputs[o].dtype;
      v.shape = outputs[o].shape;
    }
  }
  values_ = std::move(values);
  released_.clear();
}

// ---- as a module ----

void Network::visit(nn::MemberVisitor& v) {
  for (auto& [name, p] : parameters_) v.member(name, p);
  for (auto& [name, b] : buffers_) v.member(name, b);
}

std::unique_ptr<nn::Module> Network::clone() const { return nn::detail::clone_of(*this); }
Tensor Network::call(const Tensor& x) { return nn::detail::run(*this, x); }
Tensor Network::forward(const Tensor& x) {
  HONE_CHECK(outputs_.size() == 1, ValueError, "graph: forward gives one tensor, the network has ", outputs_.size(),
             " outputs; call run()");
  return std::move(run({x})[0]);
}

// For each node, the results that nothing reads after it.
void Network::plan_release() {
  std::vector<int32_t> last(values_.size(), -1);
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (const ValueId v : nodes_[i].outputs) last[static_cast<size_t>(v)] = static_cast<int32_t>(i);
    for (const ValueId v : nodes_[i].inputs)
      if (v != kNone) last[static_cast<size_t>(v)] = static_cast<int32_t>(i);
  }
  for (const ValueId v : outputs_) last[static_cast<size_t>(v)] = -1;
  released_.assign(nodes_.size(), {});
  for (size_t v = 0; v < values_.size(); ++v) {
    if (last[v] >= 0) released_[static_cast<size_t>(last[v])].push_back(static_cast<ValueId>(v));
  }
}

std::vector<Tensor> Network::run(const std::vector<Tensor>& inputs) {
  std::vector<Shape> shapes;
  for (const Tensor& x : inputs) shapes.push_back(x.shape());
  const int64_t batch = batch_of(shapes);
  if (released_.size() != nodes_.size()) plan_release();
  PoolVector<Tensor> at(values_.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& v = value(inputs_[i]);
    HONE_CHECK(inputs[i].dtype() == v.dtype, DTypeError, "graph: input '", v.name, "' has dtype ", inputs[i].dtype(),
               ", the network takes ", v.dtype);
    at[static_cast<size_t>(inputs_[i])] = inputs[i];
  }
  const auto get = [&](ValueId id) -> Tensor {
    if (id == kNone) return {};
    Tensor& t = at[static_cast<size_t>(id)];
    if (t.defined()) return t;
    const Value& v = value(id);
    const auto i = static_cast<size_t>(v.index);
    if (v.kind == ValueKind::parameter) t = parameters_[i].second.value();
    if (v.kind == ValueKind::buffer) t = buffers_[i].second.tensor();
    if (v.kind == ValueKind::constant) {
      const Constant& c = constants_[i];
      t = c.uniform ? detail::materialize(c.value, graph::at(v.shape, batch)) : c.value;
    }
    HONE_ASSERT(t.defined());
    return t;
  };
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& n = nodes_[i];
    if (n.train_only && !training()) {
      at[static_cast<size_t>(n.outputs[0])] = get(n.inputs[0]);
    } else {
      std::array<Tensor, kMostInputs> few;
      std::vector<Tensor> many;
      std::span<Tensor> in(few.data(), n.inputs.size());
      if (n.inputs.size() > kMostInputs) many.resize(n.inputs.size()), in = many;
      for (size_t k = 0; k < n.inputs.size(); ++k) in[k] = get(n.inputs[k]);
      const Attributes& attributes = training() && n.train ? *n.train : n.attributes;
      const Attrs attrs = attributes.at(batch);
      Outputs out = training() && n.op->replay ? n.op->replay(attrs, in) : apply(*n.op, attrs, in);
      for (size_t o = 0; o < n.outputs.size() && o < static_cast<size_t>(out.size()); ++o)
        at[static_cast<size_t>(n.outputs[o])] = std::move(out[static_cast<int>(o)]);
    }
    for (const ValueId v : released_[i]) at[static_cast<size_t>(v)] = Tensor();
  }
  std::vector<Tensor> outputs;
  for (const ValueId v : outputs_) outputs.push_back(get(v));
  return outputs;
}

}  // namespace hone::graph
