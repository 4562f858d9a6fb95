#pragma once
// The caching allocator: 64-byte aligned blocks in size classes; freed blocks are kept for the next request.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hone {

struct MemoryStats {
  int64_t live_bytes = 0;    ///< held by tensors now
  int64_t peak_bytes = 0;    ///< largest live_bytes since the start or reset_peak_memory()
  int64_t cached_bytes = 0;  ///< freed by tensors, kept for reuse
  int64_t system_calls = 0;  ///< blocks asked of the system so far
};

/// CPU tensor memory. Tensor metadata and graph nodes come from a second cache and are not counted.
MemoryStats memory_stats();
void reset_peak_memory();
/// Gives all cached blocks back to the system.
void empty_cache();

namespace detail {
/// Tensor memory: 64-byte aligned, at least `bytes`; MemoryError if the system has none. 0 bytes give nullptr.
void* allocate_data(size_t bytes);
void free_data(void* p, size_t bytes) noexcept;
/// Small objects (nodes, tensor handles, their vectors), from a cache of their own.
void* allocate_object(size_t bytes);
void free_object(void* p, size_t bytes) noexcept;

template <class T> struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U> PoolAllocator(const PoolAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(allocate_object(n * sizeof(T))); }
  void deallocate(T* p, size_t n) noexcept { free_object(p, n * sizeof(T)); }
  template <class U> bool operator==(const PoolAllocator<U>&) const { return true; }
};
/// Base that takes a class's objects from the cache.
struct Pooled {
  static void* operator new(size_t n) { return allocate_object(n); }
  static void operator delete(void* p, size_t n) noexcept { free_object(p, n); }
};
}  // namespace detail

/// A vector that asks the system for nothing in steady state: for use in every step.
template <class T> using PoolVector = std::vector<T, detail::PoolAllocator<T>>;

}  // namespace hone
