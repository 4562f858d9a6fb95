#include "hone/compress/quantize/converter.h"

#include <algorithm>
#include <cmath>

#include "hone/compress/graph/pass_support.h"
#include "hone/compress/graph/passes.h"
#include "hone/core/basic_ops.h"
#include "hone/core/weight_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/fused.h"
#include "hone/ops/matmul.h"
#include "hone/ops/packed/codes.h"
#include "hone/ops/packed/panels.h"
#include "hone/ops/pool.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone::compress::quantize::detail {
namespace {

using graph::Network;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

std::vector<double> doubles(const Tensor& t) { return t.to_vector<double>(); }

/// Kernel of an average pool whose windows are all alike; nullopt for another.
struct Windows {
  int64_t kernel_h, kernel_w, stride_h, stride_w;
};
std::optional<Windows> windows_of(const Network& net, const Node& n) {
  const auto& a = n.attributes.as<PoolAttrs>();
  if (n.op == &kAvgPool2d) {
    if (a.pad_h != 0 || a.pad_w != 0) return std::nullopt;
    return Windows{a.kernel_h, a.kernel_w, a.stride_h, a.stride_w};
  }
  const graph::Dims& x = net.value(n.inputs[0]).shape;
  if (x[2].per_batch != 0 || x[3].per_batch != 0 || a.size_h < 1 || a.size_w < 1) return std::nullopt;
  const int64_t h = x[2].fixed, w = x[3].fixed;
  if (h % a.size_h != 0 || w % a.size_w != 0) return std::nullopt;
  return Windows{h / a.size_h, w / a.size_w, h / a.size_h, w / a.size_w};
}

int64_t code_of(const Converter::Made& m, double x) {
  const double q = std::nearbyint(x / m.scale) + static_cast<double>(m.zero_point);
  return static_cast<int64_t>(std::clamp(q, 0.0, 255.0));
}
Int8Range range_of(const Converter::Made& m, const std::optional<ActivationAttrs>& a) {
  Int8Range r{m.zero_point, 0, 255};
  if (!a) return r;
  if (a->activation() == Activation::relu) return {m.zero_point, m.zero_point, 255};
  return {m.zero_point, code_of(m, a->a), code_of(m, a->b)};
}

/// The scales of a grid whose codes, those that weights w have, are codes of these bits: symmetric, a step a tensor or
/// row. A step of 0 keeps floats, which get a scale by their largest.
std::optional<Affine> grid_of(const WeightGrid& grid, const Tensor& w, int64_t bits) {
  if (grid.levels.defined()) return std::nullopt;
  const std::vector<double> scale = doubles(grid.scale), points = doubles(grid.points), v = doubles(w);
  Affine a{
      {.bits = bits, .symmetric = true, .granularity = scale.size() == 1 ? Granularity::tensor : Granularity::channel},
      {},
      std::vector<int64_t>(scale.size())};
  const auto high = static_cast<double>(a.spec.high());
  const size_t row = scale.empty() ? 0 : v.size() / scale.size();
  for (size_t l = 0; l < scale.size(); ++l) {
    double most = 0;
    for (size_t k = l * row; k < (l + 1) * row; ++k) most = std::max(most, std::abs(v[k]));
    double step = std::abs(scale[l]);
    if (step == 0) {
      step = most == 0 ? 1 : most / high;
    } else if (points[l * kGridColumns] != 0 || std::nearbyint(most / step) > high) {
      return std::nullopt;
    }
    a.scale.push_back(step);
  }
  return a;
}

}  // namespace

