#include "hone/core/allocator.h"

#include <atomic>
#include <bit>
#include <cstdlib>
#include <new>
#include <thread>

#include "hone/core/error.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HONE_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define HONE_ASAN 1
#endif
#ifdef HONE_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) (static_cast<void>(p), static_cast<void>(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) (static_cast<void>(p), static_cast<void>(n))
#endif

namespace hone {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSmallest = 64;
constexpr size_t kLargest = size_t{1} << 46;  // beyond any machine; keeps the arithmetic below from wrapping
constexpr int kSteps = 4;                     // classes per power of two: at most a quarter of a block is unused
constexpr int kClasses = kSteps * 40 + 1;

// 64, 80, 96, 112, 128, 160, …
constexpr size_t class_bytes(int c) {
  return (kSmallest / kSteps * static_cast<size_t>(kSteps + c % kSteps)) << (c / kSteps);
}

constexpr int class_of(size_t bytes) {
  if (bytes <= kSmallest) return 0;
  const int power = std::bit_width(bytes - 1) - 1;  // 2^power < bytes <= 2^(power+1)
  const size_t step = size_t{1} << (power - 2);
  const size_t quarters = (bytes - (size_t{1} << power) + step - 1) / step;  // 1 to 4
  return (power - 6) * kSteps + static_cast<int>(quarters);
}
static_assert(class_of(kLargest) < kClasses && class_bytes(class_of(kLargest)) == kLargest);
static_assert(class_bytes(class_of(65)) == 80 && class_bytes(class_of(80)) == 80 && class_bytes(class_of(129)) == 160);

struct Block {
  Block* next;
};

// A free list under a spin lock that is held for two loads and a store.
struct alignas(64) FreeList {
  std::atomic<bool> locked{false};
  Block* head = nullptr;

  void lock() {
    for (int tries = 0; locked.exchange(true, std::memory_order_acquire); ++tries)
      if (tries > 64) std::this_thread::yield();
  }
  void unlock() { locked.store(false, std::memory_order_release); }
  Block* pop() {
    lock();
    Block* b = head;
    if (b) head = b->next;
    unlock();
    return b;
  }
  void push(Block* b) {
    lock();
    b->next = head;
    head = b;
    unlock();
  }
  Block* take_all() {
    lock();
    Block* b = head;
    head = nullptr;
    unlock();
    return b;
  }
};

// No destructors: tensors with static storage may be freed after everything else.
struct Cache {
  FreeList lists[kClasses];
  std::atomic<int64_t> live{0}, peak{0}, cached{0}, system_calls{0};

  void* allocate(size_t bytes);
  void free(void* p, size_t bytes) noexcept;
  void give_back();
};
constinit Cache data_cache, object_cache;

void* system_block(size_t bytes) {
  void* p = nullptr;
  return posix_memalign(&p, kAlignment, bytes) == 0 ? p : nullptr;
}

void* Cache::allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes > kLargest) throw std::bad_alloc();
  const int c = class_of(bytes);
  const size_t size = class_bytes(c);
  void* p = lists[c].pop();
  if (p) {
    cached.fetch_sub(static_cast<int64_t>(size), std::memory_order_relaxed);
  } else {
    p = system_block(size);
    if (!p) {  // what is cached may be what is missing
      data_cache.give_back();
      object_cache.give_back();
      p = system_block(size);
    }
    if (!p) throw std::bad_alloc();
    system_calls.fetch_add(1, std::memory_order_relaxed);
  }
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(p) + bytes, size - bytes);
  const int64_t now =
      live.fetch_add(static_cast<int64_t>(size), std::memory_order_relaxed) + static_cast<int64_t>(size);
  int64_t highest = peak.load(std::memory_order_relaxed);
  while (now > highest && !peak.compare_exchange_weak(highest, now, std::memory_order_relaxed)) {}
  return p;
}

void Cache::free(void* p, size_t bytes) noexcept {
  if (!p) return;
  const int c = class_of(bytes);
  const auto size = static_cast<int64_t>(class_bytes(c));
  ASAN_POISON_MEMORY_REGION(p, size);
  ASAN_UNPOISON_MEMORY_REGION(p, sizeof(Block));
  live.fetch_sub(size, std::memory_order_relaxed);
  cached.fetch_add(size, std::memory_order_relaxed);
  lists[c].push(new (p) Block{nullptr});
}

void Cache::give_back() {
  for (int c = 0; c < kClasses; ++c) {
    for (Block* b = lists[c].take_all(); b;) {
      Block* next = b->next;
      ASAN_UNPOISON_MEMORY_REGION(b, class_bytes(c));
      std::free(b);
      cached.fetch_sub(static_cast<int64_t>(class_bytes(c)), std::memory_order_relaxed);
      b = next;
    }
  }
}

}  // namespace

MemoryStats memory_stats() {
  return {data_cache.live.load(), data_cache.peak.load(), data_cache.cached.load(), data_cache.system_calls.load()};
}

void reset_peak_memory() { data_cache.peak.store(data_cache.live.load()); }

void empty_cache() {
  data_cache.give_back();
  object_cache.give_back();
}

namespace detail {

void* allocate_data(size_t bytes) {
  try {
    return data_cache.allocate(bytes);
  } catch (const std::bad_alloc&) {
    throw MemoryError(
        str("out of memory: ", bytes, " bytes wanted on cpu, ", memory_stats().live_bytes, " bytes live"));
  }
}
void free_data(void* p, size_t bytes) noexcept { data_cache.free(p, bytes); }
void* allocate_object(size_t bytes) { return object_cache.allocate(bytes); }
void free_object(void* p, size_t bytes) noexcept { object_cache.free(p, bytes); }

}  // namespace detail
}  // namespace hone
