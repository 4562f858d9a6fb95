#include "hone/compress/quantize/equalize.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "hone/compress/graph/pass_support.h"
#include "hone/compress/quantize/choice.h"
#include "hone/core/basic_ops.h"
#include "hone/core/text_table.h"
#include "hone/ops/conv.h"
#include "hone/ops/matmul.h"
#include "hone/ops/pool.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone::compress::quantize {
namespace {

using graph::Network;
using graph::Node;
using graph::ValueId;

bool is_product(const Node& n) { return n.op == &kConv2d || n.op == &kLinear; }
ValueId bias_of(const Node& n) { return n.inputs.size() > 2 ? n.inputs[2] : graph::kNone; }

/// Two layers, and where channels lie in their weights.
struct Pair {
  size_t report;  // its place in the report
  ValueId first, bias, second;
  int64_t channels, row;                 // of the first weight: elements a channel
  int64_t columns, inner, outs, groups;  // of the second: dims folded into [outs, columns, inner]

  size_t in_first(size_t k) const { return k / static_cast<size_t>(row); }
  size_t in_second(size_t k) const {
    const auto i = static_cast<int64_t>(k), out = i / (columns * inner);
    return static_cast<size_t>(out / (outs / groups) * columns + i / inner % columns);
  }
};

class Equalizer {
 public:
  Equalizer(const Network& network) : net_(network), uses_(network.uses()) {
    for (size_t i = 0; i < net_.nodes().size(); ++i)
      if (is_product(net_.nodes()[i])) follow(i);
  }

  void run(const EqualizeOptions& o) {
    for (const Pair& p : pairs_) report.pairs[p.report].before = unlike(p);
    for (bool settled = pairs_.empty(); !settled && report.rounds < o.rounds; ++report.rounds) {
      double most = 0;
      for (const Pair& p : pairs_) most = std::max(most, equalize(p));
      settled = most <= o.tolerance;
    }
    for (const Pair& p : pairs_) report.pairs[p.report].after = unlike(p);
  }
  /// factors[k] of each parameter that changed.
  const std::map<ValueId, std::vector<double>>& factors() const { return factors_; }
  EqualizeReport report;

 private:
  /// The layer that alone reads node i's result, behind functions that let factors through.
  void follow(size_t i) {
    EqualizedPair said{.first = net_.nodes()[i].name, .second = {}};
    ValueId v = net_.nodes()[i].outputs[0];
    if (uses_[static_cast<size_t>(v)].empty()) return;  // the last layer
    said.skipped = not_simple(i, bias_of(net_.nodes()[i]));
    while (said.skipped.empty()) {
      const auto next = graph::detail::sole_reader(net_, uses_, v);
      if (!next) {
        if (uses_[static_cast<size_t>(v)].empty()) return;  // an output
        said.skipped = str("'", net_.value(v).name, "' has other readers");
        break;
      }
      const Node& n = net_.nodes()[*next];
      if (is_product(n) && n.inputs[0] == v && keeps_channels(net_.nodes()[i], n)) {
        said.second = n.name;
        said.skipped = not_simple(*next, graph::kNone);
        if (said.skipped.empty()) said.skipped = join(i, *next);
        break;
      }
      if (!lets_through(net_.nodes()[i], n))
        said.skipped = str("'", n.name, "' (", n.op->name, ") lets no factors through");
      v = n.outputs[0];
    }
    report.pairs.push_back(said);
  }

  /// The channels that one layer makes are those that the other sums over.
  bool keeps_channels(const Node& first, const Node& second) const {
    if (first.op == &kLinear) return second.op == &kLinear;
    return net_.value(second.inputs[0]).shape.size() == (second.op == &kConv2d ? 4 : 2);
  }
  bool lets_through(const Node& first, const Node& n) const {
    if (!graph::detail::only_first_is_read(net_, uses_, n) || n.train_only || n.train) return false;
    if (n.op == &kRelu || n.op == &kLeakyRelu) return true;
    const graph::Dims &x = net_.value(n.inputs[0]).shape, &y = net_.value(n.outputs[0]).shape;
    if (first.op != &kConv2d || x.size() != 4) return false;
    if (n.op == &kMaxPool2d || n.op == &kAdaptiveMaxPool2d || n.op == &kAvgPool2d || n.op == &kAdaptiveAvgPool2d)
      return true;
    // Row-major views keep the channels in runs.
    return (n.op == &kFlatten || n.op == &kReshape) && y.size() == 2 && x[0] == y[0] && y[1].per_batch == 0;
  }

  /// Why node i's weight, or this bias, cannot be scaled; empty where it can.
  std::string not_simple(size_t i, ValueId bias) const {
    for (const ValueId v : {net_.nodes()[i].inputs[1], bias}) {
      if (v == graph::kNone) continue;
      const std::string& name = net_.value(v).name;
      if (net_.value(v).kind != graph::ValueKind::parameter) return str("'", name, "' is no parameter");
      const WeightType type = net_.parameter(v).ref().type();
      if (type != WeightType::dense && type != WeightType::masked) return str("'", name, "' is ", hone::name(type));
      if (!graph::detail::sole_reader(net_, uses_, v)) return str("'", name, "' is shared");
    }
    return {};
  }

