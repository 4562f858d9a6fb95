// 1-D k-means against exhaustive search and plain loops.

#include <algorithm>
#include <functional>
#include <numeric>

#include "support.h"

namespace hone::test {
namespace {

using namespace compress::quantize;

std::vector<double> normal(int64_t n, uint64_t seed) {
  manual_seed(seed);
  return randn({n}, f64).to_vector<double>();
}

double plain_distortion(const std::vector<double>& values, const std::vector<double>& centroids,
                        const std::vector<double>& weights = {}) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    double least = INFINITY;
    for (const double c : centroids) least = std::min(least, (values[i] - c) * (values[i] - c));
    sum += (weights.empty() ? 1 : weights[i]) * least;
  }
  return sum;
}

// The least distortion over every way to cut the sorted values into k runs.
double exhaustive(std::vector<double> values, std::vector<double> weights, int k) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  const auto cost = [&](size_t begin, size_t end) {
    double w = 0, s = 0, d = 0;
    for (size_t i = begin; i < end; ++i) w += weights[order[i]], s += weights[order[i]] * values[order[i]];
    for (size_t i = begin; i < end; ++i) d += weights[order[i]] * std::pow(values[order[i]] - s / w, 2);
    return d;
  };
  const std::function<double(size_t, int)> best = [&](size_t begin, int left) {
    if (left == 1) return cost(begin, order.size());
    double least = INFINITY;
    for (size_t end = begin + 1; end + static_cast<size_t>(left) - 1 <= order.size(); ++end)
      least = std::min(least, cost(begin, end) + best(end, left - 1));
    return least;
  };
  return best(0, k);
}

TEST(KMeans, DistortionFallsAndIsThatOfTheNearestCentroids) {
  for (const KMeansStart start :
       {KMeansStart::linear, KMeansStart::density, KMeansStart::random, KMeansStart::optimal}) {
    for (const int64_t k : {1, 2, 7, 32}) {
      const std::vector<double> values = normal(3000, 5);
      const KMeans found = kmeans(values, {.clusters = k, .start = start});
      ASSERT_EQ(found.centroids.size(), static_cast<size_t>(k));
      EXPECT_TRUE(std::is_sorted(found.centroids.begin(), found.centroids.end()));
      ASSERT_FALSE(found.distortions.empty());
      for (size_t i = 1; i < found.distortions.size(); ++i) EXPECT_LT(found.distortions[i], found.distortions[i - 1]);
      const double plain = plain_distortion(values, found.centroids);
      EXPECT_NEAR(found.distortion, plain, 1e-12 * plain);
      EXPECT_NEAR(found.distortions.back(), plain, 1e-9 * plain);
      // A fixed point: each centroid is the mean of its values, and no cluster is empty.
      for (size_t c = 0; c < found.centroids.size(); ++c) {
        double sum = 0, count = 0;
        for (size_t i = 0; i < values.size(); ++i)
          if (found.codes[i] == static_cast<int32_t>(c)) sum += values[i], ++count;
        ASSERT_GT(count, 0) << name(start) << " k " << k << " cluster " << c;
        EXPECT_NEAR(found.centroids[c], sum / count, 1e-10) << name(start) << " k " << k << " cluster " << c;
      }
    }
  }
}

TEST(KMeans, OptimalIsTheBestOfAllCuts) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    const std::vector<double> values = normal(11, seed), at = normal(11, seed + 100);
    std::vector<double> weights;
    for (const double a : at) weights.push_back(std::abs(a) + 0.1);
    for (const int k : {1, 2, 3, 5, 10}) {
      const double least = exhaustive(values, weights, k);
      const KMeans found = kmeans(values, {.clusters = k, .start = KMeansStart::optimal}, weights);
      EXPECT_NEAR(found.distortion, least, 1e-9 * least + 1e-14) << "seed " << seed << " k " << k;
      for (const KMeansStart s : {KMeansStart::linear, KMeansStart::density, KMeansStart::random})
        EXPECT_GE(kmeans(values, {.clusters = k, .start = s}, weights).distortion, least * (1 - 1e-9) - 1e-14);
    }
  }
}

TEST(KMeans, OptimalOverManyValuesBeatsEveryOtherStart) {
  const std::vector<double> values = normal(60000, 3);  // more than the bins
  const double best = kmeans(values, {.clusters = 16, .start = KMeansStart::optimal}).distortion;
  for (const KMeansStart s : {KMeansStart::linear, KMeansStart::density, KMeansStart::random})
    EXPECT_LE(best, kmeans(values, {.clusters = 16, .start = s}).distortion * (1 + 1e-3)) << name(s);
}

TEST(KMeans, WeightsCountAsRepeatedValues) {
  const std::vector<double> values = {-1, 0, 0.5, 2, 7}, weights = {1, 3, 2, 0, 4};
  std::vector<double> repeated;
  for (size_t i = 0; i < values.size(); ++i)
    repeated.insert(repeated.end(), static_cast<size_t>(weights[i]), values[i]);
  for (const KMeansStart s : {KMeansStart::linear, KMeansStart::density, KMeansStart::optimal}) {
    const KMeans a = kmeans(values, {.clusters = 2, .start = s}, weights),
                 b = kmeans(repeated, {.clusters = 2, .start = s});
    EXPECT_NEAR(a.distortion, b.distortion, 1e-12);
    expect_close(a.centroids, b.centroids, {1e-12, 1e-12}, name(s));
  }
}

