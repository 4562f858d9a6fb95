#pragma once
// Every device entry point that the CPU side may call. No CUDA header here: callers compile with any C++ compiler and
// name these functions under `if constexpr (kHasCuda)` only, so a CPU build needs no definition of them. Per-topic
// headers hold the ops' kernels; they see core/view.h alone.

#include <cstddef>

#include "hone/core/device.h"
#include "hone/cuda/elementwise_api.h"

namespace hone::cuda {

/// Devices that can be used: 1, or 0 where there is no driver or device. CUDA_VISIBLE_DEVICES chooses which.
int device_count();
/// Uninitialized memory on `device`; nullptr for 0 bytes. DeviceError.
void* allocate(size_t bytes, int device);
/// Returns memory of allocate(); nullptr is allowed.
void release(void* p, int device) noexcept;
/// Copies `bytes` between host and device, or inside one, after the work queued so far; done when it returns.
void copy(void* to, DeviceType to_type, const void* from, DeviceType from_type, size_t bytes);
/// Waits for all queued work; DeviceError if any of it failed.
void synchronize();

}  // namespace hone::cuda
