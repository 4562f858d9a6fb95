// Matrix products: the served kernel, Hone's own and the threaded split against f64 loops; which one serves.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "hone/hone.h"
#include "hone/ops/blas.h"
#include "hone/ops/simd/gemm_kernels.h"
#include "simd_targets.h"

namespace hone::blas {
namespace {

template <class T>
using Gemm = void (*)(bool, bool, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, int64_t, T, T*, int64_t);

/// A problem with wide leading dimensions. A and B end with their last element and have NaN between their rows; the
/// gaps of C must stay as they were.
template <class T> struct Problem {
  bool ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  T alpha, beta;
  std::vector<T> a, b, c;

  Problem(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, T beta, unsigned seed)
      : ta(ta),
        tb(tb),
        m(m),
        n(n),
        k(k),
        lda((ta ? m : k) + 2),
        ldb((tb ? k : n) + 1),
        ldc(n + 3),
        alpha(alpha),
        beta(beta) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    const auto fill = [&](std::vector<T>& v, int64_t rows, int64_t cols, int64_t ld) {
      v.resize(rows > 0 && cols > 0 ? static_cast<size_t>(ld * (rows - 1) + cols) : 0);
      for (size_t i = 0; i < v.size(); ++i)
        v[i] =
            static_cast<int64_t>(i) % ld < cols ? static_cast<T>(uniform(random)) : std::numeric_limits<T>::quiet_NaN();
    };
    fill(a, ta ? k : m, ta ? m : k, lda);
    fill(b, tb ? n : k, tb ? k : n, ldb);
    fill(c, m, ldc, ldc);
    if (beta == 0)
      for (int64_t i = 0; i < m; ++i) std::fill_n(c.data() + i * ldc, n, std::numeric_limits<T>::quiet_NaN());
  }
  std::vector<T> run(Gemm<T> gemm) const {
    std::vector<T> out = c;
    gemm(ta, tb, m, n, k, alpha, a.data(), lda, b.data(), ldb, beta, out.data(), ldc);
    return out;
  }
  void check(Gemm<T> gemm, const char* what) const {
    const std::vector<T> got = run(gemm);
    const double eps = std::numeric_limits<T>::epsilon();
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < ldc; ++j) {
        const T was = c[static_cast<size_t>(i * ldc + j)], is = got[static_cast<size_t>(i * ldc + j)];
        if (j >= n) {
          ASSERT_EQ(was, is) << what << ": wrote between the rows at " << i << ", " << j;
          continue;
        }
        double sum = 0;
        for (int64_t d = 0; d < k; ++d)
          sum += static_cast<double>(ta ? a[static_cast<size_t>(d * lda + i)] : a[static_cast<size_t>(i * lda + d)]) *
                 static_cast<double>(tb ? b[static_cast<size_t>(j * ldb + d)] : b[static_cast<size_t>(d * ldb + j)]);
        const double want = alpha * sum + (beta == 0 ? 0.0 : beta * static_cast<double>(was));
        ASSERT_NEAR(is, want, 8 * eps * static_cast<double>(k + 2))
            << what << " " << m << "x" << n << "x" << k << (ta ? " A'" : "") << (tb ? " B'" : "") << " at " << i << ", "
            << j;
      }
  }
};

template <class T> void check_everywhere(Gemm<T> gemm, const char* what) {
  const int64_t sizes[][3] = {{1, 1, 1},   {1, 5, 9},    {9, 1, 5},    {3, 5, 7},     {4, 8, 256},
                              {5, 9, 257}, {64, 512, 8}, {65, 513, 3}, {31, 33, 600}, {130, 70, 90},
                              {2, 0, 3},   {0, 2, 3},    {3, 4, 0}};
  unsigned seed = 1;
  for (const auto& s : sizes)
    for (int flags = 0; flags < 4; ++flags)
      for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {1.0, 1.0}, {-0.5, 0.25}, {0.0, 0.5}})
        Problem<T>(flags & 1, flags & 2, s[0], s[1], s[2], static_cast<T>(alpha), static_cast<T>(beta), seed++)
            .check(gemm, what);
}

