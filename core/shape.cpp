#include "hone/core/shape.h"

#include <algorithm>

#include "hone/core/error.h"

namespace hone {

Shape::Shape(std::span<const int64_t> v) {
  HONE_CHECK(v.size() <= kMaxDims, ShapeError, "shape: ", v.size(), " dimensions, but at most ", kMaxDims,
             " are supported");
  std::copy(v.begin(), v.end(), v_);
  ndim_ = static_cast<int32_t>(v.size());
}

Shape Shape::filled(int ndim, int64_t value) {
  HONE_CHECK(ndim >= 0 && ndim <= kMaxDims, ShapeError, "shape: ", ndim, " dimensions, but 0 to ", kMaxDims,
             " are supported");
  Shape s;
  s.ndim_ = ndim;
  std::fill_n(s.v_, ndim, value);
  return s;
}

void Shape::push_back(int64_t x) { insert(ndim_, x); }

void Shape::insert(int at, int64_t x) {
  HONE_CHECK(ndim_ < kMaxDims, ShapeError, "shape: ", to_string(*this), " has no room for one more dimension, at most ",
             kMaxDims, " are supported");
  HONE_CHECK(at >= 0 && at <= ndim_, ShapeError, "shape: cannot insert at ", at, " in ", to_string(*this));
  std::copy_backward(v_ + at, v_ + ndim_, v_ + ndim_ + 1);
  v_[at] = x;
  ++ndim_;
}

void Shape::erase(int at) {
  HONE_CHECK(at >= 0 && at < ndim_, ShapeError, "shape: cannot erase dimension ", at, " of ", to_string(*this));
  std::copy(v_ + at + 1, v_ + ndim_, v_ + at);
  v_[--ndim_] = 0;
}

bool operator==(const Shape& a, const Shape& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

int64_t Shape::numel() const {
  constexpr int64_t kMost = int64_t{1} << 59;  // so that bytes and strides fit in int64_t too, even where a size is 0
  int64_t n = 1;
  bool too_many = false, zero = false;
  for (const int64_t v : *this) {
    HONE_CHECK(v >= 0, ShapeError, "shape: ", to_string(*this), " has a negative size");
    zero |= v == 0;
    if (v > 0) too_many |= __builtin_mul_overflow(n, v, &n) || n > kMost;
  }
  HONE_CHECK(!too_many, ShapeError, "shape: ", to_string(*this), " has more elements than any memory holds");
  return zero ? 0 : n;
}

std::string to_string(const Shape& s) {
  std::string text = "[";
  for (int i = 0; i < s.ndim(); ++i) {
    if (i) text += ", ";
    text += std::to_string(s[i]);
  }
  return text += ']';
}

Shape contiguous_strides(const Shape& sizes) {
  Shape strides = sizes;
  int64_t step = 1;
  for (int i = sizes.ndim() - 1; i >= 0; --i) {
    strides[i] = step;
    // Wraps only where numel() throws or the array is empty.
    step = static_cast<int64_t>(static_cast<uint64_t>(step) * static_cast<uint64_t>(std::max<int64_t>(sizes[i], 1)));
  }
  return strides;
}

int64_t wrap_dim(const char* op, int64_t dim, int64_t ndim) {
  const int64_t range = std::max<int64_t>(ndim, 1);
  HONE_CHECK(dim >= -range && dim < range, ShapeError, op, ": dimension ", dim, " is outside [", -range, ", ",
             range - 1, "] of a ", ndim, "-d tensor");
  return dim < 0 ? dim + range : dim;
}

uint32_t dim_mask(const char* op, const Shape& dims, int64_t ndim) {
  if (dims.empty()) return (1u << ndim) - 1;
  uint32_t mask = 0;
  for (const int64_t d : dims) {
    const uint32_t bit = 1u << wrap_dim(op, d, ndim);
    HONE_CHECK(!(mask & bit), ShapeError, op, ": dimension ", d, " is given twice in ", to_string(dims));
    mask |= bit;
  }
  return ndim == 0 ? 0 : mask;
}

Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b) {
  const Shape& longer = a.ndim() >= b.ndim() ? a : b;
  const Shape& shorter = a.ndim() >= b.ndim() ? b : a;
  Shape out = longer;
  const int lead = longer.ndim() - shorter.ndim();
  for (int i = lead; i < longer.ndim(); ++i) {
    const int64_t x = longer[i], y = shorter[i - lead];
    HONE_CHECK(x == y || x == 1 || y == 1, ShapeError, op, ": shapes ", to_string(a), " and ", to_string(b),
               " do not broadcast: sizes ", x, " and ", y, " differ and neither is 1");
    out[i] = x == 1 ? y : x;
  }
  return out;
}

}  // namespace hone
