#include "hone/core/data/imbalance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/basic_ops.h"
#include "hone/core/data/assemble.h"
#include "hone/core/error.h"

namespace hone::data {
namespace {

void check_counts(const char* op, std::span<const int64_t> counts) {
  HONE_CHECK(!counts.empty(), ValueError, op, ": counts of no classes");
  for (size_t c = 0; c < counts.size(); ++c) {
    HONE_CHECK(counts[c] >= 0, ValueError, op, ": the count of class ", c, " must be above 0, got ", counts[c]);
    HONE_CHECK(counts[c] != 0, ValueError, op, ": class ", c, " has no samples; leave it out");
  }
}

Tensor to_f32(const std::vector<double>& v) { return tensor(std::vector<float>(v.begin(), v.end())); }

Tensor with_mean_one(std::vector<double> w) {
  double sum = 0;
  for (const double v : w) sum += v;
  for (double& v : w) v *= static_cast<double>(w.size()) / sum;
  return to_f32(w);
}

}  // namespace

std::vector<int64_t> class_labels(const Dataset& dataset) {
  const Tensor& y = dataset.all_targets();
  HONE_CHECK(y.defined(), ValueError, "class_labels: the dataset was never given tensors");
  HONE_CHECK(y.ndim() == 1, ShapeError, "class_labels: targets must have shape [N], got ", y.shape());
  HONE_CHECK(is_integer(y.dtype()), DTypeError, "class_labels: targets must be integer, got ", y.dtype());
  const std::vector<int64_t> rows = y.to_vector<int64_t>();
  std::vector<int64_t> labels(static_cast<size_t>(dataset.size()));
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[i] = rows[static_cast<size_t>(dataset.row(static_cast<int64_t>(i)))];
    HONE_CHECK(labels[i] >= 0, ValueError, "class_labels: label ", labels[i], " at ", i, " is negative");
  }
  return labels;
}

std::vector<int64_t> class_counts(const Dataset& dataset, int64_t classes) {
  HONE_CHECK(classes >= 0, ValueError, "class_counts: classes must be at least 0, got ", classes);
  const std::vector<int64_t> labels = class_labels(dataset);
  const int64_t most = labels.empty() ? -1 : *std::max_element(labels.begin(), labels.end());
  if (classes == 0) {
    HONE_CHECK(most < int64_t{1} << 24, ValueError, "class_counts: the largest label, ", most,
               ", is no class; say how many classes there are");
    classes = most + 1;
  }
  HONE_CHECK(most < classes, ValueError, "class_counts: label ", most, " is outside [0, ", classes, ")");
  std::vector<int64_t> counts(static_cast<size_t>(classes), 0);
  for (const int64_t c : labels) ++counts[static_cast<size_t>(c)];
  return counts;
}

Tensor inverse_frequency_weights(std::span<const int64_t> counts) {
  check_counts("inverse_frequency_weights", counts);
  std::vector<double> w;
  for (const int64_t n : counts) w.push_back(1 / static_cast<double>(n));
  return with_mean_one(std::move(w));
}

Tensor effective_number_weights(std::span<const int64_t> counts, double beta) {
  check_counts("effective_number_weights", counts);
  HONE_CHECK(beta >= 0 && beta < 1, ValueError, "effective_number_weights: beta must be in [0, 1), got ", beta);
  // 1 − β^n as −expm1(n log β): β^n is close to 1 where β is. At β = 0, n log β is −inf and the weight 1.
  std::vector<double> w;
  for (const int64_t n : counts) w.push_back((1 - beta) / -std::expm1(static_cast<double>(n) * std::log(beta)));
  return with_mean_one(std::move(w));
}

Tensor log_priors(std::span<const int64_t> counts) {
  check_counts("log_priors", counts);
  double total = 0;
  for (const int64_t n : counts) total += static_cast<double>(n);
  std::vector<double> v;
  for (const int64_t n : counts) v.push_back(std::log(static_cast<double>(n) / total));
  return to_f32(v);
}

Dataset long_tailed(const Dataset& dataset, const LongTailedOptions& o) {
  HONE_CHECK(std::isfinite(o.ratio) && o.ratio >= 1, ValueError,
             "long_tailed: ratio must be finite and at least 1, got ", o.ratio);
  HONE_CHECK(o.largest >= 0, ValueError, "long_tailed: largest must be at least 0, got ", o.largest);
  const std::vector<int64_t> counts = class_counts(dataset, o.classes), labels = class_labels(dataset);
  const auto classes = static_cast<int64_t>(counts.size());
  const auto share = [&](int64_t c) {
    return classes == 1 ? 1 : std::pow(o.ratio, -static_cast<double>(c) / static_cast<double>(classes - 1));
  };
  // A hair above, so that what is whole on paper is not one less by rounding.
  const auto whole = [](double v) { return std::floor(v * (1 + 1e-12)); };
  const auto wanted = [&](double first, int64_t c) {
    return std::max<int64_t>(1, static_cast<int64_t>(whole(first * share(c))));
  };
  auto first = static_cast<double>(o.largest);
  if (o.largest == 0) {
    first = std::numeric_limits<double>::max();
    for (int64_t c = 0; c < classes; ++c)
      first = std::min(first, whole(static_cast<double>(counts[static_cast<size_t>(c)]) / share(c)));
  }
  std::vector<std::vector<int64_t>> of_class(counts.size());
  for (size_t i = 0; i < labels.size(); ++i)
    of_class[static_cast<size_t>(labels[i])].push_back(static_cast<int64_t>(i));
  std::vector<int64_t> kept, order;
  for (int64_t c = 0; c < classes; ++c) {
    const std::vector<int64_t>& own = of_class[static_cast<size_t>(c)];
    const int64_t n = wanted(first, c), has = static_cast<int64_t>(own.size());
    HONE_CHECK(n <= has, ValueError, "long_tailed: class ", c, " should keep ", n, " samples but has ", has);
    order.resize(own.size());
    detail::permutation(order, o.seed, detail::stream_of(detail::kLongTail, c));
    for (int64_t i = 0; i < n; ++i) kept.push_back(own[static_cast<size_t>(order[static_cast<size_t>(i)])]);
  }
  std::sort(kept.begin(), kept.end());
  return dataset.subset(std::move(kept));
}

}  // namespace hone::data
