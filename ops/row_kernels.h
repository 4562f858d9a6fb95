#pragma once
// Kernels over the rows of a contiguous array, under softmax and the losses, and how an op comes by such an array.

#include <cstdint>

#include "hone/core/basic_ops.h"
#include "hone/core/op.h"
#include "hone/core/parallel.h"
#include "hone/ops/lane_sum.h"

namespace hone::detail {

// Each: `rows` rows of n elements, n >= 1. Sums run in a fixed order. A NaN or +inf in a row, or a row of −inf alone,
// makes its whole result NaN. No aliasing.

/// y = exp(x − max x) / sum exp(x − max x).
void softmax_rows(const float* x, float* y, int64_t rows, int64_t n);
void softmax_rows(const double* x, double* y, int64_t rows, int64_t n);
/// y = x − max x − log sum exp(x − max x).
void log_softmax_rows(const float* x, float* y, int64_t rows, int64_t n);
void log_softmax_rows(const double* x, double* y, int64_t rows, int64_t n);
/// most[r] = max x[r], log_sum[r] = log sum exp(x[r] − most[r]): apart, because their sum would lose the logarithm's
/// digits beside a large maximum.
void logsumexp_rows(const float* x, float* most, float* log_sum, int64_t rows, int64_t n);
void logsumexp_rows(const double* x, double* most, double* log_sum, int64_t rows, int64_t n);
/// y = scale[r]·exp(x − most[r] − log_sum[r]): scaled softmax from what logsumexp_rows found.
void scaled_softmax_rows(const float* x, const float* most, const float* log_sum, const float* scale, float* y,
                         int64_t rows, int64_t n);
void scaled_softmax_rows(const double* x, const double* most, const double* log_sum, const double* scale, double* y,
                         int64_t rows, int64_t n);
/// dx = y ⊙ (g − sum g ⊙ y): softmax's gradient.
void softmax_grad_rows(const float* g, const float* y, float* dx, int64_t rows, int64_t n);
void softmax_grad_rows(const double* g, const double* y, double* dx, int64_t rows, int64_t n);
/// dx = g − exp(y)·sum g: log_softmax's gradient.
void log_softmax_grad_rows(const float* g, const float* y, float* dx, int64_t rows, int64_t n);
void log_softmax_grad_rows(const double* g, const double* y, double* dx, int64_t rows, int64_t n);

/// Rows for one parallel piece: some 16 Ki elements.
inline int64_t row_grain(int64_t n) { return n >= (1 << 14) ? 1 : (1 << 14) / (n > 0 ? n : 1); }

/// v with dimension `dim` moved to the end.
inline View dim_last(View v, int64_t dim) {
  const int64_t size = v.sizes[dim], stride = v.strides[dim];
  for (int64_t d = dim; d + 1 < v.ndim; ++d) {
    v.sizes[d] = v.sizes[d + 1];
    v.strides[d] = v.strides[d + 1];
  }
  v.sizes[v.ndim - 1] = size;
  v.strides[v.ndim - 1] = stride;
  return v;
}

/// A view of v's shape over a contiguous array.
inline View dense_view(const View& v, void* data, DType dtype) {
  View d = v;
  d.data = data;
  d.dtype = dtype;
  int64_t stride = 1;
  for (int i = v.ndim - 1; i >= 0; --i) {
    d.strides[i] = stride;
    stride *= v.sizes[i];
  }
  return d;
}

/// v's elements as a contiguous array of A: where v is one already its own memory, else a converted copy.
template <class A> const A* dense(const View& v, Workspace& w) {
  if (v.dtype == dtype_of<A> && v.is_contiguous()) return v.as<A>();
  A* copy = w.get<A>(v.numel());
  copy_strided(v, dense_view(v, copy, dtype_of<A>));
  return copy;
}

/// A contiguous array of A to write v's elements to; finish() brings them to v where it is another array.
template <class A> struct DenseOutput {
  View target;
  A* data;
  bool own;
  DenseOutput(const View& v, Workspace& w) : target(v), own(!(v.dtype == dtype_of<A> && v.is_contiguous())) {
    data = own ? w.get<A>(v.numel()) : v.as<A>();
  }
  void finish() const {
    if (own) copy_strided(dense_view(target, data, dtype_of<A>), target);
  }
};

}  // namespace hone::detail
