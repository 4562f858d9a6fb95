#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "hone/ops/row_kernels.cpp"
#include "hwy/foreach_target.h"
// After foreach_target, which needs to come first.
#include <cmath>
#include <limits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace hone::detail {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

namespace {
template <class T> struct Rows {
  using D = hn::ScalableTag<T>;
  using V = hn::Vec<D>;
  static constexpr size_t kMost = 64 / sizeof(T);

  // The last n < lanes elements, the other lanes filled with `pad`.
  static HWY_ATTR HWY_INLINE V load_tail(const T* p, int64_t n, T pad) {
    const D d;
    HWY_ALIGN T b[kMost];
    for (size_t i = 0; i < kMost; ++i) b[i] = static_cast<int64_t>(i) < n ? p[i] : pad;
    return hn::Load(d, b);
  }
  static HWY_ATTR HWY_INLINE void store_tail(V v, T* p, int64_t n) {
    const D d;
    HWY_ALIGN T b[kMost];
    hn::Store(v, d, b);
    for (int64_t i = 0; i < n; ++i) p[i] = b[i];
  }
  // e^x for x <= 0; NaN stays NaN (Highway's Exp would make it 0).
  static HWY_ATTR HWY_INLINE V exp(V x) {
    const D d;
    return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
  }
  static HWY_ATTR T max(const T* x, int64_t n) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const T least = -std::numeric_limits<T>::infinity();
    V m = hn::Set(d, least);
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) m = hn::Max(m, hn::LoadU(d, x + i));
    if (i < n) m = hn::Max(m, load_tail(x + i, n - i, least));
    return hn::GetLane(hn::MaxOfLanes(d, m));
  }
  // Elements of a row that are summed in T; such sums are added in f64, or long rows would lose what they add.
  static constexpr int64_t kTogether = 512;
  static HWY_ATTR HWY_INLINE double flush(V& sum) {
    const D d;
    const T s = hn::GetLane(hn::SumOfLanes(d, sum));
    sum = hn::Zero(d);
    return static_cast<double>(s);
  }
  // Sum of exp(x − shift); also stored in y if there is one.
  static HWY_ATTR T exp_sum(const T* x, T shift, T* y, int64_t n) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const V s = hn::Set(d, shift);
    V sum = hn::Zero(d);
    double total = 0;
    int64_t i = 0;
    for (int64_t stop = kTogether; i + lanes <= n; stop += kTogether, total += flush(sum)) {
      for (; i + lanes <= n && i < stop; i += lanes) {
        const V e = exp(hn::Sub(hn::LoadU(d, x + i), s));
        if (y) hn::StoreU(e, d, y + i);
        sum = hn::Add(sum, e);
      }
    }
    if (i < n) {
      // Padding with −inf adds exp(−inf) = 0, but −inf − (−inf) would be NaN in a row that is not.
      const V e = exp(hn::Sub(load_tail(x + i, n - i, x[i]), s));
      if (y) store_tail(e, y + i, n - i);
      sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - i)), e));
    }
    return static_cast<T>(total + flush(sum));
  }
  // y = f(a, b) elementwise; b may be a.
  template <class F> static HWY_ATTR HWY_INLINE void map(const T* a, const T* b, T* y, int64_t n, F f) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(f(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i);
    if (i < n) store_tail(f(load_tail(a + i, n - i, T(0)), load_tail(b + i, n - i, T(0))), y + i, n - i);
  }
  // sum a·b, or sum a where there is no b.
  static HWY_ATTR T dot(const T* a, const T* b, int64_t n) {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    V sum = hn::Zero(d);
    double total = 0;
    int64_t i = 0;
    for (int64_t stop = kTogether; i + lanes <= n; stop += kTogether, total += flush(sum)) {
      for (; i + lanes <= n && i < stop; i += lanes) {
        const V v = hn::LoadU(d, a + i);
        sum = b ? hn::MulAdd(v, hn::LoadU(d, b + i), sum) : hn::Add(sum, v);
      }
    }
    if (i < n) {
      const V v = load_tail(a + i, n - i, T(0));
      sum = b ? hn::MulAdd(v, load_tail(b + i, n - i, T(0)), sum) : hn::Add(sum, v);
    }
    return static_cast<T>(total + flush(sum));
  }

  static HWY_ATTR void softmax(const T* x, T* y, int64_t rows, int64_t n) {
    const D d;
    for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
      const V scale = hn::Set(d, T(1) / exp_sum(x, max(x, n), y, n));
      map(y, y, y, n, [&](V v, V) HWY_ATTR { return hn::Mul(v, scale); });
    }
  }
  static HWY_ATTR void log_softmax(const T* x, T* y, int64_t rows, int64_t n) {
    const D d;
    for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
      const T most = max(x, n);
      const V m = hn::Set(d, most), l = hn::Set(d, std::log(exp_sum(x, most, nullptr, n)));
      map(x, x, y, n, [&](V v, V) HWY_ATTR { return hn::Sub(hn::Sub(v, m), l); });
    }
  }
  static HWY_ATTR void logsumexp(const T* x, T* most, T* log_sum, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; ++r, x += n) {
      most[r] = max(x, n);
      log_sum[r] = std::log(exp_sum(x, most[r], nullptr, n));
    }
  }
  static HWY_ATTR void scaled_softmax(const T* x, const T* most, const T* log_sum, const T* scale, T* y, int64_t rows,
                                      int64_t n) {
    const D d;
    for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
      const V m = hn::Set(d, most[r]), l = hn::Set(d, log_sum[r]), c = hn::Set(d, scale[r]);
      map(x, x, y, n, [&](V v, V) HWY_ATTR { return hn::Mul(c, exp(hn::Sub(hn::Sub(v, m), l))); });
    }
  }
  static HWY_ATTR void softmax_grad(const T* g, const T* y, T* dx, int64_t rows, int64_t n) {
    const D d;
    for (int64_t r = 0; r < rows; ++r, g += n, y += n, dx += n) {
      const V s = hn::Set(d, dot(g, y, n));
      map(g, y, dx, n, [&](V a, V b) HWY_ATTR { return hn::Mul(b, hn::Sub(a, s)); });
    }
  }
  static HWY_ATTR void log_softmax_grad(const T* g, const T* y, T* dx, int64_t rows, int64_t n) {
    const D d;
    for (int64_t r = 0; r < rows; ++r, g += n, y += n, dx += n) {
      const V s = hn::Set(d, dot(g, nullptr, n));
      map(g, y, dx, n, [&](V a, V b) HWY_ATTR { return hn::Sub(a, hn::Mul(exp(b), s)); });
    }
  }
};
}  // namespace

