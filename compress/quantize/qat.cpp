#include "hone/compress/quantize/qat.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/compress/graph/attributes.h"
#include "hone/compress/graph/pass_support.h"
#include "hone/compress/quantize/converter.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/fake_quantize.h"
#include "hone/ops/packed/codes.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone::compress::quantize {
namespace {

using detail::Converter;
using detail::Form;
using graph::Network;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr const char* kWhat = "QatNetwork";

Converter converter(const Network& net, const QatOptions& o) {
  return Converter(kWhat, net, o.bits, o.weights, o.float_fallback);
}

/// Nodes of a network that grows, run as they come.
class Runner {
 public:
  Runner(const Network& net, const Tensor& x) : net_(net), batch_(x.size(0)) { at(net.inputs()[0]) = x.detach(); }
  const Tensor& operator[](ValueId v) {
    const graph::detail::Quiet quiet;
    for (; done_ < net_.nodes().size(); ++done_) {
      const Node& n = net_.nodes()[done_];
      std::vector<Tensor> inputs;
      for (const ValueId id : n.inputs) inputs.push_back(id == graph::kNone ? Tensor() : get(id));
      const Outputs results = apply(*n.op, n.attributes.at(batch_), inputs);
      for (size_t k = 0; k < n.outputs.size(); ++k) at(n.outputs[k]) = results[static_cast<int>(k)];
    }
    return get(v);
  }

 private:
  Tensor& at(ValueId v) {
    if (static_cast<size_t>(v) >= values_.size()) values_.resize(net_.values().size());
    return values_[static_cast<size_t>(v)];
  }
  const Tensor& get(ValueId v) {
    Tensor& t = at(v);
    if (!t.defined()) t = value_of(net_, v, batch_).detach();
    return t;
  }

 public:
  /// Of a parameter (with its gradient), buffer or constant.
  static Tensor value_of(const Network& net, ValueId v, int64_t batch) {
    const Value& value = net.value(v);
    switch (value.kind) {
      case ValueKind::parameter: return net.parameter(v).value();
      case ValueKind::buffer: return net.buffer(v);
      default: break;
    }
    HONE_ASSERT(value.kind == ValueKind::constant);
    const graph::Constant& c = net.constant(v);
    return c.uniform ? graph::detail::materialize(c.value, graph::at(value.shape, batch)) : c.value;
  }

 private:
  const Network& net_;
  int64_t batch_;
  size_t done_ = 0;
  std::vector<Tensor> values_;
};

/// The first steps, a row or a tensor, as QatOptions has them.
Tensor first_steps(const ParameterRef& p, double high, Granularity granularity) {
  const Tensor w = p.value().detach();
  const Tensor rows = abs(reshape(cast(w, f64), {granularity == Granularity::tensor ? 1 : w.size(0), -1}));
  const Tensor steps = p.mask().defined() ? max(rows, 1) * (1 / high) : mean(rows, {1}) * (2 / std::sqrt(high));
  const double initial = 1 / (std::sqrt(static_cast<double>(w.numel() / w.size(0))) * high);
  return cast(where(gt(steps, 0), steps, full(steps.shape(), initial, f64)), f32);
}

}  // namespace

QatNetwork::QatNetwork(const Network& network, QatOptions options) : options_(options) {
  detail::check_weights(kWhat, options.bits, options.weights);
  options_.activations.spec = detail::kCodes;
  const Observer checked(options_.activations);
  const graph::detail::Quiet quiet;
  network_ = detail::folded_for_integers(kWhat, network);
  HONE_CHECK(network_.outputs().size() == 1, ValueError, kWhat, ": the network has ", network_.outputs().size(),
             " outputs; it takes one");
  const Converter plan = converter(network_, options_);
  ranges_ = Buffer(full({static_cast<int64_t>(plan.scaled().size()), 2}, std::nan(""), f64));
  frozen_ = Buffer(zeros({1}, boolean));
  if (!options.learned_steps) return;
  const double high = static_cast<double>(AffineSpec{.bits = options.bits}.high());
  for (size_t i = 0; i < network_.nodes().size(); ++i) {
    const ValueId w = plan.form(i) == Form::product ? network_.nodes()[i].inputs[1] : graph::kNone;
    if (w == graph::kNone || network_.value(w).kind != ValueKind::parameter) continue;
    const ParameterRef& p = network_.parameter(w).ref();
    if (p.type() != WeightType::dense && p.type() != WeightType::masked) continue;
    const Tensor scale = first_steps(p, high, options.weights);
    const int64_t rows = scale.size(0);
    p.set_grid({.scale = scale,
                .points = expand(tensor({0.0, -high, high, 0.0}, {1, kGridColumns}), {rows, kGridColumns}),
                .learned = true});
  }
}

