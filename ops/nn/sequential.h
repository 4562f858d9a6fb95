#pragma once

#include <concepts>
#include <type_traits>

#include "hone/ops/nn/module.h"

namespace hone::nn {

/// Modules called one after the other, each a value; their names are "0", "1", …
///   Sequential net(Conv2d{{.in = 3, .out = 8, .kernel = 3}}, ReLU(), Flatten(), Linear{{.in = 7200, .out = 10}});
class Sequential : public Module {
 public:
  Sequential() = default;
  template <class First, class... Rest>
  requires(std::derived_from<std::remove_cvref_t<First>, Module> &&
           (std::derived_from<std::remove_cvref_t<Rest>, Module> && ...) &&
           !(sizeof...(Rest) == 0 &&
             std::same_as<std::remove_cvref_t<First>, Sequential>)) explicit Sequential(First&& first, Rest&&... rest) {
    children_.reserve(1 + sizeof...(Rest));
    push_back(std::forward<First>(first));
    (push_back(std::forward<Rest>(rest)), ...);
  }

  /// Appends a copy of `m` (or what is moved from it).
  template <class M>
  requires std::derived_from<std::remove_cvref_t<M>, Module> Sequential& push_back(M&& m) {
    using T = std::remove_cvref_t<M>;
    if constexpr (std::is_abstract_v<T>)
      return push_back(AnyModule(m.clone()));
    else
      return push_back(AnyModule(std::make_unique<T>(std::forward<M>(m))));
  }
  Sequential& push_back(AnyModule m);

  int64_t size() const { return static_cast<int64_t>(children_.size()); }
  bool empty() const { return children_.empty(); }
  Module& operator[](int64_t i) const;  ///< ValueError outside [0, size)
  /// Child i as type M; ValueError where it is another.
  template <class M> M& at(int64_t i) const {
    M* m = dynamic_cast<M*>(&(*this)[i]);
    HONE_CHECK(m, ValueError, "Sequential: module ", i, " is a ", (*this)[i].type_name(),
               ", not of the type asked for");
    return *m;
  }
  std::vector<AnyModule>::const_iterator begin() const { return children_.begin(); }
  std::vector<AnyModule>::const_iterator end() const { return children_.end(); }

  Tensor forward(const Tensor& x);  ///< x itself when empty

  const char* type_name() const override { return "Sequential"; }
  void visit(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override { return std::unique_ptr<Module>(new Sequential(*this)); }
  Tensor call(const Tensor& x) override { return detail::run(*this, x); }

 private:
  std::vector<AnyModule> children_;
};

}  // namespace hone::nn
