#pragma once
// The only interface to threads. Work is split by size, never by thread count, so results keep their bits.

#include <cstddef>
#include <cstdint>

namespace hone {

/// Threads that parallel_for may use: at first the machine's cores, or HONE_THREADS.
int num_threads();
/// ValueError unless 1 <= n <= 1024. Not to be called inside a parallel region.
void set_num_threads(int n);

namespace detail {
/// `scratch_bytes` of uninitialized memory, 64-byte aligned, are lent to each thread that works.
void parallel_chunks(int64_t chunks, void* context, void (*body)(void* context, int64_t chunk, void* scratch),
                     size_t scratch_bytes);

template <class T, class F> void parallel_pieces(int64_t n, int64_t grain, size_t scratch_bytes, const F& body) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  struct Context {
    const F* body;
    int64_t n, grain;
  } context{&body, n, grain};
  parallel_chunks((n + grain - 1) / grain, &context,
                  [](void* c, int64_t chunk, void* scratch) {
                    const auto& s = *static_cast<Context*>(c);
                    const int64_t begin = chunk * s.grain;
                    (*s.body)(begin, begin + s.grain < s.n ? begin + s.grain : s.n, static_cast<T*>(scratch));
                  },
                  scratch_bytes);
}
}  // namespace detail

/// Calls body(begin, end) over disjoint pieces of [0, n), each of `grain` items (the last may be shorter), in any
/// order, on any thread. The pieces depend on n and grain alone. Returns when all are done; the first exception
/// thrown is rethrown here. Nested or concurrent regions run inline. No allocation.
template <class F> void parallel_for(int64_t n, int64_t grain, F&& body) {
  detail::parallel_pieces<void>(n, grain, 0, [&body](int64_t begin, int64_t end, void*) { body(begin, end); });
}

/// The same with body(begin, end, T* scratch): uninitialized room for `count` elements, 64-byte aligned, that no other
/// thread uses meanwhile; a piece may find there what an earlier one left. The caller takes it once, for all threads
/// together, from the caching allocator: a loop in steady state asks the system for nothing.
template <class T, class F> void parallel_for_scratch(int64_t n, int64_t grain, int64_t count, F&& body) {
  detail::parallel_pieces<T>(n, grain, static_cast<size_t>(count) * sizeof(T), body);
}

}  // namespace hone
