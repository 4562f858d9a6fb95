#include "hone/compress/graph/pass_support.h"
#include "hone/compress/quantize/converter.h"
#include "hone/compress/quantize/static.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/matmul.h"
#include "hone/ops/packed/codes.h"
#include "hone/ops/packed/int8.h"
#include "hone/ops/shape_ops.h"

namespace hone::compress::quantize {
namespace {

using graph::Network;
using graph::Node;
using graph::ValueId;

constexpr const char* kWhat = "quantize_dynamic";
constexpr int64_t kZeroPoint = 128;  // of int8_quantize_rows

/// y = scale_x[n] (scale_w[o] Σ …) + bias[o], in place of node i; returns the place of the last node.
size_t replace(Network& net, size_t i, int64_t bits) {
  const Node n = net.nodes()[i];
  const Tensor weight = detail::finite_elements(kWhat, net, n.inputs[1]);
  const bool has_bias = n.inputs.size() > 2 && n.inputs[2] != graph::kNone;
  const Tensor bias = has_bias ? detail::finite_elements(kWhat, net, n.inputs[2]) : Tensor();
  const bool conv = n.op == &kConv2d;
  const int64_t outs = weight.size(0);
  const Affine a = detail::weight_scales(net, n.inputs[1], weight, bits, Granularity::channel).affine;
  const ConvAttrs attrs = conv ? n.attributes.as<ConvAttrs>() : ConvAttrs();
  const Int8Matrix packed = Int8Matrix::pack(a.codes(weight), bits, attrs.groups, attrs.dilation_w);
  const std::string name = net.value(n.inputs[1]).name;
  const ValueId values = net.add_constant(name + ".codes", packed.values),
                start = net.add_constant(name + ".start", packed.start({}, kZeroPoint)),
                scale = net.add_constant(name + ".scale", cast(tensor(a.scale, {outs}), f32));
  size_t at = i;
  const auto insert = [&](const OpDef& op, std::vector<ValueId> inputs, const Attrs& attributes) {
    return net.add_node(
        {.name = n.name, .op = &op, .inputs = std::move(inputs), .outputs = {}, .attributes = {attributes, {}}}, at++);
  };
  const ValueId codes = insert(kInt8QuantizeRows, {n.inputs[0]}, Attrs());
  const ValueId scales = net.nodes()[i].outputs[1];
  ValueId y = graph::kNone;
  if (conv) {
    Int8ConvAttrs c{outs, bits, kZeroPoint, attrs, {}, {}};
    c.conv.size_h = weight.size(2), c.conv.size_w = weight.size(3);
    y = insert(kInt8Conv2d, {codes, values, start, scale, graph::kNone}, c);
  } else {
    y = insert(kInt8Linear, {codes, values, start, scale, graph::kNone}, Int8LinearAttrs{outs, bits, {}});
  }
  y = insert(kMul, {y, scales}, Attrs());
  if (bias.defined())
    y = insert(kAdd, {y, net.add_constant(n.name + ".bias", conv ? reshape(bias, {outs, 1, 1}) : bias)}, Attrs());
  net.replace_uses(n.outputs[0], y);
  net.erase_node(at);
  return at - 1;
}

}  // namespace

Network quantize_dynamic(const Network& network, int64_t bits) {
  detail::check_weights(kWhat, bits, Granularity::channel);
  const graph::detail::Quiet quiet;
  Network net = detail::folded_for_integers(kWhat, network);
  for (size_t i = 0; i < net.nodes().size(); ++i) {
    const Node& n = net.nodes()[i];
    if ((n.op != &kConv2d && n.op != &kLinear) || net.value(n.inputs[0]).dtype != f32) continue;
    if (net.value(n.inputs[0]).shape.size() < 2) continue;  // one vector: it has no rows
    const ValueId b = n.inputs.size() > 2 ? n.inputs[2] : graph::kNone;
    const Tensor weight = graph::detail::elements(net, n.inputs[1]);
    if (!weight.defined() || (b != graph::kNone && !graph::detail::elements(net, b).defined()) || weight.size(0) == 0 ||
        weight.numel() / weight.size(0) > kMostInt8Taps)
      continue;
    i = replace(net, i, bits);
  }
  net.remove_dead();
  net.refresh();
  return net;
}

}  // namespace hone::compress::quantize
