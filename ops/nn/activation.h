#pragma once
// Element-wise layers and softmax: the ops of hone/ops/unary.h and softmax.h as modules.

#include "hone/ops/nn/module.h"
#include "hone/ops/unary.h"

namespace hone::nn {

/// x itself.
struct Identity : Module {
  HONE_MODULE(Identity)
  Tensor forward(const Tensor& x) { return x; }
};

/// max(x, 0).
struct ReLU : Module {
  HONE_MODULE(ReLU)
  Tensor forward(const Tensor& x) { return relu(x); }
};

struct LeakyReLUOptions {
  double slope = 0.01;
};
/// x for x > 0, else slope·x.
struct LeakyReLU : Module {
  double slope;
  HONE_MODULE(LeakyReLU)
  explicit LeakyReLU(LeakyReLUOptions o = {}) : slope(o.slope) {}
  Tensor forward(const Tensor& x) { return leaky_relu(x, slope); }
};

struct GELUOptions {
  Gelu form = Gelu::exact;
};
/// x·Φ(x), or its approximation by tanh.
struct GELU : Module {
  Gelu form;
  HONE_MODULE(GELU)
  explicit GELU(GELUOptions o = {}) : form(o.form) {}
  Tensor forward(const Tensor& x) { return gelu(x, form); }
};

/// x·sigmoid(x).
struct SiLU : Module {
  HONE_MODULE(SiLU)
  Tensor forward(const Tensor& x) { return silu(x); }
};

struct Tanh : Module {
  HONE_MODULE(Tanh)
  Tensor forward(const Tensor& x) { return tanh(x); }
};

/// 1 / (1 + e^-x).
struct Sigmoid : Module {
  HONE_MODULE(Sigmoid)
  Tensor forward(const Tensor& x) { return sigmoid(x); }
};

struct SoftmaxOptions {
  int64_t dim = -1;
};
/// softmax along `dim`. Losses take logits: leave it out before cross_entropy.
struct Softmax : Module {
  int64_t dim;
  HONE_MODULE(Softmax)
  explicit Softmax(SoftmaxOptions o = {}) : dim(o.dim) {}
  Tensor forward(const Tensor& x);
};

/// log softmax along `dim`.
struct LogSoftmax : Module {
  int64_t dim;
  HONE_MODULE(LogSoftmax)
  explicit LogSoftmax(SoftmaxOptions o = {}) : dim(o.dim) {}
  Tensor forward(const Tensor& x);
};

struct DropoutOptions {
  double p = 0.5;
};
/// While training, each element is 0 with probability p, else scaled by 1/(1 − p); in eval mode x itself. ValueError
/// unless 0 <= p <= 1.
struct Dropout : Module {
  double p;
  HONE_MODULE(Dropout)
  explicit Dropout(DropoutOptions o = {});
  Tensor forward(const Tensor& x);
};

struct FlattenOptions {
  int64_t start = 1, end = -1;
};
/// Dims start to end, both included, as one.
struct Flatten : Module {
  int64_t start, end;
  HONE_MODULE(Flatten)
  explicit Flatten(FlattenOptions o = {}) : start(o.start), end(o.end) {}
  Tensor forward(const Tensor& x);
};

}  // namespace hone::nn
