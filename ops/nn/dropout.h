#pragma once
// The kin of Dropout (activation.h) as modules: the functions of hone/ops/dropout.h while training, x itself in eval
// mode. ValueError unless 0 <= p < 1.

#include "hone/ops/nn/linear.h"
#include "hone/ops/nn/module.h"

namespace hone::nn {

struct Dropout2dOptions {
  double p = 0.5;
};
/// Drops whole channels of [N, C, …].
struct Dropout2d : Module {
  double p;
  HONE_MODULE(Dropout2d)
  explicit Dropout2d(Dropout2dOptions o = {});
  Tensor forward(const Tensor& x);
};

struct DropPathOptions {
  double p = 0.1;
};
/// Drops whole samples of [N, …]: stochastic depth, at the end of a residual branch.
struct DropPath : Module {
  double p;
  HONE_MODULE(DropPath)
  explicit DropPath(DropPathOptions o = {});
  Tensor forward(const Tensor& x);
};

struct DropBlockOptions {
  double p = 0.1;
  int64_t block = 7;  ///< side of the squares
};
/// Drops squares of the planes of [N, C, H, W].
struct DropBlock : Module {
  double p;
  int64_t block;
  HONE_MODULE(DropBlock)
  explicit DropBlock(DropBlockOptions o = {});
  Tensor forward(const Tensor& x);
};

struct DropConnectOptions {
  int64_t in = 0, out = 0;
  bool bias = true;
  double p = 0.5;
};
/// Linear with dropout of its weights (Wan et al., "Regularization of neural networks using DropConnect", 2013): while
/// training y = x (W ⊙ M)ᵀ + b, where M is 0 with probability p, else 1/(1 − p), drawn anew at each call for the whole
/// batch (the paper draws for each sample); in eval mode y = x Wᵀ + b, the mean over masks. Names and beginnings of its
/// parameters are Linear's, so one loads the other's state.
struct DropConnect : Module {
  Parameter weight, bias;
  double p;
  HONE_MODULE(DropConnect, weight, bias)
  explicit DropConnect(DropConnectOptions o);
  Tensor forward(const Tensor& x);
  int64_t in() const { return weight.shape()[1]; }
  int64_t out() const { return weight.shape()[0]; }
};

}  // namespace hone::nn
