// Rows of the ops on packed weights. Inputs are the dense weight and x: each call packs first.

#include "op_rows.h"

namespace hone::test {
namespace {

// 2 of every 4 columns, in turns: what N:M weights can hold, and 4×2 blocks that are empty, whole and in part.
bool kept(int64_t row, int64_t col) { return row % 3 != 2 && (row + col) % 4 < 2; }
Tensor mask_of(const Shape& s) {
  Tensor mask = zeros(s, boolean);
  const int64_t cols = s.numel() / s[0];
  for (int64_t i = 0; i < s.numel(); ++i) mask.data<bool>()[i] = kept(i / cols, i % cols);
  return mask;
}
Array masked(Array w) {
  const int64_t cols = w.numel() / w.shape[0];
  for (int64_t i = 0; i < w.numel(); ++i) w[i] = kept(i / cols, i % cols) ? w[i] : 0;
  return w;
}
Tensor bias_of(const Tensors& x) { return x.size() > 2 ? x[2] : Tensor(); }
Tensor draw(const Shape& s, uint64_t seed) { return uniform(s, -1, 1, seed); }

using Linear = std::function<Tensor(const Tensor& x, const Tensor& weight, const Tensor& bias)>;
OpRow linear_row(const std::string& op, const Linear& f) {
  return {.op = op,
          .call = [f](const Tensors& x) { return Tensors{f(x[0], x[1], bias_of(x))}; },
          .samples =
              [] {
                return std::vector<Sample>{{"one vector", {draw({9}, 700), draw({18, 9}, 701), draw({18}, 702)}},
                                           {"a batch", {draw({21, 12}, 703), draw({5, 12}, 704), draw({5}, 705)}},
                                           {"three dims, no bias", {draw({2, 3, 7}, 706), draw({3, 7}, 707)}},
                                           {"no rows of x", {draw({0, 4}, 708), draw({2, 4}, 709)}}};
              },
          .reference =
              [](const Arrays& in) {
                const Array w = masked(in[1]);
                Shape shape = in[0].shape;
                const int64_t rows = w.shape[0], cols = w.shape[1];
                shape[shape.ndim() - 1] = rows;
                Array y(shape);
                for (int64_t i = 0; i < y.numel(); ++i) {
                  y[i] = in.size() > 2 ? in[2][i % rows] : 0;
                  for (int64_t j = 0; j < cols; ++j) y[i] += w[i % rows * cols + j] * in[0][i / rows * cols + j];
                }
                return Arrays{y};
              },
          .differentiable = false,
          .second_order = false,
          .dtypes = {DType::f32}};
}

// Stride 2 and 1, padding 1, dilation 1 and 2, two groups.
const Conv2dOptions kOptions = {.stride = {2, 1}, .padding = {1}, .dilation = {1, 2}, .groups = 2};
using Conv = std::function<Tensor(const Tensor& x, const Tensor& weight, const Tensor& bias)>;
OpRow conv_row(const std::string& op, const Conv& f) {
  return {.op = op,
          .call = [f](const Tensors& x) { return Tensors{f(x[0], x[1], bias_of(x))}; },
          .samples =
              [] {
                return std::vector<Sample>{
                    {"a batch", {draw({2, 4, 5, 6}, 710), draw({8, 2, 3, 2}, 711), draw({8}, 712)}},
                    {"no bias", {draw({1, 4, 4, 11}, 713), draw({8, 2, 3, 2}, 714)}},
                    {"no images", {draw({0, 4, 5, 6}, 715), draw({8, 2, 3, 2}, 716)}}};
              },
          .reference =
              [](const Arrays& in) {
                const Array &x = in[0], w = masked(in[1]);
                const int64_t oh = (x.shape[2] + 2 - 3) / 2 + 1, ow = x.shape[3] + 2 - 3 + 1;
                Array y(Shape{x.shape[0], 8, oh, ow});
                for (int64_t i = 0; i < y.numel(); ++i) {
                  const Shape at = index_of(y.shape, i);
                  y[i] = in.size() > 2 ? in[2][at[1]] : 0;
                  for (int64_t k = 0; k < w.numel() / 8; ++k) {
                    const int64_t c = k / 6, h = at[2] * 2 - 1 + k / 2 % 3, v = at[3] - 1 + 2 * (k % 2);
                    if (h < 0 || h >= x.shape[2] || v < 0 || v >= x.shape[3]) continue;
                    y[i] += w[at[1] * 12 + k] * x.at({at[0], at[1] / 4 * 2 + c, h, v});
                  }
                }
                return Arrays{y};
              },
          .differentiable = false,
          .second_order = false,
          .dtypes = {DType::f32}};
}

}  // namespace

std::vector<OpRow> packed_rows() {
  const auto csr = [](const Tensor& w) { return CsrMatrix::pack(w, mask_of(w.shape())); };
  const auto blocks = [](const Tensor& w) { return BlockSparseMatrix::pack(w, 4, 2, mask_of(w.shape())); };
  const auto two_of_four = [](const Tensor& w) { return NMMatrix::pack(w, 2, 4, mask_of(w.shape())); };
  const auto codebook = [](const Tensor& w, int64_t groups) {
    return CodebookMatrix::pack(w * cast(mask_of(w.shape()), f32), groups);
  };
  return {
      linear_row("codebook_linear",
                 [=](const auto& x, const auto& w, const auto& b) { return codebook_linear(x, codebook(w, 1), b); }),
      linear_row("csr_linear", [=](const auto& x, const auto& w, const auto& b) { return csr_linear(x, csr(w), b); }),
      linear_row("block_sparse_linear",
                 [=](const auto& x, const auto& w, const auto& b) { return block_sparse_linear(x, blocks(w), b); }),
      linear_row("n_m_linear",
                 [=](const auto& x, const auto& w, const auto& b) { return n_m_linear(x, two_of_four(w), b); }),
      conv_row("codebook_conv2d",
               [=](const auto& x, const auto& w, const auto& b) {
                 return codebook_conv2d(x, codebook(w, kOptions.groups), b, {kOptions});
               }),
      conv_row("csr_conv2d",
               [=](const auto& x, const auto& w, const auto& b) {
                 return csr_conv2d(x, csr(w), {3, 2}, b, {kOptions});
               }),
      conv_row("block_sparse_conv2d",
               [=](const auto& x, const auto& w, const auto& b) {
                 return block_sparse_conv2d(x, blocks(w), {3, 2}, b, {kOptions});
               }),
      conv_row("n_m_conv2d", [=](const auto& x, const auto& w, const auto& b) {
        return n_m_conv2d(x, two_of_four(w), {3, 2}, b, {kOptions});
      })};
}

}  // namespace hone::test