Network folded_for_integers(const char* what, const Network& network) {
  for (const Node& n : network.nodes()) {
    HONE_CHECK(!std::string_view(n.op->name).starts_with("int8_"), GraphError, what, ": node '", n.name, "' (",
               n.op->name, ") computes on integers already");
    HONE_CHECK(n.op != &kConv2dFused && n.op != &kLinearFused && n.op != &kPanelConv2d && n.op != &kPanelLinear,
               GraphError, what, ": node '", n.name, "' (", n.op->name,
               ") is of a network that optimize() made; quantize the traced one: integers are fused and packed anyway");
  }
  Network net = network;
  net.eval();
  graph::drop_training(net);
  graph::fold_constants(net, {.parameters = true});  // weights made of parameters become integers too
  graph::fold_batch_norm(net);
  net.remove_dead();
  return net;
}
void check_weights(const char* what, int64_t bits, Granularity granularity) {
  HONE_CHECK(bits == 8 || bits == 4, ValueError, what, ": weights of ", bits, " bits; there are kernels for 8 and 4");
  HONE_CHECK(granularity != Granularity::group, ValueError, what,
             ": kernels take a scale for each output, not for groups of inputs");
}

// ---- weights

Tensor finite_elements(const char* what, const Network& network, ValueId v) {
  const auto check = [&](const Tensor& t) {
    for (const double e : doubles(t))
      HONE_CHECK(std::isfinite(e), NumericError, what, ": '", network.value(v).name, "' has an element ", e);
  };
  const Tensor t = graph::detail::elements(network, v);
  check(t);
  if (network.value(v).kind != ValueKind::parameter) return t;
  const ParameterRef& p = network.parameter(v).ref();
  if (p.type() == WeightType::fake_quantized) check(p.mask().defined() ? masked(p.raw(), p.mask()) : p.raw());
  return t;
}

WeightScales weight_scales(const Network& network, ValueId v, const Tensor& w, int64_t bits, Granularity granularity) {
  std::optional<Affine> kept;
  bool gridded = false;
  if (network.value(v).kind == ValueKind::parameter &&
      network.parameter(v).ref().type() == WeightType::fake_quantized) {
    const WeightGrid grid = network.parameter(v).ref().grid();
    const std::vector<double> scale = doubles(grid.scale);
    gridded = std::any_of(scale.begin(), scale.end(), [](double s) { return s != 0; });
    if (gridded) kept = grid_of(grid, w, bits);
  }
  Affine a = kept ? *kept : Affine::of(w, {.bits = bits, .symmetric = true, .granularity = granularity});
  if (a.scale.size() == 1) {  // one scale, written out for each output
    a.scale.assign(static_cast<size_t>(w.size(0)), a.scale[0]);
    a.zero_point.assign(static_cast<size_t>(w.size(0)), 0);
    a.spec.granularity = Granularity::channel;
  }
  return {std::move(a), gridded && !kept};
}

// ---- what becomes of each node

Converter::Converter(const char* what, const Network& network, int64_t bits, Granularity weights, bool float_fallback)
    : what_(what), net_(network), bits_(bits), weights_(weights), uses_(network.uses()) {
  check_weights(what, bits, weights);
  const size_t n = network.nodes().size();
  form_.resize(n, Form::real);
  absorbed_.resize(n, false);
  tails_.resize(n);
  made_.resize(network.values().size());
  for (size_t i = n; i-- > 0;) form_[i] = form_of(network.nodes()[i]);  // backwards, so that readers are known
  plan(what, float_fallback);
  for (const ValueId v : network.inputs()) {
    const Value& x = network.value(v);
    at(v).real = out_.add_input(x.name, x.dtype, x.shape);
  }
}