TEST(KMeans, FewDistinctValuesAreTheirOwnCentroids) {
  const std::vector<double> values = {0.3, -2, 0.3, 5, -2, 0.3};
  for (const KMeansStart s : {KMeansStart::linear, KMeansStart::density, KMeansStart::random, KMeansStart::optimal}) {
    const KMeans found = kmeans(values, {.clusters = 16, .start = s});
    EXPECT_EQ(found.centroids, (std::vector<double>{-2, 0.3, 5})) << name(s);
    EXPECT_EQ(found.codes, (std::vector<int32_t>{1, 0, 1, 2, 0, 1})) << name(s);
    EXPECT_EQ(found.distortion, 0) << name(s);
  }
}

TEST(KMeans, EmptyClustersAreFilled) {
  // Linear centroids over an outlier: all but two begin without a value.
  std::vector<double> values = normal(500, 9);
  values.push_back(1e6);
  const KMeans found = kmeans(values, {.clusters = 8});
  std::vector<int> count(8, 0);
  for (const int32_t c : found.codes) ++count[static_cast<size_t>(c)];
  EXPECT_EQ(*std::min_element(count.begin(), count.end()) > 0, true);
  EXPECT_LT(found.distortion, 60) << "seven clusters are left for the values around 0";
}

TEST(KMeans, LinearStartAsWritten) {
  // Even values: the start is already a fixed point, so it can be read off.
  const std::vector<double> values = {0, 1, 10, 11, 20, 21};
  const KMeans found = kmeans(values, {.clusters = 3, .iterations = 1});
  expect_close(found.centroids, {0.5, 10.5, 20.5}, {1e-12, 0}, "centroids");
  EXPECT_NEAR(found.distortions[0], (1 + 0.25 + 0.25 + 1) + 0, 1e-9) << "centroids 0, 10.5, 21 before any update";
}

TEST(KMeans, RandomFollowsTheGenerator) {
  const std::vector<double> values = normal(200, 4);
  manual_seed(1);
  const KMeans a = kmeans(values, {.clusters = 5, .start = KMeansStart::random, .iterations = 1});
  manual_seed(1);
  const KMeans b = kmeans(values, {.clusters = 5, .start = KMeansStart::random, .iterations = 1});
  const KMeans c = kmeans(values, {.clusters = 5, .start = KMeansStart::random, .iterations = 1});
  EXPECT_EQ(a.centroids, b.centroids);
  EXPECT_NE(a.centroids, c.centroids);
}

TEST(KMeans, RefusesWhatCannotBeClustered) {
  const std::vector<double> values = {1, 2};
  expect_error<ValueError>([&] { kmeans({}, {}); }, "no values");
  expect_error<ValueError>([&] { kmeans(values, {.clusters = 0}); }, "clusters");
  expect_error<ValueError>([&] { kmeans(values, {.iterations = 0}); }, "iterations");
  expect_error<ValueError>([&] { kmeans(std::vector<double>{1, NAN}, {}); }, {"value 1", "nan"});
  expect_error<ValueError>([&] { kmeans(values, {}, std::vector<double>{1}); }, "1 weights for 2 values");
  expect_error<ValueError>([&] { kmeans(values, {}, std::vector<double>{1, -1}); }, "weight 1");
  expect_error<ValueError>([&] { kmeans(values, {}, std::vector<double>{0, 0}); }, "all weights");
}

TEST(KMeans, EndsOnNeighboursAmongTheNumbers) {
  // The middle of two neighbours rounds to one of them: each is its own centroid all the same.
  for (const KMeansStart start :
       {KMeansStart::linear, KMeansStart::density, KMeansStart::random, KMeansStart::optimal}) {
    for (const double from : {1.0, 1 + 0x1p-52, -1.0, 0.1, 5e-324, 1e300}) {
      std::vector<double> values = {from};
      for (int i = 0; i < 4; ++i) values.push_back(std::nextafter(values.back(), INFINITY));
      for (int64_t k = 1; k <= 5; ++k) {
        const KMeans found = kmeans(values, {.clusters = k, .start = start});
        ASSERT_EQ(found.centroids.size(), static_cast<size_t>(k));
        if (k < 5) continue;
        EXPECT_EQ(found.centroids, values) << name(start) << " from " << from;
        EXPECT_EQ(found.codes, (std::vector<int32_t>{0, 1, 2, 3, 4})) << name(start) << " from " << from;
        EXPECT_EQ(found.distortion, 0);
      }
      const KMeans two = kmeans(std::vector<double>{values[0], values[1]}, {.clusters = 2, .start = start});
      EXPECT_EQ(two.codes, (std::vector<int32_t>{0, 1})) << name(start) << " from " << from;
    }
  }
}

}  // namespace
}  // namespace hone::test
