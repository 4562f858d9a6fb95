#pragma once
// Cross-layer equalization: what a channel's weights are times too large, those that read it are too small. Where only
// functions with f(s x) = s f(x), s > 0, lie between two layers, channel c may be divided by any s_c and what reads it
// multiplied: the network stays the same, and one scale for a tensor of weights, or for activations, fits all channels.
//
//   graph::fold_batch_norm(network);
//   std::cout << compress::quantize::equalize(network).table();
//
// Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019.

#include <cstdint>
#include <string>
#include <vector>

#include "hone/compress/graph/network.h"

namespace hone::compress::quantize {

struct EqualizeOptions {
  int64_t rounds = 20;      ///< through all pairs, at most
  double tolerance = 1e-3;  ///< it ends when no s is further than this from 1, relatively
};

/// One convolution or linear layer and the one that reads it.
struct EqualizedPair {
  std::string first, second;
  /// The largest ratio max(r1/r2, r2/r1) over channels: r1 the largest |weight| that makes a channel, r2 of those that
  /// read it; channels with an r of 0 left out.
  double before = 1, after = 1;
  std::string skipped = {};  ///< why the pair was left alone; then `second` may be empty
};
struct EqualizeReport {
  std::vector<EqualizedPair> pairs = {};  ///< one for each layer that others follow
  int64_t rounds = 0;
  int64_t equalized() const;  ///< pairs
  std::string table() const;
};

/// s_c = √(r1_c r2_c) / r2_c; w1_c ← w1_c / s_c, b1_c ← b1_c / s_c, w2_c ← s_c w2_c for each pair in turn, until r1 =
/// r2 throughout; computed in f64 and rounded once. Between the two may lie ReLU, leaky ReLU, pooling and flattening,
/// each read by nothing else; groups are followed, depthwise convolutions among them. Masks stay. A pair with anything
/// else between, or a weight or bias that is shared, quantized or no parameter, is skipped, and the report says why.
/// ValueError for options; NumericError naming a parameter that is not finite: the network is then as it was.
EqualizeReport equalize(graph::Network& network, EqualizeOptions options = {});

}  // namespace hone::compress::quantize
