#include "hone/compress/quantize/kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "hone/core/error.h"
#include "hone/core/random.h"

namespace hone::compress::quantize {
namespace {

constexpr size_t kMostBins = 16384;

/// Distinct values in ascending order with their weights, and sums over any run of them. Values are taken from their
/// mean, so that sums of squares lose few digits.
class Sorted {
 public:
  Sorted(std::span<const double> values, std::span<const double> weights) {
    std::vector<size_t> order;
    for (size_t i = 0; i < values.size(); ++i)
      if (weights.empty() || weights[i] > 0) order.push_back(i);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
    for (const size_t i : order) {
      const double w = weights.empty() ? 1 : weights[i];
      if (v_.empty() || v_.back() != values[i])
        v_.push_back(values[i]), w_.push_back(w);
      else
        w_.back() += w;
    }
    sum_up();
  }
  Sorted(std::vector<double> v, std::vector<double> w) : v_(std::move(v)), w_(std::move(w)) { sum_up(); }

  size_t size() const { return v_.size(); }
  double value(size_t i) const { return v_[i]; }
  double weight(size_t begin, size_t end) const { return static_cast<double>(weight_[end] - weight_[begin]); }
  double mean(size_t begin, size_t end) const {
    if (end - begin == 1) return v_[begin];
    return center_ + static_cast<double>((first_[end] - first_[begin]) / (weight_[end] - weight_[begin]));
  }
  /// Σ w (v − mean)² over [begin, end).
  double cost(size_t begin, size_t end) const {
    if (end - begin < 2) return 0;
    const long double s = first_[end] - first_[begin];
    return std::max(0.0, static_cast<double>(second_[end] - second_[begin] - s * s / (weight_[end] - weight_[begin])));
  }
  /// Σ w (v − c)² over [begin, end).
  double cost_from(double c, size_t begin, size_t end) const {
    if (begin == end) return 0;
    const double off = c - mean(begin, end);
    return cost(begin, end) + weight(begin, end) * off * off;
  }
  /// The first value above x.
  size_t above(double x) const { return static_cast<size_t>(std::upper_bound(v_.begin(), v_.end(), x) - v_.begin()); }
  /// The value at share p of the whole weight.
  double quantile(double p) const {
    const long double at = static_cast<long double>(p) * weight_.back();
    const auto it = std::lower_bound(weight_.begin() + 1, weight_.end(), at);
    return v_[std::min(static_cast<size_t>(it - weight_.begin()) - 1, size() - 1)];
  }
  /// Runs of neighbours, `bins` of about equal length, each as its mean.
  Sorted merged(size_t bins) const {
    std::vector<double> v, w;
    for (size_t b = 0; b < bins; ++b) {
      const size_t begin = size() * b / bins, end = size() * (b + 1) / bins;
      v.push_back(mean(begin, end)), w.push_back(weight(begin, end));
    }
    return {std::move(v), std::move(w)};
  }

 private:
  void sum_up() {
    long double s = 0, w = 0;
    for (size_t i = 0; i < size(); ++i) s += static_cast<long double>(w_[i]) * v_[i], w += w_[i];
    center_ = static_cast<double>(s / w);
    weight_.assign(size() + 1, 0), first_ = second_ = weight_;
    for (size_t i = 0; i < size(); ++i) {
      const long double d = static_cast<long double>(v_[i]) - center_;
      weight_[i + 1] = weight_[i] + w_[i];
      first_[i + 1] = first_[i] + w_[i] * d;
      second_[i + 1] = second_[i] + w_[i] * d * d;
    }
  }

