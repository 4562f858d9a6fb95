#pragma once
// Weight sharing: the weights of a layer take a few values, their centroids, and go on training as these. The codes are
// in the Parameters from then on: training, saving and loading, copies and tracing keep them, with the masks that
// pruning left.
//
//   compress::prune(net, {.density = 0.08});
//   train(…);
//   auto report = compress::quantize::share_weights(net, {.clusters = 32});
//   std::cout << report.table();
//   optim::Adam adam(net.parameters(), {.lr = 1e-4});   // trains the centroids: make it afterwards
//   train(…);

#include <map>
#include <string>
#include <vector>

#include "hone/compress/quantize/kmeans.h"
#include "hone/ops/nn/module.h"

namespace hone::compress::quantize {

/// Names are those of named_parameters() ("fc1.weight") or of what they begin with ("fc1").
struct ShareOptions {
  int64_t clusters = 16;                            ///< in [1, 256]
  KMeansStart start = KMeansStart::linear;          ///< Deep Compression's choice
  int64_t iterations = 300;                         ///< of k-means, at most
  std::vector<std::string> only = {}, except = {};  ///< which parameters; none: all
  std::map<std::string, int64_t> layers = {};       ///< clusters of layers that differ
  bool biases = false;                              ///< parameters of fewer than two dims too
};

/// What became of one parameter.
struct SharedLayer {
  std::string name;
  int64_t clusters = 0, kept = 0, total = 0;  ///< weights that no mask hides are kept
  double error = 0;                           ///< mean squared change of the kept weights
  double entropy = 0;                         ///< of their codes, bits a weight
  /// Codes of ⌈log2 clusters⌉ bits for what is kept, and the centroids: without the mask.
  double bits = 0;
};
struct ShareReport {
  std::vector<SharedLayer> layers = {};
  std::string table() const;  ///< a line a layer
};

/// Clusters each parameter's weights by k-means and makes it a codebook (Han et al., "Deep compression", 2016): value()
/// is centroids[codes], and the gradient of a centroid is the sum of its weights' gradients. Of a masked parameter only
/// what is kept is clustered; the mask stays, so 0 needs no centroid. Where fewer weights are distinct, there are as
/// many centroids. A parameter of which nothing is kept gets one centroid, 0. ValueError for clusters outside [1, 256],
/// a name that is not there (the nearest are offered), no parameter left, one that is a codebook or fake-quantized
/// already (bake() it first), weights that are not finite; then the module is as it was.
ShareReport share_weights(nn::Module& module, const ShareOptions& options = {});

}  // namespace hone::compress::quantize
