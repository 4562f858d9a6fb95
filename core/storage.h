#pragma once
// The bytes behind tensors, shared by views, with the version counter that autograd checks.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hone/core/allocator.h"
#include "hone/core/device.h"
#include "hone/core/intrusive.h"

namespace hone {

struct Storage : detail::Pooled, Counted {
  std::atomic<uint64_t> version{0};  ///< advanced by every in-place change
  void* data = nullptr;
  size_t bytes = 0;
  Device device;

  /// Uninitialized memory on `device`.
  Storage(size_t bytes, Device device);
  ~Storage();
};
inline void intrusive_retain(Storage* s) { s->references.fetch_add(1, std::memory_order_relaxed); }
inline int64_t intrusive_count(const Storage* s) { return s->references.load(std::memory_order_acquire); }
inline void intrusive_release(Storage* s) {
  if (s->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete s;
}
using StoragePtr = Handle<Storage>;

}  // namespace hone
