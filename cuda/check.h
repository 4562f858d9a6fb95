#pragma once
// CUDA errors as DeviceError, naming the call that failed. For CUDA sources alone.

#include <cuda_runtime.h>

#include "hone/core/error.h"

namespace hone::cuda {

inline void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) [[unlikely]]
    throw DeviceError(str("cuda: ", call, " failed: ", cudaGetErrorName(error), ", ", cudaGetErrorString(error)));
}

}  // namespace hone::cuda

#define HONE_CUDA_CHECK(call) ::hone::cuda::check((call), #call)
