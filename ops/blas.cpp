#include "hone/ops/blas.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <limits>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "hone/core/allocator.h"
#include "hone/core/parallel.h"
#include "hone/core/random.h"

namespace hone::blas {
namespace {

/// One product; the members mean what gemm's arguments mean.
template <class T> struct Product {
  bool trans_a, trans_b;
  int64_t m, n, k;
  T alpha;
  const T* a;
  int64_t lda;
  const T* b;
  int64_t ldb;
  T beta;
  T* c;
  int64_t ldc;

  /// The product of rows [i, i + rows) and columns [j, j + cols) of C.
  Product block(int64_t i, int64_t rows, int64_t j, int64_t cols) const {
    Product p = *this;
    p.m = rows;
    p.n = cols;
    p.a += trans_a ? i : i * lda;
    p.b += trans_b ? j * ldb : j;
    p.c += i * ldc + j;
    return p;
  }
};

template <class T> void scale(const Product<T>& p) {
  if (p.beta == T{1}) return;
  for (int64_t i = 0; i < p.m; ++i) {
    T* row = p.c + i * p.ldc;
    if (p.beta == T{0}) {
      std::fill_n(row, p.n, T{0});
    } else {
      for (int64_t j = 0; j < p.n; ++j) row[j] *= p.beta;
    }
  }
}

// ---- Hone's own kernel: blocks packed into panels, a register tile in the middle ----

template <class T> struct Tile {
  static constexpr int64_t kRows = 4, kCols = 32 / sizeof(T);
  static constexpr int64_t kM = 64, kK = 256, kN = 512;  // A's block for L2, a panel of B for L1
};

/// Memory of the cache for a scope.
template <class T> struct Scratch {
  explicit Scratch(int64_t n)
      : bytes(static_cast<size_t>(n) * sizeof(T)), p(static_cast<T*>(hone::detail::allocate_data(bytes))) {}
  ~Scratch() { hone::detail::free_data(p, bytes); }
  Scratch(const Scratch&) = delete;
  size_t bytes;
  T* p;
};

/// `count` lines of `depth` elements, element (line, d) at from[line * line_step + d * depth_step], as panels of kWide
/// lines, the last filled up with zeros.
template <int64_t kWide, class T>
void pack(const T* from, int64_t line_step, int64_t depth_step, int64_t count, int64_t depth, T* to) {
  for (int64_t first = 0; first < count; first += kWide) {
    const int64_t wide = std::min(kWide, count - first);
    const T* panel = from + first * line_step;
    for (int64_t d = 0; d < depth; ++d, to += kWide) {
      for (int64_t i = 0; i < wide; ++i) to[i] = panel[i * line_step + d * depth_step];
      for (int64_t i = wide; i < kWide; ++i) to[i] = T{0};
    }
  }
}

template <class T>
void tile(const T* __restrict a, const T* __restrict b, int64_t depth, T alpha, T* c, int64_t ldc, int64_t rows,
          int64_t cols) {
  constexpr int64_t R = Tile<T>::kRows, C = Tile<T>::kCols;
  T sum[R][C] = {};
  for (int64_t d = 0; d < depth; ++d)
    for (int64_t i = 0; i < R; ++i)
      for (int64_t j = 0; j < C; ++j) sum[i][j] += a[d * R + i] * b[d * C + j];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) c[i * ldc + j] += alpha * sum[i][j];
}

template <class T> void plain(const Product<T>& p) {
  using S = Tile<T>;
  scale(p);
  if (p.k == 0 || p.alpha == T{0}) return;
  const auto up = [](int64_t x, int64_t to) { return (x + to - 1) / to * to; };
  const int64_t deepest = std::min(S::kK, p.k);
  const Scratch<T> a(up(std::min(S::kM, p.m), S::kRows) * deepest), b(up(std::min(S::kN, p.n), S::kCols) * deepest);
  const int64_t a_row = p.trans_a ? 1 : p.lda, a_depth = p.trans_a ? p.lda : 1;
  const int64_t b_col = p.trans_b ? p.ldb : 1, b_depth = p.trans_b ? 1 : p.ldb;
  for (int64_t j = 0; j < p.n; j += S::kN) {
    const int64_t cols = std::min(S::kN, p.n - j);
    for (int64_t d = 0; d < p.k; d += S::kK) {
      const int64_t depth = std::min(S::kK, p.k - d);
      pack<S::kCols>(p.b + j * b_col + d * b_depth, b_col, b_depth, cols, depth, b.p);
      for (int64_t i = 0; i < p.m; i += S::kM) {
        const int64_t rows = std::min(S::kM, p.m - i);
        pack<S::kRows>(p.a + i * a_row + d * a_depth, a_row, a_depth, rows, depth, a.p);
        for (int64_t jj = 0; jj < cols; jj += S::kCols)
          for (int64_t ii = 0; ii < rows; ii += S::kRows)
            tile(a.p + ii * depth, b.p + jj * depth, depth, p.alpha, p.c + (i + ii) * p.ldc + j + jj, p.ldc,
                 std::min(S::kRows, rows - ii), std::min(S::kCols, cols - jj));
      }
    }
  }
}

// ---- OpenBLAS ----

CBLAS_TRANSPOSE flag(bool trans) { return trans ? CblasTrans : CblasNoTrans; }
blasint narrow(int64_t v) { return static_cast<blasint>(v); }

void call_gemm(const Product<float>& p) {
  cblas_sgemm(CblasRowMajor, flag(p.trans_a), flag(p.trans_b), narrow(p.m), narrow(p.n), narrow(p.k), p.alpha, p.a,
              narrow(p.lda), p.b, narrow(p.ldb), p.beta, p.c, narrow(p.ldc));
}
void call_gemm(const Product<double>& p) {
  cblas_dgemm(CblasRowMajor, flag(p.trans_a), flag(p.trans_b), narrow(p.m), narrow(p.n), narrow(p.k), p.alpha, p.a,
              narrow(p.lda), p.b, narrow(p.ldb), p.beta, p.c, narrow(p.ldc));
}
void call_gemv(bool trans, int64_t rows, int64_t cols, float alpha, const float* a, int64_t lda, const float* x,
               int64_t incx, float* y, int64_t incy) {
  cblas_sgemv(CblasRowMajor, flag(trans), narrow(rows), narrow(cols), alpha, a, narrow(lda), x, narrow(incx), 1.0f, y,
              narrow(incy));
}
void call_gemv(bool trans, int64_t rows, int64_t cols, double alpha, const double* a, int64_t lda, const double* x,
               int64_t incx, double* y, int64_t incy) {
  cblas_dgemv(CblasRowMajor, flag(trans), narrow(rows), narrow(cols), alpha, a, narrow(lda), x, narrow(incx), 1.0, y,
              narrow(incy));
}

template <class T> void library_gemm(const Product<T>& p) {
  if (std::max({p.m, p.n, p.k, p.lda, p.ldb, p.ldc}) > std::numeric_limits<blasint>::max()) return plain(p);
  if (p.m != 1 && p.n != 1) return call_gemm(p);
  // A vector: gemm would pack the whole matrix to read it once. Scaling here keeps "beta = 0 never reads C".
  scale(p);
  if (p.m == 1) {
    const int64_t step = p.trans_a ? p.lda : 1;
    p.trans_b ? call_gemv(false, p.n, p.k, p.alpha, p.b, p.ldb, p.a, step, p.c, 1)
              : call_gemv(true, p.k, p.n, p.alpha, p.b, p.ldb, p.a, step, p.c, 1);
  } else {
    const int64_t step = p.trans_b ? 1 : p.ldb;
    p.trans_a ? call_gemv(true, p.k, p.m, p.alpha, p.a, p.lda, p.b, step, p.c, p.ldc)
              : call_gemv(false, p.m, p.k, p.alpha, p.a, p.lda, p.b, step, p.c, p.ldc);
  }
}

template <class T>
void openblas_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
                   const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  library_gemm(Product<T>{trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc});
}

