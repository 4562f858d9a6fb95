#pragma once
// For kernels that want their input in one piece.

#include <cstddef>

#include "hone/core/basic_ops.h"
#include "hone/core/op.h"

namespace hone::detail {

/// A contiguous copy of `v` in `dtype`, in the workspace. Broadcast dims (stride 0) are copied out.
inline View contiguous_copy(const View& v, DType dtype, Workspace& workspace) {
  View copy = v;
  copy.dtype = dtype;
  int64_t stride = 1;
  for (int d = v.ndim - 1; d >= 0; --d) {
    copy.strides[d] = stride;
    stride *= v.sizes[d];
  }
  copy.data = workspace.get<std::byte>(stride * size_of(dtype));
  copy_strided(v, copy);
  return copy;
}
/// `v` itself where it is contiguous and of `dtype`.
inline View contiguous_view(const View& v, DType dtype, Workspace& workspace) {
  return v.dtype == dtype && v.is_contiguous() ? v : contiguous_copy(v, dtype, workspace);
}

}  // namespace hone::detail