bool QatNetwork::seen() const {
  const std::vector<double> v = ranges_.tensor().to_vector<double>();
  return std::none_of(v.begin(), v.end(), [](double e) { return std::isnan(e); });
}
bool QatNetwork::frozen() const { return frozen_.tensor().data<bool>()[0]; }
void QatNetwork::freeze(bool on) {
  HONE_CHECK(!on || seen(), ValueError, kWhat, ": freeze() before any batch in training mode: there are no ranges");
  frozen_.tensor().fill_(on ? 1 : 0);
}

std::vector<ParameterRef> QatNetwork::steps() {
  std::vector<ParameterRef> found;
  for (const ParameterRef& p : parameters())
    if (p.scale().defined() && p.scale().raw().requires_grad()) found.push_back(p.scale());
  return found;
}

Network QatNetwork::convert(StaticCounts* counts) const {
  HONE_CHECK(seen(), ValueError, kWhat, ": no batch was seen in training mode: there are no ranges");
  const graph::detail::Quiet quiet;
  Converter to = converter(network_, options_);
  const std::vector<double> ends = ranges_.tensor().to_vector<double>();
  size_t k = 0;
  for (const ValueId v : to.scaled()) to.range[v] = {ends[2 * k], ends[2 * k + 1]}, ++k;
  for (size_t i = 0; i < network_.nodes().size(); ++i)
    if (!to.absorbed(i)) to.emit(i);
  return to.finish(counts);
}

/// One forward in training mode: each node in f32 on the values that codes stand for, then in integers; the result has
/// the integers' value and the gradient of the f32.
struct QatNetwork::Step {
  Step(QatNetwork& q, const Tensor& x)
      : qat(q),
        net(q.network_),
        to(converter(net, q.options_)),
        run(to.out(), x),
        batch(x.size(0)),
        ends(q.ranges_.tensor().to_vector<double>()) {
    real_.resize(net.values().size());
    coded_.resize(net.values().size());
    size_t k = 0;
    for (const ValueId v : to.scaled()) place[v] = k++;
    set_real(net.inputs()[0], x);
  }

  Tensor forward() {
    for (size_t i = 0; i < net.nodes().size(); ++i)
      if (!to.absorbed(i)) node(i);
    const Tensor y = real(net.outputs()[0]);
    if (!qat.frozen()) std::copy(ends.begin(), ends.end(), qat.ranges_.tensor().data<double>());
    return y;
  }

  void node(size_t i) {
    const Node& n = net.nodes()[i];
    if (to.form(i) == Form::real) {
      const Outputs results = in_f32(n, [&](ValueId v) { return real(v); });
      emit(i);
      for (size_t k = 0; k < n.outputs.size(); ++k) set_real(n.outputs[k], results[static_cast<int>(k)]);
      return;
    }
    detail::Weight w;
    const bool product = to.form(i) == Form::product;
    if (product) {
      coded(n.inputs[0]);
      const graph::detail::Quiet quiet;
      w = to.weigh(i);
    }
    Tensor h;
    for (const size_t k : to.chain(i)) {
      h = in_f32(net.nodes()[k], [&](ValueId v) {
        if (k != i) return net.nodes()[k].inputs[0] == v ? h : real(v);
        if (!product || v == n.inputs[0]) return is_activation(v) ? coded(v) : real(v);
        return v == n.inputs[1] ? straight_through(real(v), w.affine.values(w.codes), -kInfinity, kInfinity) : real(v);
      });
    }
    const ValueId end = to.end(i);
    observe(end, h);
    if (product) {
      const graph::detail::Quiet quiet;
      to.emit(i, w);
    } else {
      emit(i);
    }
    const Converter::Made& y = to.made(end);
    if (y.codes == graph::kNone)
      real_[index(end)] = straight_through(h, run[y.real], -kInfinity, kInfinity);
    else
      coded_[index(end)] = real_[index(end)] = rounded(h, y);
  }

