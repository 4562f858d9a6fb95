// Memory, copies and synchronization. All work runs in one stream of one device.

#include <cstdint>

#include "hone/cuda/api.h"
#include "hone/cuda/check.h"

namespace hone::cuda {
namespace {

/// The driver's pool keeps what is freed, so a steady state asks the system for nothing.
void keep_freed_memory(int device) {
  cudaMemPool_t pool;
  HONE_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&pool, device));
  uint64_t threshold = UINT64_MAX;
  HONE_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
}

}  // namespace

int device_count() {
  static const int count = [] {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess) {
      cudaGetLastError();  // no driver is an answer here, not an error for the next call to find
      return 0;
    }
    return n > 0 ? 1 : 0;
  }();
  return count;
}

void* allocate(size_t bytes, int device) {
  if (bytes == 0) return nullptr;
  static const bool kept = (keep_freed_memory(device), true);
  static_cast<void>(kept);
  void* p = nullptr;
  const cudaError_t error = cudaMallocAsync(&p, bytes, nullptr);
  if (error != cudaSuccess) {
    cudaGetLastError();
    throw DeviceError(str("cuda: no room for ", bytes, " bytes: ", cudaGetErrorString(error)));
  }
  return p;
}

void release(void* p, int) noexcept {
  if (p) cudaFreeAsync(p, nullptr);
}

void copy(void* to, DeviceType to_type, const void* from, DeviceType from_type, size_t bytes) {
  if (bytes == 0) return;
  const bool down = from_type == DeviceType::cuda, up = to_type == DeviceType::cuda;
  const cudaMemcpyKind kind = down && up ? cudaMemcpyDeviceToDevice
                              : down     ? cudaMemcpyDeviceToHost
                              : up       ? cudaMemcpyHostToDevice
                                         : cudaMemcpyHostToHost;
  HONE_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, kind, nullptr));
  HONE_CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

void synchronize() { HONE_CUDA_CHECK(cudaStreamSynchronize(nullptr)); }

}  // namespace hone::cuda