// Products that meet for the first time in a late step must not ask the system for memory.
TEST(Blas, RoomIsMadeForAllThreadsAtOnce) {
  const int threads = num_threads();
  set_num_threads(4);
  { const simd::GemmScratch first(1 << 16); }
  const int64_t calls = memory_stats().system_calls;
  {
    const simd::GemmScratch a(1 << 16), b(100), c(1 << 16), d(1), none(0);
    std::set<void*> places;
    for (const simd::GemmScratch* s : {&a, &b, &c, &d}) {
      ASSERT_NE(s->get(), nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(s->get()) % 64, 0u);
      std::memset(s->get(), 1, 1 << 16);
      places.insert(s->get());
    }
    EXPECT_EQ(places.size(), 4u);
    EXPECT_EQ(none.get(), nullptr);
  }
  EXPECT_EQ(memory_stats().system_calls, calls);
  set_num_threads(threads);
}

TEST(Blas, MatchesLoops) {
  check_everywhere<float>(gemm, "gemm");
  check_everywhere<double>(gemm, "gemm");
}

TEST(Blas, PlainMatchesLoops) {
  check_everywhere<float>(plain_gemm, "plain_gemm");
  check_everywhere<double>(plain_gemm, "plain_gemm");
}

// Sizes about the edges of tiles and blocks: (m, n, k) at random, and some about the blocks' own.
template <class T> void check_edges(unsigned seed) {
  const int64_t small[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  11, 12, 13, 15,
                           16, 17, 23, 24, 25, 31, 32, 33, 47, 49, 63, 64, 65};
  const T factors[] = {T{1}, T{0}, T{-0.5}, T{0.75}};
  std::mt19937 random(seed);
  const auto draw = [&](const auto& from) { return from[random() % std::size(from)]; };
  for (int i = 0; i < 250; ++i) {
    const int64_t m = draw(small), n = draw(small), k = i % 50 == 0 ? 0 : draw(small);
    const T alpha = draw(factors), beta = draw(factors);
    Problem<T>(i & 1, i & 2, m, n, k, alpha, beta, random()).check(plain_gemm, "plain_gemm");
    if (::testing::Test::HasFatalFailure()) return;
  }
  const int64_t sizes[][3] = {{287, 37, 191}, {289, 129, 385}, {145, 65, 193}, {25, 33, 769}, {100, 1040, 70},
                              {11, 1023, 65}, {13, 1025, 66},  {64, 120, 400}, {64, 84, 120}, {64, 10, 84}};
  for (const auto& s : sizes)
    for (int flags = 0; flags < 4; ++flags) {
      Problem<T>(flags & 1, flags & 2, s[0], s[1], s[2], T{1.5}, T(flags % 3 * 0.5), random())
          .check(plain_gemm, "plain_gemm");
      if (::testing::Test::HasFatalFailure()) return;
    }
}
// A vector on either side: the matrix as rows and as columns, the vectors with and without steps.
template <class T> void check_vectors(unsigned seed) {
  for (const int64_t size : {1, 2, 7, 8, 9, 16, 31, 33, 100, 5000})
    for (const int64_t k : {1, 2, 3, 9, 15, 16, 17, 40, 127, 129})
      for (int flags = 0; flags < 4; ++flags)
        for (const auto& [alpha, beta] : {std::pair{1.0, 0.0}, {-0.5, 0.25}}) {
          const bool ta = flags & 1, tb = flags & 2;
          const auto a = static_cast<T>(alpha), b = static_cast<T>(beta);
          Problem<T>(ta, tb, 1, size, k, a, b, seed++).check(plain_gemm, "row");
          Problem<T>(ta, tb, size, 1, k, a, b, seed++).check(plain_gemm, "column");
          if (::testing::Test::HasFatalFailure()) return;
        }
}

TEST(Blas, PlainOnEveryTarget) {
  test::on_every_target([](int64_t) {
    check_edges<float>(1);
    check_edges<double>(2);
    check_vectors<float>(3);
    check_vectors<double>(4);
  });
}

// An element has the same bits in every block of C that holds it (a vector is summed in another order), and each time.
TEST(Blas, PlainHasTheSameBitsInEveryBlock) {
  test::on_every_target([](int64_t) {
    for (int flags = 0; flags < 4; ++flags) {
      const bool ta = flags & 1, tb = flags & 2;
      const Problem<float> p(ta, tb, 300, 140, 500, 1.5f, 0.5f, 9);
      const std::vector<float> all = p.run(plain_gemm);
      ASSERT_EQ(std::memcmp(all.data(), p.run(plain_gemm).data(), all.size() * sizeof(float)), 0);
      std::vector<float> parts = p.c;
      for (int64_t i = 0; i < p.m; i += 77)
        for (int64_t j = 0; j < p.n; j += 45)
          plain_gemm(ta, tb, std::min<int64_t>(77, p.m - i), std::min<int64_t>(45, p.n - j), p.k, p.alpha,
                     p.a.data() + (ta ? i : i * p.lda), p.lda, p.b.data() + (tb ? j * p.ldb : j), p.ldb, p.beta,
                     parts.data() + i * p.ldc + j, p.ldc);
      ASSERT_EQ(std::memcmp(all.data(), parts.data(), all.size() * sizeof(float)), 0);
    }
  });
}

