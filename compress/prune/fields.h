#pragma once
// An op's attributes by name, for those whose structs are private to their files. Private to compress/prune.

#include <string_view>
#include <type_traits>

#include "hone/core/op.h"

namespace hone::compress::detail {

template <class T> struct FindField : FieldVisitor {
  explicit FindField(std::string_view n) : name(n) {}
  void operator()(const char* n, int64_t& v) override { see(n, v); }
  void operator()(const char* n, double& v) override { see(n, v); }
  void operator()(const char* n, bool& v) override { see(n, v); }
  void operator()(const char* n, Shape& v) override { see(n, v); }
  void operator()(const char* n, DType& v) override { see(n, v); }
  template <class U> void see(const char* n, U& v) {
    if constexpr (std::is_same_v<T, U>) {
      if (name == n) found = &v;
    }
  }
  std::string_view name;
  T* found = nullptr;
};

/// The field of that name and type, which must be there.
template <class T> T& field(Attrs& attrs, std::string_view name) {
  FindField<T> find(name);
  attrs.visit(find);
  HONE_ASSERT(find.found != nullptr);
  return *find.found;
}
template <class T> T field(const Attrs& attrs, std::string_view name) {
  Attrs copy = attrs;
  return field<T>(copy, name);
}

}  // namespace hone::compress::detail
