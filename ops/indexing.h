#pragma once
// Picking and placing elements by index. Indices are i64 and in [0, size): others are a ValueError that names the
// value, its position and the range. Sums of what lands on one place are made in index order: the same bits every time.

#include <cstdint>

#include "hone/core/op.h"
#include "hone/ops/reduce.h"

namespace hone {

extern const OpDef kIndexSelect, kIndexAdd, kGather, kScatterAdd, kOneHot, kTopk, kSort;

/// Entries index[0], index[1], … of `dim`; index is 1-d. Any dtype; twice differentiable.
Tensor index_select(const Tensor& x, int64_t dim, const Tensor& index);
/// x with source[…, i, …] added at index[i] of `dim`; source has x's shape but for dim, where it has index's length.
/// Numbers only (DTypeError); bf16 adds in f32. Twice differentiable.
Tensor index_add(const Tensor& x, int64_t dim, const Tensor& index, const Tensor& source);

/// y[…, i, …] = x[…, index[…, i, …], …] along `dim`. index has as many dims as x, none but `dim` larger; y has its
/// shape. Any dtype; twice differentiable.
Tensor gather(const Tensor& x, int64_t dim, const Tensor& index);
/// x with source[…, i, …] added at [index[…, i, …]] of `dim`; source has the shape of index, which fits x as for
/// gather. Numbers only (DTypeError); bf16 adds in f32. Twice differentiable.
Tensor scatter_add(const Tensor& x, int64_t dim, const Tensor& index, const Tensor& source);

/// [..., classes]: 1 at each label, 0 elsewhere. ValueError for a label outside [0, classes).
Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype = DType::f32);

/// The k largest (smallest) elements along `dim`, in that order, and where they were:
/// auto [values, indices] = topk(x, 5). Equal elements come by rising index; NaN is larger than every number.
/// ValueError unless 0 <= k <= size.
ValuesAndIndices topk(const Tensor& x, int64_t k, int64_t dim = -1, bool largest = true);
/// Elements along `dim` in rising (falling) order, and where they were. Stable; NaN is larger than every number.
ValuesAndIndices sort(const Tensor& x, int64_t dim = -1, bool descending = false);

namespace detail {
/// Zeros of `sizes` with source added as scatter_add does.
Tensor scatter_to(const Tensor& index, const Tensor& source, int64_t dim, const Shape& sizes);
}  // namespace detail

}  // namespace hone
