#pragma once
// The only interface to threads. Work is split by size, never by thread count, so results keep their bits.

#include <cstdint>
#include <type_traits>

namespace hone {

/// Threads that parallel_for may use: at first the machine's cores, or HONE_THREADS.
int num_threads();
/// ValueError unless 1 <= n <= 1024. Not to be called inside a parallel region.
void set_num_threads(int n);

namespace detail {
void parallel_chunks(int64_t chunks, void* context, void (*body)(void* context, int64_t chunk));
}

/// Calls body(begin, end) over disjoint pieces of [0, n), each of `grain` items (the last may be shorter), in any
/// order, on any thread. The pieces depend on n and grain alone. Returns when all are done; the first exception
/// thrown is rethrown here. Nested or concurrent regions run inline. No allocation.
template <class F> void parallel_for(int64_t n, int64_t grain, F&& body) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  struct Context {
    std::remove_reference_t<F>* body;
    int64_t n, grain;
  } context{&body, n, grain};
  detail::parallel_chunks((n + grain - 1) / grain, &context, [](void* c, int64_t chunk) {
    auto& s = *static_cast<Context*>(c);
    const int64_t begin = chunk * s.grain;
    (*s.body)(begin, begin + s.grain < s.n ? begin + s.grain : s.n);
  });
}

}  // namespace hone
