#pragma once
// IDX files, the format of MNIST: two zero bytes, a dtype code, the number of dims, big-endian sizes, then the values.

#include <string>

#include "hone/core/tensor.h"

namespace hone::data {

/// The array in an IDX file, plain or compressed with gzip (told by content). Codes: u8, i8, i32, f32, f64.
/// IoError if it cannot be read; FormatError for a wrong magic or code, a damaged or truncated gzip stream, and content
/// that is shorter or longer than its sizes claim. Memory follows what the file holds, never what it claims.
Tensor read_idx(const std::string& path);

}  // namespace hone::data
