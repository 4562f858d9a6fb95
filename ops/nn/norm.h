#pragma once

#include "hone/ops/nn/module.h"

namespace hone::nn {

struct BatchNormOptions {
  int64_t features = 0;
  double eps = 1e-5;
  double momentum = 0.1;  ///< weight of the batch in running ← (1 − momentum)·running + momentum·batch
  bool affine = true;     ///< weight (1 at first) and bias (0 at first)
};

/// y = (x − mean) / √(variance + eps) · weight + bias per channel (dim 1). Mean and variance are the batch's while
/// training (biased; the running variance takes the unbiased one), else the running ones, which begin as 0 and 1.
/// Ioffe and Szegedy, "Batch normalization", 2015. ValueError unless features and eps are
/// positive and momentum is in [0, 1].
struct BatchNorm : Module {
  Parameter weight, bias;
  Buffer running_mean, running_var;
  double eps, momentum;
  HONE_MODULE(BatchNorm, weight, bias, running_mean, running_var)
  explicit BatchNorm(BatchNormOptions o);
  Tensor forward(const Tensor& x);
  int64_t features() const { return running_mean.tensor().size(0); }
};

/// BatchNorm of [N, C] or [N, C, L]; ShapeError for others.
struct BatchNorm1d : BatchNorm {
  using BatchNorm::BatchNorm;
  HONE_MODULE(BatchNorm1d, weight, bias, running_mean, running_var)
  Tensor forward(const Tensor& x);
};

/// BatchNorm of [N, C, H, W]; ShapeError for others.
struct BatchNorm2d : BatchNorm {
  using BatchNorm::BatchNorm;
  HONE_MODULE(BatchNorm2d, weight, bias, running_mean, running_var)
  Tensor forward(const Tensor& x);
};

struct LayerNormOptions {
  Shape shape;  ///< the trailing dims that are normalized together
  double eps = 1e-5;
  bool affine = true;  ///< weight (1 at first) and bias (0 at first), of that shape
};

/// y = (x − mean) / √(variance + eps) · weight + bias, mean and biased variance over the trailing dims of each sample.
/// Without affine any sizes do: the number of dims is all that is kept. Ba, Kiros and Hinton, "Layer normalization",
/// 2016. ValueError for an empty shape, and for a size or eps that is not positive.
struct LayerNorm : Module {
  Parameter weight, bias;
  int dims;
  double eps;
  HONE_MODULE(LayerNorm, weight, bias)
  explicit LayerNorm(LayerNormOptions o);
  Tensor forward(const Tensor& x);
};

}  // namespace hone::nn
