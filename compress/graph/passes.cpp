#include "hone/compress/graph/passes.h"

#include <algorithm>
#include <map>
#include <optional>

#include "hone/compress/graph/attributes.h"
#include "hone/compress/graph/pass_support.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/conv_shapes.h"
#include "hone/ops/fused.h"
#include "hone/ops/matmul.h"
#include "hone/ops/norm.h"
#include "hone/ops/packed/panel_run.h"
#include "hone/ops/packed/panels.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone::graph {

namespace detail {

bool is_fixed(const Dims& dims) {
  return std::all_of(dims.begin(), dims.end(), [](const Dim& d) { return d.per_batch == 0; });
}
bool same_in_both_modes(const Node& n) { return !n.train_only && !n.train && n.attributes.per_batch.empty(); }

Tensor elements(const Network& net, ValueId v) {
  const Value& value = net.value(v);
  switch (value.kind) {
    case ValueKind::parameter: return net.parameter(v).value().detach();
    case ValueKind::buffer: return net.buffer(v);
    case ValueKind::constant: {
      const Constant& c = net.constant(v);
      if (!c.uniform) return c.value;
      return is_fixed(value.shape) ? materialize(c.value, at(value.shape, 0)) : Tensor();
    }
    default: return {};
  }
}

bool is_output(const Network& net, ValueId v) {
  return std::find(net.outputs().begin(), net.outputs().end(), v) != net.outputs().end();
}
std::optional<size_t> sole_reader(const Network& net, const std::vector<std::vector<int32_t>>& uses, ValueId v) {
  const auto& readers = uses[static_cast<size_t>(v)];
  if (readers.size() != 1 || is_output(net, v)) return std::nullopt;
  const auto i = static_cast<size_t>(readers[0]);
  const auto& inputs = net.nodes()[i].inputs;
  if (std::count(inputs.begin(), inputs.end(), v) != 1) return std::nullopt;
  return i;
}
bool only_first_is_read(const Network& net, const std::vector<std::vector<int32_t>>& uses, const Node& n) {
  for (size_t o = 1; o < n.outputs.size(); ++o)
    if (!uses[static_cast<size_t>(n.outputs[o])].empty() || is_output(net, n.outputs[o])) return false;
  return true;
}

bool panels_suit(const Network& net, ValueId v, const Shape& weight, const FusedConvAttrs& a) {
  const Dims& x = net.value(v).shape;
  if (!is_fixed(Dims(x.begin() + 1, x.end()))) return false;
  View image, y;
  image.ndim = y.ndim = 4;
  for (int d = 0; d < 4; ++d) image.sizes[d] = x[static_cast<size_t>(d)].at(1);
  y.sizes[0] = image.sizes[0], y.sizes[1] = weight[0];
  y.sizes[2] = (image.sizes[2] + 2 * a.conv.pad_h - a.conv.dilation_h * (weight[2] - 1) - 1) / a.conv.stride_h + 1;
  y.sizes[3] = (image.sizes[3] + 2 * a.conv.pad_w - a.conv.dilation_w * (weight[3] - 1) - 1) / a.conv.stride_w + 1;
  const ConvGeometry s = hone::detail::conv_geometry(a.conv, image, weight[2], weight[3], y);
  return s.o > 0 && hone::detail::panel_conv_suits(s) && hone::detail::panel_conv_fits(s, a.pool);
}

}  // namespace detail

namespace {

using detail::elements;
using detail::is_fixed;
using detail::is_output;
using detail::only_first_is_read;
using detail::Quiet;
using detail::same_in_both_modes;
using detail::sole_reader;

}  // namespace

int64_t drop_training(Network& net) {
  const auto uses = net.uses();
  for (const Node& n : net.nodes())
    HONE_CHECK(!n.train_only || only_first_is_read(net, uses, n), GraphError, "drop_training: '", n.name, "' (",
               n.op->name, ") runs in training mode alone, and eval mode reads more of it than its first output");
  int64_t count = 0;
  for (size_t i = net.nodes().size(); i-- > 0;) {
    if (net.nodes()[i].train_only) {
      net.replace_uses(net.nodes()[i].outputs[0], net.nodes()[i].inputs[0]);
      net.erase_node(i);
      ++count;
    } else if (net.nodes()[i].train) {
      net.node(i).train.reset();
      ++count;
    }
  }
  return count;
}

