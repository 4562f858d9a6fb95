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

// ρ, 1−ρ, η, ε inside, ε outside
template <class T> struct Adadelta {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), hn::Mul(g, g)));
    const V below = hn::Add(hn::Sqrt(hn::Add(s[0], k(6))), k(7));
    const V above = hn::Add(hn::Sqrt(hn::Add(s[1], k(6))), k(7));
    const V delta = hn::Mul(hn::Div(above, below), g);
    s[1] = hn::MulAdd(k(3), s[1], hn::Mul(k(4), hn::Mul(delta, delta)));
    p = hn::NegMulAdd(k(5), delta, p);
  }
};

// β, 1−β, η, ε inside, ε outside, 1 where the group is centred, μ
template <class T, bool kCentred, bool kMomentum> struct RmsPropOf {
  static constexpr int kSlots = 1 + kCentred + kMomentum;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D d, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), hn::Mul(g, g)));
    V variance = s[0];
    if constexpr (kCentred) {
      s[1] = hn::MulAdd(k(3), s[1], hn::Mul(k(4), g));
      // Rounding may take it below 0 where the gradient hardly changes.
      variance = hn::Max(hn::NegMulAdd(hn::Mul(k(8), s[1]), s[1], variance), hn::Zero(d));
    }
    V step = hn::Div(g, hn::Add(hn::Sqrt(hn::Add(variance, k(6))), k(7)));
    if constexpr (kMomentum) step = s[1 + kCentred] = hn::MulAdd(k(9), s[1 + kCentred], step);
    p = hn::NegMulAdd(k(5), step, p);
  }
};
template <class T> using RmsProp = RmsPropOf<T, false, false>;
template <class T> using RmsPropMomentum = RmsPropOf<T, false, true>;
template <class T> using RmsPropCentred = RmsPropOf<T, true, false>;
template <class T> using RmsPropCentredMomentum = RmsPropOf<T, true, true>;

// β₁, 1−β₁, β₂, ε, η/(1−β₁ᵗ)
template <class T> struct Adamax {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    s[1] = hn::Max(hn::Mul(k(5), s[1]), hn::Add(hn::Abs(g), k(6)));
    p = hn::NegMulAdd(k(7), hn::Div(s[0], s[1]), p);
  }
};

// β₁, 1−β₁, β₂, 1−β₂, 1/(1−β₂ᵗ), ε inside, ε outside, η times the weight of g, η times the weight of m
template <class T> struct NAdam {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    s[1] = hn::MulAdd(k(5), s[1], hn::Mul(k(6), hn::Mul(g, g)));
    const V root = hn::Add(hn::Sqrt(hn::MulAdd(s[1], k(7), k(8))), k(9));
    p = hn::Sub(p, hn::Div(hn::MulAdd(k(11), s[0], hn::Mul(k(10), g)), root));
  }
};

// β₁, 1−β₁, β₂, 1−β₂, the step's length, ε inside, and a, b of the divisor a √(v + ε) + b: (1, ε outside), or (0, 1)
// while the variance is not to be trusted
template <class T> struct RAdam {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    s[1] = hn::MulAdd(k(5), s[1], hn::Mul(k(6), hn::Mul(g, g)));
    const V divisor = hn::MulAdd(hn::Sqrt(hn::Add(s[1], k(8))), k(9), k(10));
    p = hn::NegMulAdd(k(7), hn::Div(s[0], divisor), p);
  }
};

// η−, η+, shortest step, longest step; s: the gradient before, the step's length
template <class T> struct Rprop {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D d, const K& k, V& p, V g, V* s) {
    const V zero = hn::Zero(d);
    // Has the sign of g·before, whose product would underflow for small gradients.
    const V agree = hn::IfThenElseZero(hn::Ne(g, zero), hn::Xor(s[0], hn::And(g, hn::SignBit(d))));
    const auto turned = hn::Lt(agree, zero);
    const V factor = hn::IfThenElse(turned, k(3), hn::IfThenElse(hn::Gt(agree, zero), k(4), hn::Set(d, T(1))));
    s[1] = hn::Min(hn::Max(hn::Mul(s[1], factor), k(5)), k(6));
    s[0] = hn::IfThenZeroElse(turned, g);
    p = hn::Sub(p, hn::IfThenElseZero(hn::Ne(s[0], zero), hn::CopySign(s[1], s[0])));
  }
};

// η_t, μ_t, 1−μ_t
template <class T> struct Asgd {
  static constexpr int kSlots = 1;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    p = hn::NegMulAdd(k(3), g, p);
    s[0] = hn::MulAdd(k(4), p, hn::Mul(k(5), s[0]));
  }
};

// β₁, 1−β₁, β₂, 1−β₂, η
template <class T> struct Lion {
  static constexpr int kSlots = 1;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D d, const K& k, V& p, V g, V* s) {
    const V way = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    s[0] = hn::MulAdd(k(5), s[0], hn::Mul(k(6), g));
    p = hn::Sub(p, hn::IfThenElseZero(hn::Ne(way, hn::Zero(d)), hn::CopySign(k(7), way)));
  }
};

