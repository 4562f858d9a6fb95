#include "hone/compress/prune/scores.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "hone/compress/prune/observe.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/matmul.h"
#include "hone/ops/norm.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/unary.h"

namespace hone::compress {

const char* name(FilterCriterion c) {
  constexpr const char* names[] = {"l1", "l2", "geometric_median", "bn_gamma", "apoz", "taylor", "gradient", "random"};
  return names[static_cast<int>(c)];
}

namespace detail {
namespace {

using graph::kNone;
using graph::Network;
using graph::ValueId;
using graph::ValueKind;

/// A value whose index i along dim scores its class.
struct Scored {
  ValueId value;
  int64_t dim;
  friend auto operator<=>(const Scored&, const Scored&) = default;
};

/// For each kernel of a weight, the sum of its distances to all others: ‖a − b‖² = a² + b² − 2ab, in f64.
std::vector<double> distances(const Tensor& weight, int64_t dim) {
  const Tensor m = reshape(transpose(cast(weight.detach(), f64), 0, dim), {weight.size(dim), -1});
  const Tensor products = matmul(m, transpose(m)), squares = sum(square(m), 1, true);
  const Tensor squared = squares + transpose(squares) - products * 2.0;
  return sums_along(sqrt(maximum(squared, 0.0)), 0);
}

class Scorer {
 public:
  Scorer(Network& net, const Coupling& coupling, const std::vector<Group>& groups, const char* who)
      : net_(net), coupling_(coupling), who_(who), sums_(coupling.size()), counts_(coupling.size()) {
    wanted_.assign(coupling.size(), false);
    for (const Group& g : groups) {
      for (const int32_t c : g.classes)
        wanted_[static_cast<size_t>(c)] = coupling.blocked[static_cast<size_t>(c)].empty();
      for (const Layer& l : g.layers)
        if (l.weight != kNone) kernels_.insert({l.weight, l.weight_dim});
    }
  }

  std::vector<double> score(FilterCriterion criterion, const Pass& data) {
    switch (criterion) {
      case FilterCriterion::l1:
        each_kernel([](const Tensor& w, int64_t dim) { return sums_along(abs(w), dim); });
        return sums("kernel that is a parameter");
      case FilterCriterion::l2:
        each_kernel([](const Tensor& w, int64_t dim) { return sums_along(square(cast(w, f64)), dim); });
        return finished(sums("kernel that is a parameter"), [](double s) { return std::sqrt(s); });
      case FilterCriterion::geometric_median: each_kernel(distances); return sums("kernel that is a parameter");
      case FilterCriterion::bn_gamma:
        for (const graph::Node& n : net_.nodes())
          if (n.op == &kBatchNorm && n.inputs[3] != kNone && net_.value(n.inputs[3]).kind == ValueKind::parameter)
            add({n.inputs[3], 0}, sums_along(abs(net_.parameter(n.inputs[3]).value()), 0));
        return sums("batch norm with a weight");
      case FilterCriterion::apoz: return nonzero_share(data);
      case FilterCriterion::taylor: return first_order(data);
      case FilterCriterion::gradient: return mean_gradient(data);
      case FilterCriterion::random: break;
    }
    return rand({static_cast<int64_t>(coupling_.size())}, f64).to_vector<double>();
  }

 private:
  void add(Scored at, const std::vector<double>& scores, double count = 1) {
    const std::vector<int32_t>& classes = coupling_.at(at.value, at.dim);
    for (size_t i = 0; i < classes.size(); ++i) {
      sums_[static_cast<size_t>(classes[i])] += scores[i];
      counts_[static_cast<size_t>(classes[i])] += count;
    }
  }
  template <class F> void each_kernel(const F& row_scores) {
    for (const Scored& k : kernels_) add(k, row_scores(net_.parameter(k.value).value(), k.dim));
  }
  /// What add() summed. GraphError for a channel that got nothing.
  std::vector<double> sums(const char* what) const {
    for (size_t v = 0; v < coupling_.classes.size(); ++v)
      for (const std::vector<int32_t>& classes : coupling_.classes[v])
        for (const int32_t c : classes)
          HONE_CHECK(!wanted_[static_cast<size_t>(c)] || counts_[static_cast<size_t>(c)] > 0, GraphError, who_, ": no ",
                     what, " has the channels of '", net_.values()[v].name, "'");
    return sums_;
  }
  template <class F> static std::vector<double> finished(std::vector<double> scores, const F& f) {
    std::transform(scores.begin(), scores.end(), scores.begin(), f);
    return scores;
  }
  std::vector<double> means(const char* what) const {
    std::vector<double> scores = sums(what);
    for (size_t c = 0; c < scores.size(); ++c)
      if (counts_[c] > 0) scores[c] /= counts_[c];
    return scores;
  }

