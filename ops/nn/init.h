#pragma once
// Initializers: each overwrites a tensor of floating dtype in place, whether it requires grad or not, from the
// process's generator (manual_seed). They take a Tensor, a Parameter or a ParameterRef. DTypeError for other dtypes.

#include "hone/core/parameter.h"

namespace hone::nn::init {

/// What an initializer writes to.
struct Target {
  Tensor tensor;
  Target(Tensor t) : tensor(std::move(t)) {}
  Target(const Parameter& p) : tensor(p.raw()) {}
  Target(const ParameterRef& p) : tensor(p.raw()) {}
};

/// Weights that feed one output, and outputs that one input feeds: [out, in, kernel…] has in·Π kernel and out·Π kernel.
struct Fans {
  int64_t in, out;
};
Fans fans(const Shape& weight);  ///< ShapeError below two dims

enum class Fan { in, out };
enum class Nonlinearity { linear, sigmoid, tanh, relu, leaky_relu };
/// Keeps the variance through the function: 1, 1, 5/3, √2, √(2 / (1 + slope²)).
double gain(Nonlinearity f, double slope = 0.01);

void constant_(const Target& t, double value);
void uniform_(const Target& t, double low = 0, double high = 1);  ///< in [low, high); ValueError unless low <= high
void normal_(const Target& t, double mean = 0, double sd = 1);    ///< ValueError unless sd >= 0

/// Uniform in ±gain·√(6 / (fan_in + fan_out)). Glorot and Bengio, "Understanding the difficulty of training deep
/// feedforward neural networks", 2010; also known as Xavier.
void glorot_uniform_(const Target& t, double gain = 1);
/// Normal with standard deviation gain·√(2 / (fan_in + fan_out)).
void glorot_normal_(const Target& t, double gain = 1);

struct KaimingOptions {
  Fan fan = Fan::in;
  Nonlinearity nonlinearity = Nonlinearity::relu;
  double slope = 0.01;  ///< of leaky_relu
};
/// Uniform in ±gain·√(3 / fan). He et al., "Delving deep into rectifiers", 2015.
void kaiming_uniform_(const Target& t, const KaimingOptions& o = {});
/// Normal with standard deviation gain / √fan.
void kaiming_normal_(const Target& t, const KaimingOptions& o = {});

/// gain times a random matrix with orthonormal rows (or columns, where there are fewer), over [dim 0, the rest]. Saxe,
/// McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning", 2013. ShapeError below two dims.
void orthogonal_(const Target& t, double gain = 1);

}  // namespace hone::nn::init
