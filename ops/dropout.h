#pragma once
// Dropout and its kin. What is dropped is a function of the stream that a call takes from the generator, whatever the
// threads; when not training, and where p = 0, the result is x itself and no stream is taken.

#include "hone/core/op.h"

namespace hone {

/// Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
/// y_i = 0 with probability p, else x_i / (1 − p), in training; x itself when not training or p = 0.
/// Element i (in row-major order) is dropped by word i of the stream that the call takes from the generator, so the
/// mask is the same whatever the threads and is not stored: backward draws it again. A dropped NaN gives 0.
/// x: any shape, floating dtype; p in [0, 1] (1 gives zeros). ValueError, DTypeError. Differentiable any number of
/// times.
Tensor dropout(const Tensor& x, double p = 0.5, bool training = true);

/// Spatial dropout (Tompson et al., "Efficient object localization using convolutional networks", 2015): whole channels
/// are 0 with probability p, the others are divided by 1 − p. x: [N, C, …], at least two dims; p in [0, 1).
/// Channel (n, c) is dropped by word n·C + c of the stream. ShapeError, ValueError, DTypeError. Differentiable any
/// number of times, as are the two below.
Tensor dropout2d(const Tensor& x, double p = 0.5, bool training = true);

/// Stochastic depth (Huang et al., "Deep networks with stochastic depth", 2016; named DropPath by Larsson et al.,
/// "FractalNet", 2017): whole samples are 0 with probability p, the others are divided by 1 − p; for the residual
/// branch: x + drop_path(branch(x), p). x: [N, …], at least one dim; p in [0, 1). Sample n is dropped by word n of the
/// stream.
Tensor drop_path(const Tensor& x, double p, bool training = true);

/// DropBlock (Ghiasi, Lin and Le, "DropBlock: a regularization method for convolutional networks", 2018). x: [N, C, H,
/// W]; in each plane, each b×b square inside it is 0 with probability γ = p/b² · HW / ((H − b + 1)(W − b + 1)), so that
/// a share near p is dropped (less where squares overlap), and what is left is multiplied by the number of elements
/// over the number left, of the whole tensor. The mean factor is 1 for each mask; a single place near a border is
/// dropped less often than one inside. All zeros where nothing is left. p in [0, 1), b ≥ 1 (ValueError); ShapeError for
/// a block larger than the planes. The square whose top left corner is place v = i·(W − b + 1) + j of plane u = n·C + c
/// is dropped by word v mod 4 of counter u·⌈V/4⌉ + ⌊v/4⌋, V = (H − b + 1)(W − b + 1).
Tensor drop_block(const Tensor& x, double p, int64_t block = 7, bool training = true);

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
