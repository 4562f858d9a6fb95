#include "hone/ops/nn/norm.h"

#include "hone/ops/norm.h"

namespace hone::nn {

BatchNorm::BatchNorm(BatchNormOptions o) : eps(o.eps), momentum(o.momentum) {
  HONE_CHECK(o.features > 0, ValueError, "BatchNorm: features must be positive, is ", o.features);
  HONE_CHECK(o.eps > 0, ValueError, "BatchNorm: eps must be positive, is ", o.eps);
  HONE_CHECK(o.momentum >= 0 && o.momentum <= 1, ValueError, "BatchNorm: momentum must be in [0, 1], is ", o.momentum);
  running_mean = Buffer(zeros({o.features}));
  running_var = Buffer(ones({o.features}));
  if (!o.affine) return;
  weight = Parameter(ones({o.features}));
  bias = Parameter(zeros({o.features}));
}

Tensor BatchNorm::forward(const Tensor& x) {
  return batch_norm(x, running_mean.tensor(), running_var.tensor(), weight.value(), bias.value(),
                    hone::BatchNormOptions{.training = training(), .momentum = momentum, .eps = eps});
}

Tensor BatchNorm1d::forward(const Tensor& x) {
  HONE_CHECK(x.ndim() == 2 || x.ndim() == 3, ShapeError, "BatchNorm1d: x must be [N, C] or [N, C, L], is ", x.shape());
  return BatchNorm::forward(x);
}

Tensor BatchNorm2d::forward(const Tensor& x) {
  HONE_CHECK(x.ndim() == 4, ShapeError, "BatchNorm2d: x must be [N, C, H, W], is ", x.shape());
  return BatchNorm::forward(x);
}

LayerNorm::LayerNorm(LayerNormOptions o) : dims(o.shape.ndim()), eps(o.eps) {
  HONE_CHECK(o.eps > 0, ValueError, "LayerNorm: eps must be positive, is ", o.eps);
  HONE_CHECK(dims > 0, ValueError, "LayerNorm: shape must name at least one dim");
  for (const int64_t n : o.shape)
    HONE_CHECK(n > 0, ValueError, "LayerNorm: sizes must be positive, shape is ", o.shape);
  if (!o.affine) return;
  weight = Parameter(ones(o.shape));
  bias = Parameter(zeros(o.shape));
}

Tensor LayerNorm::forward(const Tensor& x) {
  if (weight.defined()) return layer_norm(x, weight.shape(), weight.value(), bias.value(), eps);
  HONE_CHECK(x.ndim() >= dims, ShapeError, "LayerNorm: x must have at least ", dims, " dims, is ", x.shape());
  return layer_norm(x, Shape(std::span<const int64_t>(x.shape().end() - dims, static_cast<size_t>(dims))), {}, {}, eps);
}

}  // namespace hone::nn
