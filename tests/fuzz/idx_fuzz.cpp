// Any bytes as an IDX file, plain or gzip: an array, or a FormatError.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "hone/hone.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = memfd_create("idx", 0);
  if (fd < 0 || write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
  try {
    hone::data::read_idx("/proc/self/fd/" + std::to_string(fd));
  } catch (const hone::FormatError&) {}
  close(fd);
  return 0;
}
