#pragma once
// The same values in memory laid out in every way that strides allow, and bits to compare.

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "hone/hone.h"

namespace hone::test {

/// `x` as it is, as the transpose of a transposed copy, and as every second element of a larger array.
inline std::vector<std::pair<std::string, Tensor>> layouts(const Tensor& x) {
  NoGrad off;
  std::vector<std::pair<std::string, Tensor>> all = {{"contiguous", contiguous(x)}};
  if (x.ndim() >= 2) all.emplace_back("transposed", transpose(clone(transpose(x, 0, -1)), 0, -1));
  if (x.ndim() >= 1) {
    Shape wide = x.shape();
    wide[wide.ndim() - 1] *= 2;
    wide[wide.ndim() - 1] += 1;
    Tensor w = full(wide, x.dtype() == boolean ? 1 : 77, x.dtype());  // seen by no result
    Tensor inner = slice(w, -1, 1, kEnd, 2);
    inner.copy_(x);
    all.emplace_back("sliced", inner);
  }
  return all;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor x = contiguous(a), y = contiguous(b);
  return x.numel() == 0 ||
         std::memcmp(x.raw_data(), y.raw_data(), static_cast<size_t>(x.numel() * size_of(x.dtype()))) == 0;
}

/// f() with 1 thread and with 2 and 5.
inline bool same_at_any_thread_count(const std::function<Tensor()>& f) {
  const int former = num_threads();
  set_num_threads(1);
  const Tensor one = f();
  set_num_threads(2);
  const Tensor two = f();
  set_num_threads(5);
  const Tensor five = f();
  set_num_threads(former);
  return same_bits(one, two) && same_bits(one, five);
}

/// Row-major multi-index of a flat position.
inline std::vector<int64_t> unravel(int64_t flat, const Shape& shape) {
  std::vector<int64_t> index(static_cast<size_t>(shape.ndim()));
  for (int d = shape.ndim() - 1; d >= 0; --d) {
    index[static_cast<size_t>(d)] = flat % shape[d];
    flat /= shape[d];
  }
  return index;
}
inline int64_t ravel(const std::vector<int64_t>& index, const Shape& shape) {
  int64_t flat = 0;
  for (int d = 0; d < shape.ndim(); ++d) flat = flat * shape[d] + index[static_cast<size_t>(d)];
  return flat;
}

}  // namespace hone::test
