#pragma once
// Weight pruning: masks on Parameters. They live in the parameters from then on: training, optimizer state, saving and
// loading, copies and tracing keep them, and later pruning never revives what is masked.
//
//   auto report = compress::prune(net, {.criterion = compress::magnitude(), .density = 0.08});
//   std::cout << report.table();                   // kept and total, layer by layer
//   …                                              // train on: what is pruned stays 0
//   graph::save(graph::trace(net, sample), "net.safetensors");   // the file holds only what is kept
//
// Masks that change while training: pruner.h.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "hone/compress/prune/criteria.h"
#include "hone/compress/prune/schedules.h"
#include "hone/ops/nn/module.h"

namespace hone::compress {

/// Which weights compete with one another.
enum class PruneScope : uint8_t {
  global,     ///< all
  per_layer,  ///< those of one parameter, each with the same density
  /// The same, with densities in proportion to Σ dims / Π dims, none above 1, that make up the density of all: small
  /// layers stay denser. Mocanu et al., 2018; for kernels: Evci et al., "Rigging the lottery", 2020.
  erdos_renyi,
};

/// What is kept or pruned together, as n_m() and block() make it. A weight of more than two dims counts as a matrix
/// [dim 0, the rest].
struct Pattern {
  enum class Kind : uint8_t { unstructured, n_m, block };
  Kind kind = Kind::unstructured;
  int64_t a = 1, b = 1;
};
/// The best n of every m consecutive weights of a row; of what is left at its end, the best n too. 1 ≤ n ≤ m.
Pattern n_m(int64_t n, int64_t m);
/// Blocks of rows × cols, cut off at the edges, by their mean score. rows, cols ≥ 1.
Pattern block(int64_t rows, int64_t cols);

/// Names are those of named_parameters() ("fc1.weight") or of what they begin with ("fc1").
struct PruneOptions {
  Criterion criterion = magnitude();
  std::optional<double> density = {};  ///< in [0, 1]; N:M patterns have their own
  PruneScope scope = PruneScope::global;
  Pattern pattern = {};
  std::vector<std::string> only = {}, except = {};  ///< which parameters; none: all
  std::map<std::string, double> densities = {};     ///< layers with a density of their own, each parameter apart
  bool biases = false;                              ///< parameters of fewer than two dims too
  Losses losses = {};                               ///< data, for the criteria that need it
  PruneSchedule schedule = OneShot{};               ///< of a Pruner
};

struct LayerCount {
  std::string name;  ///< of the parameter
  int64_t kept = 0, total = 0;
};
struct PruneReport {
  std::vector<LayerCount> layers = {};
  int64_t kept() const;
  int64_t total() const;
  double density() const;     ///< kept / total; 1 where there is nothing
  std::string table() const;  ///< a line a layer, and all
};

/// Masks what scores lowest. Exactly round(density · n) weights stay of the n that compete, counted with what is masked
/// already: half is rounded away from 0, and of equal scores the earlier weight stays. What is masked stays masked:
/// where fewer are left, nothing changes. Buffers are as they were, running statistics that the losses move too. The
/// report is of the parameters that were pruned. ValueError for a density outside [0, 1] or none, a pattern that n_m()
/// or block() would refuse, a name that is not there (the nearest are offered), no parameter left to prune, a codebook
/// parameter, and what scores() throws. On any error the module is as it was.
PruneReport prune(nn::Module& module, const PruneOptions& options);

struct ThresholdOptions {
  double below = 1e-3;  ///< ≥ 0
  bool biases = true;   ///< parameters of fewer than two dims too
  std::vector<std::string> only = {}, except = {};
};
/// Masks every weight with |w| < below: the survey's program. ValueError as prune().
PruneReport threshold(nn::Module& module, const ThresholdOptions& options = {});

/// What is kept of every parameter of a module.
PruneReport prune_report(nn::Module& module);

}  // namespace hone::compress