  void emit(size_t i) {
    const graph::detail::Quiet quiet;
    to.emit(i);
  }
  template <class Get> Outputs in_f32(const Node& n, const Get& get) {
    std::vector<Tensor> inputs;
    for (const ValueId v : n.inputs) inputs.push_back(v == graph::kNone ? Tensor() : get(v));
    return apply(*n.op, n.attributes.at(batch), inputs);
  }

  /// h as its codes say.
  Tensor rounded(const Tensor& h, const Converter::Made& y) {
    const Tensor value = int8_dequantize(run[y.codes], y.scale, y.zero_point);
    const auto end = [&](int64_t code) { return y.scale * static_cast<double>(code - y.zero_point); };
    return straight_through(h, value, end(0), end(255));
  }
  bool is_activation(ValueId v) const {
    return net.value(v).kind == ValueKind::input || net.value(v).kind == ValueKind::result;
  }
  void set_real(ValueId v, const Tensor& t) {
    real_[index(v)] = t;
    if (t.defined() && net.value(v).dtype == f32) observe(v, t);
  }
  /// For what reads f32.
  Tensor real(ValueId v) {
    Tensor& t = real_[index(v)];
    if (!t.defined()) t = Runner::value_of(net, v, batch);
    return t;
  }
  /// For what reads codes.
  Tensor coded(ValueId v) {
    Tensor& t = coded_[index(v)];
    if (t.defined()) return t;
    {
      const graph::detail::Quiet quiet;
      to.codes(v);
    }
    return t = rounded(real(v), to.made(v));
  }

  void check_finite(ValueId v, const Tensor& h) const {
    const Tensor x = contiguous(h.detach());
    const float* const begin = x.data<float>();
    const float* const bad = std::find_if_not(begin, begin + x.numel(), [](float e) { return std::isfinite(e); });
    HONE_CHECK(bad == begin + x.numel(), NumericError, kWhat, ": '", net.value(v).name, "': an element is ", *bad);
  }
  /// The range of v, where it has one, after this batch.
  void observe(ValueId v, const Tensor& h) {
    const auto at = place.find(v);
    if (at == place.end()) return;
    check_finite(v, h);
    double &low = ends[2 * at->second], &high = ends[2 * at->second + 1];
    if (!qat.frozen()) {
      Observer batch_observer(qat.options_.activations);
      batch_observer.see(h);
      HONE_CHECK(batch_observer.seen() > 0, ValueError, kWhat, ": an empty batch has no ranges");
      const Interval r = batch_observer.range();
      const double momentum = qat.options_.activations.momentum;
      if (std::isnan(low)) low = r.low, high = r.high;
      low += momentum * (r.low - low), high += momentum * (r.high - high);
    }
    to.range[v] = {low, high};
  }
  static size_t index(ValueId v) { return static_cast<size_t>(v); }

  QatNetwork& qat;
  const Network& net;
  Converter to;
  Runner run;
  int64_t batch;
  std::map<ValueId, size_t> place;  // in ranges_
  std::vector<double> ends;         // ranges_, until the step is done
  std::vector<Tensor> real_, coded_;
};

Tensor QatNetwork::forward(const Tensor& x) {
  network_.batch_of({x.shape()});
  if (training()) return Step(*this, x).forward();
  Network integers = convert();
  return integers(x);
}

void QatNetwork::visit(nn::MemberVisitor& v) {
  network_.visit(v);
  v.member("qat.ranges", ranges_);
  v.member("qat.frozen", frozen_);
}
std::unique_ptr<nn::Module> QatNetwork::clone() const { return nn::detail::clone_of(*this); }
Tensor QatNetwork::call(const Tensor& x) { return nn::detail::run(*this, x); }

}  // namespace hone::compress::quantize
