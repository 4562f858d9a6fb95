#pragma once
// Typed errors. Every message is one line that names the op or file, the value and the rule broken.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace hone {

/// Base of everything Hone throws.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// clang-format off
struct ShapeError : Error { using Error::Error; };    ///< shapes, dimensions or element counts that do not fit
struct DTypeError : Error { using Error::Error; };    ///< a dtype that the operation does not take
struct DeviceError : Error { using Error::Error; };   ///< a device that is absent, or tensors on different ones
struct ValueError : Error { using Error::Error; };    ///< an argument or element outside its allowed range
struct GradError : Error { using Error::Error; };     ///< a misuse of autograd
struct MemoryError : Error { using Error::Error; };   ///< the system has no memory of the size wanted
struct NumericError : Error { using Error::Error; };  ///< a NaN or infinity where none may be
struct IoError : Error { using Error::Error; };       ///< the operating system refused to read or write
struct FormatError : Error { using Error::Error; };   ///< a file whose content breaks its format
struct GraphError : Error { using Error::Error; };    ///< a traced graph that cannot be built, edited or run
// clang-format on

namespace detail {
inline void append(std::string& s, std::string_view v) { s += v; }
inline void append(std::string& s, const char* v) { s += v; }
inline void append(std::string& s, char v) { s += v; }
inline void append(std::string& s, bool v) { s += v ? "true" : "false"; }
template <class T>
requires(std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>) void append(std::string& s,
                                                                                                    T v) {
  s += std::to_string(v);
}
void append(std::string& s, double v);
inline void append(std::string& s, float v) { append(s, static_cast<double>(v)); }
template <class T>
requires requires(const T& v) {
  { to_string(v) } -> std::convertible_to<std::string>;
}
void append(std::string& s, const T& v) { s += to_string(v); }
}  // namespace detail

/// Concatenates its arguments: text, numbers, and whatever has a to_string in its namespace.
template <class... Args> std::string str(const Args&... args) {
  std::string s;
  (detail::append(s, args), ...);
  return s;
}

}  // namespace hone

/// Throws `Type` with the concatenation of the remaining arguments unless `condition` holds: user errors.
#define HONE_CHECK(condition, Type, ...)    \
  do {                                      \
    if (!(condition)) [[unlikely]]          \
      throw Type(::hone::str(__VA_ARGS__)); \
  } while (0)

/// For what only a bug in Hone can break.
#define HONE_ASSERT(condition)                                                                           \
  do {                                                                                                   \
    if (!(condition)) [[unlikely]]                                                                       \
      throw ::hone::Error(::hone::str("internal error: ", #condition, " at ", __FILE__, ":", __LINE__)); \
  } while (0)
