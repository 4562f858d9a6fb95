#pragma once
// The bytes behind tensors, shared by views, with the version counter that autograd checks.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hone/core/allocator.h"
#include "hone/core/device.h"
#include "hone/core/intrusive.h"

namespace hone {

struct Storage : detail::Pooled {
  std::atomic<int64_t> references{0};
  std::atomic<uint64_t> version{0};  ///< advanced by every in-place change
  void* data = nullptr;
  size_t bytes = 0;
  Device device;

  /// Uninitialized memory on `device`.
  Storage(size_t bytes, Device device);
  ~Storage();
  static void release(Storage* s) { delete s; }
};
using StoragePtr = Handle<Storage>;

}  // namespace hone
