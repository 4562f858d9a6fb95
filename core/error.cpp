#include "hone/core/error.h"

#include <charconv>
#include <cmath>

namespace hone::detail {

// The shortest digits that read back as the value; an f32 (all messages widen it) as the f32 it was: 0.1, not
// 0.10000000149011612.
void append(std::string& s, double v) {
  char text[32];
  std::to_chars_result end{};
  const bool whole = std::abs(v) < 1e15 && v == std::trunc(v);
  if (whole) {
    end = std::to_chars(text, text + sizeof text, static_cast<int64_t>(v));
  } else if (std::abs(v) < 3e38 && static_cast<double>(static_cast<float>(v)) == v) {
    end = std::to_chars(text, text + sizeof text, static_cast<float>(v));
  } else {
    end = std::to_chars(text, text + sizeof text, v);
  }
  if (whole && v == 0 && std::signbit(v)) s += '-';
  s.append(text, end.ptr);
}

}  // namespace hone::detail
