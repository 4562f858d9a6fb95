#include "hone/ops/nn/init.h"

#include <cmath>
#include <vector>

#include "hone/core/autograd.h"

namespace hone::nn::init {

namespace {

void check(const char* op, const Tensor& t) {
  HONE_CHECK(t.defined(), ValueError, op, ": the tensor is undefined");
  HONE_CHECK(is_floating(t.dtype()), DTypeError, op, ": dtype must be floating, is ", t.dtype());
}

/// t ← scale·drawn + shift; drawn in the precision that t computes in.
void write(Tensor t, const Tensor& drawn, double scale, double shift) {
  visit_floating(drawn.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, BFloat16>) {
      T* p = drawn.data<T>();
      for (int64_t i = 0, n = drawn.numel(); i < n; ++i) p[i] = static_cast<T>(scale * p[i] + shift);
    }
  });
  NoGrad no_grad;
  t.copy_(drawn);
}

DType drawn_dtype(const Tensor& t) { return t.dtype() == f64 ? f64 : f32; }

}  // namespace

Fans fans(const Shape& weight) {
  HONE_CHECK(weight.ndim() >= 2, ShapeError, "fans: a weight has two dims or more, this one is ", weight);
  int64_t field = 1;
  for (int i = 2; i < weight.ndim(); ++i) field *= weight[i];
  return {weight[1] * field, weight[0] * field};
}

double gain(Nonlinearity f, double slope) {
  switch (f) {
    case Nonlinearity::tanh: return 5.0 / 3.0;
    case Nonlinearity::relu: return std::sqrt(2.0);
    case Nonlinearity::leaky_relu: return std::sqrt(2.0 / (1 + slope * slope));
    default: return 1;
  }
}

void constant_(const Target& t, double value) {
  check("constant_", t.tensor);
  NoGrad no_grad;
  Tensor(t.tensor).fill_(value);
}

void uniform_(const Target& t, double low, double high) {
  check("uniform_", t.tensor);
  HONE_CHECK(low <= high, ValueError, "uniform_: low must not exceed high, they are ", low, " and ", high);
  write(t.tensor, rand(t.tensor.shape(), drawn_dtype(t.tensor)), high - low, low);
}

void normal_(const Target& t, double mean, double sd) {
  check("normal_", t.tensor);
  HONE_CHECK(sd >= 0, ValueError, "normal_: sd must not be negative, is ", sd);
  write(t.tensor, randn(t.tensor.shape(), drawn_dtype(t.tensor)), sd, mean);
}

void glorot_uniform_(const Target& t, double gain) {
  const Fans f = fans(t.tensor.shape());
  const double bound = gain * std::sqrt(6.0 / static_cast<double>(f.in + f.out));
  uniform_(t, -bound, bound);
}

void glorot_normal_(const Target& t, double gain) {
  const Fans f = fans(t.tensor.shape());
  normal_(t, 0, gain * std::sqrt(2.0 / static_cast<double>(f.in + f.out)));
}

namespace {
double kaiming_sd(const Tensor& t, const KaimingOptions& o) {
  const Fans f = fans(t.shape());
  return gain(o.nonlinearity, o.slope) / std::sqrt(static_cast<double>(o.fan == Fan::in ? f.in : f.out));
}
}  // namespace

void kaiming_uniform_(const Target& t, const KaimingOptions& o) {
  const double bound = std::sqrt(3.0) * kaiming_sd(t.tensor, o);
  uniform_(t, -bound, bound);
}

void kaiming_normal_(const Target& t, const KaimingOptions& o) { normal_(t, 0, kaiming_sd(t.tensor, o)); }

void orthogonal_(const Target& t, double gain) {
  check("orthogonal_", t.tensor);
  const Fans f = fans(t.tensor.shape());  // also the check of dims
  (void)f;
  const int64_t rows = t.tensor.size(0), cols = rows ? t.tensor.numel() / rows : 0;
  const int64_t count = std::min(rows, cols), length = std::max(rows, cols);
  const std::vector<double> drawn = randn({count, length}, f64).to_vector<double>();
  std::vector<double> q = drawn;
  // Gram–Schmidt, twice over: once leaves an error as large as the vectors were nearly parallel.
  for (int64_t i = 0; i < count; ++i) {
    double* v = q.data() + i * length;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < i; ++j) {
        const double* u = q.data() + j * length;
        double dot = 0;
        for (int64_t k = 0; k < length; ++k) dot += u[k] * v[k];
        for (int64_t k = 0; k < length; ++k) v[k] -= dot * u[k];
      }
    }
    double norm = 0;
    for (int64_t k = 0; k < length; ++k) norm += v[k] * v[k];
    norm = std::sqrt(norm);
    for (int64_t k = 0; k < length; ++k) v[k] /= norm;
  }
  Tensor w = empty(t.tensor.shape(), f64);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      w.data<double>()[r * cols + c] = gain * (rows <= cols ? q[r * length + c] : q[c * length + r]);
  NoGrad no_grad;
  Tensor(t.tensor).copy_(w);
}

}  // namespace hone::nn::init