std::string openblas_name() {
  std::string name = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …"
  const size_t end = name.find(' ', name.find(' ') + 1);
  return name.substr(0, end) + " (" + openblas_get_corename() + ")";
}

// ---- The check ----

/// Against f64 loops, within what rounding allows: k terms of size at most 1, each off by a few ulp.
template <class T, class F> bool right(F gemm) {
  struct Size {
    int64_t m, n, k;
  };
  const Size sizes[] = {{1, 1, 1},    {1, 37, 65},  {41, 1, 70},  {2, 3, 5},     {7, 9, 300},
                        {16, 16, 16}, {17, 33, 65}, {64, 48, 32}, {100, 65, 31}, {33, 130, 290}};
  uint64_t draw = 0;
  const Philox random{0x686f6e65, 1};
  const auto fill = [&](std::vector<T>& v, int64_t n) {
    v.resize(static_cast<size_t>(n));
    for (T& x : v) x = static_cast<T>(uniform_f32(random.word(draw++)) * 2 - 1);
  };
  std::vector<T> a, b, c;
  std::vector<double> want;
  for (const auto [m, n, k] : sizes) {
    const int64_t pad = 3;  // leading dimensions wider than the rows
    fill(a, (m + pad) * (k + pad));
    fill(b, (k + pad) * (n + pad));
    for (int flags = 0; flags < 4; ++flags) {
      const bool ta = flags & 1, tb = flags & 2;
      const int64_t lda = (ta ? m : k) + pad, ldb = (tb ? k : n) + pad, ldc = n + pad;
      const T alpha = ta ? T{1} : T{-0.75}, beta = tb ? T{0} : T{0.5};
      fill(c, m * ldc);
      want.assign(c.begin(), c.end());
      for (int64_t i = 0; i < m; ++i) {
        double* row = want.data() + i * ldc;
        for (int64_t j = 0; j < n; ++j) row[j] *= static_cast<double>(beta);
        for (int64_t d = 0; d < k; ++d) {
          const double x = static_cast<double>(alpha) * static_cast<double>(ta ? a[d * lda + i] : a[i * lda + d]);
          for (int64_t j = 0; j < n; ++j) row[j] += x * static_cast<double>(tb ? b[j * ldb + d] : b[d * ldb + j]);
        }
      }
      if (beta == T{0})  // what C held must not matter
        for (int64_t i = 0; i < m; ++i) std::fill_n(c.data() + i * ldc, n, std::numeric_limits<T>::quiet_NaN());
      gemm(ta, tb, m, n, k, alpha, a.data(), lda, b.data(), ldb, beta, c.data(), ldc);
      const double allowed = 4.0 * static_cast<double>(std::numeric_limits<T>::epsilon()) * static_cast<double>(k + 2);
      for (size_t i = 0; i < c.size(); ++i)
        if (!(std::abs(static_cast<double>(c[i]) - want[i]) <= allowed)) return false;  // the gaps between rows too
    }
  }
  return true;
}

