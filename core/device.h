#pragma once
// Where a tensor's bytes live.

#include <cstdint>
#include <string>

namespace hone {

#ifdef HONE_HAS_CUDA
inline constexpr bool kHasCuda = true;
#else
inline constexpr bool kHasCuda = false;
#endif

enum class DeviceType : uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int32_t index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

inline constexpr Device cpu{};
constexpr Device cuda_device(int32_t index = 0) { return {DeviceType::cuda, index}; }

inline std::string to_string(Device d) { return d.type == DeviceType::cpu ? "cpu" : "cuda:" + std::to_string(d.index); }

/// Throws DeviceError if `d` cannot be used: a CUDA device in a CPU build, or an index that is not there.
void check_usable(Device d);

}  // namespace hone
