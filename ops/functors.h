// Elementwise functions and their derivatives, written once. No include guard: the header is included again for every
// SIMD target and for CUDA, inside the includer's namespace; HONE_FN holds the attributes its functions need there.
//
// A functor's members take a maths policy m and values V (m's vector or number): V has + - * /, the rest is m's:
//   set(c) neg abs min max sqrt exp log tanh erf round floor ceil pow; eq lt le gt ge -> mask; select(mask, a, b).
//
// Unary functors: f(m, x); df(m, s) = f'(x) and d2f(m, s) = d(df)/ds, where s is x, or f(x) for those whose derivative
// is simpler in it (`from_output`; the saved output saves memory and a second exp). Piecewise linear ones have
// d2f = 0 and say `linear`. grad(m, g, s) = g * f'(x), where a product would lose what a choice keeps (g infinite,
// f' = 0). Attributes come as doubles.

struct Smooth {
  static constexpr bool from_output = false, linear = false;
};
struct SmoothOfOutput : Smooth {
  static constexpr bool from_output = true;
};
struct Linear {
  static constexpr bool from_output = false, linear = true;
};
/// x within ±40, NaN for NaN: where e^(-x^2/2) has long been 0 in f64 too, and no power of x overflows beside it.
template <class M, class V> HONE_FN V bounded(M m, V x) {
  const V most = m.set(40), least = m.set(-40);
  return m.select(m.gt(x, most), most, m.select(m.lt(x, least), least, x));
}