struct Serving {
  detail::Library library;
  std::string name;
};
std::mutex adopting;
std::atomic<const Serving*> serving{nullptr};

bool adopt_named(const detail::Library& library, const std::string& name) {
  static constinit Serving* slots[2] = {};  // the former one stays valid for a product that still runs
  static int next = 0;
  const bool ok = right<float>(library.sgemm) && right<double>(library.dgemm);
  if (!ok)
    std::fprintf(stderr, "hone: %s gives wrong matrix products on this processor; using hone's own, slower kernel\n",
                 name.c_str());
  auto*& slot = slots[next++ % 2];
  delete slot;
  slot = ok ? new Serving{library, name}
            : new Serving{
                  {static_cast<decltype(library.sgemm)>(plain_gemm), static_cast<decltype(library.dgemm)>(plain_gemm)},
                  "hone (" + name.substr(0, name.find(' ')) + " gave wrong results here)"};
  serving.store(slot, std::memory_order_release);
  return ok;
}

const Serving& current() {
  const Serving* s = serving.load(std::memory_order_acquire);
  if (!s) [[unlikely]] {
    const std::lock_guard lock(adopting);
    if (!serving.load()) adopt_named(detail::openblas(), openblas_name());
    s = serving.load();
  }
  return *s;
}

template <class T> void serve(const Product<T>& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0 || p.alpha == T{0}) return scale(p);
  const detail::Library& l = current().library;
  if constexpr (std::is_same_v<T, float>)
    l.sgemm(p.trans_a, p.trans_b, p.m, p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb, p.beta, p.c, p.ldc);
  else
    l.dgemm(p.trans_a, p.trans_b, p.m, p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb, p.beta, p.c, p.ldc);
}

