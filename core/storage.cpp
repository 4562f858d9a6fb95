#include "hone/core/storage.h"

#include "hone/core/error.h"
#include "hone/cuda/api.h"

namespace hone {

void check_usable(Device d) {
  if (d.type == DeviceType::cpu) {
    HONE_CHECK(d.index == 0, DeviceError, "device ", d.index, " of cpu: there is only cpu 0");
    return;
  }
  if constexpr (kHasCuda) {
    const int count = cuda::device_count();
    HONE_CHECK(d.index >= 0 && d.index < count, DeviceError, "device ", to_string(d),
               " is not there: this machine has ", count, " CUDA devices");
  } else {
    throw DeviceError(str("device ", to_string(d), ": this is a CPU build of Hone; configure with -DHONE_CUDA=ON"));
  }
}

Storage::Storage(size_t n, Device d) : bytes(n), device(d) {
  check_usable(d);
  if constexpr (kHasCuda) {
    if (d.type == DeviceType::cuda) {
      data = cuda::allocate(n, d.index);
      return;
    }
  }
  data = detail::allocate_data(n);
}

Storage::~Storage() {
  if constexpr (kHasCuda) {
    if (device.type == DeviceType::cuda) {
      cuda::release(data, device.index);
      return;
    }
  }
  detail::free_data(data, bytes);
}

}  // namespace hone