// β₁, 1−β₁, β₂, 1−β₂, 1/(1−β₁ᵗ), 1/(1−β₂ᵗ), ε inside, ε outside, λ, η times the trust ratio
template <class D, class K, class V> HWY_ATTR HWY_INLINE V lamb_direction(D d, const K& k, V p, V g, V* s) {
  s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
  s[1] = hn::MulAdd(k(5), s[1], hn::Mul(k(6), hn::Mul(g, g)));
  const V root = hn::Add(hn::Sqrt(hn::MulAdd(s[1], k(8), k(9))), k(10));
  // No 0/0 where there is nothing (and behind the end of the arrays), whatever ε is.
  const V adam = hn::IfThenElseZero(hn::Ne(s[0], hn::Zero(d)), hn::Div(hn::Mul(k(7), s[0]), root));
  return hn::MulAdd(k(11), p, adam);
}
template <class T> struct Lamb {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D d, const K& k, V& p, V g, V* s) {
    p = hn::NegMulAdd(k(12), lamb_direction(d, k, p, g, s), p);
  }
};
// Σ p² and Σ of the squared direction that Lamb is about to take: the state is advanced on the way, not stored.
template <class T> struct LambNorms {
  static constexpr int kSlots = 2;
  template <class D, class K, class V>
  static HWY_ATTR HWY_INLINE void apply(D d, const K& k, V p, V g, V* s, V& a, V& b) {
    const V u = lamb_direction(d, k, p, hn::MulAdd(k(1), p, hn::Mul(k(0), g)), s);
    a = hn::MulAdd(p, p, a);
    b = hn::MulAdd(u, u, b);
  }
};

// μ, the rate of this tensor
template <class T> struct Lars {
  static constexpr int kSlots = 1;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    p = hn::Sub(p, s[0]);
  }
};

// β₂, 1−β₂, 1/(1−β₂ᵗ), ε inside, ε outside, γ, c, γ (β₁ (1−c) − 1), λ; s: z, v
template <class T> struct ScheduleFree {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    s[1] = hn::MulAdd(k(3), s[1], hn::Mul(k(4), hn::Mul(g, g)));
    const V root = hn::Add(hn::Sqrt(hn::MulAdd(s[1], k(5), k(6))), k(7));
    const V u = hn::MulAdd(k(11), p, hn::Div(g, root));
    p = hn::MulAdd(k(10), u, hn::MulAdd(k(9), hn::Sub(s[0], p), p));
    s[0] = hn::NegMulAdd(k(8), u, s[0]);
  }
};

// μ, 1−μ, and the weights of g and of the buffer in what is to be orthogonalized; s: buffer, that
template <class T> struct MuonMomentum {
  static constexpr int kSlots = 2;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V&, V g, V* s) {
    s[0] = hn::MulAdd(k(3), s[0], hn::Mul(k(4), g));
    s[1] = hn::MulAdd(k(5), g, hn::Mul(k(6), s[0]));
  }
};

// w: p + w g²
template <class T> struct AddSquares {
  static constexpr int kSlots = 0;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V*) {
    p = hn::MulAdd(hn::Mul(k(3), g), g, p);
  }
};

// factor of the row, ε₁², the step's length; s: the columns' factors, read only: the rows share them
template <class T> struct Adafactor {
  static constexpr int kSlots = 1, kStored = 0;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V& p, V g, V* s) {
    p = hn::NegMulAdd(k(5), hn::Div(g, hn::Sqrt(hn::Max(hn::Mul(k(3), s[0]), k(4)))), p);
  }
};
// Σ of the squared update before its length is known.
template <class T> struct AdafactorNorm {
  static constexpr int kSlots = 1;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K& k, V, V g, V* s, V& a, V&) {
    a = hn::Add(a, hn::Div(hn::Mul(g, g), hn::Max(hn::Mul(k(3), s[0]), k(4))));
  }
};

// Σ p², Σ g²
template <class T> struct Squares {
  static constexpr int kSlots = 0;
  template <class D, class K, class V> static HWY_ATTR HWY_INLINE void apply(D, const K&, V p, V g, V*, V& a, V& b) {
    a = hn::MulAdd(p, p, a);
    b = hn::MulAdd(g, g, b);
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
                                                .adadelta = kUpdate<Adadelta>,
                                                .rmsprop = {{kUpdate<RmsProp>, kUpdate<RmsPropMomentum>},
                                                            {kUpdate<RmsPropCentred>, kUpdate<RmsPropCentredMomentum>}},
                                                .adamax = kUpdate<Adamax>,
                                                .nadam = kUpdate<NAdam>,
                                                .radam = kUpdate<RAdam>,
                                                .rprop = kUpdate<Rprop>,
                                                .asgd = kUpdate<Asgd>,
                                                .lion = kUpdate<Lion>,
                                                .lamb = kUpdate<Lamb>,
                                                .lars = kUpdate<Lars>,
                                                .schedule_free = kUpdate<ScheduleFree>,
                                                .muon_momentum = kUpdate<MuonMomentum>,
                                                .adafactor = kUpdate<Adafactor>,
                                                .add_squares = kUpdate<AddSquares>,
                                                .non_finite = kSum<NonFinite>,
                                                .squares = kSum<Squares>,
                                                .lamb_norms = kSum<LambNorms>,
                                                .adafactor_norm = kSum<AdafactorNorm>};
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
