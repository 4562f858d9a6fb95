#pragma once
// Reductions. `dims` lists dimensions in [-ndim, ndim); an empty list means all of them. Each result is a new
// contiguous tensor; with keepdim the reduced dims stay, with size 1. The order of every sum is fixed by the sizes, so
// results have the same bits at any thread count. Everything differentiable is so twice.

#include <concepts>

#include "hone/core/op.h"

namespace hone {

extern const OpDef kSum, kMean, kVar, kLogsumexp, kMax, kMin, kArgmax, kArgmin;

/// y = sum of x over `dims`; 0 over nothing. Floating inputs are summed in f64 and rounded once to their dtype;
/// integers and bools give i64 (a bool sum counts). Throws ShapeError for bad dims.
Tensor sum(const Tensor& x, const Shape& dims = {}, bool keepdim = false);

/// y = sum(x) / n over `dims`, summed in f64; NaN over nothing. Floating dtypes only (DTypeError).
Tensor mean(const Tensor& x, const Shape& dims = {}, bool keepdim = false);

struct VarOptions {
  bool unbiased = true;  ///< divide by n − 1 (Bessel's correction), else by n
  bool keepdim = false;
};
/// y = sum((x − mean(x))²) / (n − 1 or n) over `dims`, in two passes in f64; NaN where the divisor is not positive.
/// Floating dtypes only (DTypeError).
Tensor var(const Tensor& x, const Shape& dims = {}, VarOptions options = {});

/// y = log(sum(exp(x))) over `dims`, computed as m + log(sum(exp(x − m))) with m = max x, so that nothing overflows.
/// −inf where every x is −inf (its gradient there is 0) and over nothing. Floating dtypes only (DTypeError).
Tensor logsumexp(const Tensor& x, const Shape& dims = {}, bool keepdim = false);

/// The same over one dimension: sum(x, 1).
template <std::integral Dim> Tensor sum(const Tensor& x, Dim dim, bool keepdim = false) {
  return sum(x, Shape{static_cast<int64_t>(dim)}, keepdim);
}
template <std::integral Dim> Tensor mean(const Tensor& x, Dim dim, bool keepdim = false) {
  return mean(x, Shape{static_cast<int64_t>(dim)}, keepdim);
}
template <std::integral Dim> Tensor var(const Tensor& x, Dim dim, VarOptions options = {}) {
  return var(x, Shape{static_cast<int64_t>(dim)}, options);
}
template <std::integral Dim> Tensor logsumexp(const Tensor& x, Dim dim, bool keepdim = false) {
  return logsumexp(x, Shape{static_cast<int64_t>(dim)}, keepdim);
}

/// Values of x and where they were found (i64), both of one shape.
struct ValuesAndIndices {
  Tensor values, indices;
};

/// The largest (smallest) element of x, 0-d. NaN wins over every number. The gradient goes to the first such element
/// in row-major order alone. ShapeError if x is empty.
Tensor max(const Tensor& x);
Tensor min(const Tensor& x);
/// The largest (smallest) elements along `dim`; as above, with ties to the lowest index.
Tensor max(const Tensor& x, int64_t dim, bool keepdim = false);
Tensor min(const Tensor& x, int64_t dim, bool keepdim = false);
/// The same with their indices along `dim`: auto [values, indices] = max_with_indices(x, 1).
ValuesAndIndices max_with_indices(const Tensor& x, int64_t dim, bool keepdim = false);
ValuesAndIndices min_with_indices(const Tensor& x, int64_t dim, bool keepdim = false);

/// Row-major position (i64, 0-d) of the first largest (smallest) element; NaN wins. ShapeError if x is empty.
Tensor argmax(const Tensor& x);
Tensor argmin(const Tensor& x);
/// Index (i64) along `dim` of the first largest (smallest) element; NaN wins. ShapeError if there is none.
Tensor argmax(const Tensor& x, int64_t dim, bool keepdim = false);
Tensor argmin(const Tensor& x, int64_t dim, bool keepdim = false);

}  // namespace hone
