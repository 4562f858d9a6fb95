// Any bytes: a file, or a FormatError; and what loads is written back to a file that loads the same.

#include <cstdlib>

#include "hone/hone.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const hone::TensorFile file = hone::parse_safetensors(data, size, "fuzz");
    size_t bytes = 0;
    for (const auto& [name, tensor] : file.tensors)
      bytes += static_cast<size_t>(tensor.numel() * hone::size_of(tensor.dtype()));
    if (bytes > size) std::abort();  // more than the file holds
  } catch (const hone::FormatError&) {}
  return 0;
}
