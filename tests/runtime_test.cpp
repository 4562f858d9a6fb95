// The ground under tensors: messages, shapes, memory, threads, random numbers.

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "hone/hone.h"

namespace hone {
namespace {

TEST(Error, NumbersReadWell) {
  EXPECT_EQ(str("x = ", 0.1f, ", ", 0.1, ", ", 3, ", ", true), "x = 0.1, 0.1, 3, true");
  EXPECT_EQ(str(2e-3), "0.002");
  EXPECT_EQ(str(3.0, " ", -0.0, " ", 1e6), "3 -0 1000000");
  EXPECT_EQ(str(1e300), "1e+300");
  EXPECT_EQ(str(1.0 / 3), "0.3333333333333333");
  EXPECT_EQ(str(std::numeric_limits<double>::infinity(), " ", -std::numeric_limits<double>::infinity()), "inf -inf");
  EXPECT_EQ(str(std::nan("")), "nan");
  EXPECT_EQ(str(std::numeric_limits<double>::denorm_min()), "5e-324");
}

TEST(Shape, CountsAndRefuses) {
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{2, 3, 4}).numel(), 24);
  EXPECT_EQ((Shape{2, 0, 4}).numel(), 0);
  EXPECT_EQ((Shape{int64_t{1} << 40, 0, 5}).numel(), 0);
  EXPECT_EQ((Shape{int64_t{1} << 59}).numel(), int64_t{1} << 59);
  EXPECT_THROW((Shape{int64_t{1} << 59, 2}).numel(), ShapeError);
  EXPECT_THROW((Shape{int64_t{1} << 40, int64_t{1} << 40, 0}).numel(), ShapeError);  // its strides would not fit
  EXPECT_THROW((Shape{int64_t{1} << 40, int64_t{1} << 40}).numel(), ShapeError);
  EXPECT_THROW((Shape{3, -1}).numel(), ShapeError);
  EXPECT_THROW((Shape{0, -1}).numel(), ShapeError);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), ShapeError);
  EXPECT_EQ(to_string(Shape{2, 3}), "[2, 3]");
  EXPECT_EQ(contiguous_strides(Shape{2, 3, 4}), (Shape{12, 4, 1}));
  EXPECT_EQ(contiguous_strides(Shape{2, 0, 4}), (Shape{4, 4, 1}));
  EXPECT_FALSE((Shape{1, 2}) == (Shape{1, 2, 0}));
}

TEST(Shape, Edits) {
  Shape s{1, 2, 3};
  s.insert(0, 9);
  s.insert(4, 8);
  s.erase(1);
  EXPECT_EQ(s, (Shape{9, 2, 3, 8}));
  EXPECT_THROW(s.erase(4), ShapeError);
  EXPECT_THROW(s.insert(5, 1), ShapeError);
  while (s.ndim() < kMaxDims) s.push_back(1);
  EXPECT_THROW(s.push_back(1), ShapeError);
  EXPECT_EQ(Shape::filled(3, 7), (Shape{7, 7, 7}));
}

TEST(Shape, DimensionsWrap) {
  EXPECT_EQ(wrap_dim("sum", -1, 3), 2);
  EXPECT_EQ(wrap_dim("sum", 2, 3), 2);
  EXPECT_EQ(wrap_dim("sum", -1, 0), 0);
  EXPECT_THROW(wrap_dim("sum", 3, 3), ShapeError);
  EXPECT_THROW(wrap_dim("sum", -4, 3), ShapeError);
  EXPECT_THROW(wrap_dim("sum", 1, 0), ShapeError);
  EXPECT_EQ(dim_mask("sum", Shape{}, 3), 7u);
  EXPECT_EQ(dim_mask("sum", Shape{0, -1}, 3), 5u);
  EXPECT_EQ(dim_mask("sum", Shape{}, 0), 0u);
  EXPECT_THROW(dim_mask("sum", Shape{1, -2}, 3), ShapeError);
}

TEST(Shape, Broadcasts) {
  EXPECT_EQ(broadcast_shapes("add", Shape{4, 1, 3}, Shape{2, 1}), (Shape{4, 2, 3}));
  EXPECT_EQ(broadcast_shapes("add", Shape{}, Shape{2, 0}), (Shape{2, 0}));
  EXPECT_EQ(broadcast_shapes("add", Shape{1}, Shape{0}), (Shape{0}));
  try {
    broadcast_shapes("add", Shape{4, 3}, Shape{2, 3});
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_NE(std::string(e.what()).find("add: shapes [4, 3] and [2, 3]"), std::string::npos) << e.what();
  }
}

