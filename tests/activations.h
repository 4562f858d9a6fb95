#pragma once
// The activations that fused ops know, as ops apart.

#include <random>

#include "hone/hone.h"

namespace hone::test {

inline Tensor shown(const Tensor& x, const ActivationAttrs& a) {
  switch (a.activation()) {
    case Activation::none: return x;
    case Activation::relu: return relu(x);
    case Activation::leaky_relu: return leaky_relu(x, a.a);
    case Activation::clamp: return clamp(x, a.a, a.b);
    case Activation::tanh: return tanh(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: return gelu(x, Gelu::tanh);
    default: return silu(x);
  }
}

inline ActivationAttrs any_activation(std::mt19937_64& rng) {
  const auto kind = static_cast<Activation>(rng() % 9);
  if (kind == Activation::leaky_relu) return {kind, 0.1};
  if (kind == Activation::clamp) return {kind, -0.5, 1};
  return kind;
}

}  // namespace hone::test
