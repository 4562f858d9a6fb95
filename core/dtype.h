#pragma once
// Element types. Plain data: CUDA sources include this file too.

#include <bit>
#include <cstdint>
#include <string>

namespace hone {

enum class DType : uint8_t { f64, f32, bf16, i64, i32, i8, u8, boolean };

inline constexpr DType f64 = DType::f64, f32 = DType::f32, bf16 = DType::bf16, i64 = DType::i64, i32 = DType::i32,
                       i8 = DType::i8, u8 = DType::u8, boolean = DType::boolean;

/// Brain float: the upper 16 bits of an f32; conversion from f32 rounds to nearest even, NaN stays NaN.
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  constexpr BFloat16(float v) : bits(round(std::bit_cast<uint32_t>(v))) {}
  constexpr operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

 private:
  static constexpr uint16_t round(uint32_t u) {
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40);
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
};

constexpr int64_t size_of(DType d) {
  switch (d) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    default: return 1;
  }
}
constexpr const char* name(DType d) {
  constexpr const char* names[] = {"f64", "f32", "bf16", "i64", "i32", "i8", "u8", "bool"};
  return names[static_cast<int>(d)];
}
inline std::string to_string(DType d) { return name(d); }
constexpr bool is_floating(DType d) { return d == DType::f64 || d == DType::f32 || d == DType::bf16; }
constexpr bool is_integer(DType d) { return !is_floating(d) && d != DType::boolean; }

template <class T> struct dtype_of_impl;
template <> struct dtype_of_impl<double> { static constexpr DType value = DType::f64; };
template <> struct dtype_of_impl<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of_impl<BFloat16> { static constexpr DType value = DType::bf16; };
template <> struct dtype_of_impl<int64_t> { static constexpr DType value = DType::i64; };
template <> struct dtype_of_impl<int32_t> { static constexpr DType value = DType::i32; };
template <> struct dtype_of_impl<int8_t> { static constexpr DType value = DType::i8; };
template <> struct dtype_of_impl<uint8_t> { static constexpr DType value = DType::u8; };
template <> struct dtype_of_impl<bool> { static constexpr DType value = DType::boolean; };
/// The DType of a C++ element type.
template <class T> inline constexpr DType dtype_of = dtype_of_impl<T>::value;

template <class T> inline constexpr bool is_element_type = requires { dtype_of_impl<T>::value; };

/// Calls f.template operator()<T>() with the C++ type of `d`: visit_dtype(d, [&]<class T>() { … }).
template <class F> decltype(auto) visit_dtype(DType d, F&& f) {
  switch (d) {
    case DType::f64: return f.template operator()<double>();
    case DType::f32: return f.template operator()<float>();
    case DType::bf16: return f.template operator()<BFloat16>();
    case DType::i64: return f.template operator()<int64_t>();
    case DType::i32: return f.template operator()<int32_t>();
    case DType::i8: return f.template operator()<int8_t>();
    case DType::u8: return f.template operator()<uint8_t>();
    default: return f.template operator()<bool>();
  }
}
/// As visit_dtype, for floating dtypes alone; the caller has checked.
template <class F> decltype(auto) visit_floating(DType d, F&& f) {
  switch (d) {
    case DType::f64: return f.template operator()<double>();
    case DType::bf16: return f.template operator()<BFloat16>();
    default: return f.template operator()<float>();
  }
}

/// The type that sums of T are kept in: f32 for bf16, i64 for integers and bool.
template <class T> struct accumulator { using type = int64_t; };
template <> struct accumulator<double> { using type = double; };
template <> struct accumulator<float> { using type = float; };
template <> struct accumulator<BFloat16> { using type = float; };
template <class T> using accumulator_t = typename accumulator<T>::type;

}  // namespace hone
