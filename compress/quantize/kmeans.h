#pragma once
// k-means of numbers: the clusters behind weight sharing and levels. Values are sorted once; after that clusters are
// segments, found by binary search and summed by prefix sums, so an iteration costs O(k log n).

#include <cstdint>
#include <span>
#include <vector>

namespace hone::compress::quantize {

/// Where the centroids begin. The first three: Han et al., "Deep compression", 2016.
enum class KMeansStart : uint8_t {
  linear,   ///< evenly between the least and the largest value, both included: keeps large weights, which matter most
  density,  ///< at evenly spaced quantiles
  random,   ///< distinct values drawn from the generator
  /// The best clusters there are, by dynamic programming over the sorted values (Wang and Song, "Ckmeans.1d.dp", 2011;
  /// divide and conquer makes it O(k n log n)). Above 16,384 distinct values it goes over the means of as many runs of
  /// them, and Lloyd's iterations over all values follow.
  optimal,
};
const char* name(KMeansStart s);

struct KMeansOptions {
  int64_t clusters = 16;  ///< ≥ 1; where fewer values are distinct, as many as those
  KMeansStart start = KMeansStart::linear;
  int64_t iterations = 300;  ///< at most; it ends where distortion falls no more
};

struct KMeans {
  std::vector<double> centroids;    ///< ascending, none without a value
  std::vector<int32_t> codes;       ///< of each value its nearest centroid; between two, the lower one
  double distortion = 0;            ///< Σ weight (value − its centroid)²
  std::vector<double> distortions;  ///< after each assignment, falling; the last is `distortion` to rounding
};

/// Lloyd's iterations from `start`: assign each value to its nearest centroid, make each centroid the mean of its
/// values. A centroid that loses all its values goes to the value at the end of the cluster of largest distortion, so
/// the distortion falls all the same. weights: one a value, ≥ 0, not all 0; none: 1 each. Deterministic, but for
/// `random`, which takes one stream of the generator. ValueError for no values, values or weights that are not finite,
/// and for options and weights against the above.
KMeans kmeans(std::span<const double> values, const KMeansOptions& options, std::span<const double> weights = {});

}  // namespace hone::compress::quantize