/// |x|; |x|' = sign(x), 0 at 0.
struct Abs : Linear {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.abs(x); }
  template <class M, class V> HONE_FN V grad(M m, V g, V x) const {
    const V zero = m.set(0);
    return m.select(m.gt(x, zero), g, m.select(m.lt(x, zero), m.neg(g), zero));
  }
};
/// -1, 0 or 1; 0 for NaN.
struct Sign : Linear {
  template <class M, class V> HONE_FN V f(M m, V x) const {
    const V zero = m.set(0);
    return m.select(m.gt(x, zero), m.set(1), m.select(m.lt(x, zero), m.set(-1), zero));
  }
};
struct Neg : Linear {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.neg(x); }
};
struct Exp : SmoothOfOutput {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.exp(x); }
  template <class M, class V> HONE_FN V df(M, V y) const { return y; }
  template <class M, class V> HONE_FN V d2f(M m, V) const { return m.set(1); }
};
struct Log : Smooth {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.log(x); }
  template <class M, class V> HONE_FN V grad(M, V g, V x) const { return g / x; }
  template <class M, class V> HONE_FN V d2f(M m, V x) const { return m.neg(m.set(1) / (x * x)); }
};
struct Sqrt : SmoothOfOutput {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.sqrt(x); }
  template <class M, class V> HONE_FN V grad(M, V g, V y) const { return g / (y + y); }
  template <class M, class V> HONE_FN V d2f(M m, V y) const { return m.set(-0.5) / (y * y); }
};
/// x^(-1/2)
struct Rsqrt : SmoothOfOutput {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.set(1) / m.sqrt(x); }
  template <class M, class V> HONE_FN V df(M m, V y) const { return m.set(-0.5) * y * y * y; }
  template <class M, class V> HONE_FN V d2f(M m, V y) const { return m.set(-1.5) * y * y; }
};
struct Square : Smooth {
  template <class M, class V> HONE_FN V f(M, V x) const { return x * x; }
  template <class M, class V> HONE_FN V df(M, V x) const { return x + x; }
  template <class M, class V> HONE_FN V d2f(M m, V) const { return m.set(2); }
};
struct Tanh : SmoothOfOutput {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.tanh(x); }
  template <class M, class V> HONE_FN V df(M m, V y) const { return m.set(1) - y * y; }
  template <class M, class V> HONE_FN V d2f(M m, V y) const { return m.set(-2) * y; }
};
/// 1 / (1 + e^-x)
struct Sigmoid : SmoothOfOutput {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.set(1) / (m.set(1) + m.exp(m.neg(x))); }
  template <class M, class V> HONE_FN V df(M m, V y) const { return y * (m.set(1) - y); }
  template <class M, class V> HONE_FN V d2f(M m, V y) const { return m.set(1) - (y + y); }
};
/// erf(x); erf' = 2/sqrt(pi) e^(-x^2)
struct Erf : Smooth {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.erf(x); }
  template <class M, class V> HONE_FN V df(M m, V x) const {
    return m.set(1.1283791670955125739) * m.exp(m.neg(x * x));
  }
  template <class M, class V> HONE_FN V d2f(M m, V x) const { return m.set(-2) * bounded(m, x) * df(m, x); }
};
/// max(x, 0), NaN for NaN; relu'(0) = 0.
struct Relu : Linear {
  static constexpr bool from_output = true;
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.select(m.lt(x, m.set(0)), m.set(0), x); }
  template <class M, class V> HONE_FN V grad(M m, V g, V y) const { return m.select(m.le(y, m.set(0)), m.set(0), g); }
};
/// x for x > 0, else slope * x; the derivative at 0 is slope.
struct LeakyRelu : Linear {
  double slope;
  HONE_FN explicit LeakyRelu(const double* a) : slope(a[0]) {}
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.select(m.gt(x, m.set(0)), x, m.set(slope) * x); }
  template <class M, class V> HONE_FN V grad(M m, V g, V x) const {
    return m.select(m.gt(x, m.set(0)), g, m.set(slope) * g);
  }
};
/// x Phi(x), Phi the standard normal distribution function (1 + erf(x / sqrt 2)) / 2.
struct Gelu : Smooth {
  template <class M, class V> HONE_FN V cdf(M m, V x) const {
    return m.set(0.5) + m.set(0.5) * m.erf(x * m.set(0.70710678118654752440));
  }
  template <class M, class V> HONE_FN V pdf(M m, V x) const {
    return m.set(0.39894228040143267794) * m.exp(m.set(-0.5) * x * x);
  }
  template <class M, class V> HONE_FN V f(M m, V x) const { return x * cdf(m, x); }
  template <class M, class V> HONE_FN V df(M m, V x) const {
    const V z = bounded(m, x);
    return cdf(m, z) + z * pdf(m, z);
  }
  template <class M, class V> HONE_FN V d2f(M m, V x) const {
    const V z = bounded(m, x);
    return pdf(m, z) * (m.set(2) - z * z);
  }
};
/// x (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3).
struct GeluTanh : Smooth {
  static constexpr double k = 0.79788456080286535588, c = 0.044715;
  template <class M, class V> HONE_FN V t(M m, V x) const { return m.tanh(m.set(k) * (x + m.set(c) * x * x * x)); }
  template <class M, class V> HONE_FN V du(M m, V x) const { return m.set(k) * (m.set(1) + m.set(3 * c) * x * x); }
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.set(0.5) * x * (m.set(1) + t(m, x)); }
  template <class M, class V> HONE_FN V df(M m, V x) const {
    const V z = bounded(m, x), y = t(m, z);
    return m.set(0.5) * (m.set(1) + y) + m.set(0.5) * z * (m.set(1) - y * y) * du(m, z);
  }
  template <class M, class V> HONE_FN V d2f(M m, V x) const {
    const V z = bounded(m, x), y = t(m, z), u1 = du(m, z), u2 = m.set(6 * k * c) * z;
    return (m.set(1) - y * y) * (u1 + m.set(0.5) * z * (u2 - m.set(2) * y * u1 * u1));
  }
};
/// x sigmoid(x)
struct Silu : Smooth {
  template <class M, class V> HONE_FN V sigmoid(M m, V x) const { return m.set(1) / (m.set(1) + m.exp(m.neg(x))); }
  template <class M, class V> HONE_FN V f(M m, V x) const { return x / (m.set(1) + m.exp(m.neg(x))); }
  template <class M, class V> HONE_FN V df(M m, V x) const {
    const V s = sigmoid(m, x);
    return s * (m.set(1) + x * (m.set(1) - s));
  }
  template <class M, class V> HONE_FN V d2f(M m, V x) const {
    const V s = sigmoid(m, x);
    return s * (m.set(1) - s) * (m.set(2) + x * (m.set(1) - (s + s)));
  }
};
/// x limited to [low, high], NaN for NaN; the derivative is 1 inside and on both bounds, else 0.
struct Clamp : Linear {
  double low, high;
  HONE_FN explicit Clamp(const double* a) : low(a[0]), high(a[1]) {}
  template <class M, class V> HONE_FN V f(M m, V x) const {
    const V lo = m.set(low), hi = m.set(high);
    return m.select(m.lt(x, lo), lo, m.select(m.gt(x, hi), hi, x));
  }
  template <class M, class V> HONE_FN V grad(M m, V g, V x) const {
    const V zero = m.set(0);
    return m.select(m.lt(x, m.set(low)), zero, m.select(m.gt(x, m.set(high)), zero, g));
  }
};
/// To the nearest integer, halves to even.
struct Round : Linear {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.round(x); }
};
struct Floor : Linear {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.floor(x); }
};
struct Ceil : Linear {
  template <class M, class V> HONE_FN V f(M m, V x) const { return m.ceil(x); }
};

/// A functor with its attributes.
template <class F> HONE_FN F make_functor(const double* attributes) {
  if constexpr (requires { F(attributes); })
    return F(attributes);
  else
    return F();
}