  std::vector<double> nonzero_share(const Pass& data) {
    std::vector<Scored> outputs;
    for (const graph::Node& n : net_.nodes()) {
      if (n.op != &kRelu) continue;
      const auto ndim = static_cast<int64_t>(net_.value(n.outputs[0]).shape.size());
      for (int64_t d = 0; d < ndim; ++d) {
        const std::vector<int32_t>& classes = coupling_.at(n.outputs[0], d);
        if (std::any_of(classes.begin(), classes.end(), [&](int32_t c) { return wanted_[static_cast<size_t>(c)]; }))
          outputs.push_back({n.outputs[0], d});
      }
    }
    std::vector<double> elements(outputs.size(), 0);
    std::vector<std::vector<double>> nonzero(outputs.size());
    observe(net_, who_, data, values_of(outputs), Watch::values, [&](const Observed& o) {
      for (size_t i = 0; i < outputs.size(); ++i) {
        const Tensor& y = o.values[i];
        const std::vector<double> counts = sums_along(gt(y, 0.0), outputs[i].dim);
        nonzero[i].resize(counts.size(), 0);
        std::transform(counts.begin(), counts.end(), nonzero[i].begin(), nonzero[i].begin(), std::plus<>());
        elements[i] += static_cast<double>(y.numel() / y.size(outputs[i].dim));
      }
    });
    for (size_t i = 0; i < outputs.size(); ++i)
      add(outputs[i], finished(nonzero[i], [&](double n) { return n / elements[i]; }));
    return means("ReLU");
  }

  std::vector<double> first_order(const Pass& data) {
    const std::vector<Scored> kernels(kernels_.begin(), kernels_.end());
    std::vector<double> total(coupling_.size(), 0);
    double samples = 0;
    observe(net_, who_, data, values_of(kernels), Watch::gradients, [&](const Observed& o) {
      std::fill(sums_.begin(), sums_.end(), 0);
      for (size_t i = 0; i < kernels.size(); ++i)
        if (o.gradients[i].defined())
          add(kernels[i], sums_along(cast(o.values[i], f64) * cast(o.gradients[i], f64), kernels[i].dim));
      for (size_t c = 0; c < total.size(); ++c) total[c] += o.samples * std::abs(sums_[c]);
      samples += o.samples;
    });
    for (const Scored& k : kernels)
      for (const int32_t c : coupling_.at(k.value, k.dim))
        HONE_CHECK(!wanted_[static_cast<size_t>(c)] || counts_[static_cast<size_t>(c)] > 0, GraphError, who_,
                   ": no batch's loss depends on '", net_.value(k.value).name, "', whose channels it is to score");
    for (size_t c = 0; c < total.size(); ++c) sums_[c] = total[c] / samples;
    return sums("kernel that is a parameter");
  }

  std::vector<double> mean_gradient(const Pass& data) {
    const std::vector<Scored> kernels(kernels_.begin(), kernels_.end());
    std::vector<Tensor> mean(kernels.size());
    double samples = 0;
    observe(net_, who_, data, values_of(kernels), Watch::gradients, [&](const Observed& o) {
      for (size_t i = 0; i < kernels.size(); ++i) {
        if (!o.gradients[i].defined()) continue;
        const Tensor g = cast(o.gradients[i], f64) * o.samples;
        mean[i] = mean[i].defined() ? mean[i] + g : g;
      }
      samples += o.samples;
    });
    for (size_t i = 0; i < kernels.size(); ++i) {
      const Shape& shape = net_.parameter(kernels[i].value).shape();
      const auto row = static_cast<double>(shape.numel() / shape[kernels[i].dim]);
      const Tensor g = mean[i].defined() ? abs(mean[i]) / samples : zeros(shape, f64);
      add(kernels[i], sums_along(g, kernels[i].dim), row);
    }
    return means("kernel that is a parameter");
  }

  static std::vector<ValueId> values_of(const std::vector<Scored>& scored) {
    std::vector<ValueId> values;
    for (const Scored& s : scored) values.push_back(s.value);
    return values;
  }

  Network& net_;
  const Coupling& coupling_;
  const char* who_;
  std::vector<double> sums_, counts_;  // [class]
  std::vector<bool> wanted_;
  std::set<Scored> kernels_;  // each once, whoever shares a weight
};

}  // namespace

std::vector<double> filter_scores(Network& net, const Coupling& coupling, const std::vector<Group>& groups,
                                  FilterCriterion criterion, const Pass& data, const char* who) {
  const NoGrad no_grad;
  const std::vector<double> scores = Scorer(net, coupling, groups, who).score(criterion, data);
  for (const Group& g : groups)
    for (const int32_t c : g.classes)
      HONE_CHECK(std::isfinite(scores[static_cast<size_t>(c)]), NumericError, who, ": the score of a channel of '",
                 joined(names_of(net, g)), "' is ", scores[static_cast<size_t>(c)]);
  return scores;
}

}  // namespace detail
}  // namespace hone::compress
