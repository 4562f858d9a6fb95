#pragma once
// Changes of shape and order. Results share their input's storage wherever strides can express them ("view").
// Any dtype; all twice differentiable. Errors: ShapeError for shapes and dims, ValueError for other arguments.

#include <cstdint>
#include <limits>
#include <vector>

#include "hone/core/op.h"

namespace hone {

extern const OpDef kReshape, kPermute, kSlice, kSliceGrad, kSqueeze, kExpand, kFlip;

/// Same elements in row-major order under `shape`; one size may be −1: worked out. A view where strides allow, else a copy.
Tensor reshape(const Tensor& x, const Shape& shape);
/// Merges dims start … end (both included) into one. A 0-d tensor becomes [1].
Tensor flatten(const Tensor& x, int64_t start = 0, int64_t end = -1);
/// Dim i of the result is dim dims[i] of x. View.
Tensor permute(const Tensor& x, const Shape& dims);
/// Swaps two dims. View.
Tensor transpose(const Tensor& x, int64_t dim0 = -2, int64_t dim1 = -1);

inline constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
/// Elements start, start + step, … before end along `dim`; negative start and end count from the end, both are clamped
/// to the dim as in Python. step ≥ 1 (ValueError). View.
Tensor slice(const Tensor& x, int64_t dim, int64_t start, int64_t end = kEnd, int64_t step = 1);
/// Entry `index` (negative: from the end) along `dim`, which goes away. View. ValueError out of range.
Tensor select(const Tensor& x, int64_t dim, int64_t index);
/// Removes dims of size 1: all, or `dim` if it has size 1. View.
Tensor squeeze(const Tensor& x);
Tensor squeeze(const Tensor& x, int64_t dim);
/// Inserts a dim of size 1 before `dim` in [−ndim−1, ndim]. View.
Tensor unsqueeze(const Tensor& x, int64_t dim);
/// Broadcasts to `shape` (trailing dims equal or 1; −1 keeps a size). View with strides 0.
Tensor expand(const Tensor& x, const Shape& shape);
/// Reverses the order along each of `dims`.
Tensor flip(const Tensor& x, const Shape& dims);

}  // namespace hone