int64_t fold_constants(Network& net, FoldConstantsOptions options) {
  const Quiet quiet;
  int64_t count = 0;
  for (size_t i = 0; i < net.nodes().size();) {
    const Node n = net.nodes()[i];
    bool folds = same_in_both_modes(n) && n.op->replay == nullptr && !n.inputs.empty();
    std::vector<Tensor> in;
    int64_t bytes = options.most_growth;
    for (size_t k = 0; folds && k < n.inputs.size(); ++k) {
      const ValueId v = n.inputs[k];
      folds = v == kNone || options.parameters || net.value(v).kind == ValueKind::constant;
      in.push_back(folds && v != kNone ? elements(net, v) : Tensor());
      folds = folds && (v == kNone || in.back().defined());
      if (in.back().defined()) bytes += in.back().numel() * size_of(in.back().dtype());
    }
    for (const ValueId v : n.outputs) {
      folds = folds && is_fixed(net.value(v).shape);
      if (folds) bytes -= at(net.value(v).shape, 0).numel() * size_of(net.value(v).dtype);
    }
    if (!folds || bytes < 0) {
      ++i;
      continue;
    }
    const Outputs out = apply(*n.op, n.attributes.at(0), in);
    for (size_t o = 0; o < n.outputs.size(); ++o)
      net.replace_uses(n.outputs[o], net.add_constant(n.name, clone(out[static_cast<int>(o)].detach())));
    net.erase_node(i);
    ++count;
  }
  if (count > 0) net.remove_dead();
  return count;
}

// ---- batch norm ----

namespace {

/// What the norm makes of channel o of its input: x · scale[o] + shift[o]; f64.
struct Affine {
  Tensor scale, mean, shift;
};
std::optional<Affine> affine_of(const Network& net, const Node& norm) {
  const auto& a = norm.attributes.as<BatchNormAttrs>();
  if (a.training) return std::nullopt;
  Tensor in[4];  // mean, variance, weight, bias
  for (size_t k = 0; k < 4 && k + 1 < norm.inputs.size(); ++k) {
    const ValueId v = norm.inputs[k + 1];
    if (v == kNone) continue;
    in[k] = elements(net, v);
    if (!in[k].defined()) return std::nullopt;
    in[k] = cast(in[k], f64);
  }
  Tensor scale = rsqrt(in[1] + a.eps);
  if (in[2].defined()) scale = scale * in[2];
  return Affine{scale, in[0], in[3].defined() ? in[3] : zeros_like(in[0])};
}

/// v with new elements: the parameter itself where node `reader` alone reads it, else one of its own beside it.
ValueId with_elements(Network& net, const std::vector<std::vector<int32_t>>& uses, ValueId v, size_t reader,
                      const Tensor& elements, bool keep_mask) {
  if (net.value(v).kind != ValueKind::parameter) return net.add_constant(net.value(v).name, elements);
  const auto alone = sole_reader(net, uses, v);
  if (alone != reader) v = net.add_parameter(net.value(v).name, Parameter::copy_of(net.parameter(v).ref()));
  const ParameterRef& p = net.parameter(v).ref();
  if (!keep_mask) p.bake();
  p.replace(elements);
  return v;
}

/// Whether a parameter's elements are few: codes of a grid or a codebook, which scaling would end.
bool is_quantized(const Network& net, ValueId v) {
  if (v == kNone || net.value(v).kind != ValueKind::parameter) return false;
  const WeightType type = net.parameter(v).ref().type();
  return type == WeightType::fake_quantized || type == WeightType::codebook;
}

bool fold_norm(Network& net, const std::vector<std::vector<int32_t>>& uses, size_t i) {
  const Node& norm = net.nodes()[i];
  if (norm.op != &kBatchNorm || norm.train_only || !only_first_is_read(net, uses, norm)) return false;
  const ValueId x = norm.inputs[0];
  if (net.value(x).kind != ValueKind::result || sole_reader(net, uses, x) != i) return false;
  const auto from = static_cast<size_t>(net.value(x).index);
  const Node& product = net.nodes()[from];
  const bool linear = product.op == &kLinear && net.value(x).shape.size() == 2;
  if ((product.op != &kConv2d && !linear) || !same_in_both_modes(product)) return false;
  const ValueId w = product.inputs[1], b = product.inputs.size() > 2 ? product.inputs[2] : kNone;
  const Tensor weight = elements(net, w), bias = b == kNone ? Tensor() : elements(net, b);
  const std::optional<Affine> affine = affine_of(net, norm);
  if (!weight.defined() || (b != kNone && !bias.defined()) || !affine) return false;
  if (is_quantized(net, w) || is_quantized(net, b)) return false;

  const bool parameter = net.value(w).kind == ValueKind::parameter;
  // Of a masked weight all raw elements are scaled: what the mask hides stays as it would have been.
  const Tensor raw = parameter ? net.parameter(w).raw().detach() : weight;
  Shape rows = Shape::filled(static_cast<int>(raw.ndim()), 1);
  rows[0] = raw.size(0);
  const Tensor scaled = cast(cast(raw, f64) * reshape(affine->scale, rows), raw.dtype());
  const Tensor base = bias.defined() ? cast(bias, f64) - affine->mean : neg(affine->mean);
  const Tensor shifted = cast(base * affine->scale + affine->shift, raw.dtype());

  const ValueId new_weight = with_elements(net, uses, w, from, scaled, true);
  ValueId new_bias = kNone;
  if (b != kNone) {
    new_bias = with_elements(net, uses, b, from, shifted, false);
  } else if (parameter) {
    Parameter p(shifted);
    Tensor(p.raw()).requires_grad_(net.parameter(w).raw().requires_grad());
    new_bias = net.add_parameter(net.nodes()[from].name + ".bias", std::move(p));
  } else {
    new_bias = net.add_constant(net.nodes()[from].name + ".bias", shifted);
  }
  net.node(from).inputs.resize(3, kNone);
  net.node(from).inputs[1] = new_weight;
  net.node(from).inputs[2] = new_bias;
  net.replace_uses(net.nodes()[i].outputs[0], x);
  net.erase_node(i);
  return true;
}

}  // namespace

