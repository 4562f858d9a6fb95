#pragma once
// Dynamic quantization: the weights of a parameter in several levels, each with its own range and step, which are
// fitted again as the weights move.
//
//   compress::quantize::DynamicQuantizer quantizer(net, {.by = compress::quantize::LevelBy::magnitude, .levels = 4,
//                                                        .range = {-8, 7}}, {.every = 200});
//   for (auto& [images, labels] : batches) {
//     adam.zero_grad();  cross_entropy(net(images), labels).backward();  adam.step();
//     quantizer.step();                      // after the optimizer
//   }
//   std::cout << quantizer.table();
//
// Ranges of activations that are found at run time: dynamic_fake_quantize (ops/fake_quantize.h).

#include <string>
#include <vector>

#include "hone/compress/quantize/uniform.h"

namespace hone::compress::quantize {

/// What makes a level.
enum class LevelBy : uint8_t {
  magnitude,  ///< bands of |w| that hold equally many weights
  tensor,     ///< one for the parameter
  channel,    ///< one for each index of dim 0
  kmeans,     ///< the clusters of the best k-means
};

struct DynamicOptions {
  LevelBy by = LevelBy::magnitude;
  int64_t levels = 4;         ///< of magnitude and kmeans: in [1, 256]; each weight then has its level's id
  Range range = {};           ///< of every level's codes
  Shift shift = Shift::none;  ///< each level's own; of kmeans mean is the natural one
  Rounding rounding = Rounding::nearest_even;
  std::vector<std::string> only = {}, except = {};
  bool biases = false;  ///< parameters of fewer than two dims too
};

/// w_q = clamp(round((w − μᵢ) · stepᵢ)) for the weights of level i, stepᵢ as UniformOptions finds one: once, by the
/// weights as they are. ValueError as uniform(), and for levels outside [1, 256].
QuantizeReport dynamic(nn::Module& module, const DynamicOptions& options = {});

struct RefitOptions {
  int64_t every = 0;  ///< steps between fits; 0: never for that reason
  double drift = 0;  ///< a parameter's ‖w − w_fitted‖ / ‖w_fitted‖ above which all are fitted; 0: never for that reason
};

/// One fit of all levels.
struct Refit {
  int64_t step = 0;
  bool by_drift = false;
  bool reshaped = false;                     ///< a parameter had another shape, dtype or device: then no drift
  double drift = 0;                          ///< the largest of all parameters
  double error_before = 0, error_after = 0;  ///< mean squared error over all weights
};

/// Fits at once and then as the options say, and where a parameter has another shape, dtype or device (one that was
/// shrunk). It keeps the parameters' identities, not the module.
class DynamicQuantizer {
 public:
  /// ValueError as dynamic(), and for options below 0.
  DynamicQuantizer(nn::Module& module, DynamicOptions options, RefitOptions refit = {});
  /// t + 1; true where the levels were fitted anew. ValueError as dynamic(): nothing has changed then.
  bool step();
  int64_t t() const { return t_; }
  const std::vector<Refit>& log() const { return log_; }  ///< without the first fit
  std::string table() const;                              ///< the log, a line a fit
  QuantizeReport report() const;

 private:
  void fit();
  double error() const;
  double drift() const;

  DynamicOptions options_;
  RefitOptions refit_;
  std::vector<nn::NamedParameter> parameters_;
  struct Fitted {
    Tensor raw;
    uint64_t generation;
  };
  std::vector<Fitted> fitted_;  // of the last fit
  int64_t t_ = 0;
  std::vector<Refit> log_;
};

}  // namespace hone::compress::quantize
