// Tensors as text.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ostream>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/convert.h"

namespace hone {

namespace {
constexpr int64_t kSummarizeFrom = 1000, kEdge = 3;

// How the floating numbers of one tensor are written: one format, one width.
struct Format {
  enum Kind { whole, fixed, scientific } kind = fixed;
  int width = 0;
  std::string operator()(double v) const {
    char text[40];
    if (!std::isfinite(v))
      std::snprintf(text, sizeof text, "%s", std::isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
    else if (kind == whole)
      std::snprintf(text, sizeof text, "%.0f.", v);
    else if (kind == fixed)
      std::snprintf(text, sizeof text, "%.4f", v);
    else
      std::snprintf(text, sizeof text, "%.4e", v);
    return text;
  }
};

struct Printer {
  View x;  // on the CPU, any strides
  bool summarize;
  Format format{};
  std::string out{};

  template <class F> void each_shown(int64_t n, F f) const {
    if (!summarize || n <= 2 * kEdge) {
      for (int64_t i = 0; i < n; ++i) f(i);
      return;
    }
    for (int64_t i = 0; i < kEdge; ++i) f(i);
    f(-1);  // "…"
    for (int64_t i = n - kEdge; i < n; ++i) f(i);
  }
  template <class F> void each_value(int dim, int64_t base, F& f) const {
    if (dim == x.ndim) return f(base);
    each_shown(x.sizes[dim], [&](int64_t i) {
      if (i >= 0) each_value(dim + 1, base + i * x.strides[dim], f);
    });
  }
  template <class T> T at(int64_t i) const {
    return visit_dtype(x.dtype, [&]<class From>() { return detail::convert<T>(x.as<From>()[i]); });
  }
  std::string text(int64_t i) const {
    if (x.dtype == DType::boolean) return at<bool>(i) ? "true" : "false";
    return is_floating(x.dtype) ? format(at<double>(i)) : std::to_string(at<int64_t>(i));  // a double has 53 bits
  }
  void choose_format() {
    double largest = 0, smallest = INFINITY;
    bool whole = true;
    auto look = [&](int64_t i) {
      const double v = at<double>(i);
      if (!std::isfinite(v)) return;
      const double a = std::abs(v);
      largest = std::max(largest, a);
      if (a > 0) smallest = std::min(smallest, a);
      whole = whole && v == std::floor(v);
    };
    if (is_floating(x.dtype)) each_value(0, 0, look);
    if (whole && largest < 1e8)
      format.kind = Format::whole;
    else if (largest >= 1e8 || smallest < 1e-4 || largest / smallest > 1e6)
      format.kind = Format::scientific;
    auto widen = [&](int64_t i) { format.width = std::max(format.width, static_cast<int>(text(i).size())); };
    each_value(0, 0, widen);
  }
  void write(int dim, int64_t base, int indent) {
    if (dim == x.ndim) {
      const std::string s = text(base);
      out.append(static_cast<size_t>(std::max(0, format.width - static_cast<int>(s.size()))), ' ');
      out += s;
      return;
    }
    out += '[';
    bool first = true;
    const bool innermost = dim + 1 == x.ndim;
    each_shown(x.sizes[dim], [&](int64_t i) {
      if (!first) {
        out += ',';
        if (innermost)
          out += ' ';
        else
          out.append(static_cast<size_t>(x.ndim - dim - 1), '\n').append(static_cast<size_t>(indent + 1), ' ');
      }
      first = false;
      if (i < 0)
        out += "…";
      else
        write(dim + 1, base + i * x.strides[dim], indent + 1);
    });
    out += ']';
  }
};
}  // namespace

std::string to_string(const Tensor& x) {
  if (!x.defined()) return "Tensor(undefined)";
  const Tensor held = to(x.detach(), cpu);
  Printer p{held.view(), x.numel() > kSummarizeFrom};
  p.out = "Tensor(";
  p.choose_format();
  p.write(0, 0, 7);
  p.out += str(", shape=", x.shape(), ", dtype=", x.dtype());
  if (x.device() != cpu) p.out += str(", device=", x.device());
  if (x.grad_op())
    p.out += str(", op=", x.grad_op());
  else if (x.requires_grad())
    p.out += ", requires_grad";
  return p.out + ")";
}
std::ostream& operator<<(std::ostream& out, const Tensor& x) { return out << to_string(x); }
void print(const Tensor& x) { std::puts(to_string(x).c_str()); }

}  // namespace hone
