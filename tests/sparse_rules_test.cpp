// What sparse weights promise beside their numbers: packing loses nothing, damaged and hostile weights are refused,
// infinities stay where they are, results do not depend on threads or strides, errors say what is wrong.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "hone/hone.h"
#include "layouts.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;
using test::same_bits;

constexpr float kInf = std::numeric_limits<float>::infinity();

// Normal, of which about a fifth is kept.
Tensor thinned(const Shape& shape) {
  const Tensor w = randn(shape), keep = rand(shape);
  for (int64_t i = 0; i < w.numel(); ++i)
    if (keep.data<float>()[i] > 0.2f) w.data<float>()[i] = 0;
  return w;
}
// The same with at most 2 in 4 columns.
Tensor thinned_2_4(const Shape& shape) {
  const Tensor w = randn(shape);
  const int64_t cols = w.numel() / shape[0];
  for (int64_t i = 0; i < w.numel(); ++i)
    if ((i / cols + i % cols) % 4 > 1) w.data<float>()[i] = 0;
  return w;
}
// A copy whose element i is v.
template <class T> Tensor with(const Tensor& t, int64_t i, T v) {
  const Tensor copy = clone(t);
  copy.data<T>()[i] = v;
  return copy;
}
template <class W> W changed(W w, const std::function<void(W&)>& f) {
  f(w);
  return w;
}

TEST(SparsePack, DenseGivesTheWeightBack) {
  manual_seed(1);
  for (const Shape& s : {Shape{17, 37}, Shape{1, 1}, Shape{16, 8}, Shape{0, 5}, Shape{5, 0}, Shape{6, 3, 5, 5}}) {
    const Shape matrix = {s[0], s[0] ? s.numel() / s[0] : 5};
    const Tensor w = s.numel() ? thinned(s) : zeros(s), two = s.numel() ? thinned_2_4(s) : zeros(s);
    const auto expect = [&](const auto& packed, const Tensor& dense) {
      EXPECT_NO_THROW(packed.check());
      EXPECT_TRUE(same_bits(packed.dense(), reshape(dense, matrix))) << str(s);
    };
    expect(CsrMatrix::pack(w), w);
    for (const int64_t height : {1, 2, 4, 8, 16})
      for (const int64_t width : {1, 2, 4, 8, 16}) expect(BlockSparseMatrix::pack(w, height, width), w);
    expect(NMMatrix::pack(two, 2, 4), two);
    expect(NMMatrix::pack(two, 4, 8), two);
    expect(NMMatrix::pack(w, 2, 2), w);
    expect(NMMatrix::pack(w, 8, 8), w);
  }
}

TEST(SparsePack, LayoutIsTheDocumentedOne) {
  const Tensor w = tensor<float>({0, 1, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0}, {3, 5});
  const CsrMatrix csr = CsrMatrix::pack(w);
  EXPECT_TRUE(equal(csr.values, tensor<float>({1, 2, 3, 4})));
  EXPECT_TRUE(equal(csr.columns, tensor<int32_t>({1, 3, 3, 2})));
  EXPECT_TRUE(equal(csr.row_starts, tensor<int32_t>({0, 2, 3, 4})));
  const BlockSparseMatrix blocks = BlockSparseMatrix::pack(w, 2, 2);  // of 2 × 3 blocks, (0, 0), (0, 1) and (1, 1)
  EXPECT_TRUE(equal(blocks.values, tensor<float>({0, 0, 1, 0, 0, 0, 2, 3, 4, 0, 0, 0}, {3, 2, 2})));
  EXPECT_TRUE(equal(blocks.columns, tensor<int32_t>({0, 1, 1})));
  EXPECT_TRUE(equal(blocks.row_starts, tensor<int32_t>({0, 2, 3})));
  const NMMatrix two = NMMatrix::pack(w, 2, 4);
  ASSERT_EQ(two.values.shape(), (Shape{1, 2, 2, 16}));
  ASSERT_EQ(two.positions.shape(), (Shape{1, 2, 2, 1}));
  Tensor values = zeros({1, 2, 2, 16});
  float* v = values.data<float>();
  v[0] = 1, v[1] = 3, v[2] = 4, v[16] = 2;
  EXPECT_TRUE(equal(two.values, values));
  EXPECT_TRUE(equal(two.positions, tensor<int32_t>({1 | 3 << 2 | 2 << 4, 3, 0, 0}, {1, 2, 2, 1})));
  const NMMatrix four = NMMatrix::pack(transpose(concat({w, zeros({9, 5}), w}, 0)), 4, 8);
  EXPECT_EQ(four.positions.shape(), (Shape{1, 2, 4, 2}));
}

