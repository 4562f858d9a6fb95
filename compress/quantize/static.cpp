#include "hone/compress/quantize/static.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "hone/compress/graph/pass_support.h"
#include "hone/compress/graph/passes.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/fused.h"
#include "hone/ops/matmul.h"
#include "hone/ops/packed/codes.h"
#include "hone/ops/packed/int8.h"
#include "hone/ops/pool.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone::compress::quantize {
namespace {

using graph::Network;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

constexpr AffineSpec kCodes = {.bits = 8, .symmetric = false, .granularity = Granularity::tensor, .group = 0};

/// What a node becomes. Arithmetic ops make codes of a scale of their own; what moves codes follows its readers.
enum class Form : uint8_t { real, product, add, avg_pool, max_pool, table, move, concat };
bool computes(Form f) { return f == Form::product || f == Form::add || f == Form::avg_pool; }

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

/// One calibrated value.
struct Watched {
  Observer observer;
  bool means = false;        // wanted
  std::vector<double> sums;  // by index of dim 1, or of the last dim where `last`
  bool last = false;
  double count = 0;
  explicit Watched(const ObserverOptions& o) : observer(o) {}
  std::vector<double> mean() const {
    std::vector<double> m = sums;
    for (double& v : m) v /= std::max(count, 1.0);
    return m;
  }
  void see(const Tensor& x) {
    observer.see(x);
    if (!means || x.numel() == 0) return;
    const int dim = last ? x.ndim() - 1 : 1;
    const int64_t n = x.size(dim);
    int64_t inner = 1;
    for (int d = dim + 1; d < x.ndim(); ++d) inner *= x.size(d);
    sums.resize(static_cast<size_t>(n), 0);
    const std::vector<double> v = doubles(x);
    for (size_t i = 0; i < v.size(); ++i) sums[i / static_cast<size_t>(inner) % static_cast<size_t>(n)] += v[i];
    count += static_cast<double>(x.numel() / n);
  }
};

class Converter {
 public:
  Converter(const Network& network, const StaticOptions& options) : net(network), o(options), uses(net.uses()) {
    o.activations.spec = kCodes;
    form.resize(net.nodes().size(), Form::real);
    absorbed.resize(net.nodes().size(), false);
    made.resize(net.values().size());
    for (size_t i = net.nodes().size(); i-- > 0;) form[i] = form_of(net.nodes()[i]);
  }

  Network convert(const Calibration& data, StaticCounts& counts) {
    plan();
    calibrate(data);
    for (const ValueId v : net.inputs()) {
      const Value& x = net.value(v);
      at(v).real = out.add_input(x.name, x.dtype, x.shape);
    }
    for (size_t i = 0; i < net.nodes().size(); ++i) {
      if (absorbed[i]) continue;
      emit(i);
      ++(form[i] == Form::real ? counts.real : counts.integer);
    }
    std::vector<ValueId> outputs;
    for (const ValueId v : net.outputs()) outputs.push_back(real(v));
    out.set_outputs(outputs);
    out.eval();
    out.remove_dead();
    return std::move(out);
  }

 private:
  /// Where a value of `net` is in `out`: in f32, as codes, or both.
  struct Made {
    ValueId real = graph::kNone, codes = graph::kNone;
    double scale = 1;
    int64_t zero_point = 0;
  };
  Made& at(ValueId v) { return made[static_cast<size_t>(v)]; }

  // ---- what becomes of each node

  bool is_activation(ValueId v) const {
    const ValueKind k = net.value(v).kind;
    return (k == ValueKind::result || k == ValueKind::input) && net.value(v).dtype == f32;
  }
  /// Some op that computes on codes reads v, at once or behind ops that move codes.
  bool wanted(ValueId v) const {
    return std::any_of(uses[static_cast<size_t>(v)].begin(), uses[static_cast<size_t>(v)].end(),
                       [&](int32_t i) { return form[static_cast<size_t>(i)] != Form::real; });
  }
  /// Nodes are asked from the last to the first, so that readers are known.
  Form form_of(const Node& n) const {
    if (n.inputs.empty() || n.inputs[0] == graph::kNone || !is_activation(n.inputs[0]) || n.train_only || n.train)
      return Form::real;
    if (n.op == &kConv2d || n.op == &kLinear) {
      const Tensor w = graph::detail::elements(net, n.inputs[1]);
      const bool bias = n.inputs.size() > 2 && n.inputs[2] != graph::kNone;
      const bool known = w.defined() && (!bias || graph::detail::elements(net, n.inputs[2]).defined());
      return known && w.size(0) > 0 && w.numel() / w.size(0) <= kMostInt8Taps ? Form::product : Form::real;
    }
    if (n.op == &kAdd && is_activation(n.inputs[1]))
      return net.value(n.inputs[0]).shape == net.value(n.inputs[1]).shape ? Form::add : Form::real;
    if ((n.op == &kAvgPool2d || n.op == &kAdaptiveAvgPool2d) && windows_of(net, n)) return Form::avg_pool;
    if (!wanted(n.outputs[0])) return Form::real;
    if (n.op == &kMaxPool2d && graph::detail::only_first_is_read(net, uses, n)) return Form::max_pool;
    if (hone::detail::activation_of(*n.op, n.attributes.fixed)) return Form::table;
    if (n.op == &kConcat && std::all_of(n.inputs.begin(), n.inputs.end(), [&](ValueId v) { return is_activation(v); }))
      return Form::concat;
    return n.op->alias && n.inputs.size() == 1 ? Form::move : Form::real;
  }