  std::string join(size_t a, size_t b) {
    const Node &first = net_.nodes()[a], &second = net_.nodes()[b];
    const Tensor w = load(first.inputs[1]), u = load(second.inputs[1]);
    if (bias_of(first) != graph::kNone) load(bias_of(first));
    Pair p{report.pairs.size(), first.inputs[1], bias_of(first), second.inputs[1], w.size(0), 0, 0, 0, 0, 1};
    if (p.channels == 0 || u.numel() == 0) return "it is empty";
    p.row = w.numel() / p.channels;
    p.outs = u.size(0), p.columns = u.size(1), p.inner = 1;
    if (second.op == &kConv2d) {
      p.groups = second.attributes.as<ConvAttrs>().groups;
      p.inner = u.size(2) * u.size(3);
    } else {
      p.inner = p.columns / p.channels, p.columns = p.channels;  // of a flattened plane each element is a column
    }
    HONE_ASSERT(p.columns * p.groups == p.channels);
    pairs_.push_back(p);
    return {};
  }
  Tensor load(ValueId v) {
    const Tensor t = graph::detail::elements(net_, v);
    auto [at, fresh] = values_.try_emplace(v);
    if (fresh) {
      at->second = t.to_vector<double>();
      for (const double e : at->second)
        HONE_CHECK(std::isfinite(e), NumericError, "equalize: '", net_.value(v).name, "' has an element ", e);
      factors_[v].assign(at->second.size(), 1);
    }
    return t;
  }

  /// r1 and r2 of each channel.
  std::pair<std::vector<double>, std::vector<double>> ranges(const Pair& p) const {
    std::vector<double> r1(static_cast<size_t>(p.channels)), r2 = r1;
    const std::vector<double>&w = values_.at(p.first), &u = values_.at(p.second);
    for (size_t k = 0; k < w.size(); ++k) r1[p.in_first(k)] = std::max(r1[p.in_first(k)], std::abs(w[k]));
    for (size_t k = 0; k < u.size(); ++k) r2[p.in_second(k)] = std::max(r2[p.in_second(k)], std::abs(u[k]));
    return {r1, r2};
  }
  double unlike(const Pair& p) const {
    const auto [r1, r2] = ranges(p);
    double most = 1;
    for (size_t c = 0; c < r1.size(); ++c)
      if (r1[c] > 0 && r2[c] > 0) most = std::max({most, r1[c] / r2[c], r2[c] / r1[c]});
    return most;
  }
  void scale(ValueId v, size_t k, double by) { values_.at(v)[k] *= by, factors_.at(v)[k] *= by; }
  /// The largest |s − 1|.
  double equalize(const Pair& p) {
    const auto [r1, r2] = ranges(p);
    std::vector<double> s(r1.size(), 1);
    double most = 0;
    for (size_t c = 0; c < s.size(); ++c) {
      if (r1[c] > 0 && r2[c] > 0) s[c] = std::sqrt(r1[c] / r2[c]);
      most = std::max({most, std::abs(s[c] - 1), std::abs(1 / s[c] - 1)});
    }
    for (size_t k = 0; k < values_.at(p.first).size(); ++k) scale(p.first, k, 1 / s[p.in_first(k)]);
    for (size_t k = 0; k < values_.at(p.second).size(); ++k) scale(p.second, k, s[p.in_second(k)]);
    if (p.bias != graph::kNone)
      for (size_t c = 0; c < s.size(); ++c) scale(p.bias, c, 1 / s[c]);
    return most;
  }

  const Network& net_;
  std::vector<std::vector<int32_t>> uses_;
  std::vector<Pair> pairs_;
  std::map<ValueId, std::vector<double>> values_, factors_;
};

}  // namespace

std::string EqualizeReport::table() const {
  std::vector<std::vector<std::string>> lines{{"layer", "read by", "largest ratio before", "after", "skipped"}};
  for (const EqualizedPair& p : pairs) {
    const bool done = p.skipped.empty();
    lines.push_back({p.first, p.second, done ? detail::scientific(p.before) : "",
                     done ? detail::scientific(p.after) : "", p.skipped});
  }
  return hone::detail::text_table(lines, 2);
}
int64_t EqualizeReport::equalized() const {
  return std::count_if(pairs.begin(), pairs.end(), [](const EqualizedPair& p) { return p.skipped.empty(); });
}

EqualizeReport equalize(Network& network, EqualizeOptions o) {
  HONE_CHECK(o.rounds >= 1 && o.tolerance >= 0, ValueError, "equalize: ", o.rounds, " rounds and tolerance ",
             o.tolerance, "; they must be at least 1 and 0");
  const graph::detail::Quiet quiet;
  Equalizer e(network);
  e.run(o);
  for (const auto& [v, factors] : e.factors()) {  // of the raw values: what masks hide stays as it would have been
    const ParameterRef& p = network.parameter(v).ref();
    std::vector<double> w = p.raw().to_vector<double>();
    for (size_t k = 0; k < w.size(); ++k) w[k] *= factors[k];
    p.replace(cast(tensor(w, p.raw().shape()), p.raw().dtype()));
  }
  return e.report;
}

}  // namespace hone::compress::quantize
