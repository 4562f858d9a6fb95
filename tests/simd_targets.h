#pragma once
// Every SIMD target that this machine supports and Hone's kernels are compiled for, one after another.

#include <gtest/gtest.h>
#include <hwy/targets.h>

namespace hone::test {

/// Calls body(target) with all dispatched kernels on that target; stops at a fatal failure, whose trace names it.
/// Executors keep what their first run made for one target: each target needs its own.
template <class Body> void on_every_target(const Body& body) {
  hwy::SetSupportedTargetsForTest(0);
  for (int64_t left = hwy::SupportedTargets() & ~(HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL); left != 0; left &= left - 1) {
    const int64_t target = left & -left;
    hwy::SetSupportedTargetsForTest(target);
    const ::testing::ScopedTrace trace(__FILE__, __LINE__, hwy::TargetName(target));
    body(target);
    if (::testing::Test::HasFatalFailure()) break;
  }
  hwy::SetSupportedTargetsForTest(0);
}

/// on_every_target, and VNNI where the processor has it.
template <class Body> void on_every_int8_target(const Body& body) {
  on_every_target(body);
  hwy::SetSupportedTargetsForTest(0);
  if ((hwy::SupportedTargets() & HWY_AVX3_DL) == 0) return;
  hwy::SetSupportedTargetsForTest(HWY_AVX3_DL);
  {
    const ::testing::ScopedTrace trace(__FILE__, __LINE__, "AVX3_DL");
    body(HWY_AVX3_DL);
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace hone::test
