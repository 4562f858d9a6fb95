#pragma once
// Passes: a Network made shorter or faster. Each changes it in place, says how many nodes it changed, and leaves one
// that runs as a Module, is saved and loaded. optimize() is all of them, for inference.
//
//   graph::Network fast = graph::optimize(graph::trace(module, images));
//   graph::save(fast, "fast.safetensors");

#include <cstdint>

#include "hone/compress/graph/network.h"

namespace hone::graph {

/// Removes nodes that run in training mode alone and forgets attributes of training mode: both modes are then eval
/// mode. Counts nodes that went or changed. GraphError naming a value that only training mode makes and eval mode
/// reads; the network is then as it was.
int64_t drop_training(Network& network);

struct FoldConstantsOptions {
  /// Parameters and buffers are constants too: for inference, since nothing of what is folded trains any more.
  bool parameters = false;
  int64_t most_growth = 1 << 20;  ///< bytes that a result may have beyond what it is made of (an expanded constant)
};

/// Computes nodes that read constants alone, and puts the result in their place. Nodes of both modes whose attributes
/// differ, ops that draw random numbers and what depends on the batch stay. Ends with remove_dead().
int64_t fold_constants(Network& network, FoldConstantsOptions options = {});

/// Puts the batch norm (of eval mode) that alone reads a convolution or linear layer into its weight and bias:
/// s = γ/√(var + ε), W ← s W, b ← s (b − mean) + β, computed in f64. A mask stays the weight's; a missing bias becomes
/// a parameter; a weight that others read too is copied; codebooks and fake-quantized parameters are left alone. The
/// folded network trains on without the norm. Within rounding of the network before: 1e-5. Ends with remove_dead().
int64_t fold_batch_norm(Network& network);

/// Puts a parameter or constant that is added to a convolution or linear layer without a bias, one number a channel,
/// in the bias' place: then norms and activations behind the add are folded and fused as well. A parameter of another
/// shape ([C, 1, 1]) becomes [C] where it is dense and the add alone reads it. The network trains on. Within rounding:
/// 1e-5. Counts adds that went. Ends with remove_dead().
int64_t fold_bias(Network& network);

/// Makes one op of a convolution, the activation that alone reads it and the max pooling that alone reads that
/// (conv2d_fused), and of a linear layer and its activation (linear_fused): the same bits, and it trains. Counts the
/// nodes that went.
int64_t fuse(Network& network);

/// Packs the weights of f32 convolutions and linear layers, fused or not, into panels (ops/packed/panels.h), as
/// constants in the weights' place, masks applied: faster, for inference alone. Convolutions keep their bits, linear
/// layers are within rounding. Convolutions that panels do not suit stay. Ends with remove_dead().
int64_t pack(Network& network);

struct OptimizeOptions {
  bool fold_bias = true, fold_batch_norm = true, fuse = true;
  /// Packs weights and computes what is made of parameters alone. False: the result still trains and keeps its
  /// parameters and masks.
  bool pack = true;
};

/// What each pass of optimize() counted.
struct OptimizeCounts {
  int64_t training = 0, constants = 0, biases = 0, batch_norms = 0, fused = 0, packed = 0, dead = 0;
};

/// A network for inference, in eval mode, that computes what `network` does in eval mode, within 1e-5.
Network optimize(Network network, OptimizeOptions options = {}, OptimizeCounts* counts = nullptr);

}  // namespace hone::graph
