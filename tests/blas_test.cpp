// Matrix products: the served kernel, the fallback and the threaded split against f64 loops; the first-use check.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "hone/hone.h"
#include "hone/ops/blas.h"

namespace hone::blas {
namespace {

template <class T>
using Gemm = void (*)(bool, bool, int64_t, int64_t, int64_t, T, const T*, int64_t, const T*, int64_t, T, T*, int64_t);

/// A problem with wide leading dimensions; the gaps of C must stay as they were.
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
    a.resize(static_cast<size_t>(lda * (ta ? k : m)));
    b.resize(static_cast<size_t>(ldb * (tb ? n : k)));
    c.resize(static_cast<size_t>(ldc * m));
    for (auto* v : {&a, &b, &c})
      for (T& x : *v) x = static_cast<T>(uniform(random));
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

TEST(Blas, MatchesLoops) {
  check_everywhere<float>(gemm, "gemm");
  check_everywhere<double>(gemm, "gemm");
}

TEST(Blas, PlainMatchesLoops) {
  check_everywhere<float>(plain_gemm, "plain_gemm");
  check_everywhere<double>(plain_gemm, "plain_gemm");
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

// ---- The first-use check ----

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