  std::vector<double> v_, w_;
  double center_ = 0;
  std::vector<long double> weight_, first_, second_;  // sums of w, w d, w d² over the values before each place
};

/// The largest value that goes to the lower of two ascending centroids. Below the upper one, which is its own nearest:
/// the middle of two neighbours among the numbers may round to it.
double middle(double lower, double upper) {
  const double m = std::midpoint(lower, upper);
  return m < upper ? m : lower;
}
/// Ends of the segments of ascending centroids.
std::vector<size_t> assign(const Sorted& values, const std::vector<double>& centroids) {
  std::vector<size_t> ends;
  for (size_t k = 0; k + 1 < centroids.size(); ++k)
    ends.push_back(values.above(middle(centroids[k], centroids[k + 1])));
  ends.push_back(values.size());
  return ends;
}

std::vector<double> start_of(const Sorted& values, const KMeansOptions& o) {
  const auto k = static_cast<size_t>(o.clusters);
  std::vector<double> c;
  if (o.start == KMeansStart::random) {
    const Philox random = next_stream();
    std::vector<size_t> places(values.size());
    std::iota(places.begin(), places.end(), size_t{0});
    for (size_t i = 0; i < k; ++i) {
      const auto word = random(i);
      std::swap(places[i], places[i + below(uint64_t{word[0]} << 32 | word[1], places.size() - i)]);
      c.push_back(values.value(places[i]));
    }
    std::sort(c.begin(), c.end());
    return c;
  }
  const double low = values.value(0), high = values.value(values.size() - 1);
  for (size_t i = 0; i < k; ++i) {
    const double at = static_cast<double>(i), n = static_cast<double>(k);
    c.push_back(o.start == KMeansStart::density ? values.quantile((at + 0.5) / n)
                : k == 1                        ? std::midpoint(low, high)
                                                : std::lerp(low, high, at / (n - 1)));
  }
  return c;
}

/// Centroids of the best clusters: best[j][i], the least distortion of the first i values in j clusters, is
/// min over m of best[j−1][m] + cost(m, i), whose best m never falls as i grows.
class Optimal {
 public:
  Optimal(const Sorted& values, size_t clusters) : values_(values), n_(values.size()) {
    former_.resize(n_ + 1), best_.resize(n_ + 1);
    for (size_t i = 0; i <= n_; ++i) best_[i] = values.cost(0, i);
    cut_.assign(clusters, std::vector<uint32_t>(n_ + 1, 0));
    for (size_t j = 1; j < clusters; ++j) {
      former_.swap(best_);
      fill(cut_[j], j + 1, n_, j, n_ - 1);
    }
    size_t end = n_;
    for (size_t j = clusters; j-- > 0;) {
      const size_t begin = cut_[j][end];
      centroids.push_back(values.mean(begin, end));
      end = begin;
    }
    std::reverse(centroids.begin(), centroids.end());
  }
  std::vector<double> centroids;

 private:
  /// best_ and cut of [from, to], whose cuts lie in [least, most]. Halving: some 14 calls deep.
  void fill(std::vector<uint32_t>& cut, size_t from, size_t to, size_t least, size_t most) {
    if (from > to) return;
    const size_t i = from + (to - from) / 2;
    double best = std::numeric_limits<double>::infinity();
    size_t at = least;
    for (size_t m = least; m <= std::min(most, i - 1); ++m) {
      const double d = former_[m] + values_.cost(m, i);
      if (d < best) best = d, at = m;
    }
    best_[i] = best, cut[i] = static_cast<uint32_t>(at);
    fill(cut, from, i - 1, least, at);
    fill(cut, i + 1, to, at, most);
  }

