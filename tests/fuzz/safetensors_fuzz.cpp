// Any bytes: a file, or a FormatError; and what loads is written to a file that loads the same.

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "hone/hone.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool same(const hone::TensorFile& a, const hone::TensorFile& b) {
  if (a.metadata != b.metadata || a.tensors.size() != b.tensors.size()) return false;
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    const auto& [name, x] = a.tensors[i];
    const auto& [other, y] = b.tensors[i];
    if (name != other || x.shape() != y.shape() || x.dtype() != y.dtype()) return false;
    const auto bytes = static_cast<size_t>(x.numel() * hone::size_of(x.dtype()));
    if (bytes > 0 && std::memcmp(x.raw_data(), y.raw_data(), bytes) != 0) return false;  // bits: NaN is NaN
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = "/dev/shm/hone-fuzz-" + std::to_string(getpid());
  hone::TensorFile file;
  try {
    file = hone::parse_safetensors(data, size, "fuzz");
  } catch (const hone::FormatError&) { return 0; }
  size_t bytes = 0;
  for (const auto& [name, tensor] : file.tensors)
    bytes += static_cast<size_t>(tensor.numel() * hone::size_of(tensor.dtype()));
  require(bytes <= size);  // no more than the file holds
  hone::save_safetensors(path, file);
  const bool equal = same(file, hone::load_safetensors(path));
  unlink(path.c_str());
  require(equal);
  return 0;
}
