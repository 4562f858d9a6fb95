#pragma once
// Numbers of the elementwise functors: what op files, SIMD kernels and CUDA kernels call them by.

namespace hone::detail {

enum class Unary : int {
  abs,
  sign,
  exp,
  log,
  sqrt,
  rsqrt,
  square,
  tanh,
  sigmoid,
  erf,
  relu,
  leaky_relu,
  gelu,
  gelu_tanh,
  silu,
  clamp,
  round,
  floor,
  ceil,
  neg
};
enum class Binary : int { add, sub, mul, div, pow, maximum, minimum, eq, ne, lt, le, gt, ge };
constexpr bool is_comparison(Binary b) { return b >= Binary::eq; }

}  // namespace hone::detail
