#pragma once
// Networks for inference in integers: static, whose activations have ranges found on calibration data, and dynamic,
// whose activations bring their range with each sample.
//
//   StaticCounts counts;
//   graph::Network small = compress::quantize::quantize_static(graph::trace(module, images),
//       compress::quantize::calibration(batches), {}, &counts);
//   graph::Executor executor(small, {.batch = 1});
//   graph::save(small, "small.safetensors");

#include <cstdint>
#include <functional>
#include <optional>

#include "hone/compress/graph/network.h"
#include "hone/compress/quantize/ada_round.h"
#include "hone/compress/quantize/observer.h"

namespace hone::compress::quantize {

/// Shows `visit` each batch of inputs in turn.
using Calibration = std::function<void(const std::function<void(const Tensor& x)>& visit)>;

/// The inputs of the first `limit` of `batches`: a data::Loader, or any range of batches with `inputs`, which must
/// outlive it.
template <class Batches>
requires requires(Batches& b) { (*b.begin()).inputs; }
Calibration calibration(Batches& batches, int64_t limit = INT64_MAX) {
  return [&batches, limit](const auto& visit) {
    int64_t seen = 0;
    for (auto& batch : batches) {
      if (seen++ >= limit) break;
      visit(batch.inputs);
    }
  };
}
Calibration calibration(std::vector<Tensor> batches);

struct StaticOptions {
  int64_t bits = 8;                            ///< of weights: 8 or 4
  Granularity weights = Granularity::channel;  ///< a scale for each output, or one for the tensor
  ObserverOptions activations = {};            ///< their spec is u8, asymmetric, whatever is set here
  bool equalize = false;                       ///< first: quantize::equalize() of the folded network
  /// Rounds weights for the least error of each layer's result on the calibration data (of the f32 network), instead of
  /// to the nearest. It keeps a matrix [taps, taps] of each layer: ValueError for more than 2^13 taps.
  std::optional<AdaRoundOptions> ada_round = {};
  /// Takes from each bias what rounding the weights adds to the mean of the output, by the mean of the input over the
  /// calibration data. Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019.
  bool bias_correction = false;
  /// Ops that have no integer form run in f32 between a dequantize and a quantize; without it they are an error.
  bool float_fallback = false;
};

struct StaticCounts {
  int64_t integer = 0, real = 0;  ///< nodes that compute on codes, and in f32 (quantize and dequantize left out)
  /// Layers whose weights lie on a grid that the kernels' codes do not express, so that they were rounded anew: a
  /// shift, several levels, or a weight whose code is beyond ±127 (8 bits) or ±7 (4 bits), as −8 is.
  int64_t regridded = 0;
};

/// `network` in eval mode, batch norms folded (graph::fold_batch_norm), on integers: convolutions and linear layers
/// (ops/packed/int8.h) with the ReLU, clamp and max pooling behind them, additions, pooling, concat, the activations of
/// ops/fused.h by table, and what only moves elements (ops/packed/codes.h). A layer whose result no such op reads gives
/// f32: the logits are not rounded to codes. Weights on a grid (fake-quantized) keep its codes where kernels have them.
/// For inference alone. The network is not changed.
/// GraphError naming a node without an integer form; ValueError: no data, more than one input, options; NumericError:
/// NaN or infinity in an activation, weight or bias.
graph::Network quantize_static(const graph::Network& network, const Calibration& data, StaticOptions options = {},
                               StaticCounts* counts = nullptr);

/// `network` in eval mode, batch norms folded, with convolutions and linear layers on integers and all else in f32:
/// each sample's activation becomes codes by a range of its own just before a layer (int8_quantize_rows). No
/// calibration data; more work a layer than static quantization. bits: of weights, 8 or 4; a scale an output, or their
/// grid, as in quantize_static. For inference alone; the network is not changed. ValueError; NumericError naming a
/// weight or bias with a NaN or infinity.
graph::Network quantize_dynamic(const graph::Network& network, int64_t bits = 8);

}  // namespace hone::compress::quantize
