#pragma once
// For kernels that want an input, or give their output, in one contiguous piece of the type they compute in.

#include <algorithm>
#include <cstddef>

#include "hone/core/basic_ops.h"

namespace hone::detail {

/// Calls f<T>() with the type that kernels compute in: f64 in itself, f32 and bf16 in f32.
template <class F> void with_compute_type(DType d, F&& f) {
  d == DType::f64 ? f.template operator()<double>() : f.template operator()<float>();
}

/// A View of a contiguous array on the CPU; without `data`, of its shape alone: for the rules of ops.
inline View dense_view(DType dtype, const Shape& shape, void* data = nullptr) {
  View v;
  v.dtype = dtype, v.data = data, v.ndim = shape.ndim();
  const Shape strides = contiguous_strides(shape);
  std::copy(shape.begin(), shape.end(), v.sizes);
  std::copy(strides.begin(), strides.end(), v.strides);
  return v;
}

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

/// v's elements in row-major order as T; copied only where they are not so already.
template <class T> const T* contiguous_input(const View& v, Workspace& workspace) {
  return contiguous_view(v, dtype_of<T>, workspace).template as<T>();
}

/// Where a kernel writes its T results for v: v itself, or scratch that finish_output converts from.
template <class T> T* begin_output(const View& v, Workspace& workspace) {
  return v.dtype == dtype_of<T> ? v.as<T>() : workspace.get<T>(v.numel());
}
template <class T> void finish_output(const T* from, const View& v) {
  if (v.dtype == dtype_of<T>) return;
  View source = v;
  source.data = const_cast<T*>(from);
  source.dtype = dtype_of<T>;
  copy_strided(source, v);
}

}  // namespace hone::detail
