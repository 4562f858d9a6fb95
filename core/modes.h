#pragma once
// The per-thread modes. Private to core.

#include "hone/core/op.h"

namespace hone {

struct Modes {
  bool grad = true, inference = false, anomaly = false;
  OpRecorder* recorder = nullptr;
};
inline Modes& modes() {
  thread_local Modes m;
  return m;
}

namespace detail {
bool has_nan(const Tensor& t);
/// NumericError if an output holds a NaN and no input does.
void check_no_new_nan(const char* op, const char* pass, std::span<const Tensor> inputs, const Outputs& out);
}  // namespace detail

}  // namespace hone