int64_t fold_batch_norm(Network& net) {
  const Quiet quiet;
  int64_t count = 0;
  auto uses = net.uses();
  for (size_t i = 0; i < net.nodes().size();) {
    if (fold_norm(net, uses, i))
      ++count, uses = net.uses();  // the node that follows has its place
    else
      ++i;
  }
  if (count > 0) net.remove_dead();
  return count;
}

// ---- bias ----

namespace {

/// Whether a value of that shape adds one number to each index of y's dim `dim`, and nothing else.
bool is_along(const Dims& shape, const Dims& y, size_t dim) {
  if (shape.size() > y.size()) return false;
  const size_t lead = y.size() - shape.size();
  if (dim < lead) return y[dim] == Dim{1, 0} && at(shape, 0).numel() == 1 && is_fixed(shape);
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != (d + lead == dim ? y[dim] : Dim{1, 0})) return false;
  return true;
}

/// Gives the product i the bias that the add behind it adds.
bool fold_add(Network& net, const std::vector<std::vector<int32_t>>& uses, size_t i) {
  const Node& n = net.nodes()[i];
  const bool conv = n.op == &kConv2d;
  if ((!conv && n.op != &kLinear) || !same_in_both_modes(n) || (n.inputs.size() > 2 && n.inputs[2] != kNone))
    return false;
  const ValueId y = n.outputs[0];
  const auto next = sole_reader(net, uses, y);
  if (!next || net.nodes()[*next].op != &kAdd || !same_in_both_modes(net.nodes()[*next])) return false;
  const Node& add = net.nodes()[*next];
  ValueId b = add.inputs[add.inputs[0] == y ? 1 : 0];
  const Value& value = net.value(b);
  const Dims& shape = net.value(y).shape;
  const size_t dim = conv ? 1 : shape.size() - 1;
  if (value.dtype != net.value(y).dtype || !is_along(value.shape, shape, dim)) return false;
  if (value.kind == ValueKind::parameter) {
    const ParameterRef& p = net.parameter(b).ref();
    if (value.shape.size() != 1) {  // masks and codes have the parameter's shape
      if (p.type() != WeightType::dense || sole_reader(net, uses, b) != *next) return false;
      p.replace(reshape(p.raw().detach(), {-1}));
    }
  } else {
    if (value.kind != ValueKind::constant) return false;
    if (value.shape.size() != 1 || net.constant(b).uniform)
      b = net.add_constant(value.name, reshape(elements(net, b), {-1}));
  }
  net.node(i).inputs.resize(3, kNone);
  net.node(i).inputs[2] = b;
  net.replace_uses(net.nodes()[*next].outputs[0], y);
  net.erase_node(*next);
  return true;
}

}  // namespace

int64_t fold_bias(Network& net) {
  const Quiet quiet;
  int64_t count = 0;
  auto uses = net.uses();
  for (size_t i = 0; i < net.nodes().size(); ++i)
    if (fold_add(net, uses, i)) ++count, uses = net.uses();
  if (count > 0) net.remove_dead();
  net.refresh();
  return count;
}

// ---- fusion ----

