#pragma once
// Normalization. Statistics are summed in f64 in an order fixed by the sizes; bf16 computes in f32.

#include "hone/core/op.h"

namespace hone {

/// y = (x − mean) / √(var + eps) ⊙ weight + bias over the trailing dims `normalized_shape`, var divided by their count.
/// x: floating, its last dims equal to normalized_shape (at least one dim, ShapeError); weight and bias: that shape and
/// x's dtype, or undefined. eps > 0 (ValueError). Returns x's shape and dtype. Differentiable three
/// times; the fourth derivative throws GradError.
/// Ba, Kiros and Hinton, "Layer normalization", 2016.
Tensor layer_norm(const Tensor& x, const Shape& normalized_shape, const Tensor& weight = {}, const Tensor& bias = {},
                  double eps = 1e-5);

struct BatchNormOptions {
  bool training = false;
  double momentum = 0.1;  ///< running = (1 − momentum)·running + momentum·batch
  double eps = 1e-5;
};
/// y = (x − mean_c) / √(var_c + eps)·weight_c + bias_c for x of shape [N, C] or [N, C, …].
/// Training: mean and (biased) variance of the batch, over all dims but C; where running buffers are given they are
/// updated in place, with the unbiased variance. Otherwise the running ones are used and must be given.
/// running_mean, running_var, weight, bias: [C], x's dtype, or undefined. The running buffers get no gradient.
/// ShapeError, DTypeError; ValueError for eps <= 0, and in training for less than two values a channel: their variance
/// is 0 or none. Differentiable three times; the fourth derivative throws GradError.
/// Ioffe and Szegedy, "Batch normalization: accelerating deep network training", 2015.
Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight = {},
                  const Tensor& bias = {}, const BatchNormOptions& options = {});

struct LayerNormAttrs {
  int64_t dims = 1;  ///< how many trailing dims are normalized
  double eps = 1e-5;
  bool need_x = true, need_affine = true;  ///< of the gradient op alone
  void fields(FieldVisitor& v) {
    v("dims", dims);
    v("eps", eps);
    v("need_x", need_x);
    v("need_affine", need_affine);
  }
};
struct BatchNormAttrs {
  bool training = false;
  double momentum = 0.1, eps = 1e-5;
  bool need_x = true, need_affine = true;  ///< of the gradient op alone
  void fields(FieldVisitor& v) {
    v("training", training);
    v("momentum", momentum);
    v("eps", eps);
    v("need_x", need_x);
    v("need_affine", need_affine);
  }
};

/// Inputs x, weight, bias. Outputs y and, for backward, [2, rows] in f64: mean and 1/√(var + eps).
extern const OpDef kLayerNorm;
/// Inputs g, x, the statistics, weight. Outputs dx, dweight, dbias; those not needed have no elements.
extern const OpDef kLayerNormGrad;
/// Inputs x, running_mean, running_var, weight, bias. Outputs y and [2, C] in f64: the mean and biased variance used.
/// The running buffers are not changed here: batch_norm() does that.
extern const OpDef kBatchNorm;
/// Inputs g, x, the statistics, weight. Outputs dx, dweight, dbias; those not needed have no elements.
extern const OpDef kBatchNormGrad;

namespace detail {
/// running = (1 − momentum)·running + momentum·(mean, unbiased variance) of a batch of `count` values a channel.
void update_running(const Tensor& statistics, int64_t count, double momentum, const Tensor& running_mean,
                    const Tensor& running_var);
}  // namespace detail

}  // namespace hone