  /// The ReLU or clamp, and behind a convolution the max pooling, that a node takes in.
  struct Tail {
    std::optional<ActivationAttrs> activation;
    FusedPoolAttrs pool;
    ValueId end;
  };
  std::vector<Tail> tails;

  Tail tail_of(size_t i) {
    Tail t{{}, {}, net.nodes()[i].outputs[0]};
    while (const auto next = graph::detail::sole_reader(net, uses, t.end)) {
      const Node& n = net.nodes()[*next];
      const bool first = !t.activation && !t.pool.present();
      if (first && form[*next] == Form::table && (n.op == &kRelu || n.op == &kClamp)) {
        t.activation = hone::detail::activation_of(*n.op, n.attributes.fixed);
      } else if (net.nodes()[i].op == &kConv2d && !t.pool.present() && form[*next] == Form::max_pool) {
        const auto& p = n.attributes.as<PoolAttrs>();
        if (p.dilation_h != 1 || p.dilation_w != 1 || p.adaptive) return t;
        t.pool = {p.kernel_h, p.kernel_w, p.stride_h, p.stride_w, p.pad_h, p.pad_w};
      } else {
        return t;
      }
      absorbed[*next] = true;
      t.end = n.outputs[0];
    }
    return t;
  }

  void plan() {
    HONE_CHECK(net.inputs().size() == 1, ValueError, "quantize_static: the network has ", net.inputs().size(),
               " inputs; it takes one");
    tails.resize(net.nodes().size());
    const auto watch = [&](ValueId v) -> Watched& { return watched.try_emplace(v, o.activations).first->second; };
    for (size_t i = 0; i < net.nodes().size(); ++i) {
      const Node& n = net.nodes()[i];
      // After the last integer op anything goes that reads no codes of its own accord: views and activations.
      const bool harmless =
          n.op->alias || hone::detail::activation_of(*n.op, n.attributes.fixed) || n.op == &kMaxPool2d;
      HONE_CHECK(form[i] != Form::real || harmless || o.float_fallback, GraphError, "quantize_static: node '", n.name,
                 "' (", n.op->name, ") has no integer form here; float_fallback would run it in f32");
      if (absorbed[i]) continue;
      if (computes(form[i])) tails[i] = tail_of(i);
      const ValueId end = computes(form[i]) ? tails[i].end : n.outputs[0];
      const bool scaled =
          computes(form[i]) || form[i] == Form::table || form[i] == Form::concat || form[i] == Form::real;
      if (scaled && wanted(end)) watch(end);
      if (computes(form[i]) && form[i] != Form::product) watch(end);  // codes, whoever reads them
      if (form[i] == Form::product && o.bias_correction) {
        Watched& x = watch(n.inputs[0]);
        x.means = true;
        x.last = n.op == &kLinear;
      }
    }
    if (wanted(net.inputs()[0])) watch(net.inputs()[0]);
  }

  void calibrate(const Calibration& data) {
    Network run = net;
    std::vector<ValueId> values;
    for (const auto& [v, w] : watched) values.push_back(v);
    run.set_outputs(values);
    run.eval();
    data([&](const Tensor& x) {
      const std::vector<Tensor> seen = run.run({x});
      size_t k = 0;
      for (auto& [v, w] : watched) {
        try {
          w.see(seen[k++]);
        } catch (const NumericError& e) {
          throw NumericError(str("quantize_static: '", net.value(v).name, "': ", e.what()));
        }
      }
    });
    for (const auto& [v, w] : watched)
      HONE_CHECK(w.observer.seen() > 0, ValueError, "quantize_static: the calibration data has no batch");
  }

