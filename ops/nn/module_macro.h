#pragma once
// HONE_MODULE: what a module type says of itself, from the list of its members. Included by module.h.

#include <array>
#include <concepts>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "hone/ops/nn/module.h"

/// HONE_MODULE(Type, members…) inside a struct derived from nn::Module, at namespace or function scope.
///
/// Members: Parameter, Buffer, modules, AnyModule, and std::vector, std::array or std::optional of these; their names
/// are the identifiers ("blocks.0" in vectors). What is not listed is neither saved nor trained, but is copied. The
/// type must be copyable and have a public `forward` whose return type is spelt out.
///
/// Writes type_name, visit, clone, call, and operator()(arguments…): pre-hooks, forward, hooks; it returns what forward
/// returns. Up to four tensors are passed with their types checked by the compiler. Any other list (up to six) goes to
/// a forward that is not overloaded: each argument must have the parameter's very type, or both be numbers
/// (ValueError). A type at function scope can have no member template: hence the overloads. Access after the macro is
/// public.
#define HONE_MODULE(Type, ...)                                                                                   \
 public:                                                                                                         \
  const char* type_name() const override { return #Type; }                                                       \
  void visit(::hone::nn::MemberVisitor& v) override {                                                            \
    ::hone::nn::detail::visit_members(v, #__VA_ARGS__ __VA_OPT__(, ) __VA_ARGS__);                               \
  }                                                                                                              \
  std::unique_ptr<::hone::nn::Module> clone() const override { return ::hone::nn::detail::clone_of(*this); }     \
  ::hone::Tensor call(const ::hone::Tensor& x) override { return ::hone::nn::detail::call_single(*this, x); }    \
  auto operator()() { return ::hone::nn::detail::run(*this); }                                                   \
  HONE_DETAIL_TENSORS((HONE_DETAIL_T a), (*this, a))                                                             \
  HONE_DETAIL_TENSORS((HONE_DETAIL_T a, HONE_DETAIL_T b), (*this, a, b))                                         \
  HONE_DETAIL_TENSORS((HONE_DETAIL_T a, HONE_DETAIL_T b, HONE_DETAIL_T c), (*this, a, b, c))                     \
  HONE_DETAIL_TENSORS((HONE_DETAIL_T a, HONE_DETAIL_T b, HONE_DETAIL_T c, HONE_DETAIL_T d), (*this, a, b, c, d)) \
  HONE_DETAIL_ANY((HONE_DETAIL_A a), (*this, a))                                                                 \
  HONE_DETAIL_ANY((HONE_DETAIL_A a, HONE_DETAIL_A b), (*this, a, b))                                             \
  HONE_DETAIL_ANY((HONE_DETAIL_A a, HONE_DETAIL_A b, HONE_DETAIL_A c), (*this, a, b, c))                         \
  HONE_DETAIL_ANY((HONE_DETAIL_A a, HONE_DETAIL_A b, HONE_DETAIL_A c, HONE_DETAIL_A d), (*this, a, b, c, d))     \
  HONE_DETAIL_ANY((HONE_DETAIL_A a, HONE_DETAIL_A b, HONE_DETAIL_A c, HONE_DETAIL_A d, HONE_DETAIL_A e),         \
                  (*this, a, b, c, d, e))                                                                        \
  HONE_DETAIL_ANY(                                                                                               \
      (HONE_DETAIL_A a, HONE_DETAIL_A b, HONE_DETAIL_A c, HONE_DETAIL_A d, HONE_DETAIL_A e, HONE_DETAIL_A f),    \
      (*this, a, b, c, d, e, f))

#define HONE_DETAIL_T const ::hone::Tensor&
#define HONE_DETAIL_A const ::hone::nn::detail::Arg&
#define HONE_DETAIL_TENSORS(parameters, arguments) \
  auto operator() parameters { return ::hone::nn::detail::run arguments; }
#define HONE_DETAIL_ANY(parameters, arguments) \
  auto operator() parameters { return ::hone::nn::detail::run_any arguments; }

namespace hone::nn {

/// What a call returns when forward takes no such arguments: using it as a Tensor does not compile.
struct [[nodiscard]] forward_does_not_take_these_arguments {};

namespace detail {

/// Through a plain pointer: a unique_ptr of each module's own type would cost every program that includes the header.
template <class T> std::unique_ptr<Module> clone_of(const T& m) { return std::unique_ptr<Module>(new T(m)); }

// ---- members ----

template <class T> inline constexpr bool kIsList = false;
template <class T, class A> inline constexpr bool kIsList<std::vector<T, A>> = true;
template <class T, size_t n> inline constexpr bool kIsList<std::array<T, n>> = true;
template <class T> inline constexpr bool kIsOptional = false;
template <class T> inline constexpr bool kIsOptional<std::optional<T>> = true;
template <class T> inline constexpr bool kUnknownMember = false;

template <class T> void visit_member(MemberVisitor& v, const std::string& name, T& m) {
  if constexpr (std::derived_from<T, Module>) {
    v.member(name, static_cast<Module&>(m));
  } else if constexpr (std::same_as<T, Parameter> || std::same_as<T, Buffer>) {
    v.member(name, m);
  } else if constexpr (std::same_as<T, AnyModule>) {
    if (m.get()) v.member(name, *m);
  } else if constexpr (kIsOptional<T>) {
    if (m) visit_member(v, name, *m);
  } else if constexpr (kIsList<T>) {
    for (size_t i = 0; i < m.size(); ++i) visit_member(v, name + '.' + std::to_string(i), m[i]);
  } else {
    static_assert(kUnknownMember<T>, "HONE_MODULE lists Parameters, Buffers, modules, and lists or optionals of these");
  }
}

/// The next of "a, b, c", which is shortened by it.
inline std::string next_name(std::string_view& names) {
  const size_t comma = names.find(',');
  std::string_view first = names.substr(0, comma);
  names = comma == std::string_view::npos ? std::string_view() : names.substr(comma + 1);
  while (!first.empty() && first.front() == ' ') first.remove_prefix(1);
  while (!first.empty() && first.back() == ' ') first.remove_suffix(1);
  return std::string(first);
}

template <class... Members>
void visit_members([[maybe_unused]] MemberVisitor& v, [[maybe_unused]] std::string_view names, Members&... members) {
  (visit_member(v, next_name(names), members), ...);
}

// ---- calls ----

struct Caller {
  static bool hooked(const Module& m) { return m.hooks_ != nullptr; }
  static void before(Module& m, Tensor& input);
  static void after(Module& m, const Tensor& input, Tensor& output);
  static void set_mode(Module& m, bool training) { m.training_ = training; }  // of `m` alone
};

template <class T> inline constexpr bool kIsTensor = std::same_as<std::remove_cvref_t<T>, Tensor>;

/// Position of the first tensor among Args; -1: none.
template <class... Args> constexpr int first_tensor() {
  int at = -1, i = 0;
  ((at = at < 0 && kIsTensor<Args> ? i : at, ++i), ...);
  return at;
}

template <bool replace, class T> decltype(auto) replaced([[maybe_unused]] Tensor& input, T&& argument) {
  if constexpr (replace)
    return (input);
  else
    return std::forward<T>(argument);
}

template <class Self, class... Args, size_t... i>
auto run_with_hooks(Self& self, std::index_sequence<i...>, Args&&... args) {
  constexpr int at = first_tensor<Args...>();
  Tensor input;
  if constexpr (at >= 0) input = std::get<at>(std::tie(args...));
  Caller::before(self, input);
  auto forward = [&] { return self.forward(replaced<static_cast<int>(i) == at>(input, std::forward<Args>(args))...); };
  using Result = decltype(forward());
  Tensor output;
  if constexpr (std::is_void_v<Result>) {
    forward();
    Caller::after(self, input, output);
  } else if constexpr (kIsTensor<Result>) {
    output = forward();
    Caller::after(self, input, output);
    return output;
  } else {
    Result result = forward();
    Caller::after(self, input, output);
    return result;
  }
}

template <class Self> forward_does_not_take_these_arguments not_callable(const Self& self, size_t count) {
  throw ValueError(str(self.type_name(), ": forward does not take these ", count, " arguments"));
}

template <class Self, class... Args> auto run(Self& self, Args&&... args) {
  if constexpr (requires { self.forward(std::forward<Args>(args)...); }) {
    if (Caller::hooked(self)) [[unlikely]] {
      return run_with_hooks(self, std::index_sequence_for<Args...>(), std::forward<Args>(args)...);
    }
    return self.forward(std::forward<Args>(args)...);
  } else {
    return not_callable(self, sizeof...(Args));
  }
}

template <class Self> Tensor call_single(Self& self, const Tensor& x) {
  if constexpr (requires {
                  { self.forward(x) } -> std::convertible_to<Tensor>;
                })
    return run(self, x);
  else
    throw ValueError(str(self.type_name(), ": forward does not take one tensor to one tensor"));
}

/// A reference to an argument of any type, for the time of a call.
class Arg {
 public:
  template <class T>
  requires(!std::same_as<std::remove_cvref_t<T>, Arg> && (kIsTensor<T> || !std::convertible_to<T, Tensor>)) Arg(T&& v)
      : address_(const_cast<void*>(static_cast<const void*>(std::addressof(v)))),
        type_(&typeid(std::remove_cvref_t<T>)),
        constant_(!std::is_lvalue_reference_v<T> || std::is_const_v<std::remove_reference_t<T>>) {
    if constexpr (std::is_floating_point_v<std::remove_cvref_t<T>>) {
      real_ = static_cast<double>(v);
      number_ = kReal;
    } else if constexpr (std::is_integral_v<std::remove_cvref_t<T>>) {
      integer_ = static_cast<int64_t>(v);
      number_ = kInteger;
    }
  }

  /// The argument as parameter type P: by reference, or by value for numbers.
  template <class P> decltype(auto) as(const char* module, int position) const {
    using T = std::remove_cvref_t<P>;
    constexpr bool writes = std::is_lvalue_reference_v<P> && !std::is_const_v<std::remove_reference_t<P>>;
    if constexpr (std::is_arithmetic_v<T> && !writes) {
      const bool fits = number_ == kInteger || (number_ == kReal && std::is_floating_point_v<T>);
      if (!fits) refuse(module, position);
      return number_ == kInteger ? static_cast<T>(integer_) : static_cast<T>(real_);
    } else {
      if (*type_ != typeid(T) || (writes && constant_)) refuse(module, position);
      if constexpr (writes)
        return (*static_cast<T*>(address_));
      else
        return (*static_cast<const T*>(address_));
    }
  }

 private:
  enum Number : uint8_t { kNone, kInteger, kReal };
  [[noreturn]] static void refuse(const char* module, int position) {
    throw ValueError(
        str(module, ": argument ", position + 1, " of the call has another type than forward's parameter"));
  }
  void* address_;
  const std::type_info* type_;
  bool constant_;
  Number number_ = kNone;
  int64_t integer_ = 0;
  double real_ = 0;
};

template <class... P> struct Parameters { static constexpr size_t count = sizeof...(P); };
template <class C, class R, class... P> Parameters<P...> parameters_of(R (C::*)(P...));
template <class C, class R, class... P> Parameters<P...> parameters_of(R (C::*)(P...) const);

template <class Self, class... P, size_t... i, class... Args>
auto run_as(Self& self, Parameters<P...>, std::index_sequence<i...>, const Args&... args) {
  return run(self, args.template as<P>(self.type_name(), static_cast<int>(i))...);
}

template <class Self, class... Args> auto run_any(Self& self, const Args&... args) {
  if constexpr (requires { parameters_of(&Self::forward); }) {
    using List = decltype(parameters_of(&Self::forward));
    if constexpr (List::count == sizeof...(Args))
      return run_as(self, List(), std::index_sequence_for<Args...>(), args...);
    else
      return not_callable(self, sizeof...(Args));
  } else {
    return not_callable(self, sizeof...(Args));
  }
}

}  // namespace detail
}  // namespace hone::nn