/// g * f'(x) of a functor.
template <class F, class M, class V> HONE_FN V grad_of(const F& functor, M m, V g, V s) {
  if constexpr (requires { functor.grad(m, g, s); })
    return functor.grad(m, g, s);
  else
    return g * functor.df(m, s);
}
/// Which derivative kernels a functor has.
template <class F, class M, class V> inline constexpr bool kHasGrad = requires(const F& f, M m, V v) {
  f.grad(m, v, v);
}
|| requires(const F& f, M m, V v) { f.df(m, v); };

// Binary functors: f(m, a, b). Comparisons give a mask.
struct Add {
  template <class M, class V> HONE_FN V f(M, V a, V b) const { return a + b; }
};
struct Sub {
  template <class M, class V> HONE_FN V f(M, V a, V b) const { return a - b; }
};
struct Mul {
  template <class M, class V> HONE_FN V f(M, V a, V b) const { return a * b; }
};
struct Div {
  template <class M, class V> HONE_FN V f(M, V a, V b) const { return a / b; }
};
struct Pow {
  template <class M, class V> HONE_FN V f(M m, V a, V b) const { return m.pow(a, b); }
};
/// The larger; NaN if either is.
struct Maximum {
  template <class M, class V> HONE_FN V f(M m, V a, V b) const {
    return m.select(m.ge(a, b), a, m.select(m.lt(a, b), b, a + b));  // neither: unordered, and a + b is NaN
  }
};
/// The smaller; NaN if either is.
struct Minimum {
  template <class M, class V> HONE_FN V f(M m, V a, V b) const {
    return m.select(m.le(a, b), a, m.select(m.gt(a, b), b, a + b));
  }
};
struct Eq {
  template <class M, class V> HONE_FN auto f(M m, V a, V b) const { return m.eq(a, b); }
};
struct Ne {
  template <class M, class V> HONE_FN auto f(M m, V a, V b) const { return m.ne(a, b); }
};
struct Lt {
  template <class M, class V> HONE_FN auto f(M m, V a, V b) const { return m.lt(a, b); }
};
struct Le {
  template <class M, class V> HONE_FN auto f(M m, V a, V b) const { return m.le(a, b); }
};
struct Gt {
  template <class M, class V> HONE_FN auto f(M m, V a, V b) const { return m.gt(a, b); }
};
struct Ge {
  template <class M, class V> HONE_FN auto f(M m, V a, V b) const { return m.ge(a, b); }
};

/// Calls visit(tag<Functor>) for a number: the one list of which struct a number means.
template <class F> struct FunctorTag { using type = F; };

template <class Visit> HONE_FN_HOST auto visit_unary(::hone::detail::Unary id, Visit&& visit) {
  using U = ::hone::detail::Unary;
  switch (id) {
    case U::abs: return visit(FunctorTag<Abs>());
    case U::sign: return visit(FunctorTag<Sign>());
    case U::exp: return visit(FunctorTag<Exp>());
    case U::log: return visit(FunctorTag<Log>());
    case U::sqrt: return visit(FunctorTag<Sqrt>());
    case U::rsqrt: return visit(FunctorTag<Rsqrt>());
    case U::square: return visit(FunctorTag<Square>());
    case U::tanh: return visit(FunctorTag<Tanh>());
    case U::sigmoid: return visit(FunctorTag<Sigmoid>());
    case U::erf: return visit(FunctorTag<Erf>());
    case U::relu: return visit(FunctorTag<Relu>());
    case U::leaky_relu: return visit(FunctorTag<LeakyRelu>());
    case U::gelu: return visit(FunctorTag<Gelu>());
    case U::gelu_tanh: return visit(FunctorTag<GeluTanh>());
    case U::silu: return visit(FunctorTag<Silu>());
    case U::clamp: return visit(FunctorTag<Clamp>());
    case U::round: return visit(FunctorTag<Round>());
    case U::floor: return visit(FunctorTag<Floor>());
    case U::ceil: return visit(FunctorTag<Ceil>());
    default: return visit(FunctorTag<Neg>());
  }
}

template <class Visit> HONE_FN_HOST auto visit_binary(::hone::detail::Binary id, Visit&& visit) {
  using B = ::hone::detail::Binary;
  switch (id) {
    case B::add: return visit(FunctorTag<Add>());
    case B::sub: return visit(FunctorTag<Sub>());
    case B::mul: return visit(FunctorTag<Mul>());
    case B::div: return visit(FunctorTag<Div>());
    case B::pow: return visit(FunctorTag<Pow>());
    case B::maximum: return visit(FunctorTag<Maximum>());
    case B::minimum: return visit(FunctorTag<Minimum>());
    case B::eq: return visit(FunctorTag<Eq>());
    case B::ne: return visit(FunctorTag<Ne>());
    case B::lt: return visit(FunctorTag<Lt>());
    case B::le: return visit(FunctorTag<Le>());
    case B::gt: return visit(FunctorTag<Gt>());
    default: return visit(FunctorTag<Ge>());
  }
}