TEST(SparsePack, MaskZerosAreDroppedAndNanKept) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor w = tensor<float>({nan, 1, -0.0f, 2, nan, 0}, {2, 3});
  const Tensor mask = tensor<float>({1, 0, 1, 0.5f, 0, 1}, {2, 3});
  const CsrMatrix csr = CsrMatrix::pack(w, mask);
  EXPECT_TRUE(equal(csr.values, tensor<float>({nan, 2})));
  EXPECT_TRUE(equal(csr.columns, tensor<int32_t>({0, 0})));
  EXPECT_EQ(CsrMatrix::pack(w).stored(), 4);
  const CsrMatrix same = CsrMatrix::pack(w, ne(mask, 0.0));
  EXPECT_TRUE(equal(same.values, csr.values));
}

TEST(SparsePack, Errors) {
  const Tensor w = ones({4, 8});
  expect_error<ValueError>([&] { NMMatrix::pack(w, 2, 4); }, "row 0 has more than 2 nonzeros in columns [0, 4)");
  expect_error<ValueError>([&] { NMMatrix::pack(w, 2, 3); }, "2:3; m must be 2, 4 or 8");
  expect_error<ValueError>([&] { NMMatrix::pack(w, 5, 4); }, "5:4");
  expect_error<ValueError>([&] { BlockSparseMatrix::pack(w, 3, 4); }, "a block of 3x4");
  expect_error<ValueError>([&] { BlockSparseMatrix::pack(w, 4, 32); }, "a block of 4x32");
  expect_error<DTypeError>([&] { CsrMatrix::pack(cast(w, f64)); }, "must be f32, not f64");
  expect_error<ValueError>([&] { CsrMatrix::pack({}); }, "undefined");
  expect_error<ShapeError>([&] { CsrMatrix::pack(ones({4})); }, "at least 2 dims, not shape [4]");
  expect_error<ShapeError>([&] { CsrMatrix::pack(w, ones({8, 4})); }, "mask [8, 4] does not fit weight [4, 8]");
  expect_error<ValueError>([&] { CsrMatrix::pack(empty({0, (int64_t{1} << 24) + 1})); }, "beyond 16777216");
}