TEST(Allocator, AlignsAndRecycles) {
  empty_cache();
  const MemoryStats before = memory_stats();
  for (const size_t bytes : {1, 63, 64, 65, 80, 81, 127, 129, 1000, 4097, 1 << 20, (1 << 20) + 1}) {
    void* p = detail::allocate_data(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
    std::memset(p, 0xab, bytes);
    EXPECT_GE(memory_stats().live_bytes - before.live_bytes, static_cast<int64_t>(bytes));
    EXPECT_LE(memory_stats().live_bytes - before.live_bytes, static_cast<int64_t>(bytes + bytes / 4 + 64));
    detail::free_data(p, bytes);
    EXPECT_EQ(detail::allocate_data(bytes), p) << bytes << " bytes were not reused";
    detail::free_data(p, bytes);
  }
  const int64_t calls = memory_stats().system_calls;
  for (int i = 0; i < 100; ++i) detail::free_data(detail::allocate_data(4097), 4097);
  EXPECT_EQ(memory_stats().system_calls, calls);
  EXPECT_EQ(memory_stats().live_bytes, before.live_bytes);
  EXPECT_GT(memory_stats().cached_bytes, 0);
  empty_cache();
  EXPECT_EQ(memory_stats().cached_bytes, 0);
  EXPECT_EQ(detail::allocate_data(0), nullptr);
  detail::free_data(nullptr, 0);
}

TEST(Allocator, RefusesTheImpossible) {
  EXPECT_THROW(detail::allocate_data(~size_t{0}), MemoryError);
  EXPECT_THROW(detail::allocate_data(size_t{1} << 47), MemoryError);
  EXPECT_THROW(detail::allocate_data(size_t{1} << 63), MemoryError);
}

TEST(Allocator, PeakIsTheHighest) {
  reset_peak_memory();
  const int64_t start = memory_stats().live_bytes;
  void* a = detail::allocate_data(1 << 20);
  void* b = detail::allocate_data(1 << 20);
  detail::free_data(a, 1 << 20);
  detail::free_data(b, 1 << 20);
  EXPECT_EQ(memory_stats().peak_bytes - start, 2 << 20);
  reset_peak_memory();
  EXPECT_EQ(memory_stats().peak_bytes, start);
}

TEST(Allocator, ThreadsDoNotShareBlocks) {
  std::atomic<int> clashes{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      std::vector<std::pair<unsigned char*, size_t>> held;
      for (int i = 0; i < 4000; ++i) {
        const size_t bytes = 1 + random() % 2000;
        auto* p = static_cast<unsigned char*>(detail::allocate_object(bytes));
        std::memset(p, static_cast<int>(t), bytes);
        held.emplace_back(p, bytes);
        if (held.size() > 20) {
          const auto [q, n] = held[random() % held.size()];
          for (size_t j = 0; j < n; ++j) clashes += q[j] != t;
          std::erase(held, std::pair{q, n});
          detail::free_object(q, n);
        }
      }
      for (auto [q, n] : held) detail::free_object(q, n);
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(clashes, 0);
}

TEST(Allocator, PoolVectorHoldsValues) {
  PoolVector<int64_t> v;
  for (int64_t i = 0; i < 5000; ++i) v.push_back(i);
  EXPECT_EQ(std::accumulate(v.begin(), v.end(), int64_t{0}), 4999 * 2500);
}

struct Threads {
  explicit Threads(int n) { set_num_threads(n); }
  ~Threads() { set_num_threads(former); }
  int former = num_threads();
};

TEST(Parallel, CoversEveryItemOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    Threads scope(threads);
    for (const int64_t n : {0, 1, 2, 7, 64, 1000})
      for (const int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
        parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          EXPECT_EQ(begin % std::max<int64_t>(grain, 1), 0);
          for (int64_t i = begin; i < end; ++i) hits[static_cast<size_t>(i)]++;
        });
        for (auto& h : hits) ASSERT_EQ(h, 1);
      }
  }
}

TEST(Parallel, ManySmallRegions) {
  Threads scope(4);
  int64_t sum = 0;
  for (int round = 0; round < 5000; ++round) {
    int64_t parts[5] = {};
    parallel_for(5, 1, [&](int64_t begin, int64_t) { parts[begin] = begin + round; });
    for (int64_t p : parts) sum += p;
  }
  EXPECT_EQ(sum, int64_t{5000} * 10 + int64_t{5} * 4999 * 2500);
}