bool Converter::is_activation(ValueId v) const {
  const ValueKind k = net_.value(v).kind;
  return (k == ValueKind::result || k == ValueKind::input) && net_.value(v).dtype == f32;
}
/// Some op that computes on codes reads v, at once or behind ops that move codes.
bool Converter::wanted(ValueId v) const {
  return std::any_of(uses_[static_cast<size_t>(v)].begin(), uses_[static_cast<size_t>(v)].end(),
                     [&](int32_t i) { return form_[static_cast<size_t>(i)] != Form::real; });
}
Form Converter::form_of(const Node& n) const {
  if (n.inputs.empty() || n.inputs[0] == graph::kNone || !is_activation(n.inputs[0]) || n.train_only || n.train)
    return Form::real;
  if (n.op == &kConv2d || n.op == &kLinear) {
    const Tensor w = graph::detail::elements(net_, n.inputs[1]);
    const bool bias = n.inputs.size() > 2 && n.inputs[2] != graph::kNone;
    const bool known = w.defined() && (!bias || graph::detail::elements(net_, n.inputs[2]).defined());
    return known && w.size(0) > 0 && w.numel() / w.size(0) <= kMostInt8Taps ? Form::product : Form::real;
  }
  if (n.op == &kAdd && is_activation(n.inputs[1]))
    return net_.value(n.inputs[0]).shape == net_.value(n.inputs[1]).shape ? Form::add : Form::real;
  if ((n.op == &kAvgPool2d || n.op == &kAdaptiveAvgPool2d) && windows_of(net_, n)) return Form::avg_pool;
  if (!wanted(n.outputs[0])) return Form::real;
  if (n.op == &kMaxPool2d && graph::detail::only_first_is_read(net_, uses_, n)) return Form::max_pool;
  if (hone::detail::activation_of(*n.op, n.attributes.fixed)) return Form::table;
  if (n.op == &kConcat && std::all_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return is_activation(v); }))
    return Form::concat;
  return n.op->alias && n.inputs.size() == 1 ? Form::move : Form::real;
}

Converter::Tail Converter::tail_of(size_t i) {
  Tail t;
  ValueId end = net_.nodes()[i].outputs[0];
  while (const auto next = graph::detail::sole_reader(net_, uses_, end)) {
    const Node& n = net_.nodes()[*next];
    const bool first = t.nodes.empty();
    if (first && form_[*next] == Form::table && (n.op == &kRelu || n.op == &kClamp)) {
      t.activation = hone::detail::activation_of(*n.op, n.attributes.fixed);
    } else if (net_.nodes()[i].op == &kConv2d && !t.pool.present() && form_[*next] == Form::max_pool) {
      const auto& p = n.attributes.as<PoolAttrs>();
      if (p.dilation_h != 1 || p.dilation_w != 1 || p.adaptive) return t;
      t.pool = {p.kernel_h, p.kernel_w, p.stride_h, p.stride_w, p.pad_h, p.pad_w};
    } else {
      return t;
    }
    absorbed_[*next] = true;
    t.nodes.push_back(*next);
    end = n.outputs[0];
  }
  return t;
}
std::vector<size_t> Converter::chain(size_t i) const {
  std::vector<size_t> nodes{i};
  nodes.insert(nodes.end(), tails_[i].nodes.begin(), tails_[i].nodes.end());
  return nodes;
}

void Converter::plan(const char* what, bool float_fallback) {
  HONE_CHECK(net_.inputs().size() == 1, ValueError, what, ": the network has ", net_.inputs().size(),
             " inputs; it takes one");
  for (size_t i = 0; i < net_.nodes().size(); ++i) {
    const Node& n = net_.nodes()[i];
    // After the last integer op anything goes that reads no codes of its own accord: views and activations.
    const bool last = std::none_of(n.outputs.begin(), n.outputs.end(), [&](ValueId v) { return wanted(v); });
    const bool harmless =
        last && (n.op->alias || hone::detail::activation_of(*n.op, n.attributes.fixed) || n.op == &kMaxPool2d);
    HONE_CHECK(form_[i] != Form::real || harmless || float_fallback, GraphError, what, ": node '", n.name, "' (",
               n.op->name, ") has no integer form here; float_fallback would run it in f32");
    if (absorbed_[i]) continue;
    if (computes(form_[i])) tails_[i] = tail_of(i);
    const bool scales =
        computes(form_[i]) || form_[i] == Form::table || form_[i] == Form::concat || form_[i] == Form::real;
    if (scales && wanted(end(i))) scaled_.insert(end(i));
    if (computes(form_[i]) && form_[i] != Form::product) scaled_.insert(end(i));  // codes, whoever reads them
  }
  if (wanted(net_.inputs()[0])) scaled_.insert(net_.inputs()[0]);
}

// ---- values

