#pragma once
// What a kernel sees of a tensor: plain data, no ownership. CUDA sources include this file too.

#include <cstdint>

#include "hone/core/device.h"
#include "hone/core/dtype.h"

namespace hone {

/// Address, element type, sizes and strides (in elements) of a strided array. An absent optional input has ndim -1.
struct View {
  static constexpr int kDims = 8;
  void* data = nullptr;
  DType dtype = DType::f32;
  DeviceType device = DeviceType::cpu;
  int32_t ndim = -1;
  int64_t sizes[kDims] = {};
  int64_t strides[kDims] = {};

  bool defined() const { return ndim >= 0; }
  template <class T> T* as() const { return static_cast<T*>(data); }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= sizes[i];
    return n;
  }
  int64_t size(int i) const { return sizes[i < 0 ? i + ndim : i]; }
  bool is_contiguous() const {
    int64_t expect = 1;
    for (int i = ndim - 1; i >= 0; --i) {
      if (sizes[i] == 0) return true;
      if (sizes[i] != 1 && strides[i] != expect) return false;
      expect *= sizes[i];
    }
    return true;
  }
};

}  // namespace hone
