#pragma once
// Dropout. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.

#include "hone/core/op.h"

namespace hone {

/// y_i = 0 with probability p, else x_i / (1 − p), in training; x itself when not training or p = 0.
/// Element i (in row-major order) is dropped by word i of the stream that the call takes from the generator, so the
/// mask is the same whatever the threads and is not stored: backward draws it again. A dropped NaN gives 0.
/// x: any shape, floating dtype; p in [0, 1] (1 gives zeros). ValueError, DTypeError. Differentiable any number of
/// times.
Tensor dropout(const Tensor& x, double p = 0.5, bool training = true);

struct DropoutAttrs {
  double p = 0.5;
  int64_t seed = 0, stream = 0;  ///< of Philox, as signed numbers of the same bits
  void fields(FieldVisitor& v) {
    v("p", p);
    v("seed", seed);
    v("stream", stream);
  }
};

extern const OpDef kDropout;

}  // namespace hone