/// Scale and zero point of v's codes, the scale at least `least`.
void Converter::settle(ValueId v, double least) {
  const Interval r = range.at(v);
  Affine a = Affine::of(r, kCodes);
  if (a.scale[0] < least) a = Affine::of({r.low * (least / a.scale[0]), r.high * (least / a.scale[0])}, kCodes);
  at(v).scale = std::max(a.scale[0], least);
  at(v).zero_point = a.zero_point[0];
}

ValueId Converter::add(const std::string& name, const OpDef& op, std::vector<ValueId> inputs, const Attrs& attrs) {
  return out_.add_node(
      {.name = name, .op = &op, .inputs = std::move(inputs), .outputs = {}, .attributes = {attrs, {}}});
}

ValueId Converter::codes(ValueId v) {
  Made& m = at(v);
  if (m.codes == graph::kNone) {
    settle(v, 0);
    m.codes =
        add(net_.value(v).name + ".codes", kInt8Quantize, {real(v)}, QuantizeAttrs{m.scale, {m.zero_point, 0, 255}});
  }
  return m.codes;
}
ValueId Converter::real(ValueId v) {
  if (v == graph::kNone) return v;
  Made& m = at(v);
  if (m.real != graph::kNone) return m.real;
  const Value& value = net_.value(v);
  switch (value.kind) {
    case ValueKind::parameter:
      m.real = out_.add_parameter(value.name, Parameter::copy_of(net_.parameter(v).ref()));
      break;
    case ValueKind::buffer: m.real = out_.add_buffer(value.name, Buffer(clone(net_.buffer(v)))); break;
    case ValueKind::constant: {
      const graph::Constant& c = net_.constant(v);
      m.real = c.uniform ? out_.add_uniform(value.name, c.value, value.shape) : out_.add_constant(value.name, c.value);
      break;
    }
    default:
      HONE_ASSERT(m.codes != graph::kNone);
      m.real = add(value.name + ".real", kInt8Dequantize, {m.codes}, QuantizeAttrs{m.scale, {m.zero_point, 0, 255}});
  }
  return m.real;
}

// ---- nodes

void Converter::emit(size_t i) {
  if (form_[i] == Form::product) return emit(i, weigh(i));
  ++(form_[i] == Form::real ? counts_.real : counts_.integer);
  const Node& n = net_.nodes()[i];
  Made& y = at(n.outputs[0]);
  switch (form_[i]) {
    case Form::add: return emit_add(i);
    case Form::avg_pool: return emit_avg_pool(i);
    case Form::table: return emit_table(n);
    case Form::concat: return emit_concat(n);
    case Form::max_pool: y.codes = add(n.name, kInt8MaxPool2d, {codes(n.inputs[0])}, n.attributes.fixed); break;
    case Form::move: {
      Node copy{.name = n.name, .op = n.op, .inputs = {codes(n.inputs[0])}, .outputs = {}, .attributes = n.attributes};
      y.codes = out_.add_node(std::move(copy));
      break;
    }
    default: return emit_real(n);
  }
  y.scale = at(n.inputs[0]).scale, y.zero_point = at(n.inputs[0]).zero_point;
}

Network Converter::finish(StaticCounts* counts) {
  std::vector<ValueId> outputs;
  for (const ValueId v : net_.outputs()) outputs.push_back(real(v));
  out_.set_outputs(outputs);
  out_.eval();
  out_.remove_dead();
  if (counts) *counts = counts_;
  return std::move(out_);
}

void Converter::emit_real(const Node& n) {
  Node copy{.name = n.name, .op = n.op, .inputs = {}, .outputs = {}, .attributes = n.attributes};
  for (const ValueId v : n.inputs) copy.inputs.push_back(real(v));
  out_.add_node(std::move(copy));
  const std::vector<ValueId>& results = out_.nodes().back().outputs;
  for (size_t k = 0; k < n.outputs.size(); ++k) at(n.outputs[k]).real = results[k];
}

