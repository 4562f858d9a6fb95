#pragma once
// Inputs of a run as contiguous arrays of the type that the kernel computes in.

#include "hone/core/basic_ops.h"
#include "hone/core/op.h"

namespace hone::detail {

/// v's elements in row-major order as T; copied to the workspace only where they are not so already.
template <class T>
const T* contiguous_input(const View& v, Workspace& workspace) {
  if (v.dtype == dtype_of<T> && v.is_contiguous()) return v.as<T>();
  View to = v;
  to.dtype = dtype_of<T>;
  int64_t stride = 1;
  for (int i = v.ndim - 1; i >= 0; --i) to.strides[i] = stride, stride *= v.sizes[i];
  to.data = workspace.get<T>(stride);
  copy_strided(v, to);
  return to.as<T>();
}

/// Where the kernel writes its T results for v: v itself, or scratch that finish_output converts from.
template <class T>
T* begin_output(const View& v, Workspace& workspace) {
  return v.dtype == dtype_of<T> ? v.as<T>() : workspace.get<T>(v.numel());
}
template <class T>
void finish_output(const T* from, const View& v) {
  if (v.dtype == dtype_of<T>) return;
  View source = v;
  source.data = const_cast<T*>(from);
  source.dtype = dtype_of<T>;
  copy_strided(source, v);
}

}  // namespace hone::detail