  const Sorted& values_;
  size_t n_;
  std::vector<double> former_, best_;
  std::vector<std::vector<uint32_t>> cut_;
};

/// Centroids without values go to the far end of the cluster of largest distortion, one after the other. One that lies
/// on a value keeps it, so each of them moves once at most.
void fill_empty(const Sorted& values, std::vector<double>& centroids) {
  for (bool moved = true; moved;) {
    moved = false;
    const std::vector<size_t> ends = assign(values, centroids);
    double worst = 0, to = 0;
    size_t empty = ends.size();
    for (size_t k = 0, begin = 0; k < ends.size(); begin = ends[k++]) {
      if (begin == ends[k]) {
        empty = k;
        continue;
      }
      if (const double cost = values.cost_from(centroids[k], begin, ends[k]); cost > worst) {
        const double first = values.value(begin), last = values.value(ends[k] - 1);
        worst = cost, to = centroids[k] - first > last - centroids[k] ? first : last;
      }
    }
    if (empty < ends.size() && worst > 0) {
      centroids[empty] = to;
      std::sort(centroids.begin(), centroids.end());
      moved = true;
    }
  }
}

void check(std::span<const double> values, const KMeansOptions& o, std::span<const double> weights) {
  HONE_CHECK(o.clusters >= 1, ValueError, "kmeans: clusters must be at least 1, got ", o.clusters);
  HONE_CHECK(o.iterations >= 1, ValueError, "kmeans: iterations must be at least 1, got ", o.iterations);
  HONE_CHECK(!values.empty(), ValueError, "kmeans: there are no values");
  HONE_CHECK(weights.empty() || weights.size() == values.size(), ValueError, "kmeans: ", weights.size(),
             " weights for ", values.size(), " values");
  for (size_t i = 0; i < values.size(); ++i) {
    HONE_CHECK(std::isfinite(values[i]), ValueError, "kmeans: value ", i, " is ", values[i]);
    if (!weights.empty())
      HONE_CHECK(std::isfinite(weights[i]) && weights[i] >= 0, ValueError, "kmeans: weight ", i, " is ", weights[i],
                 "; it must be finite and at least 0");
  }
  HONE_CHECK(weights.empty() || std::any_of(weights.begin(), weights.end(), [](double w) { return w > 0; }), ValueError,
             "kmeans: all weights are 0");
}

}  // namespace

const char* name(KMeansStart s) {
  constexpr const char* names[] = {"linear", "density", "random", "optimal"};
  return names[static_cast<int>(s)];
}

KMeans kmeans(std::span<const double> values, const KMeansOptions& options, std::span<const double> weights) {
  check(values, options, weights);
  const Sorted sorted(values, weights);
  KMeansOptions o = options;
  o.clusters = std::min(o.clusters, static_cast<int64_t>(sorted.size()));
  const auto k = static_cast<size_t>(o.clusters);
  KMeans found;
  std::vector<double>& c = found.centroids;
  if (o.start == KMeansStart::optimal)
    c = sorted.size() > std::max(kMostBins, k) ? Optimal(sorted.merged(std::max(kMostBins, k)), k).centroids
                                               : Optimal(sorted, k).centroids;
  else
    c = start_of(sorted, o);

  std::vector<double> best;
  for (int64_t i = 0; i <= o.iterations; ++i) {
    fill_empty(sorted, c);
    const std::vector<size_t> ends = assign(sorted, c);
    double d = 0;
    for (size_t j = 0, begin = 0; j < k; begin = ends[j++]) d += sorted.cost_from(c[j], begin, ends[j]);
    if (!found.distortions.empty() && d >= found.distortions.back()) break;
    found.distortions.push_back(d);
    best = c;
    for (size_t j = 0, begin = 0; j < k; begin = ends[j++])
      if (begin < ends[j]) c[j] = sorted.mean(begin, ends[j]);
  }
  c = best;

  // Codes by the same middles as assign(), so each value has the centroid that its distortion was counted for.
  std::vector<double> middles;
  for (size_t j = 0; j + 1 < k; ++j) middles.push_back(middle(c[j], c[j + 1]));
  found.codes.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto code = std::lower_bound(middles.begin(), middles.end(), values[i]) - middles.begin();
    const double off = values[i] - c[static_cast<size_t>(code)];
    found.codes.push_back(static_cast<int32_t>(code));
    found.distortion += (weights.empty() ? 1 : weights[i]) * off * off;
  }
  return found;
}

}  // namespace hone::compress::quantize
