#pragma once
// Matrix products. ops/blas.cpp is the only file that knows BLAS.

#include <cstdint>
#include <string_view>

namespace hone::blas {

/// C = alpha·op(A)·op(B) + beta·C, row-major, op(A) m×k, op(B) k×n, leading dimensions in elements. Single-threaded:
/// callers split work by size. beta = 0 never reads C. OpenBLAS serves, or Hone's own kernel: where OpenBLAS runs
/// kernels without AVX2 on a processor that has it, and where it is wrong, which first use checks against plain loops
/// on a few sizes and says on stderr.
void gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda,
          const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

/// As gemm, split over threads by fixed blocks of rows (or columns): the same bits at any thread count.
void parallel_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                   int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void parallel_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
                   int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

/// Hone's own kernel, whatever serves.
void plain_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
                const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void plain_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a, int64_t lda,
                const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

/// "OpenBLAS 0.3.21 (Haswell)", "hone (AVX3; OpenBLAS 0.3.21 has only its Prescott kernels here)" or "hone (OpenBLAS
/// gave wrong results here)".
const char* description();

namespace detail {
/// What serves gemm, with the meaning of gemm's own arguments.
struct Library {
  void (*sgemm)(bool, bool, int64_t, int64_t, int64_t, float, const float*, int64_t, const float*, int64_t, float,
                float*, int64_t);
  void (*dgemm)(bool, bool, int64_t, int64_t, int64_t, double, const double*, int64_t, const double*, int64_t, double,
                double*, int64_t);
};
Library openblas();
/// As the first use does: checks `library` and has it serve, or Hone's own kernel where it is wrong. For tests, and not
/// beside running products. Returns whether the library was right.
bool adopt(const Library& library);
/// Whether OpenBLAS's core of this name lacks the AVX2 that the processor has by `target`, Highway's name of it.
bool is_outdated(std::string_view core, std::string_view target);
}  // namespace detail

}  // namespace hone::blas