/// f of the values that codes of v stand for, as codes of y.
ValueId Converter::table(const std::string& name, ValueId v, const Made& y,
                         const std::function<Tensor(const Tensor&)>& f) {
  const ValueId x = codes(v);
  Tensor all = empty({256}, u8);
  for (int64_t q = 0; q < 256; ++q) all.data<uint8_t>()[q] = static_cast<uint8_t>(q);
  const Affine to{kCodes, {y.scale}, {y.zero_point}};
  const Tensor t = to.codes(f(int8_dequantize(all, at(v).scale, at(v).zero_point)));
  return add(name, kInt8Lookup, {x, out_.add_constant(name + ".table", t)}, Attrs());
}
void Converter::emit_table(const Node& n) {
  settle(n.outputs[0], 0);
  Made& y = at(n.outputs[0]);
  y.codes =
      table(n.name, n.inputs[0], y, [&](const Tensor& x) -> Tensor { return apply(*n.op, n.attributes.at(0), {x}); });
}
void Converter::emit_concat(const Node& n) {
  settle(n.outputs[0], 0);
  Made& y = at(n.outputs[0]);
  Node copy{.name = n.name, .op = n.op, .inputs = {}, .outputs = {}, .attributes = n.attributes};
  for (const ValueId v : n.inputs)
    copy.inputs.push_back(table(n.name + ".rescale", v, y, [](const Tensor& x) { return x; }));
  y.codes = out_.add_node(std::move(copy));
}

void Converter::emit_add(size_t i) {
  const Node& n = net_.nodes()[i];
  const ValueId a = codes(n.inputs[0]), b = codes(n.inputs[1]);
  const Made &x = at(n.inputs[0]), &z = at(n.inputs[1]);
  settle(end(i), std::max(x.scale, z.scale) / 8000);
  Made& y = at(end(i));
  const FixedPair f = fixed_pair(x.scale / y.scale, z.scale / y.scale);
  y.codes =
      add(n.name, kInt8Add, {a, b},
          Int8AddAttrs{f.first, f.second, f.shift, x.zero_point, z.zero_point, range_of(y, tails_[i].activation)});
}

void Converter::emit_avg_pool(size_t i) {
  const Node& n = net_.nodes()[i];
  const ValueId in = codes(n.inputs[0]);
  const Made& x = at(n.inputs[0]);
  const Windows w = *windows_of(net_, n);
  const auto count = static_cast<double>(w.kernel_h * w.kernel_w);
  settle(end(i), x.scale / count * 1.0001);
  Made& y = at(end(i));
  const FixedPoint f = fixed_point(x.scale / y.scale / count);
  y.codes = add(n.name, kInt8AvgPool2d, {in},
                Int8AvgPoolAttrs{w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, f.multiplier, f.shift, x.zero_point,
                                 range_of(y, tails_[i].activation)});
}

/// Mean of what rounding the weights adds to each output.
std::vector<double> Converter::rounding_shift(size_t node, const Tensor& w, const Tensor& rounded) const {
  const Node& n = net_.nodes()[node];
  const std::vector<double>&mean_x = mean.at(node), a = doubles(w), b = doubles(rounded);
  const int64_t taps = w.numel() / w.size(0), inner = n.op == &kConv2d ? w.size(2) * w.size(3) : 1;
  const int64_t groups = n.op == &kConv2d ? n.attributes.as<ConvAttrs>().groups : 1;
  std::vector<double> shift(static_cast<size_t>(w.size(0)));
  for (int64_t k = 0; k < w.numel(); ++k) {
    const int64_t out_channel = k / taps, group = out_channel / (w.size(0) / groups);
    const int64_t channel = group * (taps / inner) + k % taps / inner;
    shift[static_cast<size_t>(out_channel)] +=
        (b[static_cast<size_t>(k)] - a[static_cast<size_t>(k)]) * mean_x[static_cast<size_t>(channel)];
  }
  return shift;
}

