#pragma once
// The elements of a tensor as bit patterns, and those of them that a mask keeps. Internal.

#include <cstdint>
#include <cstring>
#include <span>

#include "hone/core/dtype.h"

namespace hone::compress::detail {

/// An array of any dtype as patterns.
class Elements {
 public:
  Elements(void* data, DType dtype, int64_t n)
      : data_(static_cast<std::byte*>(data)), width_(static_cast<size_t>(size_of(dtype))), n_(static_cast<size_t>(n)) {}
  size_t size() const { return n_; }
  uint64_t operator[](size_t i) const {
    uint64_t v = 0;
    std::memcpy(&v, data_ + i * width_, width_);  // little-endian
    return v;
  }
  void set(size_t i, uint64_t v) const { std::memcpy(data_ + i * width_, &v, width_); }

 private:
  std::byte* data_;
  size_t width_, n_;
};

/// The elements that a mask keeps; all where it is empty.
struct Kept {
  Elements data;
  std::span<const uint8_t> mask;
  size_t n;
  bool at(size_t i) const { return mask.empty() || mask[i] != 0; }
};

}  // namespace hone::compress::detail
