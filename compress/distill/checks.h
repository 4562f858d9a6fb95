#pragma once
// What the functions of distillation share. Private to compress/distill.

#include <cmath>

#include "hone/core/basic_ops.h"
#include "hone/core/error.h"

namespace hone::compress::detail {

inline void check_temperature(const char* op, double temperature) {
  HONE_CHECK(std::isfinite(temperature) && temperature > 0, ValueError, op,
             ": temperature must be finite and above 0, not ", temperature);
}
inline void check_weight(const char* op, const char* name, double weight) {
  HONE_CHECK(std::isfinite(weight) && weight >= 0, ValueError, op, ": ", name, " must be finite and at least 0, not ",
             weight);
}

// bf16 computes in f32, and the result is rounded once.
inline Tensor widened(const Tensor& x) { return x.dtype() == bf16 ? cast(x, f32) : x; }
inline Tensor narrowed(const Tensor& x, DType dtype) { return x.dtype() == dtype ? x : cast(x, dtype); }

}  // namespace hone::compress::detail