#define HONE_ROW_KERNELS(T, S)                                                                            \
  void softmax_##S(const T* x, T* y, int64_t r, int64_t n) { Rows<T>::softmax(x, y, r, n); }              \
  void log_softmax_##S(const T* x, T* y, int64_t r, int64_t n) { Rows<T>::log_softmax(x, y, r, n); }      \
  void logsumexp_##S(const T* x, T* m, T* l, int64_t r, int64_t n) { Rows<T>::logsumexp(x, m, l, r, n); } \
  void scaled_softmax_##S(const T* x, const T* m, const T* l, const T* c, T* y, int64_t r, int64_t n) {   \
    Rows<T>::scaled_softmax(x, m, l, c, y, r, n);                                                         \
  }                                                                                                       \
  void softmax_grad_##S(const T* g, const T* y, T* dx, int64_t r, int64_t n) {                            \
    Rows<T>::softmax_grad(g, y, dx, r, n);                                                                \
  }                                                                                                       \
  void log_softmax_grad_##S(const T* g, const T* y, T* dx, int64_t r, int64_t n) {                        \
    Rows<T>::log_softmax_grad(g, y, dx, r, n);                                                            \
  }
HONE_ROW_KERNELS(float, f32)
HONE_ROW_KERNELS(double, f64)
#undef HONE_ROW_KERNELS

}  // namespace HWY_NAMESPACE
}  // namespace hone::detail
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "hone/ops/row_kernels.h"

namespace hone::detail {

// One dynamic dispatch a parallel piece.
#define HONE_ROW_KERNELS(T, S)                                                                                    \
  HWY_EXPORT(softmax_##S);                                                                                        \
  HWY_EXPORT(log_softmax_##S);                                                                                    \
  HWY_EXPORT(logsumexp_##S);                                                                                      \
  HWY_EXPORT(scaled_softmax_##S);                                                                                 \
  HWY_EXPORT(softmax_grad_##S);                                                                                   \
  HWY_EXPORT(log_softmax_grad_##S);                                                                               \
  void softmax_rows(const T* x, T* y, int64_t rows, int64_t n) {                                                  \
    parallel_for(rows, row_grain(n), [&](int64_t b, int64_t e) {                                                  \
      HWY_DYNAMIC_DISPATCH(softmax_##S)(x + b * n, y + b * n, e - b, n);                                          \
    });                                                                                                           \
  }                                                                                                               \
  void log_softmax_rows(const T* x, T* y, int64_t rows, int64_t n) {                                              \
    parallel_for(rows, row_grain(n), [&](int64_t b, int64_t e) {                                                  \
      HWY_DYNAMIC_DISPATCH(log_softmax_##S)(x + b * n, y + b * n, e - b, n);                                      \
    });                                                                                                           \
  }                                                                                                               \
  void logsumexp_rows(const T* x, T* most, T* log_sum, int64_t rows, int64_t n) {                                 \
    parallel_for(rows, row_grain(n), [&](int64_t b, int64_t e) {                                                  \
      HWY_DYNAMIC_DISPATCH(logsumexp_##S)(x + b * n, most + b, log_sum + b, e - b, n);                            \
    });                                                                                                           \
  }                                                                                                               \
  void scaled_softmax_rows(const T* x, const T* most, const T* log_sum, const T* scale, T* y, int64_t rows,       \
                           int64_t n) {                                                                           \
    parallel_for(rows, row_grain(n), [&](int64_t b, int64_t e) {                                                  \
      HWY_DYNAMIC_DISPATCH(scaled_softmax_##S)(x + b * n, most + b, log_sum + b, scale + b, y + b * n, e - b, n); \
    });                                                                                                           \
  }                                                                                                               \
  void softmax_grad_rows(const T* g, const T* y, T* dx, int64_t rows, int64_t n) {                                \
    parallel_for(rows, row_grain(n), [&](int64_t b, int64_t e) {                                                  \
      HWY_DYNAMIC_DISPATCH(softmax_grad_##S)(g + b * n, y + b * n, dx + b * n, e - b, n);                         \
    });                                                                                                           \
  }                                                                                                               \
  void log_softmax_grad_rows(const T* g, const T* y, T* dx, int64_t rows, int64_t n) {                            \
    parallel_for(rows, row_grain(n), [&](int64_t b, int64_t e) {                                                  \
      HWY_DYNAMIC_DISPATCH(log_softmax_grad_##S)(g + b * n, y + b * n, dx + b * n, e - b, n);                     \
    });                                                                                                           \
  }
HONE_ROW_KERNELS(float, f32)
HONE_ROW_KERNELS(double, f64)
#undef HONE_ROW_KERNELS

}  // namespace hone::detail
#endif  // HWY_ONCE
