#pragma once
// Hone's own matrix product, one per SIMD target.

#include <cstddef>
#include <cstdint>

namespace hone::simd {

/// C = alpha·op(A)·op(B) + beta·C; the members mean what blas::gemm's arguments mean.
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
  /// C = beta·C.
  void scale() const {
    if (beta == T{1}) return;
    for (int64_t i = 0; i < m; ++i) {
      T* const row = c + i * ldc;
      for (int64_t j = 0; j < n; ++j) row[j] = beta == T{0} ? T{0} : row[j] * beta;
    }
  }
};

/// Room for one product, 64-byte aligned. Blocks are made for all threads at once and kept: a loop in steady state asks
/// the system for nothing, whichever of its products meet.
class GemmScratch {
 public:
  explicit GemmScratch(size_t bytes);  ///< 0: none. MemoryError
  ~GemmScratch();
  GemmScratch(const GemmScratch&) = delete;
  GemmScratch& operator=(const GemmScratch&) = delete;
  void* get() const { return p_; }

 private:
  void* p_ = nullptr;
  size_t bytes_ = 0;
};

struct GemmKernels {
  const char* target;  ///< Highway's name: "AVX2"
  void (*f32)(const Product<float>& p);
  void (*f64)(const Product<double>& p);
};

/// The set for the best target of this machine (or the one chosen for a test).
const GemmKernels& gemm_kernels();

}  // namespace hone::simd