// Every rule of check(), broken alone.
TEST(SparseCheck, DamagedWeightsAreRefused) {
  manual_seed(2);
  const CsrMatrix csr = CsrMatrix::pack(tensor<float>({0, 1, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0}, {3, 5}));
  const auto refuse_csr = [&](const std::string& part, const std::function<void(CsrMatrix&)>& f) {
    const CsrMatrix w = changed<CsrMatrix>(csr, f);
    expect_error<FormatError>([&] { w.check(); }, part);
    expect_error<FormatError>([&] { w.dense(); }, part);
  };
  refuse_csr("row_starts must begin with 0", [](CsrMatrix& w) { w.row_starts = with(w.row_starts, 0, 1); });
  refuse_csr("row_starts[2] is 1, outside [2, 4]", [](CsrMatrix& w) { w.row_starts = with(w.row_starts, 2, 1); });
  refuse_csr("row_starts[1] is 9", [](CsrMatrix& w) { w.row_starts = with(w.row_starts, 1, 9); });
  refuse_csr("row_starts[1] is -1", [](CsrMatrix& w) { w.row_starts = with(w.row_starts, 1, -1); });
  refuse_csr("row_starts end at 3, not at the 4", [](CsrMatrix& w) { w.row_starts = with(w.row_starts, 3, 3); });
  refuse_csr("columns[1] is 5, outside [2, 5)", [](CsrMatrix& w) { w.columns = with(w.columns, 1, 5); });
  refuse_csr("columns[1] is 1, outside [2, 5)", [](CsrMatrix& w) { w.columns = with(w.columns, 1, 1); });
  refuse_csr("columns[0] is -1", [](CsrMatrix& w) { w.columns = with(w.columns, 0, -1); });
  refuse_csr("row_starts must be i32 of shape [5]", [](CsrMatrix& w) { w.rows = 4; });
  refuse_csr("-1 rows", [](CsrMatrix& w) { w.rows = -1; });
  refuse_csr("columns[1] is 3", [](CsrMatrix& w) { w.cols = 3; });
  refuse_csr("columns must be i32", [](CsrMatrix& w) { w.columns = cast(w.columns, i64); });
  refuse_csr("columns must be i32 of shape [4], not undefined", [](CsrMatrix& w) { w.columns = {}; });
  refuse_csr("values must be f32", [](CsrMatrix& w) { w.values = cast(w.values, f64); });

  const BlockSparseMatrix blocks = BlockSparseMatrix::pack(thinned({7, 9}), 4, 4);
  const auto refuse_blocks = [&](const std::string& part, const std::function<void(BlockSparseMatrix&)>& f) {
    expect_error<FormatError>([&] { changed<BlockSparseMatrix>(blocks, f).check(); }, part);
  };
  const int64_t last = blocks.values.numel() - 1;  // row 7, column 11: outside
  refuse_blocks("outside the matrix must be 0", [=](auto& w) { w.values = with(w.values, last, 1.0f); });
  refuse_blocks("[blocks, width, height]", [](auto& w) { w.values = reshape(w.values, {-1, 16}); });
  refuse_blocks("sides of 1, 2, 4, 8 or 16", [](auto& w) { w.values = zeros({2, 3, 4}); });
  refuse_blocks("outside [0, 3)", [](auto& w) { w.columns = with(w.columns, 0, 3); });
  refuse_blocks("row_starts must be i32 of shape [4]", [](auto& w) { w.rows = 9; });

  const NMMatrix two = NMMatrix::pack(thinned_2_4({17, 10}), 2, 4);
  const auto refuse_two = [&](const std::string& part, const std::function<void(NMMatrix&)>& f) {
    expect_error<FormatError>([&] { changed<NMMatrix>(two, f).check(); }, part);
  };
  refuse_two("outside the matrix must be 0", [](auto& w) { w.values = with(w.values, w.values.numel() - 1, 1.0f); });
  refuse_two("of row 0 is outside",
             [](auto& w) { w.positions = with(w.positions, 0, 3), w.positions = with(w.positions, 1, 0); });
  refuse_two("of row 0 is outside [9, 10)",
             [](auto& w) { w.positions = with(w.positions, 4, 0), w.positions = with(w.positions, 5, 3); });
  refuse_two("groups of 5", [](auto& w) { w.m = 5; });
  refuse_two("positions must be i32 of shape [2, 3, 2, 1]", [](auto& w) { w.positions = zeros({2, 3, 2, 2}, i32); });
  refuse_two("values must be f32 of shape [2, 2, 2, 16]", [](auto& w) { w.m = 8; });
}

// What the ops themselves must refuse before they read by it.
TEST(SparseRun, HostileIndicesAreRefused) {
  manual_seed(3);
  const Tensor w = thinned({12, 2, 3, 3}), image = randn({1, 2, 6, 6});
  const CsrMatrix csr = CsrMatrix::pack(w);
  const BlockSparseMatrix blocks = BlockSparseMatrix::pack(w, 4, 2);
  const auto refuse = [&](const auto& bad, auto linear_op, auto conv_op, const std::string& part) {
    for (const int64_t batch : {1, 20})
      expect_error<ValueError>([&] { linear_op(ones({batch, 18}), bad, Tensor(), ActivationAttrs()); }, part);
    expect_error<ValueError>([&] { conv_op(image, bad, {3}, Tensor(), FusedConv2dOptions{}); }, part);
  };
  const auto both = [&](const std::string& part, auto f) {
    refuse(changed<CsrMatrix>(csr, f), csr_linear, csr_conv2d, part);
    refuse(changed<BlockSparseMatrix>(blocks, f), block_sparse_linear, block_sparse_conv2d, part);
  };
  for (const int32_t column : {18, 1 << 30, -1, INT32_MIN})
    both("a column is outside", [=](auto& m) { m.columns = with(m.columns, m.columns.numel() - 1, column); });
  for (const int32_t start : {-1, 1 << 30, INT32_MAX, INT32_MIN})
    both("row starts must rise", [=](auto& m) { m.row_starts = with(m.row_starts, 1, start); });
  both("row starts must rise", [](auto& m) { m.row_starts = with(m.row_starts, 0, 1); });
  both("row starts must rise", [](auto& m) { m.row_starts = with(m.row_starts, m.row_starts.numel() - 1, 1); });
}
// Any positions at all are within bounds; sanitizers watch.
TEST(SparseRun, AnyBitsAsPositions) {
  manual_seed(4);
  for (const int64_t m : {2, 4, 8}) {
    NMMatrix w = NMMatrix::pack(zeros({20, 2, 3, 3}), 1, m);
    w.values = randn(w.values.shape());
    w.positions = cast(randint(INT32_MIN, INT32_MAX, w.positions.shape()), i32);
    for (const int64_t batch : {1, 20}) n_m_linear(ones({batch, 18}), w);
    n_m_conv2d(ones({1, 2, 6, 6}), w, {3});
  }
}