namespace {

/// The nodes that one fused op stands for, from the product on.
struct Chain {
  std::vector<size_t> nodes;
  ActivationAttrs activation;
  FusedPoolAttrs pool;
};
Chain chain_from(const Network& net, const std::vector<std::vector<int32_t>>& uses, size_t i) {
  Chain chain{{i}, {}, {}};
  const bool conv = net.nodes()[i].op == &kConv2d;
  bool active = false;
  while (true) {
    const auto next = sole_reader(net, uses, net.nodes()[chain.nodes.back()].outputs[0]);
    if (!next || !same_in_both_modes(net.nodes()[*next])) return chain;
    const Node& n = net.nodes()[*next];
    if (const auto activation = hone::detail::activation_of(*n.op, n.attributes.fixed); activation && !active) {
      chain.activation = *activation;
      chain.nodes.push_back(*next);
      active = true;
      continue;
    }
    if (!conv || n.op != &kMaxPool2d || !only_first_is_read(net, uses, n)) return chain;
    const auto& p = n.attributes.as<PoolAttrs>();
    if (p.dilation_h != 1 || p.dilation_w != 1 || p.adaptive) return chain;
    chain.pool = {p.kernel_h, p.kernel_w, p.stride_h, p.stride_w, p.pad_h, p.pad_w};
    chain.nodes.push_back(*next);
    return chain;
  }
}

}  // namespace

int64_t fuse(Network& net) {
  int64_t count = 0;
  auto uses = net.uses();
  for (size_t i = 0; i < net.nodes().size(); ++i) {
    const Node& n = net.nodes()[i];
    if ((n.op != &kConv2d && n.op != &kLinear) || !same_in_both_modes(n)) continue;
    const Chain chain = chain_from(net, uses, i);
    if (chain.nodes.size() == 1) continue;
    net.replace_uses(net.nodes()[chain.nodes.back()].outputs[0], n.outputs[0]);
    for (size_t k = chain.nodes.size(); k-- > 1; ++count) net.erase_node(chain.nodes[k]);
    Node& fused = net.node(i);
    if (fused.op == &kConv2d) {
      fused.attributes = {FusedConvAttrs{fused.attributes.as<ConvAttrs>(), chain.activation, chain.pool}, {}};
      fused.op = &kConv2dFused;
    } else {
      fused.attributes = {chain.activation, {}};
      fused.op = &kLinearFused;
    }
    uses = net.uses();
  }
  net.refresh();
  return count;
}

// ---- packing ----

int64_t pack(Network& net) {
  const Quiet quiet;
  std::map<std::pair<ValueId, int64_t>, ValueId> packed;  // by weight and groups
  int64_t count = 0;
  for (size_t i = 0; i < net.nodes().size(); ++i) {
    const Node& n = net.nodes()[i];
    const bool conv = n.op == &kConv2d || n.op == &kConv2dFused, linear = n.op == &kLinear || n.op == &kLinearFused;
    if ((!conv && !linear) || !same_in_both_modes(n) || net.value(n.inputs[0]).dtype != f32) continue;
    const ValueId w = n.inputs[1];
    const Tensor weight = elements(net, w);
    if (!weight.defined() || weight.size(0) == 0) continue;
    Attributes attributes;
    int64_t groups = 1;
    if (conv) {
      FusedConvAttrs a =
          n.op == &kConv2d ? FusedConvAttrs{n.attributes.as<ConvAttrs>(), {}, {}} : n.attributes.as<FusedConvAttrs>();
      if (!detail::panels_suit(net, n.inputs[0], weight.shape(), a)) continue;
      groups = a.conv.groups;
      a.conv.size_h = weight.size(2), a.conv.size_w = weight.size(3);
      attributes.fixed = PanelConvAttrs{weight.size(0), a};
    } else {
      if (weight.size(1) >= (int64_t{1} << 25)) continue;
      attributes.fixed =
          PanelLinearAttrs{weight.size(0), n.op == &kLinear ? ActivationAttrs() : n.attributes.as<ActivationAttrs>()};
    }
    auto [it, fresh] = packed.try_emplace({w, groups}, kNone);
    if (fresh) it->second = net.add_constant(net.value(w).name + ".panels", PanelMatrix::pack(weight, groups).values);
    Node& changed = net.node(i);
    changed.op = conv ? &kPanelConv2d : &kPanelLinear;
    changed.attributes = attributes;
    changed.inputs[1] = it->second;
    ++count;
  }
  if (count > 0) net.remove_dead();
  net.refresh();
  return count;
}

Network optimize(Network net, OptimizeOptions options, OptimizeCounts* counts) {
  OptimizeCounts c;
  net.eval();
  c.training = drop_training(net);
  c.constants = fold_constants(net, {.parameters = options.pack});
  if (options.fold_bias) c.biases = fold_bias(net);
  if (options.fold_batch_norm) c.batch_norms = fold_batch_norm(net);
  if (options.fuse) c.fused = fuse(net);
  if (options.pack) c.packed = pack(net);
  c.dead = net.remove_dead();
  if (counts) *counts = c;
  return net;
}

}  // namespace hone::graph
