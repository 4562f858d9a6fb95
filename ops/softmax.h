#pragma once
// softmax and log_softmax.

#include "hone/core/op.h"

namespace hone {

/// y_i = exp(x_i − max x) / sum_j exp(x_j − max x) along `dim`.
/// x: any shape, floating dtype (bf16 computes in f32); dim in [-ndim, ndim).
/// Returns a new contiguous tensor, same shape, dtype and device; empty in, empty out. A slice that holds a NaN or
/// +inf, or nothing but −inf, gives NaN. Differentiable any number of times. ShapeError, DTypeError.
Tensor softmax(const Tensor& x, int64_t dim = -1);

/// y_i = x_i − max x − log sum_j exp(x_j − max x) along `dim`: the logarithm of softmax, without its rounding to 0.
/// Everything else as softmax, but differentiable four times; the fifth derivative throws GradError.
Tensor log_softmax(const Tensor& x, int64_t dim = -1);

struct SoftmaxAttrs {
  int64_t dim = -1;
  void fields(FieldVisitor& v) { v("dim", dim); }
};

extern const OpDef kSoftmax, kLogSoftmax;
/// Inputs: the gradient g and the saved result y. dx = y ⊙ (g − sum g ⊙ y), and dx = g − exp(y)·sum g.
extern const OpDef kSoftmaxGrad, kLogSoftmaxGrad;

}  // namespace hone
