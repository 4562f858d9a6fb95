#pragma once

#include <cstdint>
#include <string>

#include "hone/core/shape.h"

namespace hone::nn {

/// Height and width; one number stands for both: `.kernel = 5`, `.kernel = {3, 5}`.
struct Size2 {
  int64_t h, w;
  constexpr Size2(int64_t both = 0) : h(both), w(both) {}
  constexpr Size2(int64_t height, int64_t width) : h(height), w(width) {}
  friend constexpr bool operator==(const Size2&, const Size2&) = default;
  Shape shape() const { return {h, w}; }
  constexpr bool at_least(int64_t n) const { return h >= n && w >= n; }
};
inline std::string to_string(const Size2& s) { return '{' + std::to_string(s.h) + ", " + std::to_string(s.w) + '}'; }

}  // namespace hone::nn
