#include "hone/core/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "hone/core/error.h"

namespace hone::detail {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& why) {
  throw IoError(str("cannot read '", path, "': ", why));
}

}  // namespace

InputFile::InputFile(std::string path) : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ < 0) fail(path_, std::strerror(errno));
  struct stat info {};
  const int error = ::fstat(fd_, &info) == 0 ? 0 : errno;
  if (error == 0 && S_ISREG(info.st_mode)) {
    size_ = static_cast<uint64_t>(info.st_size);
    return;
  }
  ::close(fd_);
  fail(path_, error != 0 ? std::strerror(error) : "it is not a regular file");
}

InputFile::~InputFile() { ::close(fd_); }

void InputFile::read(uint64_t offset, void* to, uint64_t bytes) const {
  for (char* p = static_cast<char*>(to); bytes > 0;) {
    const ssize_t n = ::pread(fd_, p, std::min<uint64_t>(bytes, 1 << 30), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, std::strerror(errno));
    if (n == 0) fail(path_, "it became shorter meanwhile");
    p += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
}

}  // namespace hone::detail