  /// Scale and zero point of v's codes, the scale at least `least`.
  void settle(ValueId v, double least) {
    Interval r = watched.at(v).observer.range();
    Affine a = Affine::of(r, kCodes);
    if (a.scale[0] < least) a = Affine::of({r.low * (least / a.scale[0]), r.high * (least / a.scale[0])}, kCodes);
    at(v).scale = std::max(a.scale[0], least);
    at(v).zero_point = a.zero_point[0];
  }
  int64_t code_of(const Made& m, double x) const {
    const double q = std::nearbyint(x / m.scale) + static_cast<double>(m.zero_point);
    return static_cast<int64_t>(std::clamp(q, 0.0, 255.0));
  }
  Int8Range range_of(const Made& m, const std::optional<ActivationAttrs>& a) const {
    Int8Range r{m.zero_point, 0, 255};
    if (!a) return r;
    if (a->activation() == Activation::relu) return {m.zero_point, m.zero_point, 255};
    return {m.zero_point, code_of(m, a->a), code_of(m, a->b)};
  }

  // ---- values of `out`

  ValueId add(const std::string& name, const OpDef& op, std::vector<ValueId> inputs, const Attrs& attrs) {
    return out.add_node(
        {.name = name, .op = &op, .inputs = std::move(inputs), .outputs = {}, .attributes = {attrs, {}}});
  }
  ValueId constant(const std::string& name, const Tensor& t) { return out.add_constant(name, t); }

  ValueId codes(ValueId v) {
    Made& m = at(v);
    if (m.codes == graph::kNone) {
      settle(v, 0);
      m.codes =
          add(net.value(v).name + ".codes", kInt8Quantize, {real(v)}, QuantizeAttrs{m.scale, {m.zero_point, 0, 255}});
    }
    return m.codes;
  }
  ValueId real(ValueId v) {
    if (v == graph::kNone) return v;
    Made& m = at(v);
    if (m.real != graph::kNone) return m.real;
    const Value& value = net.value(v);
    switch (value.kind) {
      case ValueKind::parameter:
        m.real = out.add_parameter(value.name, Parameter::copy_of(net.parameter(v).ref()));
        break;
      case ValueKind::buffer: m.real = out.add_buffer(value.name, Buffer(clone(net.buffer(v)))); break;
      case ValueKind::constant: {
        const graph::Constant& c = net.constant(v);
        m.real = c.uniform ? out.add_uniform(value.name, c.value, value.shape) : out.add_constant(value.name, c.value);
        break;
      }
      default:
        HONE_ASSERT(m.codes != graph::kNone);
        m.real = add(value.name + ".real", kInt8Dequantize, {m.codes}, QuantizeAttrs{m.scale, {m.zero_point, 0, 255}});
    }
    return m.real;
  }

  // ---- nodes of `out`

  void emit(size_t i) {
    const Node& n = net.nodes()[i];
    Made& y = at(n.outputs[0]);
    switch (form[i]) {
      case Form::real: return emit_real(n);
      case Form::product: return emit_product(i);
      case Form::add: return emit_add(i);
      case Form::avg_pool: return emit_avg_pool(i);
      case Form::max_pool: y.codes = add(n.name, kInt8MaxPool2d, {codes(n.inputs[0])}, n.attributes.fixed); break;
      case Form::move: {
        Node copy{
            .name = n.name, .op = n.op, .inputs = {codes(n.inputs[0])}, .outputs = {}, .attributes = n.attributes};
        y.codes = out.add_node(std::move(copy));
        break;
      }
      case Form::table: return emit_table(n);
      case Form::concat: return emit_concat(n);
    }
    y.scale = at(n.inputs[0]).scale, y.zero_point = at(n.inputs[0]).zero_point;
  }

  void emit_real(const Node& n) {
    Node copy{.name = n.name, .op = n.op, .inputs = {}, .outputs = {}, .attributes = n.attributes};
    for (const ValueId v : n.inputs) copy.inputs.push_back(real(v));
    out.add_node(std::move(copy));
    const std::vector<ValueId>& results = out.nodes().back().outputs;
    for (size_t k = 0; k < n.outputs.size(); ++k) at(n.outputs[k]).real = results[k];
  }

