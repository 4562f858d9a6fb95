#pragma once
// Training with the integers that inference will compute. Forward of a QatNetwork runs the very network that
// quantize_static would make of the weights and ranges of the moment, on the integer kernels: so conversion changes no
// logit. Backward is f32: each layer is differentiated at the values that its codes stand for, and every rounding goes
// straight through where its range was not left.
//
//   QatNetwork qat(graph::trace(module, images), {.bits = 4});   // batch norms folded
//   optim::Adam adam(qat.parameters(), {.lr = 1e-4});
//   for (…) {
//     if (step == 200) qat.freeze();                             // ranges of activations move no more
//     cross_entropy(qat(x), labels).backward(); …
//   }
//   graph::Network small = qat.convert();                        // equal(small(x), qat.eval()(x))
//
// Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018;
// Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013.

#include <vector>

#include "hone/compress/graph/network.h"
#include "hone/compress/quantize/static.h"

namespace hone::compress::quantize {

struct QatOptions {
  int64_t bits = 8;                            ///< of weights: 8 or 4
  Granularity weights = Granularity::channel;  ///< a scale for each output, or one for the tensor
  /// The range of each batch by this method; the range of a value is their moving average, by its momentum.
  ObserverOptions activations = {.method = Observe::moving_average};
  /// The scales of weights are trained, from steps(): parameters become fake-quantized, beginning at 2 mean|w|/√high;
  /// where a mask's zeros would make that mean small, at max|w|/high; rows of zeros at 1/(√taps high), as if their
  /// weights went to 1/√taps. Without it a scale is max|w|/high at every step. Esser et al., "Learned step size
  /// quantization", 2020.
  bool learned_steps = false;
  bool float_fallback = false;  ///< as StaticOptions
};

/// A module with the parameters (masks too), buffers and names of the folded network, in the values of now; dropout is
/// dropped. It is saved, loaded and copied with its ranges. One input and one output, f32.
class QatNetwork : public nn::Module {
 public:
  /// ValueError: options, more than one input or output; GraphError naming a node without an integer form.
  explicit QatNetwork(const graph::Network& network, QatOptions options = {});

  /// In training mode ranges follow the batch, layer by layer, until freeze(); a range seen for the first time is the
  /// batch's. In eval mode it computes convert()(x): for many batches convert once. NumericError for a NaN or infinity
  /// in a weight or bias, and in training mode, frozen or not, in an activation that becomes codes; in eval mode those
  /// are clamped as int8_quantize does. ValueError in eval mode before any batch.
  Tensor forward(const Tensor& x);
  void freeze(bool on = true);  ///< ValueError before any batch: there is no range to keep
  bool frozen() const;
  /// Of learned steps, one a weight: for an optimizer, in a group of their own if their rate differs.
  std::vector<ParameterRef> steps();

  /// The integer network of the weights and ranges of now, as quantize_static makes it. ValueError before any batch.
  graph::Network convert(StaticCounts* counts = nullptr) const;
  const graph::Network& network() const { return network_; }  ///< folded, in f32

  const char* type_name() const override { return "QatNetwork"; }
  void visit(nn::MemberVisitor& v) override;
  std::unique_ptr<nn::Module> clone() const override;
  Tensor call(const Tensor& x) override;
  Tensor operator()(const Tensor& x) { return call(x); }

 private:
  struct Step;
  bool seen() const;

  graph::Network network_;
  QatOptions options_;
  Buffer ranges_;  // f64 [values, 2]: low and high of each value that has a scale; NaN before any batch
  Buffer frozen_;  // bool [1]
};

}  // namespace hone::compress::quantize
