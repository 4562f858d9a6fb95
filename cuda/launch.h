#pragma once
// Kernel launches and shared memory without <<< >>> and __shared__, so that kernel files are plain C++ but for these
// names: a build for a CPU test double defines them differently.

#include <cuda_runtime.h>

#include "hone/cuda/check.h"

/// On functions that run in kernels, and on the host too.
#define HONE_DEVICE __host__ __device__ __forceinline__
#define HONE_KERNEL __global__ void
/// T name[count] shared by a block; count is a constant.
#define HONE_SHARED(T, name, count) __shared__ T name[count]
/// Queues kernel(arguments…) on blocks × threads; a kernel template's name with commas goes in parentheses.
#define HONE_LAUNCH(kernel, blocks, threads, ...) \
  ::hone::cuda::check(::hone::cuda::launch(kernel, blocks, threads, __VA_ARGS__), "launch of " #kernel)

namespace hone::cuda {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = threads;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace hone::cuda