  /// f of the values that codes of v stand for, as codes of y.
  ValueId table(const std::string& name, ValueId v, const Made& y, const std::function<Tensor(const Tensor&)>& f) {
    const ValueId x = codes(v);
    Tensor all = empty({256}, u8);
    for (int64_t q = 0; q < 256; ++q) all.data<uint8_t>()[q] = static_cast<uint8_t>(q);
    const Affine to{kCodes, {y.scale}, {y.zero_point}};
    const Tensor t = to.codes(f(int8_dequantize(all, at(v).scale, at(v).zero_point)));
    return add(name, kInt8Lookup, {x, constant(name + ".table", t)}, Attrs());
  }
  void emit_table(const Node& n) {
    settle(n.outputs[0], 0);
    Made& y = at(n.outputs[0]);
    y.codes =
        table(n.name, n.inputs[0], y, [&](const Tensor& x) -> Tensor { return apply(*n.op, n.attributes.at(0), {x}); });
  }
  void emit_concat(const Node& n) {
    settle(n.outputs[0], 0);
    Made& y = at(n.outputs[0]);
    Node copy{.name = n.name, .op = n.op, .inputs = {}, .outputs = {}, .attributes = n.attributes};
    for (const ValueId v : n.inputs)
      copy.inputs.push_back(table(n.name + ".rescale", v, y, [](const Tensor& x) { return x; }));
    y.codes = out.add_node(std::move(copy));
  }

  void emit_add(size_t i) {
    const Node& n = net.nodes()[i];
    const ValueId a = codes(n.inputs[0]), b = codes(n.inputs[1]);
    const Made &x = at(n.inputs[0]), &z = at(n.inputs[1]);
    settle(tails[i].end, std::max(x.scale, z.scale) / 8000);
    Made& y = at(tails[i].end);
    const FixedPair f = fixed_pair(x.scale / y.scale, z.scale / y.scale);
    y.codes =
        add(n.name, kInt8Add, {a, b},
            Int8AddAttrs{f.first, f.second, f.shift, x.zero_point, z.zero_point, range_of(y, tails[i].activation)});
  }

  void emit_avg_pool(size_t i) {
    const Node& n = net.nodes()[i];
    const ValueId in = codes(n.inputs[0]);
    const Made& x = at(n.inputs[0]);
    const Windows w = *windows_of(net, n);
    const auto count = static_cast<double>(w.kernel_h * w.kernel_w);
    settle(tails[i].end, x.scale / count * 1.0001);
    Made& y = at(tails[i].end);
    const FixedPoint f = fixed_point(x.scale / y.scale / count);
    y.codes = add(n.name, kInt8AvgPool2d, {in},
                  Int8AvgPoolAttrs{w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, f.multiplier, f.shift, x.zero_point,
                                   range_of(y, tails[i].activation)});
  }

  /// Mean of what rounding the weights adds to each output.
  std::vector<double> rounding_shift(const Node& n, const Tensor& w, const Tensor& rounded) const {
    const std::vector<double> mean = watched.at(n.inputs[0]).mean(), a = doubles(w), b = doubles(rounded);
    const int64_t taps = w.numel() / w.size(0), inner = n.op == &kConv2d ? w.size(2) * w.size(3) : 1;
    const int64_t groups = n.op == &kConv2d ? n.attributes.as<ConvAttrs>().groups : 1;
    std::vector<double> shift(static_cast<size_t>(w.size(0)));
    for (int64_t k = 0; k < w.numel(); ++k) {
      const int64_t out_channel = k / taps, group = out_channel / (w.size(0) / groups);
      const int64_t channel = group * (taps / inner) + k % taps / inner;
      shift[static_cast<size_t>(out_channel)] +=
          (b[static_cast<size_t>(k)] - a[static_cast<size_t>(k)]) * mean[static_cast<size_t>(channel)];
    }
    return shift;
  }

