#pragma once
// A regular file opened to be read. Internal.

#include <cstdint>
#include <string>

namespace hone::detail {

/// IoError naming the path: cannot be opened or read, is no regular file, or became shorter than it was when opened.
class InputFile {
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }  ///< bytes, when it was opened
  void read(uint64_t offset, void* to, uint64_t bytes) const;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace hone::detail
