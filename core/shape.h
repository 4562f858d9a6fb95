#pragma once
// Sizes, strides and lists of dimensions, stored inline: no allocation.

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace hone {

inline constexpr int kMaxDims = 8;

/// Up to kMaxDims int64_t values. Trivially copyable. Used for sizes, strides and lists of dimensions alike.
class Shape {
 public:
  constexpr Shape() = default;
  Shape(std::initializer_list<int64_t> v) : Shape(std::span<const int64_t>(v.begin(), v.size())) {}
  explicit Shape(std::span<const int64_t> v);  ///< ShapeError for more than kMaxDims values
  static Shape filled(int ndim, int64_t value);

  int ndim() const { return ndim_; }
  bool empty() const { return ndim_ == 0; }
  int64_t operator[](int64_t i) const { return v_[i]; }
  int64_t& operator[](int64_t i) { return v_[i]; }
  int64_t back() const { return v_[ndim_ - 1]; }
  const int64_t* begin() const { return v_; }
  const int64_t* end() const { return v_ + ndim_; }
  int64_t* begin() { return v_; }
  int64_t* end() { return v_ + ndim_; }
  const int64_t* data() const { return v_; }
  void push_back(int64_t x);
  void insert(int at, int64_t x);
  void erase(int at);
  friend bool operator==(const Shape& a, const Shape& b);

  /// Product of the values; ShapeError if one is negative or the product of those above 0 is beyond 2^59.
  int64_t numel() const;

 private:
  int64_t v_[kMaxDims] = {};
  int32_t ndim_ = 0;
};

/// "[2, 3, 4]".
std::string to_string(const Shape& s);

/// Row-major strides, in elements.
Shape contiguous_strides(const Shape& sizes);

/// `dim` in [-ndim, ndim) as a value in [0, ndim); ShapeError naming `op` otherwise. A 0-d tensor takes -1 and 0.
int64_t wrap_dim(const char* op, int64_t dim, int64_t ndim);

/// The dims of a reduction as a bit mask; an empty list means all; ShapeError on repeats or out of range.
uint32_t dim_mask(const char* op, const Shape& dims, int64_t ndim);

/// Broadcast of two shapes (NumPy's rule: trailing dims equal or 1); ShapeError naming `op` and both.
Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b);

}  // namespace hone
