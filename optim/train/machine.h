#pragma once
// What a figure was measured on.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hone::train {

struct Machine {
  std::string processor;                                      ///< model name, as the system gives it
  int cores = 0;                                              ///< that this process may use
  std::string simd;                                           ///< the SIMD target that Hone's kernels run on here
  std::vector<std::pair<std::string, std::string>> versions;  ///< hone, compiler, system, libraries
};

Machine machine();
/// The largest resident set of this process so far.
int64_t peak_rss_bytes();

}  // namespace hone::train
