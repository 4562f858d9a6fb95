#pragma once
// Sparse weights and codebooks at run time, chosen by measurement: every layer is timed as it is and by other forms of
// its weight, on the input that it reads, and what is faster stays.
//
//   graph::Network fast = graph::optimize(graph::trace(pruned, images));
//   const graph::SparseReport report = graph::sparsify(fast, images);
//   std::cout << report.table();      // what was timed, what was chosen, and why

#include <cstdint>
#include <string>
#include <vector>

#include "hone/compress/graph/network.h"

namespace hone::graph {

/// How the weight of a layer is stored.
struct WeightForm {
  enum class Kind : uint8_t { dense, csr, blocks, n_m, codebook };
  Kind kind = Kind::dense;
  int64_t a = 0, b = 0;

  static WeightForm csr() { return {Kind::csr}; }
  /// Sides: 1, 2, 4, 8 or 16.
  static WeightForm blocks(int64_t height, int64_t width) { return {Kind::blocks, height, width}; }
  /// n of every m = 2, 4 or 8 inputs, with the least n that holds the weight; not tried where that is above m/2.
  static WeightForm n_m(int64_t m) { return {Kind::n_m, 0, m}; }
  /// A byte a weight and a table of its values, for their bytes: of at most 256 values, which their bits tell apart and
  /// of which each is, in the mean, that of two weights or more; for what pack() packs. In a report `a` counts them.
  static WeightForm codebook() { return {Kind::codebook}; }
  friend bool operator==(const WeightForm&, const WeightForm&) = default;
};
std::string to_string(const WeightForm& form);  ///< "dense", "CSR", "8x1 blocks", "2:4", "codebook of 16"

struct SparsifyOptions {
  int threads = 1;
  double seconds = 0.2;  ///< for the forms of a layer together, which run in turn, five times each at least
  int64_t runs = 0;      ///< where above 0: exactly so many runs of each form instead
  /// The part of its time that a layer must save: another form takes less than 1 − margin of it. In (−∞, 1); below 0
  /// it may lose time, for its bytes.
  double margin = 0.05;
  /// Sparse ones are tried where a weight is 0, codebook() where it is named.
  std::vector<WeightForm> forms = {WeightForm::csr(),         WeightForm::blocks(4, 4), WeightForm::blocks(8, 1),
                                   WeightForm::blocks(16, 1), WeightForm::blocks(1, 8), WeightForm::n_m(2),
                                   WeightForm::n_m(4),        WeightForm::n_m(8)};
};

struct TimedForm {
  WeightForm form;
  int64_t bytes = 0;        ///< of the arrays that hold the weight
  double microseconds = 0;  ///< the median
};

/// A convolution or linear layer, with the activation and pooling that are one op with it.
struct SparseLayer {
  std::string name;  ///< of the node
  Shape weight;
  int64_t kept = 0;              ///< weights that are not 0
  std::vector<TimedForm> forms;  ///< the first: as it was; empty where there is no other for it
  size_t chosen = 0;             ///< of `forms`
  std::string reason;            ///< "stays dense: 4.1 us, 9.8 us by CSR with 38.0 % kept"

  int64_t total() const { return weight.numel(); }
  /// Index of the fastest form after the first; 0: none was tried.
  size_t fastest_sparse() const;
};

struct SparseReport {
  std::vector<SparseLayer> layers;  ///< in the order of the network
  int64_t batch = 1;
  int threads = 1;
  /// A line a layer: weights kept, bytes and time as it was, of its fastest sparse form, and of what was chosen; sums;
  /// then the reasons.
  std::string table() const;
};

/// Puts sparse weights (ops/packed/csr.h, block_sparse.h, n_m.h), or codebook.h's, in place of those of f32
/// convolutions and linear layers where that is faster for `sample`, the network's one input: its batch size and
/// `threads` decide, so measure as it will run. What a layer is compared with is its own op in this network: call
/// optimize() first. Weights are constants afterwards, masks applied: for inference alone. Within rounding of the
/// network before: 1e-5. ValueError for options out of range or an undefined sample, ShapeError or DTypeError for a
/// sample that is not the network's input; then nothing has changed.
SparseReport sparsify(Network& network, const Tensor& sample, const SparsifyOptions& options = {});

namespace detail {
/// Sets `chosen` and `reason` by the times of `forms`.
void choose(SparseLayer& layer, double margin);
}  // namespace detail

}  // namespace hone::graph
