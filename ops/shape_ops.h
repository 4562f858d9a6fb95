#pragma once
// Changes of shape and order. "View": the result shares the storage of x. Any dtype; all twice differentiable. A dim is
// in [-ndim, ndim); ShapeError for shapes and dims that do not fit, ValueError for other arguments.

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

#include "hone/core/op.h"

namespace hone {

extern const OpDef kReshape, kFlatten, kPermute, kSlice, kSliceGrad, kSelect, kSqueeze, kUnsqueeze, kExpand, kFlip,
    kConcat, kPad;

/// The same elements in row-major order under `shape`, in which one size may be −1: worked out from the rest. A view
/// where strides can express it, else a copy.
Tensor reshape(const Tensor& x, const Shape& shape);
/// Merges dims start … end, both included, into one. A 0-d x becomes [1]. As reshape: a view or a copy.
Tensor flatten(const Tensor& x, int64_t start = 0, int64_t end = -1);
/// Dim i of the result is dim dims[i] of x; each dim once. View.
Tensor permute(const Tensor& x, const Shape& dims);
/// Swaps two dims; by default the last two. View.
Tensor transpose(const Tensor& x, int64_t dim0 = -2, int64_t dim1 = -1);

inline constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
/// Elements start, start + step, … before `end` along `dim`. As in Python, negative start and end count from the end
/// and both are clamped to the dim. ValueError for step < 1. View.
Tensor slice(const Tensor& x, int64_t dim, int64_t start, int64_t end = kEnd, int64_t step = 1);
/// Entry `index` along `dim`, which goes away; a negative index counts from the end. ValueError out of range. View.
Tensor select(const Tensor& x, int64_t dim, int64_t index);
/// Without the dims of size 1: all of them, or `dim` if it is one. View.
Tensor squeeze(const Tensor& x);
Tensor squeeze(const Tensor& x, int64_t dim);
/// With a dim of size 1 before `dim`, in [−ndim − 1, ndim]. View.
Tensor unsqueeze(const Tensor& x, int64_t dim);
/// Broadcast to `shape`: trailing dims equal or 1 in x; −1 keeps a size. View with strides of 0.
Tensor expand(const Tensor& x, const Shape& shape);
/// Reverses the order along each of `dims`; all of them if empty. Copies.
Tensor flip(const Tensor& x, const Shape& dims);

/// The tensors one after another along `dim`; all other sizes and the dtype equal (ShapeError, DTypeError). ValueError
/// for an empty list. Copies.
Tensor concat(std::span<const Tensor> tensors, int64_t dim = 0);
inline Tensor concat(std::initializer_list<Tensor> tensors, int64_t dim = 0) {
  return concat(std::span<const Tensor>(tensors.begin(), tensors.size()), dim);
}
/// Tensors of one shape side by side along a new dim, in [−ndim − 1, ndim]. Copies.
Tensor stack(std::span<const Tensor> tensors, int64_t dim = 0);
inline Tensor stack(std::initializer_list<Tensor> tensors, int64_t dim = 0) {
  return stack(std::span<const Tensor>(tensors.begin(), tensors.size()), dim);
}
/// Pieces of `size` along `dim`, the last one smaller if need be (ValueError for size < 1). Views.
std::vector<Tensor> split(const Tensor& x, int64_t size, int64_t dim = 0);
/// Pieces of the given sizes, which add up to the dim's (ShapeError). Views.
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int64_t dim = 0);
/// At most `count` pieces of ceil(n / count) elements along `dim`, the last one smaller if need be. Views.
std::vector<Tensor> chunk(const Tensor& x, int64_t count, int64_t dim = 0);

/// Elements added in front of and behind a dim.
struct Padding {
  int64_t before = 0, after = 0;
};
/// x with `value` around it. `padding` is for the trailing dims, in their order: pad(x, {{1, 1}, {2, 2}}) of [N, C, H,
/// W] pads H by 1 and W by 2 on each side. ValueError for a negative amount, ShapeError for more entries than dims.
Tensor pad(const Tensor& x, std::span<const Padding> padding, double value = 0);
inline Tensor pad(const Tensor& x, std::initializer_list<Padding> padding, double value = 0) {
  return pad(x, std::span<const Padding>(padding.begin(), padding.size()), value);
}

}  // namespace hone
