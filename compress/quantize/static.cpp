#include "hone/compress/quantize/static.h"

#include <algorithm>
#include <map>
#include <optional>

#include "hone/compress/graph/pass_support.h"
#include "hone/compress/quantize/converter.h"
#include "hone/compress/quantize/equalize.h"
#include "hone/ops/matmul.h"

namespace hone::compress::quantize {
namespace {

using graph::Network;
using graph::Node;
using graph::ValueId;

/// f(), its errors with the name of a node or value before them.
template <class F> auto named(const std::string& name, const F& f) {
  const auto text = [&](const Error& e) { return str("quantize_static: '", name, "': ", e.what()); };
  try {
    return f();
  } catch (const ShapeError& e) { throw ShapeError(text(e)); } catch (const ValueError& e) {
    throw ValueError(text(e));
  } catch (const NumericError& e) { throw NumericError(text(e)); }
}

/// What calibration finds out of one value.
struct Watched {
  std::optional<Observer> observer;  // where its range is wanted
  /// The means over all but one dim, whose elements are the input channels of the products that read it so.
  struct Means {
    std::vector<size_t> nodes;
    std::vector<double> sums;
    double count = 0;
    void see(const Tensor& x, int dim) {
      if (nodes.empty() || x.numel() == 0) return;
      const int64_t n = x.size(dim);
      int64_t inner = 1;
      for (int d = dim + 1; d < x.ndim(); ++d) inner *= x.size(d);
      sums.resize(static_cast<size_t>(n), 0);
      const std::vector<double> v = x.to_vector<double>();
      for (size_t i = 0; i < v.size(); ++i) sums[i / static_cast<size_t>(inner) % static_cast<size_t>(n)] += v[i];
      count += static_cast<double>(x.numel() / n);
    }
  };
  Means by_channel, by_last;                                    // of convolutions, of linear layers
  std::vector<std::pair<size_t, detail::InputMoment>> moments;  // of the products that read it
  void see(const Tensor& x) {
    if (observer) observer->see(x);
    for (auto& [node, moment] : moments) moment.see(x);
    by_channel.see(x, 1), by_last.see(x, x.ndim() - 1);
  }
};

/// Fills in what `to` has to know. Returns the moment of each product's input, where wanted.
std::map<size_t, Tensor> calibrate(const Network& net, const Calibration& data, const StaticOptions& o,
                                   detail::Converter& to) {
  ObserverOptions activations = o.activations;
  activations.spec = detail::kCodes;
  std::map<ValueId, Watched> watched;
  for (const ValueId v : to.scaled()) watched[v].observer.emplace(activations);
  for (size_t i = 0; i < net.nodes().size(); ++i) {
    const Node& n = net.nodes()[i];
    if (to.form(i) != detail::Form::product || (!o.bias_correction && !o.ada_round)) continue;
    Watched& x = watched[n.inputs[0]];
    if (o.ada_round) x.moments.emplace_back(i, detail::InputMoment(n, graph::at(net.value(n.inputs[1]).shape, 0)));
    if (o.bias_correction) (n.op == &kLinear ? x.by_last : x.by_channel).nodes.push_back(i);
  }
  Network run = net;
  std::vector<ValueId> values;
  for (const auto& [v, w] : watched) values.push_back(v);
  run.set_outputs(values);
  run.eval();
  data([&](const Tensor& x) {
    const std::vector<Tensor> seen = run.run({x});
    size_t k = 0;
    for (auto& entry : watched) named(net.value(entry.first).name, [&] { entry.second.see(seen[k++]); });
  });
  std::map<size_t, Tensor> moments;
  for (const auto& [v, w] : watched) {
    HONE_CHECK(!w.observer || w.observer->seen() > 0, ValueError, "quantize_static: the calibration data has no batch");
    if (w.observer) to.range[v] = w.observer->range();
    for (const Watched::Means* m : {&w.by_channel, &w.by_last})
      for (const size_t node : m->nodes) {
        to.mean[node] = m->sums;
        for (double& sum : to.mean[node]) sum /= std::max(m->count, 1.0);
      }
    for (const auto& [node, moment] : w.moments) moments[node] = moment.value();
  }
  return moments;
}

}  // namespace

Calibration calibration(std::vector<Tensor> batches) {
  return [batches = std::move(batches)](const auto& visit) {
    for (const Tensor& x : batches) visit(x);
  };
}

Network quantize_static(const Network& network, const Calibration& data, StaticOptions options, StaticCounts* counts) {
  detail::check_weights("quantize_static", options.bits, options.weights);
  HONE_CHECK(data, ValueError,
             "quantize_static: no calibration data; calibration() makes it of a loader or of batches");
  const graph::detail::Quiet quiet;
  Network folded = detail::folded_for_integers("quantize_static", network);
  if (options.equalize) equalize(folded);
  detail::Converter to("quantize_static", folded, options.bits, options.weights, options.float_fallback);
  const std::map<size_t, Tensor> moments = calibrate(folded, data, options, to);
  if (options.ada_round)
    to.round = [&](size_t node, const Tensor& w, const Affine& a) {
      return named(folded.nodes()[node].name, [&] { return ada_round(w, a, moments.at(node), *options.ada_round); });
    };
  for (size_t i = 0; i < folded.nodes().size(); ++i)
    if (!to.absorbed(i)) to.emit(i);
  return to.finish(counts);
}

}  // namespace hone::compress::quantize