// A weight that is not stored does not meet x: 0 · inf is NaN.
TEST(SparseRun, InfinitiesMeetStoredWeightsAlone) {
  manual_seed(5);
  const Tensor w = zeros({9, 40});
  for (int64_t i = 0; i < 40; i += 3) w.data<float>()[4 * 40 + i] = 1;  // row 4 alone; not column 20
  const CsrMatrix csr = CsrMatrix::pack(w);
  for (const int64_t batch : {1, 2, 5, 40}) {
    const Tensor x = ones({batch, 40});
    for (int64_t b = 0; b < batch; ++b) x.data<float>()[b * 40 + 20] = kInf;
    EXPECT_TRUE(equal(csr_linear(x, csr), linear(ones({batch, 40}), w))) << batch;
    const Tensor y = csr_linear(with(ones({batch, 40}), 3, kInf), csr);
    for (int64_t i = 0; i < y.numel(); ++i) EXPECT_EQ(y.data<float>()[i] == kInf, i == 4) << i;
  }
  // At an image's last place, behind which the next image, or the end of a band, lies.
  const CsrMatrix kernel = CsrMatrix::pack(ones({3, 2, 3, 3}));
  const Tensor image = with(ones({2, 2, 9, 10}), 9 * 10 - 1, kInf);
  const std::vector<float> y = csr_conv2d(image, kernel, {3}).to_vector<float>();
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], i < 3 * 56 && i % 56 == 55 ? kInf : 18) << i;
}

TEST(SparseRun, SameBitsAtAnyThreadCountAndStride) {
  manual_seed(6);
  const Tensor w = thinned_2_4({200, 16, 3, 3});
  const CsrMatrix csr = CsrMatrix::pack(w);
  const BlockSparseMatrix blocks = BlockSparseMatrix::pack(w, 8, 2);
  const NMMatrix two = NMMatrix::pack(w, 2, 4);
  const Tensor image = randn({5, 16, 20, 21}), one = randn({1, 144}), many = randn({200, 144}), bias = randn({200});
  const FusedConv2dOptions o{.conv = {.padding = {1}}};
  const std::function<Tensor()> calls[] = {[&] { return csr_linear(one, csr, bias); },
                                           [&] { return csr_linear(many, csr, bias); },
                                           [&] { return csr_conv2d(image, csr, {3}, bias, o); },
                                           [&] { return block_sparse_linear(one, blocks, bias); },
                                           [&] { return block_sparse_linear(many, blocks, bias); },
                                           [&] { return block_sparse_conv2d(image, blocks, {3}, bias, o); },
                                           [&] { return n_m_linear(one, two, bias); },
                                           [&] { return n_m_linear(many, two, bias); },
                                           [&] { return n_m_conv2d(image, two, {3}, bias, o); }};
  for (const auto& call : calls) EXPECT_TRUE(test::same_at_any_thread_count(call)) << &call - calls;

  const CsrMatrix strided = changed<CsrMatrix>(csr, [](CsrMatrix& m) {
    for (Tensor* t : {&m.values, &m.columns, &m.row_starts}) *t = test::layouts(*t).back().second;
  });
  ASSERT_FALSE(strided.values.is_contiguous());
  for (const auto& [layout, x] : test::layouts(many))
    EXPECT_TRUE(same_bits(csr_linear(x, strided, bias), calls[1]())) << layout;
}