  void emit_product(size_t i) {
    const Node& n = net.nodes()[i];
    const ValueId in = codes(n.inputs[0]);
    const Made& x = at(n.inputs[0]);
    const Tensor w = graph::detail::elements(net, n.inputs[1]);
    const int64_t outs = w.size(0);
    const bool to_codes = wanted(tails[i].end), has_bias = n.inputs.size() > 2 && n.inputs[2] != graph::kNone;
    std::vector<double> bias =
        has_bias ? doubles(graph::detail::elements(net, n.inputs[2])) : std::vector<double>(static_cast<size_t>(outs));
    Affine a = Affine::of(w, {.bits = o.bits, .symmetric = true, .granularity = o.weights});
    if (a.scale.size() == 1) {  // one scale, written out for each output
      a.scale.assign(static_cast<size_t>(outs), a.scale[0]);
      a.zero_point.assign(static_cast<size_t>(outs), 0);
      a.spec.granularity = Granularity::channel;
    }
    // A scale is no finer than 30 bits of the bias allow; where all weights are 0, the bias alone decides.
    const std::vector<double> weights = doubles(w);
    const int64_t taps = w.numel() / outs;
    for (size_t k = 0; k < bias.size(); ++k) {
      const auto row = weights.begin() + static_cast<std::ptrdiff_t>(k) * taps;
      const bool zero = std::all_of(row, row + taps, [](double v) { return v == 0; });
      const double fit = std::abs(bias[k]) / x.scale;
      if (zero) a.scale[k] = bias[k] == 0 ? 1e-6 : fit / (1 << 20);
      a.scale[k] = std::max(a.scale[k], fit / (1 << 30));
    }
    const Tensor q = a.codes(w);
    if (o.bias_correction) {
      const std::vector<double> shift = rounding_shift(n, w, a.values(q));
      for (size_t k = 0; k < bias.size(); ++k) bias[k] -= shift[k];
    }
    std::vector<int64_t> whole;
    std::vector<double> unit;
    for (size_t k = 0; k < bias.size(); ++k) {
      unit.push_back(x.scale * a.scale[k]);
      const double b = std::clamp(bias[k] / unit[k], -1.0 * (1 << 30), 1.0 * (1 << 30));
      whole.push_back(std::llrint(b));
    }
    const bool conv = n.op == &kConv2d;
    const ConvAttrs attrs = conv ? n.attributes.as<ConvAttrs>() : ConvAttrs();
    const Int8Matrix packed = Int8Matrix::pack(q, o.bits, attrs.groups, attrs.dilation_w);
    const Tensor start = packed.start(cast(tensor(whole, {outs}), i32), x.zero_point);

    const std::string name = net.value(n.inputs[1]).name;
    std::vector<ValueId> inputs = {in, constant(name + ".codes", packed.values), constant(name + ".start", start)};
    Int8Range range;
    Made& y = at(tails[i].end);
    if (to_codes) {
      settle(tails[i].end, *std::max_element(unit.begin(), unit.end()) * 1.0001);
      std::vector<double> ratio = unit;
      for (double& r : ratio) r /= y.scale;
      range = range_of(y, tails[i].activation);
      const Int8Output to = Int8Output::codes(ratio, range.zero_point, range.low, range.high);
      inputs.push_back(constant(name + ".multiplier", to.multiplier));
      inputs.push_back(constant(name + ".shift", to.shift));
    } else {
      inputs.push_back(constant(name + ".scale", cast(tensor(unit, {outs}), f32)));
      inputs.push_back(graph::kNone);
    }
    ValueId result = graph::kNone;
    if (conv) {
      Int8ConvAttrs c{outs, o.bits, x.zero_point, attrs, tails[i].pool, range};
      c.conv.size_h = w.size(2), c.conv.size_w = w.size(3);
      result = add(n.name, kInt8Conv2d, std::move(inputs), c);
    } else {
      result = add(n.name, kInt8Linear, std::move(inputs), Int8LinearAttrs{outs, o.bits, range});
    }
    (to_codes ? y.codes : y.real) = result;
  }

  const Network& net;
  StaticOptions o;
  std::vector<std::vector<int32_t>> uses;
  std::vector<Form> form;
  std::vector<bool> absorbed;
  std::map<ValueId, Watched> watched;
  std::vector<Made> made;
  Network out;
};

}  // namespace

Calibration calibration(std::vector<Tensor> batches) {
  return [batches = std::move(batches)](const auto& visit) {
    for (const Tensor& x : batches) visit(x);
  };
}

Network quantize_static(const Network& network, const Calibration& data, StaticOptions options, StaticCounts* counts) {
  HONE_CHECK(options.bits == 8 || options.bits == 4, ValueError, "quantize_static: weights of ", options.bits,
             " bits; there are kernels for 8 and 4");
  HONE_CHECK(options.weights != Granularity::group, ValueError,
             "quantize_static: kernels take a scale for each output, not for groups of inputs");
  const graph::detail::Quiet quiet;
  // Weights of dtype f32, batch norms folded, nothing packed or fused.
  const Network folded = graph::optimize(network, {.fold_batch_norm = true, .fuse = false, .pack = false});
  StaticCounts counted;
  Network result = Converter(folded, options).convert(data, counted);
  if (counts) *counts = counted;
  return result;
}

}  // namespace hone::compress::quantize
