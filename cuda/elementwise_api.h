#pragma once
// Elementwise kernels on the device. Op numbers are those of ops/functors.h.

#include "hone/core/view.h"

namespace hone::cuda {

/// out = functor `op` at derivative `order`: f(s), g·f′(s) or g·h·f″(s). Inputs (order + 1 of them) broadcast to out,
/// any strides; out is contiguous. bf16 computes in f32. DeviceError for a dtype without kernels:
/// integer div and pow, whose errors a kernel cannot report.
void unary(int op, int order, const View* in, const View& out, const double* scalars);
/// out = functor `op` of two arrays, broadcast, as above. Comparisons write bool.
void binary(int op, const View* in, const View& out);
/// out = condition ? a : b; condition is bool.
void where(const View& condition, const View& a, const View& b, const View& out);
/// bool out = a and b (0), a or b (1), not a (2).
void logical(int op, const View* in, const View& out);
/// Copies to a contiguous array of the same shape, converting dtype; `from` has any strides, 0 too.
void copy_strided(const View& from, const View& to);
/// Sets every element of a strided array.
void fill(const View& to, double value);

}  // namespace hone::cuda
