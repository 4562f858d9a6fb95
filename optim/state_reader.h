#pragma once
// A state_dict read back entry by entry. Private to optim and optim/train.

#include <map>
#include <string>
#include <vector>

#include "hone/core/serialize.h"

namespace hone::optim::detail {

template <class T> Tensor scalar_tensor(T v) { return tensor(std::vector<T>{v}, Shape{}); }

/// Takes entries out of a state, each once. What differs from what is asked for is a FormatError that begins with
/// `what`, such as "Adam.load_state_dict".
class StateReader {
 public:
  StateReader(const TensorFile& file, std::string what);

  /// The metadata under `key`; empty without it.
  std::string text(const char* key) const;
  /// "the state is of 'X'" unless the metadata under `key` is `kind`.
  void expect_kind(const char* key, const std::string& kind) const;
  void expect_version(const char* version) const;

  bool has(const std::string& name) const { return entries_.contains(name); }
  Tensor take(const std::string& name, const Shape& shape, DType dtype);
  template <class T> T number(const std::string& name) { return take(name, {}, dtype_of<T>).template item<T>(); }
  int64_t count(const std::string& name);  ///< a whole number, at least 0
  /// Every entry must have been taken.
  void finish() const;

 private:
  std::string what_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, Tensor> entries_;
};

}  // namespace hone::optim::detail
