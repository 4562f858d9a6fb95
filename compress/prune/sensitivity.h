#pragma once
// How much each layer bears: its accuracy when it alone is pruned.

#include <functional>
#include <string>
#include <vector>

#include "hone/compress/prune/prune.h"

namespace hone::compress {

struct SensitivityOptions {
  std::vector<double> densities = {0.5, 0.2, 0.1, 0.05, 0.02, 0.01};  ///< each in [0, 1]
  Criterion criterion = magnitude();
  Losses losses = {};
  std::vector<std::string> only = {}, except = {};
  bool biases = false;
};

struct Sensitivity {
  std::vector<std::string> layers = {};  ///< parameters
  std::vector<double> densities = {};
  double whole = 0;                             ///< score as the module is
  std::vector<std::vector<double>> score = {};  ///< [layer][density]
  std::string table() const;                    ///< a line a layer, scores in percent
};

/// Prunes one parameter at a time to each density, by scores of the module as it is, and asks `score` (accuracy on
/// held-out data, say, between 0 and 1). Values, masks and buffers are as they were afterwards, by Snapshot::restore,
/// whatever score throws or changes; gradients may be dropped. Throws what prune(), score and Snapshot::restore do.
///
///   const auto s = compress::sensitivity(net, [&] { return accuracy(net, validation); });
///   std::cout << s.table();        // a chart: a curve a layer over s.densities, as prune_lenet --report draws it
Sensitivity sensitivity(nn::Module& module, const std::function<double()>& score,
                        const SensitivityOptions& options = {});

}  // namespace hone::compress
