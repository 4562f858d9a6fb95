#include "hone/ops/dropout.h"

#include <algorithm>
#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/random.h"
#include "hone/ops/arithmetic.h"
#include "hone/ops/row_kernels.h"

namespace hone {
namespace {

template <class A> void run_as(RunContext& c) {
  const auto& a = c.attrs.as<DropoutAttrs>();
  const Philox random{static_cast<uint64_t>(a.seed), static_cast<uint64_t>(a.stream)};
  // word >= limit keeps: the probability of dropping is p to 32 bits. 2³² itself drops all.
  const auto limit = static_cast<uint64_t>(std::llround(a.p * 0x1p32));
  const A scale = static_cast<A>(a.p < 1 ? 1 / (1 - a.p) : 0);
  const A* x = detail::dense<A>(c.in[0], c.workspace);
  const detail::DenseOutput<A> to(c.out[0], c.workspace);
  A* y = to.data;
  parallel_for(c.out[0].numel(), 1 << 14, [&](int64_t b, int64_t e) {  // pieces begin at multiples of four
    for (int64_t i = b; i < e; i += 4) {
      const auto words = random(static_cast<uint64_t>(i) >> 2);
      const int64_t n = e - i < 4 ? e - i : 4;
      for (int64_t k = 0; k < n; ++k) y[i + k] = words[static_cast<size_t>(k)] >= limit ? x[i + k] * scale : A(0);
    }
  });
  to.finish();
}

void check_p(const char* op, double p) {
  HONE_CHECK(p >= 0 && p <= 1, ValueError, op, ": p must be in [0, 1], not ", p);
}
void dropout_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  check_floating(c, 0, "input");
  check_p(c.op, c.attrs.as<DropoutAttrs>().p);
  c.add(c.shape(0), c.dtype(0));
}

// Whether anything is to be dropped; the rules of the functions that drop more than single elements.
bool drops(const char* op, const Tensor& x, double p, int least_dims, bool training) {
  HONE_CHECK(p >= 0 && p < 1, ValueError, op, ": p must be in [0, 1), not ", p);
  HONE_CHECK(x.defined(), ValueError, op, ": the input is an undefined tensor");
  HONE_CHECK(is_floating(x.dtype()), DTypeError, op, ": input must be floating, not ", x.dtype());
  HONE_CHECK(x.ndim() >= least_dims, ShapeError, op, ": the input must have at least ", least_dims,
             least_dims == 1 ? " dim" : " dims", ", but has shape ", x.shape());
  return training && p > 0 && x.numel() > 0;
}

// x times one factor, 0 or 1/(1 − p), for each index of its first `dims` dims.
Tensor drop_leading(const Tensor& x, double p, int dims) {
  Shape s = x.shape();
  for (int d = dims; d < s.ndim(); ++d) s[d] = 1;
  return x * dropout(ones(s, {x.dtype(), x.device()}), p);
}

struct Planes {
  int64_t count, h, w, block;
  int64_t rows() const { return h - block + 1; }  // of places where a square may begin
  int64_t cols() const { return w - block + 1; }
  int64_t size() const { return h * w; }
};

// 1 where an element is kept, 0 where a dropped square covers it; returns how many are kept.
template <class T> int64_t block_mask(const Planes& s, const Philox& random, uint64_t limit, T* mask) {
  Workspace workspace;
  int64_t* kept = workspace.get<int64_t>(s.count);
  const int64_t places = s.rows() * s.cols();
  const uint64_t counters = (static_cast<uint64_t>(places) + 3) / 4;
  parallel_for(s.count, std::max<int64_t>((1 << 13) / s.size(), 1), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      T* plane = mask + u * s.size();
      std::fill_n(plane, s.size(), T(1));
      for (int64_t v = 0; v < places; v += 4) {
        const auto words = random(static_cast<uint64_t>(u) * counters + static_cast<uint64_t>(v / 4));
        for (int64_t k = v; k < std::min(v + 4, places); ++k) {
          if (words[static_cast<size_t>(k - v)] >= limit) continue;
          T* corner = plane + k / s.cols() * s.w + k % s.cols();
          for (int64_t i = 0; i < s.block; ++i) std::fill_n(corner + i * s.w, s.block, T(0));
        }
      }
      kept[u] = s.size() - std::count(plane, plane + s.size(), T(0));
    }
  });
  int64_t total = 0;
  for (int64_t u = 0; u < s.count; ++u) total += kept[u];
  return total;
}

}  // namespace

// Linear in x: its gradient is the same op with the same mask.
const OpDef kDropout = {
    .name = "dropout",
    .attributes = attributes<DropoutAttrs>(),
    .shapes = dropout_shapes,
    .run = [](RunContext& c) { c.out[0].dtype == DType::f64 ? run_as<double>(c) : run_as<float>(c); },
    .backward = [](BackwardContext& c) { c.set(0, apply(kDropout, c.raw_attrs(), {c.grad()})); },
    .replay = [](const Attrs& a, std::span<const Tensor> x) -> Outputs {
      Outputs out;
      out.push_back(dropout(x[0], a.as<DropoutAttrs>().p));
      return out;
    }};

Tensor dropout(const Tensor& x, double p, bool training) {
  check_p("dropout", p);
  if (!training || p == 0) {
    HONE_CHECK(is_floating(x.dtype()), DTypeError, "dropout: input must be floating, not ", x.dtype());
    return x;
  }
  const Philox stream = next_stream();
  return apply(kDropout, DropoutAttrs{p, static_cast<int64_t>(stream.seed), static_cast<int64_t>(stream.stream)}, {x});
}

Tensor dropout2d(const Tensor& x, double p, bool training) {
  return drops("dropout2d", x, p, 2, training) ? drop_leading(x, p, 2) : x;
}

Tensor drop_path(const Tensor& x, double p, bool training) {
  return drops("drop_path", x, p, 1, training) ? drop_leading(x, p, 1) : x;
}

Tensor drop_block(const Tensor& x, double p, int64_t block, bool training) {
  const bool dropping = drops("drop_block", x, p, 4, training);
  HONE_CHECK(x.ndim() == 4, ShapeError, "drop_block: the input must be [N, C, H, W], but has shape ", x.shape());
  HONE_CHECK(block >= 1, ValueError, "drop_block: block must be at least 1, not ", block);
  const Planes s{x.size(0) * x.size(1), x.size(2), x.size(3), block};
  HONE_CHECK(block <= std::min(s.h, s.w) || x.numel() == 0, ShapeError, "drop_block: a block of ", block, " by ", block,
             " does not fit into planes of ", s.h, " by ", s.w);
  if (!dropping) return x;
  const double gamma =
      p / static_cast<double>(block * block) * static_cast<double>(s.size()) / static_cast<double>(s.rows() * s.cols());
  const Philox random = next_stream();
  Tensor mask = empty(x.shape(), x.dtype() == DType::f64 ? DType::f64 : DType::f32);
  const auto limit = static_cast<uint64_t>(std::llround(gamma * 0x1p32));
  const int64_t kept = mask.dtype() == DType::f64 ? block_mask(s, random, limit, mask.data<double>())
                                                  : block_mask(s, random, limit, mask.data<float>());
  if (kept > 0) mask = mask * (static_cast<double>(x.numel()) / static_cast<double>(kept));
  return x * to(mask.dtype() == x.dtype() ? mask : cast(mask, x.dtype()), x.device());
}

}  // namespace hone