template <class T> void serve_parallel(const Product<T>& p) {
  // Blocks from the sizes alone. Each repacks an operand, so none is narrower than 32, nor below about 20 us of work.
  constexpr double kWork = 1 << 20;
  constexpr int64_t kNarrowest = 32, kRows = 256, kCols = 512, kBlocks = 32;
  const auto width = [&](int64_t size, double work_per_line) {
    const auto least = static_cast<int64_t>(std::min(kWork / std::max(work_per_line, 1.0), 1e15)) + 1;
    const int64_t w = std::max({least, (size + kBlocks - 1) / kBlocks, kNarrowest});
    return std::min((w + 15) / 16 * 16, size);
  };
  int64_t rows = p.m, cols = p.n;
  const auto depth = static_cast<double>(p.k);
  if (p.m >= 2 * kRows && p.n >= 2 * kCols) {
    rows = kRows;
    if (depth * kRows * kCols >= kWork) cols = kCols;
  } else if (p.m >= p.n) {
    rows = width(p.m, depth * static_cast<double>(p.n));
  } else {
    cols = width(p.n, depth * static_cast<double>(p.m));
  }
  if (p.m == 0 || p.n == 0) return;
  const int64_t down = (p.m + rows - 1) / rows, across = (p.n + cols - 1) / cols;
  if (down * across == 1) return serve(p);
  parallel_for(down * across, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t top = i / across * rows, left = i % across * cols;
      serve(p.block(top, std::min(rows, p.m - top), left, std::min(cols, p.n - left)));
    }
  });
}

}  // namespace

namespace detail {

Library openblas() {
  static const bool single = [] {  // process-wide: threads are ours, through parallel_for
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(single);
  return {openblas_gemm<float>, openblas_gemm<double>};
}

bool adopt(const Library& library) {
  const std::lock_guard lock(adopting);
  const bool is_openblas = library.sgemm == openblas_gemm<float> && library.dgemm == openblas_gemm<double>;
  return adopt_named(library, is_openblas ? openblas_name() : "another library");
}

}  // namespace detail

#define HONE_GEMM_ARGUMENTS(T)                                                                               \
  bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, T alpha, const T *a, int64_t lda, const T *b, \
      int64_t ldb, T beta, T *c, int64_t ldc
#define HONE_GEMM_PRODUCT(T) \
  Product<T> { trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc }

void gemm(HONE_GEMM_ARGUMENTS(float)) { serve(HONE_GEMM_PRODUCT(float)); }
void gemm(HONE_GEMM_ARGUMENTS(double)) { serve(HONE_GEMM_PRODUCT(double)); }
void parallel_gemm(HONE_GEMM_ARGUMENTS(float)) { serve_parallel(HONE_GEMM_PRODUCT(float)); }
void parallel_gemm(HONE_GEMM_ARGUMENTS(double)) { serve_parallel(HONE_GEMM_PRODUCT(double)); }
void plain_gemm(HONE_GEMM_ARGUMENTS(float)) { plain(HONE_GEMM_PRODUCT(float)); }
void plain_gemm(HONE_GEMM_ARGUMENTS(double)) { plain(HONE_GEMM_PRODUCT(double)); }

const char* description() { return current().name.c_str(); }

}  // namespace hone::blas
