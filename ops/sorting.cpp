// topk and sort.

#include <algorithm>

#include "hone/core/autograd.h"
#include "hone/ops/index_lanes.h"
#include "hone/ops/indexing.h"

namespace hone {

namespace {
struct TopkAttrs {
  int64_t k = 1, dim = -1;
  bool largest = true;
  void fields(FieldVisitor& v) {
    v("k", k);
    v("dim", dim);
    v("largest", largest);
  }
};
struct SortAttrs {
  int64_t dim = -1;
  bool descending = false;
  void fields(FieldVisitor& v) {
    v("dim", dim);
    v("descending", descending);
  }
};

template <class T> struct Entry {
  T value;
  int64_t index;
};
// A strict order: by value, NaN above every number, then by index. So any sort with it is stable.
template <class T> bool below(T a, T b) {
  if constexpr (is_floating(dtype_of<T>)) {
    if (b != b) return a == a;
  }
  return a < b;
}
template <class T, bool kDescending> struct Before {
  bool operator()(const Entry<T>& a, const Entry<T>& b) const {
    if (kDescending ? below(b.value, a.value) : below(a.value, b.value)) return true;
    if (kDescending ? below(a.value, b.value) : below(b.value, a.value)) return false;
    return a.index < b.index;
  }
};

// The first k of every lane in order; outputs are [outer, k, inner].
template <class T, bool kDescending> void sort_lanes(RunContext& c, int64_t dim, int64_t k) {
  const View &x = c.in[0], &out = c.out[0];
  if (out.numel() == 0) return;
  const detail::Lanes lanes(x, dim);
  const detail::LaneOffsets at(x, x, dim, c.workspace);
  const T* from = x.as<T>();
  T* values = out.as<T>();
  int64_t* indices = c.out[1].as<int64_t>();
  const int64_t n = lanes.n, inner = lanes.inner, count = lanes.outer * inner;
  const int64_t grain = std::max<int64_t>(4096 / n, 1);
  auto* room = c.workspace.get<Entry<T>>((count + grain - 1) / grain * n);  // one lane for each piece of work
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    Entry<T>* e = room + begin / grain * n;
    const Before<T, kDescending> before;
    for (int64_t lane = begin; lane < end; ++lane) {
      const int64_t o = lane / inner, j = lane % inner;
      for (int64_t i = 0; i < n; ++i) e[i] = {from[at(o, i, j)], i};
      if (k < n) std::nth_element(e, e + k, e + n, before);
      std::sort(e, e + k, before);
      for (int64_t i = 0; i < k; ++i) {
        values[(o * k + i) * inner + j] = e[i].value;
        indices[(o * k + i) * inner + j] = e[i].index;
      }
    }
  });
}
void run(RunContext& c, int64_t dim, int64_t k, bool descending) {
  const int64_t d = wrap_dim(c.op, dim, c.in[0].ndim);
  visit_dtype(c.in[0].dtype, [&]<class T>() {
    if (descending)
      sort_lanes<T, true>(c, d, k);
    else
      sort_lanes<T, false>(c, d, k);
  });
}
void backward(BackwardContext& c, int64_t dim) {
  c.set(0, detail::scatter_to(c.output(1), c.grad(), dim, c.input_shape(0)));
}
ValuesAndIndices both(Outputs out) { return {out[0], out[1]}; }
}  // namespace

const OpDef kTopk = {
    .name = "topk",
    .attributes = attributes<TopkAttrs>(),
    .shapes =
        [](ShapeContext& c) {
          check_inputs(c, 1, 1);
          const auto& a = c.attrs.as<TopkAttrs>();
          Shape shape = c.shape(0);
          const int64_t dim = wrap_dim(c.op, a.dim, shape.ndim()), n = shape.ndim() == 0 ? 1 : shape[dim];
          HONE_CHECK(a.k >= 0 && a.k <= n, ValueError, c.op, ": k ", a.k, " is outside [0, ", n, "], the size of dim ",
                     dim, " of shape ", shape);
          HONE_CHECK(shape.ndim() > 0 || a.k == 1, ValueError, c.op, ": k ", a.k, " of a 0-d tensor; only 1 will do");
          if (shape.ndim() > 0) shape[dim] = a.k;
          c.add(shape, c.dtype(0));
          c.add(shape, DType::i64);
        },
    .run =
        [](RunContext& c) {
          const auto& a = c.attrs.as<TopkAttrs>();
          run(c, a.dim, a.k, a.largest);
        },
    .saves = {.outputs = 0b10},
    .backward = [](BackwardContext& c) { backward(c, c.attrs<TopkAttrs>().dim); },
    .aux_outputs = 0b10};
const OpDef kSort = {.name = "sort",
                     .attributes = attributes<SortAttrs>(),
                     .shapes =
                         [](ShapeContext& c) {
                           check_inputs(c, 1, 1);
                           wrap_dim(c.op, c.attrs.as<SortAttrs>().dim, c.in[0].ndim);
                           c.add(c.shape(0), c.dtype(0));
                           c.add(c.shape(0), DType::i64);
                         },
                     .run =
                         [](RunContext& c) {
                           const auto& a = c.attrs.as<SortAttrs>();
                           const View& x = c.in[0];
                           run(c, a.dim, x.ndim == 0 ? 1 : x.size(static_cast<int>(a.dim)), a.descending);
                         },
                     .saves = {.outputs = 0b10},
                     .backward = [](BackwardContext& c) { backward(c, c.attrs<SortAttrs>().dim); },
                     .aux_outputs = 0b10};

ValuesAndIndices topk(const Tensor& x, int64_t k, int64_t dim, bool largest) {
  return both(apply(kTopk, TopkAttrs{k, dim, largest}, {x}));
}
ValuesAndIndices sort(const Tensor& x, int64_t dim, bool descending) {
  return both(apply(kSort, SortAttrs{dim, descending}, {x}));
}

}  // namespace hone
