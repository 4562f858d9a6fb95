#pragma once
// safetensors: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data.
// Source: the format's specification, https://github.com/huggingface/safetensors.

#include <map>
#include <string>
#include <vector>

#include "hone/core/tensor.h"

namespace hone {

/// Named tensors in the order given, and free text under "__metadata__".
struct TensorFile {
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::map<std::string, std::string> metadata;
  std::string source = {};  ///< the file that it was read from
  /// FormatError naming the file and the entry that it lacks. Searches in order.
  const Tensor& at(const std::string& name) const;
};

/// Writes to a temporary beside `path`, syncs it and renames it: a failure (IoError) leaves an old file as it was.
/// The same content gives the same bytes. Tensors are written contiguous; FormatError for repeated or reserved names.
void save_safetensors(const std::string& path, const TensorFile& file);

/// IoError if it cannot be read; FormatError, before anything of the claimed size is allocated, if the header is longer
/// than the file (or than 100 MB), is not JSON of the format, or names offsets that overlap, leave holes, do not match
/// dtype and shape, or pass the end. Dtypes: F64 F32 BF16 I64 I32 I8 U8 BOOL.
TensorFile load_safetensors(const std::string& path);
TensorFile parse_safetensors(const void* data, size_t bytes,
                             const std::string& what);  ///< from memory; `what` for errors

/// Writes `bytes` to `path` as save_safetensors does. IoError.
void write_file_atomically(const std::string& path, const void* data, size_t bytes);

}  // namespace hone
