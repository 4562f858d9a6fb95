// The targets that Hone's kernels are compiled for.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#include "hone/optim/train/machine.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "hone/core/error.h"
#include "hone/ops/blas.h"
#include "hwy/highway.h"
#include "hwy/targets.h"

namespace hone::train {
namespace {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (colon != std::string::npos && line.compare(0, 10, "model name") == 0) return line.substr(colon + 2);
  }
  utsname system{};
  return uname(&system) == 0 ? system.machine : "unknown";
}

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

std::string system_name() {
  std::ifstream release("/etc/os-release");
  for (std::string line; std::getline(release, line);) {
    if (line.compare(0, 12, "PRETTY_NAME=") != 0) continue;
    line.erase(0, 12);
    if (line.size() >= 2 && line.front() == '"') line = line.substr(1, line.size() - 2);
    return line;
  }
  utsname system{};
  return uname(&system) == 0 ? str(system.sysname, " ", system.release) : "unknown";
}

}  // namespace

Machine machine() {
  Machine m;
  m.processor = processor_name();
  m.cores = usable_cores();
  const auto usable = static_cast<int64_t>(HWY_TARGETS) & static_cast<int64_t>(hwy::SupportedTargets());
  m.simd = hwy::TargetName(usable & -usable);  // the best is the lowest bit
#ifdef __clang__
  const std::string compiler = str("clang ", __clang_major__, ".", __clang_minor__, ".", __clang_patchlevel__);
#else
  const std::string compiler = str("g++ ", __GNUC__, ".", __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__);
#endif
  m.versions = {
      {"hone", HONE_VERSION}, {"compiler", compiler}, {"system", system_name()}, {"blas", blas::description()}};
  return m;
}

int64_t peak_rss_bytes() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace hone::train