TEST(Parallel, WorkersSleepAndWake) {
  Threads scope(4);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> count{0};
    parallel_for(16, 1, [&](int64_t, int64_t) { ++count; });
    EXPECT_EQ(count, 16);
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

TEST(Parallel, UsesSeveralThreads) {
  Threads scope(3);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  parallel_for(3, 1, [&](int64_t, int64_t) {
    {
      const std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
    }
    for (int tries = 0; tries < 5000; ++tries) {  // hold the piece until all three have one
      {
        const std::lock_guard lock(mutex);
        if (seen.size() == 3) return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  EXPECT_EQ(seen.size(), 3u);
}

TEST(Parallel, NestedRunsInline) {
  Threads scope(4);
  std::atomic<int> count{0}, strangers{0};
  parallel_for(8, 1, [&](int64_t, int64_t) {
    const auto me = std::this_thread::get_id();
    parallel_for(8, 1, [&](int64_t, int64_t) {
      strangers += std::this_thread::get_id() != me;
      ++count;
    });
  });
  EXPECT_EQ(count, 64);
  EXPECT_EQ(strangers, 0);
}

TEST(Parallel, ConcurrentCallersAllFinish) {
  Threads scope(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int round = 0; round < 300; ++round)
        parallel_for(10, 2, [&](int64_t begin, int64_t end) { sum += end - begin; });
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(sum, 4 * 300 * 10);
}

TEST(Parallel, ExceptionsReachTheCaller) {
  for (const int threads : {1, 4}) {
    Threads scope(threads);
    for (int round = 0; round < 200; ++round) {
      EXPECT_THROW(parallel_for(64, 1,
                                [&](int64_t i, int64_t) {
                                  if (i % 7 == 3) throw ValueError(str("piece ", i));
                                }),
                   ValueError);
      std::atomic<int> count{0};
      parallel_for(8, 1, [&](int64_t, int64_t) { ++count; });
      ASSERT_EQ(count, 8);
    }
  }
}

TEST(Parallel, ThreadCountIsChecked) {
  EXPECT_THROW(set_num_threads(0), ValueError);
  EXPECT_THROW(set_num_threads(-3), ValueError);
  EXPECT_THROW(set_num_threads(1025), ValueError);
  EXPECT_GE(num_threads(), 1);
}

// Known answers that the Random123 distribution publishes for Philox4x32-10.
TEST(Random, PhiloxKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ((Philox{0, 0}(0)), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint64_t ones = ~uint64_t{0};
  EXPECT_EQ((Philox{ones, ones}(ones)), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  const Philox pi{0x299f31d0a4093822, 0x0370734413198a2e};
  EXPECT_EQ(pi(0x85a308d3243f6a88), (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  EXPECT_EQ(pi.word(4 * 5 + 2), pi(5)[2]);
  static_assert(Philox{1, 2}(3)[0] != Philox{1, 2}(4)[0]);
}

TEST(Random, UniformsStayBelowOne) {
  EXPECT_EQ(uniform_f32(0), 0.0f);
  EXPECT_LT(uniform_f32(~0u), 1.0f);
  EXPECT_EQ(uniform_f64(0, 0), 0.0);
  EXPECT_LT(uniform_f64(~0u, ~0u), 1.0);
  EXPECT_EQ(below(0, 10), 0u);
  EXPECT_EQ(below(~uint64_t{0}, 10), 9u);
  EXPECT_EQ(below(~uint64_t{0}, 1), 0u);
}

TEST(Random, UniformsAreUniform) {
  const Philox random{11, 5};
  constexpr int kBins = 32, kDraws = 320000;
  int bins[kBins] = {};
  for (uint64_t i = 0; i < kDraws; ++i) ++bins[static_cast<int>(uniform_f32(random.word(i)) * kBins)];
  double chi2 = 0;
  for (const int b : bins) chi2 += (b - 1e4) * (b - 1e4) / 1e4;
  EXPECT_LT(chi2, 61.1);  // 31 degrees of freedom, p = 0.001
  EXPECT_GT(chi2, 9.0);
}

TEST(Random, StreamsCountUp) {
  const GeneratorState before = generator_state();
  manual_seed(42);
  EXPECT_EQ(next_stream().stream, 0u);
  EXPECT_EQ(next_stream().stream, 1u);
  const GeneratorState middle = generator_state();
  const Philox a = next_stream();
  set_generator_state(middle);
  const Philox b = next_stream();
  EXPECT_EQ(a.seed, 42u);
  EXPECT_EQ(a(7), b(7));
  set_generator_state(before);
}

}  // namespace
}  // namespace hone
