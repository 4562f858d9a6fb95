#include "hone/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "hone/core/allocator.h"
#include "hone/core/error.h"

namespace hone {
namespace {

constexpr int kMaxThreads = 1024;

int machine_cores() {
  cpu_set_t set;  // what this process may run on: taskset and containers narrow it
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return std::min(CPU_COUNT(&set), kMaxThreads);
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
}

int initial_threads() {
  const char* text = std::getenv("HONE_THREADS");
  if (!text || !*text) return machine_cores();
  int n = 0;
  const char* end = text + std::strlen(text);
  const auto [p, error] = std::from_chars(text, end, n);
  HONE_CHECK(error == std::errc() && p == end && n >= 1 && n <= kMaxThreads, ValueError, "HONE_THREADS is '", text,
             "': it must be a whole number from 1 to ", kMaxThreads);
  return n;
}

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// In a worker, or in the caller of a region: further regions run inline.
thread_local bool inside_region = false;

using Body = void (*)(void*, int64_t, void*);

// Memory lent to the threads of one region: a slot for each.
class Scratch {
 public:
  Scratch(size_t slots, size_t bytes)
      : stride_((bytes + 63) / 64 * 64),
        bytes_(slots * stride_),
        p_(bytes_ ? detail::allocate_data(bytes_) : nullptr) {}
  ~Scratch() {
    if (p_) detail::free_data(p_, bytes_);
  }
  Scratch(const Scratch&) = delete;
  void* slot(int i) const { return p_ ? static_cast<std::byte*>(p_) + static_cast<size_t>(i) * stride_ : nullptr; }

 private:
  size_t stride_, bytes_;
  void* p_;
};

struct Job {
  int64_t chunks = 0;
  void* context = nullptr;
  Body body = nullptr;
  const Scratch* scratch = nullptr;
  std::exception_ptr error;
  std::atomic<bool> failed{false};
  alignas(64) std::atomic<int64_t> next{0};

  void work(int worker) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      try {
        body(context, i, scratch->slot(worker));
      } catch (...) {
        next.store(chunks, std::memory_order_relaxed);  // no new pieces
        if (!failed.exchange(true, std::memory_order_relaxed)) error = std::current_exception();
      }
    }
  }
};

// One region at a time. Its job may be read by a worker only between joining (open bit seen in `members`) and leaving;
// the caller closes it and waits until all who joined have left, so a worker that wakes late touches nothing.
class Pool {
 public:
  void run(int64_t chunks, void* context, Body body, size_t scratch_bytes) {
    const Scratch scratch(workers_.size() + 1, scratch_bytes);
    job_.scratch = &scratch;
    job_.chunks = chunks;
    job_.context = context;
    job_.body = body;
    job_.next.store(0, std::memory_order_relaxed);
    members_.fetch_or(kOpen, std::memory_order_release);
    round_.fetch_add(1);  // seq_cst with asleep_: either the sleeper sees the new round, or we see the sleeper
    if (const int asleep = asleep_.load(); asleep > 0) {
      { const std::lock_guard lock(mutex_); }
      if (chunks - 1 >= asleep) {
        wake_.notify_all();
      } else {
        for (int64_t i = 1; i < chunks; ++i) wake_.notify_one();
      }
    }
    job_.work(0);
    members_.fetch_and(~kOpen, std::memory_order_relaxed);
    for (int tries = 0; members_.load(std::memory_order_acquire) != 0; ++tries)
      tries < 2000 ? relax() : std::this_thread::yield();
    if (job_.failed.exchange(false, std::memory_order_relaxed))
      std::rethrow_exception(std::exchange(job_.error, nullptr));
  }

  /// Has `count` workers running, or as many as the system grants.
  void resize(int count) {
    if (static_cast<int>(workers_.size()) == count || (refused_ && static_cast<int>(workers_.size()) < count)) return;
    stop();
    spin_ = count < machine_cores();
    workers_.reserve(static_cast<size_t>(count));
    try {
      for (int i = 0; i < count; ++i) workers_.emplace_back([this, i] { serve(i + 1); });
    } catch (const std::system_error&) {
      refused_ = true;  // the region runs on those there are
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_.store(true);
    }
    wake_.notify_all();
    for (std::thread& t : workers_) t.get_id() == std::this_thread::get_id() ? t.detach() : t.join();
    workers_.clear();
    stopping_.store(false);
  }

  std::mutex region;  // held by the caller of the running region

 private:
  static constexpr uint32_t kOpen = 1u << 31;  // the other bits count the workers inside

  void serve(int worker) {
    inside_region = true;
    uint32_t seen = round_.load();
    // A region opened while this thread was starting is joined too.
    for (;;) {
      if (members_.fetch_add(1, std::memory_order_acquire) & kOpen) job_.work(worker);
      members_.fetch_sub(1, std::memory_order_release);
      if (!await_round(seen)) return;
    }
  }

  bool await_round(uint32_t& seen) {
    const auto changed = [&] { return round_.load() != seen || stopping_.load(); };
    for (int i = 0; spin_ && i < 2000 && !changed(); ++i) relax();
    if (!changed()) {
      std::unique_lock lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, changed);
      asleep_.fetch_sub(1);
    }
    seen = round_.load();
    return !stopping_.load();
  }

  Job job_;
  alignas(64) std::atomic<uint32_t> members_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
  std::atomic<int> asleep_{0};
  std::atomic<bool> stopping_{false};
  bool spin_ = true;
  bool refused_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

std::atomic<int> thread_count{0};
std::atomic<bool> closed{false};

// Never destroyed, so that work in static destructors finds it (and runs inline after the workers were joined at exit).
Pool& pool() {
  static Pool* const p = new Pool;
  static const struct Closer {
    ~Closer() {
      closed.store(true);
      std::unique_lock lock(p->region, std::defer_lock);
      if (!inside_region) lock.lock();  // exit() from inside a region must not wait for it
      p->stop();
    }
  } closer;
  return *p;
}

}  // namespace

int num_threads() {
  int n = thread_count.load(std::memory_order_relaxed);
  if (n == 0) {
    int expected = 0;
    n = initial_threads();
    if (!thread_count.compare_exchange_strong(expected, n)) n = expected;
  }
  return n;
}

void set_num_threads(int n) {
  HONE_CHECK(n >= 1 && n <= kMaxThreads, ValueError, "set_num_threads: ", n, " is outside [1, ", kMaxThreads, "]");
  thread_count.store(n);
}

namespace detail {

void parallel_chunks(int64_t chunks, void* context, Body body, size_t scratch_bytes) {
  const int threads = num_threads();
  if (chunks > 1 && threads > 1 && !inside_region && !closed.load(std::memory_order_relaxed)) {
    Pool& p = pool();
    if (const std::unique_lock lock(p.region, std::try_to_lock); lock) {
      inside_region = true;
      const struct Leave {
        ~Leave() { inside_region = false; }
      } leave;
      p.resize(threads - 1);
      p.run(chunks, context, body, scratch_bytes);
      return;
    }
  }
  const Scratch scratch(1, scratch_bytes);
  for (int64_t i = 0; i < chunks; ++i) body(context, i, scratch.slot(0));
}

}  // namespace detail
}  // namespace hone
