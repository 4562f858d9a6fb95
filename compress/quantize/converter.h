#pragma once
// From a folded network to one on integers, node by node: what becomes of each node, every scale, zero point and factor
// is decided here alone. quantize_static emits all nodes after one pass of calibration; QatNetwork does at every step,
// and runs what was emitted. Private to compress/quantize.

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "hone/compress/graph/network.h"
#include "hone/compress/quantize/affine.h"
#include "hone/compress/quantize/static.h"
#include "hone/ops/fused.h"
#include "hone/ops/packed/int8.h"

namespace hone::compress::quantize::detail {

/// Of activations: codes u8 with a zero point.
inline constexpr AffineSpec kCodes = {.bits = 8, .symmetric = false, .granularity = Granularity::tensor, .group = 0};

/// What a node becomes. Arithmetic ops make codes of a scale of their own; what moves codes follows its readers.
enum class Form : uint8_t { real, product, add, avg_pool, max_pool, table, move, concat };
inline bool computes(Form f) { return f == Form::product || f == Form::add || f == Form::avg_pool; }

/// The weight and bias of a convolution or linear layer in integers.
struct Weight {
  Affine affine;              ///< a scale an output
  Tensor codes;               ///< i8, the weight's shape
  std::vector<double> unit;   ///< of the sums: scale_x scale_o
  std::vector<int64_t> bias;  ///< in units
};

/// `network` in eval mode, batch norms folded. GraphError naming a node that is packed, fused or of integers already.
graph::Network folded_for_integers(const char* what, const graph::Network& network);
/// ValueError for bits or granularity of weights that kernels do not have.
void check_weights(const char* what, int64_t bits, Granularity granularity);

/// The elements of a weight or bias, those that a grid would clamp too: NumericError naming it for a NaN or infinity.
Tensor finite_elements(const char* what, const graph::Network& network, graph::ValueId v);
/// Scales for codes of a weight w, one for each output: of the grid that its parameter has, where codes of these bits
/// express it; else found anew, one an output or tensor.
struct WeightScales {
  Affine affine;
  bool regridded = false;  ///< it has a grid, which codes do not express
};
WeightScales weight_scales(const graph::Network& network, graph::ValueId v, const Tensor& w, int64_t bits,
                           Granularity granularity);

class Converter {
 public:
  /// Decides what becomes of each node: GraphError naming one without an integer form, unless `float_fallback`;
  /// ValueError for more than one input. `network` must outlive it.
  Converter(const char* what, const graph::Network& network, int64_t bits, Granularity weights, bool float_fallback);

  // What was decided.
  Form form(size_t node) const { return form_[node]; }
  bool absorbed(size_t node) const { return absorbed_[node]; }  ///< part of the node before
  /// The nodes whose work node i does: itself and what it absorbs, in order.
  std::vector<size_t> chain(size_t node) const;
  graph::ValueId end(size_t node) const { return net_.nodes()[chain(node).back()].outputs[0]; }
  /// Values that become codes of a scale of their own: each needs a range.
  const std::set<graph::ValueId>& scaled() const { return scaled_; }

  // What the caller knows.
  std::map<graph::ValueId, Interval> range;    ///< of scaled values, each before it is emitted
  std::map<size_t, std::vector<double>> mean;  ///< of a product's input channels, by node: corrects the bias
  /// Rounds a product's weight instead of Affine::codes.
  std::function<Tensor(size_t node, const Tensor& w, const Affine& a)> round;

  // The network that is made. Nodes are emitted in order, absorbed ones left out.
  void emit(size_t node);
  /// emit() for a product in two halves: the weight, then the node. NumericError naming a parameter with a NaN or
  /// infinity.
  Weight weigh(size_t node);
  void emit(size_t node, const Weight& w);
  graph::Network& out() { return out_; }
  graph::Network finish(StaticCounts* counts = nullptr);
  /// Where a value is in out(): in f32, as codes, or both.
  struct Made {
    graph::ValueId real = graph::kNone, codes = graph::kNone;
    double scale = 1;
    int64_t zero_point = 0;
  };
  const Made& made(graph::ValueId v) const { return made_[static_cast<size_t>(v)]; }
  graph::ValueId codes(graph::ValueId v);  ///< rounds a value in f32 to codes where it is not yet
  graph::ValueId real(graph::ValueId v);   ///< likewise to f32

 private:
  /// The ReLU or clamp, and behind a convolution the max pooling, that a node takes in.
  struct Tail {
    std::optional<ActivationAttrs> activation;
    FusedPoolAttrs pool;
    std::vector<size_t> nodes;
  };
  Made& at(graph::ValueId v) { return made_[static_cast<size_t>(v)]; }
  bool is_activation(graph::ValueId v) const;
  bool wanted(graph::ValueId v) const;
  Form form_of(const graph::Node& n) const;
  Tail tail_of(size_t i);
  void plan(const char* what, bool float_fallback);

  std::vector<double> rounding_shift(size_t node, const Tensor& w, const Tensor& rounded) const;

  void settle(graph::ValueId v, double least);
  graph::ValueId add(const std::string& name, const OpDef& op, std::vector<graph::ValueId> inputs, const Attrs& attrs);
  graph::ValueId table(const std::string& name, graph::ValueId v, const Made& y,
                       const std::function<Tensor(const Tensor&)>& f);
  void emit_real(const graph::Node& n);
  void emit_table(const graph::Node& n);
  void emit_concat(const graph::Node& n);
  void emit_add(size_t i);
  void emit_avg_pool(size_t i);

  const char* what_;
  const graph::Network& net_;
  int64_t bits_;
  Granularity weights_;
  std::vector<std::vector<int32_t>> uses_;
  std::vector<Form> form_;
  std::vector<bool> absorbed_;
  std::vector<Tail> tails_;
  std::set<graph::ValueId> scaled_;
  std::vector<Made> made_;
  StaticCounts counts_;
  graph::Network out_;
};

}  // namespace hone::compress::quantize::detail
