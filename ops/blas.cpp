#include "hone/ops/blas.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <limits>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "hone/core/parallel.h"
#include "hone/core/random.h"
#include "hone/ops/simd/gemm_kernels.h"

namespace hone::blas {
namespace {

using simd::Product;

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

void plain(const Product<float>& p) { simd::gemm_kernels().f32(p); }
void plain(const Product<double>& p) { simd::gemm_kernels().f64(p); }

template <class T> void library_gemm(const Product<T>& p) {
  if (std::max({p.m, p.n, p.k, p.lda, p.ldb, p.ldc}) > std::numeric_limits<blasint>::max()) return plain(p);
  if (p.m != 1 && p.n != 1) return call_gemm(p);
  // A vector: gemm would pack the whole matrix to read it once. Scaling here keeps "beta = 0 never reads C".
  p.scale();
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

std::string openblas_version() {
  const std::string name = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …"
  return name.substr(0, name.find(' ', name.find(' ') + 1));
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

detail::Library own() {
  return {static_cast<decltype(detail::Library::sgemm)>(plain_gemm),
          static_cast<decltype(detail::Library::dgemm)>(plain_gemm)};
}
bool is_right(const detail::Library& library) { return right<float>(library.sgemm) && right<double>(library.dgemm); }

void serve_from_now(const detail::Library& library, const std::string& name) {
  static constinit Serving* slots[2] = {};  // the former one stays valid for a product that still runs
  static int next = 0;
  auto*& slot = slots[next++ % 2];
  delete slot;
  slot = new Serving{library, name};
  serving.store(slot, std::memory_order_release);
}

bool adopt_named(const detail::Library& library, const std::string& name) {
  const bool ok = is_right(library);
  if (ok) {
    serve_from_now(library, name);
  } else {
    std::fprintf(stderr, "hone: %s gives wrong matrix products on this processor; using hone's own kernel\n",
                 name.c_str());
    serve_from_now(own(), "hone (" + name.substr(0, name.find(' ')) + " gave wrong results here)");
  }
  return ok;
}

bool adopt_openblas() {
  const std::string core = openblas_get_corename(), target = simd::gemm_kernels().target;
  const detail::Library openblas = detail::openblas();
  if (detail::is_outdated(core, target) && is_right(own())) {
    serve_from_now(own(), "hone (" + target + "; " + openblas_version() + " has only its " + core + " kernels here)");
    return true;
  }
  return adopt_named(openblas, openblas_version() + " (" + core + ")");
}

const Serving& current() {
  const Serving* s = serving.load(std::memory_order_acquire);
  if (!s) [[unlikely]] {
    const std::lock_guard lock(adopting);
    if (!serving.load()) adopt_openblas();
    s = serving.load();
  }
  return *s;
}

template <class T> void serve(const Product<T>& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0 || p.alpha == T{0}) return p.scale();
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
  return is_openblas ? adopt_openblas() : adopt_named(library, "another library");
}

bool is_outdated(std::string_view core, std::string_view target) {
  // A version that is older than the processor takes it for the oldest kind and uses a fifth of its speed. These are
  // the cores without AVX2; what a name says that is not here is not known, and OpenBLAS serves.
  static constexpr std::string_view kWithoutAvx2[] = {
      "atom",       "athlon",     "banias",   "barcelona",   "bobcat",      "bulldozer", "coppermine", "core2",
      "dunnington", "generic",    "katmai",   "nano",        "nehalem",     "northwood", "opteron",    "opteron_sse3",
      "penryn",     "piledriver", "prescott", "sandybridge", "steamroller", "unknown"};
  std::string lower(core);  // a build for one core spells its name in capitals
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return target.starts_with("AVX") && std::ranges::find(kWithoutAvx2, lower) != std::end(kWithoutAvx2);
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