Weight Converter::weigh(size_t i) {
  const Node& n = net_.nodes()[i];
  codes(n.inputs[0]);
  const double x_scale = at(n.inputs[0]).scale;
  const Tensor w = finite_elements(what_, net_, n.inputs[1]);
  const bool has_bias = n.inputs.size() > 2 && n.inputs[2] != graph::kNone;
  std::vector<double> bias = has_bias ? doubles(finite_elements(what_, net_, n.inputs[2]))
                                      : std::vector<double>(static_cast<size_t>(w.size(0)));
  WeightScales scales = weight_scales(net_, n.inputs[1], w, bits_, weights_);
  counts_.regridded += scales.regridded;
  Weight r{std::move(scales.affine), {}, {}, {}};
  // A scale is no finer than the most units of the bias allow; where all weights are 0, the bias alone decides.
  constexpr auto most = static_cast<double>(kMostInt8Bias);
  const std::vector<double> weights = doubles(w);
  const int64_t taps = w.numel() / w.size(0);
  for (size_t k = 0; k < bias.size(); ++k) {
    const auto row = weights.begin() + static_cast<std::ptrdiff_t>(k) * taps;
    const bool zero = std::all_of(row, row + taps, [](double v) { return v == 0; });
    const double fit = std::abs(bias[k]) / x_scale;
    if (zero) r.affine.scale[k] = bias[k] == 0 ? 1e-6 : fit / (1 << 20);
    r.affine.scale[k] = std::max(r.affine.scale[k], fit / most);
  }
  r.codes = round ? round(i, w, r.affine) : r.affine.codes(w);
  if (mean.count(i)) {
    const std::vector<double> shift = rounding_shift(i, w, r.affine.values(r.codes));
    for (size_t k = 0; k < bias.size(); ++k) bias[k] -= shift[k];
  }
  for (size_t k = 0; k < bias.size(); ++k) {
    r.unit.push_back(x_scale * r.affine.scale[k]);
    r.bias.push_back(std::llrint(std::clamp(bias[k] / r.unit[k], -most, most)));
  }
  return r;
}

void Converter::emit(size_t i, const Weight& w) {
  ++counts_.integer;
  const Node& n = net_.nodes()[i];
  const ValueId in = codes(n.inputs[0]), last = end(i);
  const Made& x = at(n.inputs[0]);
  const int64_t outs = w.codes.size(0);
  const bool conv = n.op == &kConv2d;
  const ConvAttrs attrs = conv ? n.attributes.as<ConvAttrs>() : ConvAttrs();
  const Int8Matrix packed = Int8Matrix::pack(w.codes, bits_, attrs.groups, attrs.dilation_w);
  const Tensor start = packed.start(cast(tensor(w.bias, {outs}), i32), x.zero_point);
  const auto constant = [&](const char* what, const Tensor& t) {
    return out_.add_constant(net_.value(n.inputs[1]).name + what, t);
  };
  std::vector<ValueId> inputs = {in, constant(".codes", packed.values), constant(".start", start)};
  Int8Range range_y;
  Made& y = at(last);
  const bool to_codes = wanted(last);
  if (to_codes) {
    settle(last, *std::max_element(w.unit.begin(), w.unit.end()) * 1.0001);
    std::vector<double> ratio = w.unit;
    for (double& r : ratio) r /= y.scale;
    range_y = range_of(y, tails_[i].activation);
    const Int8Output to = Int8Output::codes(ratio, range_y.zero_point, range_y.low, range_y.high);
    inputs.push_back(constant(".multiplier", to.multiplier));
    inputs.push_back(constant(".shift", to.shift));
  } else {
    inputs.push_back(constant(".scale", cast(tensor(w.unit, {outs}), f32)));
    inputs.push_back(graph::kNone);
  }
  ValueId result = graph::kNone;
  if (conv) {
    Int8ConvAttrs c{outs, bits_, x.zero_point, attrs, tails_[i].pool, range_y};
    c.conv.size_h = w.codes.size(2), c.conv.size_w = w.codes.size(3);
    result = add(n.name, kInt8Conv2d, std::move(inputs), c);
  } else {
    result = add(n.name, kInt8Linear, std::move(inputs), Int8LinearAttrs{outs, bits_, range_y});
  }
  (to_codes ? y.codes : y.real) = result;
}

}  // namespace hone::compress::quantize::detail
