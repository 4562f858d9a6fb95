#include "hone/compress/distill/ensemble.h"

#include <cmath>

#include "hone/compress/distill/checks.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/reduce.h"
#include "hone/ops/shape_ops.h"
#include "hone/ops/softmax.h"

namespace hone::compress {
namespace {

constexpr const char* kName = "ensemble_logits";

/// Weights of sum 1, one for each of `count` members.
std::vector<double> shares(const EnsembleOptions& o, size_t count) {
  std::vector<double> w = o.weights.empty() ? std::vector<double>(count, 1.0) : o.weights;
  HONE_CHECK(w.size() == count, ValueError, kName, ": ", w.size(), " weights for ", count, " members");
  double total = 0;
  for (const double v : w) {
    detail::check_weight(kName, "a weight", v);
    total += v;
  }
  HONE_CHECK(total > 0 && std::isfinite(total), ValueError, kName, ": the weights sum to ", total);
  for (double& v : w) v /= total;
  return w;
}

}  // namespace

Tensor ensemble_logits(std::span<const Tensor> logits, const EnsembleOptions& o) {
  HONE_CHECK(!logits.empty(), ValueError, kName, ": there are no members");
  detail::check_temperature(kName, o.temperature);
  for (size_t k = 0; k < logits.size(); ++k) {
    HONE_CHECK(logits[k].defined(), ValueError, kName, ": the logits of member ", k, " are undefined");
    const Tensor& first = logits[0];
    HONE_CHECK(is_floating(logits[k].dtype()) && logits[k].dtype() == first.dtype(), DTypeError, kName, ": member ", k,
               " has logits of dtype ", logits[k].dtype(), "; expected one floating dtype (member 0: ", first.dtype(),
               ")");
    HONE_CHECK(logits[k].ndim() == 2 && logits[k].shape() == first.shape(), ShapeError, kName, ": member ", k,
               " has logits of shape ", logits[k].shape(), "; expected [N, C] as member 0, ", first.shape());
  }
  const std::vector<double> w = shares(o, logits.size());
  const bool probabilities = o.mean == EnsembleMean::probabilities;
  std::vector<Tensor> terms;
  for (size_t k = 0; k < logits.size(); ++k) {
    if (w[k] == 0) continue;
    const Tensor z = detail::widened(logits[k]);
    terms.push_back(probabilities ? log_softmax(z / o.temperature, 1) + std::log(w[k]) : z * w[k]);
  }
  const Tensor all = stack(terms);
  return detail::narrowed(probabilities ? logsumexp(all, 0) * o.temperature : sum(all, 0), logits[0].dtype());
}

Ensemble& Ensemble::add(const nn::Module& member) {
  members.emplace_back(member.clone());
  return *this;
}

Tensor Ensemble::forward(const Tensor& x) {
  std::vector<Tensor> logits;
  for (const nn::AnyModule& m : members) logits.push_back(m(x));
  return ensemble_logits(logits, options);
}

}  // namespace hone::compress
