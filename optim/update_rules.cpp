#include "hone/optim/update_rules.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/optim/update_rules.cpp"
#include "hwy/foreach_target.h"
// After foreach_target, which needs to come first.
#include "hone/optim/fused-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::optim {
namespace HWY_NAMESPACE {

#if !HWY_HAVE_FLOAT64
#error "Hone's optimizers need vectors of f64"
#endif

// k(0), k(1), k(2) belong to the loop; p has decayed and g is the decayed, signed gradient when a rule sees them.

// η
template <class T> struct Sgd {
  static constexpr int kSlots = 0;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V*) {
    p = hn::NegMulAdd(k(3), g, p);
  }
};

// μ, 1−τ (1 at the first update), η times the weight of g, η times the weight of b
template <class T> struct SgdMomentum {
  static constexpr int kSlots = 1;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    p = hn::NegMulAdd(k(5), g, hn::NegMulAdd(k(6), s[0], p));
  }
};

// β₁, 1−β₁, β₂, 1−β₂, η/(1−β₁ᵗ), 1/(1−β₂ᵗ), ε inside the root, ε outside
template <class T> struct Adam {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    s[1] = hn::MulAdd(k(5), s[1], hn::Mul(k(6), hn::Mul(g, g)));
    const V root = hn::Add(hn::Sqrt(hn::MulAdd(s[1], k(8), k(9))), k(10));
    p = hn::NegMulAdd(k(7), hn::Div(s[0], root), p);
  }
};
template <class T> struct AmsGrad {
  static constexpr int kSlots = 3;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    s[1] = hn::MulAdd(k(5), s[1], hn::Mul(k(6), hn::Mul(g, g)));
    s[2] = hn::Max(s[2], s[1]);
    const V root = hn::Add(hn::Sqrt(hn::MulAdd(s[2], k(8), k(9))), k(10));
    p = hn::NegMulAdd(k(7), hn::Div(s[0], root), p);
  }
};

// η_t, ε inside, ε outside
template <class T> struct Adagrad {
  static constexpr int kSlots = 1;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(g, g, s[0]);
    p = hn::NegMulAdd(k(3), hn::Div(g, hn::Add(hn::Sqrt(hn::Add(s[0], k(4))), k(5))), p);
  }
};

// Counts in `a` the gradients that are not finite.
template <class T> struct NonFinite {
  static constexpr int kSlots = 0;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D d, const K&, V, V g, V*, V& a, V&) {
    a = hn::Add(a, hn::IfThenElse(hn::IsFinite(g), hn::Zero(d), hn::Set(d, T(1))));
  }
};

const detail::UpdateRules* rules() {
  static constexpr detail::UpdateRules table = {.sgd = kUpdate<Sgd>,
                                                .sgd_momentum = kUpdate<SgdMomentum>,
                                                .adam = kUpdate<Adam>,
                                                .amsgrad = kUpdate<AmsGrad>,
                                                .adagrad = kUpdate<Adagrad>,
                                                .non_finite = kSum<NonFinite>};
  return &table;
}

}  // namespace HWY_NAMESPACE
}  // namespace hone::optim
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace hone::optim::detail {
HWY_EXPORT(rules);
const UpdateRules& update_rules() { return *HWY_DYNAMIC_DISPATCH(rules)(); }
}  // namespace hone::optim::detail
#endif