// Padding, strides and dilations of which the packed rows would not fit in memory.
TEST(SparseRun, HugeStridesAndPadding) {
  manual_seed(7);
  const int64_t big = int64_t{1} << 30;
  const Tensor x = ones({1, 3, 2, 5}), w = thinned({4, 3, 2, 1});
  const Conv2dOptions far{.stride = {big, 1}, .padding = {big, 0}, .dilation = {big, 1}};
  const Tensor want = conv2d(x, w, {}, far);
  EXPECT_TRUE(allclose(csr_conv2d(x, CsrMatrix::pack(w), {2, 1}, {}, {far}), want, 1e-5, 1e-6));
  EXPECT_TRUE(allclose(block_sparse_conv2d(x, BlockSparseMatrix::pack(w, 2, 4), {2, 1}, {}, {far}), want, 1e-5, 1e-6));
  const Tensor two = thinned_2_4({4, 3, 2, 1});
  EXPECT_TRUE(
      allclose(n_m_conv2d(x, NMMatrix::pack(two, 2, 4), {2, 1}, {}, {far}), conv2d(x, two, {}, far), 1e-5, 1e-6));
  const Conv2dOptions wide{.stride = {1, big}, .padding = {0, big}, .dilation = {1, big / 2 + 3}};
  const Tensor v = thinned({4, 3, 2, 3});
  EXPECT_TRUE(allclose(csr_conv2d(x, CsrMatrix::pack(v), {2, 3}, {}, {wide}), conv2d(x, v, {}, wide), 1e-5, 1e-6));
}

TEST(SparseRun, Errors) {
  const CsrMatrix csr = CsrMatrix::pack(ones({4, 18}));
  const Tensor x = ones({2, 18}), image = ones({1, 2, 6, 6});
  expect_error<ShapeError>(
      [&] {
        csr_linear(ones({2, 17}), csr);
      },
      "csr_linear: weight [4, 18] takes 18 features, x is [2, 17]");
  expect_error<ShapeError>([&] { csr_linear(x, csr, ones({5})); }, "bias [5] must have shape [4]");
  expect_error<ShapeError>([&] { csr_linear(scalar(1), csr); }, "x is []");
  expect_error<DTypeError>([&] { csr_linear(cast(x, f64), csr); }, "x must be f32, not f64");
  expect_error<DTypeError>([&] { csr_linear(cast(x, bf16), csr); }, "x must be f32, not bf16");
  expect_error<DTypeError>([&] { csr_linear(x, csr, ones({4}, f64)); }, "dtypes");
  expect_error<ShapeError>([&] { csr_conv2d(image, csr, {4}); }, "a kernel of 4x4 does not divide the 18 columns");
  expect_error<ShapeError>([&] { csr_conv2d(image, csr, {0, 1}); }, "a kernel of 0x1");
  expect_error<ShapeError>([&] { csr_conv2d(image, csr, {1, 2, 3}); }, "one or two values");
  expect_error<ShapeError>([&] { csr_conv2d(ones({1, 3, 6, 6}), csr, {3}); }, "expects 2 input channels");
  expect_error<ShapeError>([&] { csr_conv2d(ones({2, 6, 6}), csr, {3}); }, "4 dims");
  expect_error<ShapeError>([&] { csr_conv2d(ones({1, 2, 2, 6}), csr, {3}); }, "larger than the padded input");
  expect_error<ValueError>([&] { csr_conv2d(image, csr, {3}, {}, {.conv = {.stride = {0}}}); }, "stride");
  const BlockSparseMatrix blocks = BlockSparseMatrix::pack(ones({12, 18}), 4, 1);
  expect_error<ShapeError>(
      [&] {
        block_sparse_conv2d(ones({1, 4, 6, 6}), blocks, {3}, {}, {.conv = {.groups = 2}});
      },
      "blocks of 4 rows straddle groups of 6 output channels");
  CsrMatrix bad = csr;
  bad.row_starts = zeros({9}, i32);
  expect_error<ShapeError>([&] { csr_linear(x, bad); }, "row_starts [9] of 4 rows must have shape [5]");
  bad = csr, bad.rows = (int64_t{1} << 24) + 1;
  expect_error<ValueError>([&] { csr_linear(x, bad); }, "16777217 rows");
  NMMatrix odd = NMMatrix::pack(zeros({4, 18}), 2, 4);
  odd.m = 3;
  expect_error<ValueError>([&] { n_m_linear(x, odd); }, "groups of 3");
  odd.m = 8;
  expect_error<ShapeError>([&] { n_m_linear(x, odd); }, "must have shape [1, 3, 2, 16]");

  const Tensor y = csr_linear(ones({2, 18}).requires_grad_(), csr);
  expect_error<GradError>([&] { sum(y).backward(); }, "csr_linear");
}

}  // namespace
}  // namespace hone
