#pragma once
// The one IR: a network as a list of ops over named values. trace() makes one of a module; passes and pruning edit it;
// an Executor runs it; it is saved to and loaded from a file. A Network is itself a Module, so it trains as any other.
//
//   graph::Network net = graph::trace(module, images);      // a copy of the module's parameters under their names
//   optim::Adam adam(net.parameters());                     // trains with the same ops and bits as the module
//   std::cout << net.table();
//   graph::save(net, "net.safetensors");

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "hone/core/op.h"
#include "hone/ops/nn/module.h"

namespace hone::graph {

/// A size or attribute that may depend on the batch size B: fixed + per_batch · B.
struct Dim {
  int64_t fixed = 0, per_batch = 0;
  int64_t at(int64_t batch) const { return fixed + per_batch * batch; }
  friend bool operator==(const Dim&, const Dim&) = default;
};
using Dims = std::vector<Dim>;
Shape at(const Dims& dims, int64_t batch);
std::string to_string(const Dims& dims);  ///< "[B, 16, 5, 5]"

/// An op's attributes, whose integers (and elements of Shapes) may depend on the batch size.
struct Attributes {
  Attrs fixed;                     ///< at batch 0
  std::vector<int64_t> per_batch;  ///< one an integer, in the order of fields(); empty: none depends on it
  Attrs at(int64_t batch) const;
  /// Values of two batch sizes joined; nullopt if other than integers differ.
  static std::optional<Attributes> join(const Attrs& a, int64_t batch_a, const Attrs& b, int64_t batch_b);
  template <class A> const A& as() const { return fixed.as<A>(); }
};
bool operator==(const Attributes& a, const Attributes& b);
bool same(const Attrs& a, const Attrs& b);  ///< type and every field

using ValueId = int32_t;
inline constexpr ValueId kNone = -1;  ///< an absent optional input

enum class ValueKind : uint8_t { input, parameter, buffer, constant, result };
const char* name(ValueKind k);

struct Value {
  std::string name;  ///< unique: "x", "conv1.weight", "relu_1"
  ValueKind kind = ValueKind::result;
  DType dtype = DType::f32;
  Dims shape;
  int32_t index = 0;  ///< place among the network's inputs, parameters, buffers or constants; a result's node
};

struct Node {
  std::string name;  ///< unique: the module that called the op ("conv1"), or that and the op ("stage1.0.relu")
  const OpDef* op = nullptr;
  std::vector<ValueId> inputs, outputs;
  Attributes attributes;                 ///< in eval mode
  std::optional<Attributes> train = {};  ///< in training mode, where they differ
  bool train_only = false;  ///< not run in eval mode: output 0 is then input 0 (dropout); it has that shape
};

/// What is folded into the file and the plan but neither trained nor a buffer. A uniform one may depend on the batch.
struct Constant {
  Tensor value;          ///< one element where `uniform`
  bool uniform = false;  ///< every element of the value's shape is that one
};

/// Values and nodes in an order in which every input comes before its use. Copies are deep.
class Network : public nn::Module {
 public:
  Network() = default;

  // Reading.
  const std::vector<Value>& values() const { return values_; }
  const Value& value(ValueId v) const { return values_[static_cast<size_t>(v)]; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<ValueId>& inputs() const { return inputs_; }
  const std::vector<ValueId>& outputs() const { return outputs_; }
  const Parameter& parameter(ValueId v) const;  ///< of a value of that kind (GraphError)
  const Tensor& buffer(ValueId v) const;
  const Constant& constant(ValueId v) const;
  /// The value of a name; GraphError offering the nearest names.
  ValueId find(std::string_view name) const;
  /// Index of the node that a name stands for: a node's own, or a module's that owns nodes. GraphError likewise.
  size_t find_node(std::string_view name) const;
  /// For each value, the nodes that read it, in order, each once.
  std::vector<std::vector<int32_t>> uses() const;
  /// The value that stands for v in eval mode: through train-only nodes.
  ValueId in_eval(ValueId v) const;
  int64_t macs(int64_t batch = 1) const;  ///< multiply-adds in eval mode
  /// A row a node: name, op, output, parameters, multiply-adds at batch 1; and totals.
  std::string table() const;
  std::string dot() const;  ///< for Graphviz

  // Building. Names are made unique by a suffix.
  ValueId add_input(std::string name, DType dtype, Dims shape);
  ValueId add_parameter(std::string name, Parameter parameter);
  ValueId add_buffer(std::string name, Buffer buffer);
  ValueId add_constant(std::string name, Tensor value);
  ValueId add_uniform(std::string name, Tensor element, Dims shape);
  /// A node at the end, or before node `before`; its outputs' dtypes and shapes follow from the op. GraphError naming
  /// the node where an op's rule is broken. Returns the first output's value.
  ValueId add_node(Node node, std::optional<size_t> before = {});
  void set_outputs(std::vector<ValueId> outputs);

  // Editing, for passes. Call refresh() when done.
  Node& node(size_t i);
  Parameter& parameter(ValueId v) { return const_cast<Parameter&>(std::as_const(*this).parameter(v)); }
  Buffer& buffer_slot(ValueId v);
  void set_constant(ValueId v, Constant c);
  void replace_uses(ValueId of, ValueId by);  ///< in nodes and outputs
  /// Its outputs must have no use left (GraphError). Values after them get new numbers.
  void erase_node(size_t i);
  /// Dead code: removes nodes whose outputs nothing reads, and values that nothing reads, parameters and buffers among
  /// them. Values get new numbers. Returns how many nodes went.
  int64_t remove_dead();
  /// Every dtype and shape anew from inputs, parameters and attributes, by the ops' own rules, at two batch sizes.
  /// GraphError naming the node and the rule; the network is then as it was before the call.
  void refresh();

  // Module.
  const char* type_name() const override { return "Network"; }
  void visit(nn::MemberVisitor& v) override;
  std::unique_ptr<nn::Module> clone() const override;
  Tensor call(const Tensor& x) override;
  Tensor operator()(const Tensor& x) { return call(x); }
  Tensor forward(const Tensor& x);
  /// All outputs for all inputs. ShapeError naming the input for a shape that is not the traced one at any batch size.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs);

  /// The batch size of these input shapes: ShapeError naming the input that does not fit.
  int64_t batch_of(const std::vector<Shape>& shapes) const;

 private:
  std::string unique(std::string name) const;
  ValueId add_value(Value v);
  const Value& checked(ValueId v, ValueKind kind) const;
  void number_results();
  void compact(const std::vector<bool>& keep);
  void plan_release();

  static constexpr size_t kMostInputs = 8;  // of usual ops: run() needs no allocation for them

  std::vector<Value> values_;
  std::set<std::string> names_;  // of values
  std::vector<Node> nodes_;
  std::vector<ValueId> inputs_, outputs_;
  std::vector<std::pair<std::string, Parameter>> parameters_;
  std::vector<std::pair<std::string, Buffer>> buffers_;
  std::vector<Constant> constants_;
  // For run(): the values whose last use a node is; found again after an edit.
  std::vector<std::vector<ValueId>> released_;
};

}  // namespace hone::graph