TEST(Blas, ParallelMatchesLoops) {
  check_everywhere<float>(parallel_gemm, "parallel_gemm");
  check_everywhere<double>(parallel_gemm, "parallel_gemm");
}

// Sizes that split by rows, by columns, both ways, and as vectors.
TEST(Blas, SameBitsAtAnyThreadCount) {
  const int former = num_threads();
  const int64_t sizes[][3] = {{300, 70, 200},  {70, 300, 200},  {600, 1030, 40}, {520, 1040, 3},
                              {1, 3000, 1000}, {3000, 1, 1000}, {84, 120, 2000}};
  for (const auto& s : sizes)
    for (int flags = 0; flags < 4; ++flags) {
      const Problem<float> p(flags & 1, flags & 2, s[0], s[1], s[2], 1.5f, 0.5f, 77);
      set_num_threads(1);
      const std::vector<float> one = p.run(parallel_gemm);
      p.check(parallel_gemm, "parallel_gemm");
      for (const int threads : {2, 3, 7}) {
        set_num_threads(threads);
        const std::vector<float> many = p.run(parallel_gemm);
        ASSERT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), 0)
            << s[0] << "x" << s[1] << "x" << s[2];
      }
    }
  set_num_threads(former);
}

// ---- Which one serves ----

TEST(Blas, CoresWithoutAvx2AreOutdated) {
  for (const char* core : {"Prescott", "PRESCOTT", "Core2", "Nehalem", "Sandybridge", "Opteron_SSE3", "Bobcat"}) {
    EXPECT_TRUE(detail::is_outdated(core, "AVX2")) << core;
    EXPECT_TRUE(detail::is_outdated(core, "AVX3")) << core;
    EXPECT_FALSE(detail::is_outdated(core, "Scalar")) << core;
    EXPECT_FALSE(detail::is_outdated(core, "NEON")) << core;
  }
  for (const char* core :
       {"Haswell", "Zen", "ZEN", "Excavator", "SkylakeX", "Cooperlake", "Sapphirerapids", "armv8", ""})
    EXPECT_FALSE(detail::is_outdated(core, "AVX3")) << core;
  const std::string_view name = description();
  EXPECT_TRUE(name.starts_with("OpenBLAS ") || name.starts_with("hone (AVX")) << name;
}

int faults = 0;
template <class T>
void faulty(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b,
            int64_t ldb, T beta, T* c, int64_t ldc) {
  plain_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (m >= 17 && n >= 33) {  // wrong for some sizes alone, in one element
    c[(m - 1) * ldc + n - 1] += T(0.01);
    ++faults;
  }
}
template <class T>
void reads_c(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b,
             int64_t ldb, T beta, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) c[i * ldc + j] *= beta;
  plain_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, T{1}, c, ldc);
}
template <class T>
void right(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb,
           T beta, T* c, int64_t ldc) {
  plain_gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

TEST(Blas, WrongLibraryIsReplaced) {
  const std::string before = description();
  const detail::Library wrong[] = {
      {faulty<float>, right<double>}, {right<float>, faulty<double>}, {reads_c<float>, right<double>}};
  for (const detail::Library& library : wrong) {
    testing::internal::CaptureStderr();
    EXPECT_FALSE(detail::adopt(library));
    EXPECT_NE(testing::internal::GetCapturedStderr().find("wrong matrix products"), std::string::npos);
    EXPECT_NE(std::string(description()).find("gave wrong results here"), std::string::npos);
    faults = 0;
    Problem<float>(false, true, 40, 40, 40, 1, 0, 5).check(gemm, "fallback");
    Problem<double>(true, false, 40, 40, 40, 1, 1, 6).check(parallel_gemm, "fallback");
    EXPECT_EQ(faults, 0) << "the faulty library still serves";
  }
  EXPECT_TRUE(detail::adopt({right<float>, right<double>}));
  EXPECT_EQ(std::string(description()), "another library");
  detail::adopt(detail::openblas());
  EXPECT_EQ(std::string(description()), before);
}

}  // namespace
}  // namespace hone::blas
