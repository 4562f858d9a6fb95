#include "hone/ops/dropout.h"

#include <cmath>

#include "hone/core/autograd.h"
#include "hone/core/random.h"
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

}  // namespace

// Linear in x: its gradient is the same op with the same mask.
const OpDef kDropout = {
    .name = "dropout",
    .attributes = attributes<DropoutAttrs>(),
    .shapes = dropout_shapes,
    .run = [](RunContext& c) { c.out[0].dtype == DType::f64 ? run_as<double>(c) : run_as<float>(c); },
    .backward = [](BackwardContext& c) { c.set(0, apply(kDropout, c.raw_attrs(), {c.grad()})); }};

Tensor dropout(const Tensor& x, double p, bool training) {
  check_p("dropout", p);
  if (!training || p == 0) {
    HONE_CHECK(is_floating(x.dtype()), DTypeError, "dropout: input must be floating, not ", x.dtype());
    return x;
  }
  const Philox stream = next_stream();
  return apply(kDropout, DropoutAttrs{p, static_cast<int64_t>(stream.seed), static_cast<int64_t>(stream.stream)}, {x});
}

}  // namespace hone
