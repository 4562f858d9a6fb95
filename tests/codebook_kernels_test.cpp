// Weights as codes: packing, and the ops on them against plain loops and, to the bit, against the same weight in
// panels, on every SIMD target.

#include <limits>
#include <random>

#include "activations.h"
#include "graph_support.h"
#include "hone/ops/packed/reference.h"
#include "hone/ops/simd/codebook_kernels.h"
#include "layouts.h"
#include "simd_targets.h"

namespace hone::test {
namespace {

constexpr int64_t kCounts[] = {1, 2, 3, 8, 15, 16, 17, 32, 33, 100, 255, 256};

Tensor any_codes(const Shape& shape, int64_t count, std::mt19937_64& rng) {
  const Tensor codes = empty(shape, u8);
  for (int64_t i = 0; i < codes.numel(); ++i)
    codes.data<uint8_t>()[i] = static_cast<uint8_t>(rng() % static_cast<uint64_t>(count));
  return codes;
}
/// centroids[codes], by a plain loop.
Tensor looked_up(const Tensor& codes, const Tensor& centroids) {
  const std::vector<float> value = centroids.to_vector<float>();
  const Tensor w = empty(codes.shape());
  for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] = value[codes.data<uint8_t>()[i]];
  return w;
}
struct Weight {
  Tensor codes, centroids, dense;
  CodebookMatrix packed;
  int64_t rows, cols;
  Weight(const Shape& shape, int64_t count, int64_t groups, std::mt19937_64& rng)
      : codes(any_codes(shape, count, rng)),
        centroids(randn({count})),
        dense(looked_up(codes, centroids)),
        packed(CodebookMatrix::pack(codes, centroids, groups)),
        rows(shape[0]),
        cols(codes.numel() / shape[0]) {}
  template <class F> void each(F&& f) const {
    for (int64_t i = 0; i < codes.numel(); ++i)
      f(i / cols, i % cols, centroids.data<float>()[codes.data<uint8_t>()[i]]);
  }
};

/// Six standard deviations of a sum in f32 of n products of unit variance: partial sums grow as √k, and each is rounded
/// by at most 2⁻²⁴ of itself.
Tolerance of_sum(int64_t n) { return {2e-5, 2e-5 + 2.5 * 0x1p-24 * static_cast<double>(n)}; }

void check_linear(int64_t rows, int64_t in, int64_t outs, int64_t count, std::mt19937_64& rng) {
  const Tensor x = randn({rows, in}), bias = rng() % 3 ? randn({outs}) : Tensor();
  const Weight w({outs, in}, count, 1, rng);
  const ActivationAttrs a = any_activation(rng);
  const std::string what = str(rows, " x ", in, " -> ", outs, " values ", count, " activation ", a.kind);
  const Tensor y = codebook_linear(x, w.packed, bias, a);
  ASSERT_TRUE(same_bits(y, panel_linear(x, PanelMatrix::pack(w.dense), bias, a))) << what;
  expect_close(codebook_linear(x, w.packed, bias), reference::linear(x, w, bias), of_sum(in), what);
}

void check_conv(const Shape& image, const Shape& weight, int64_t count, const FusedConv2dOptions& o,
                std::mt19937_64& rng) {
  const Tensor x = randn(image), bias = rng() % 3 ? randn({weight[0]}) : Tensor();
  const Weight w(weight, count, o.conv.groups, rng);
  const std::string what = str("x ", image, " weight ", weight, " values ", count, " stride ", o.conv.stride, " pad ",
                               o.conv.padding, " groups ", o.conv.groups, " pool ", o.pool);
  const Tensor y = codebook_conv2d(x, w.packed, bias, o);
  ASSERT_TRUE(same_bits(y, panel_conv2d(x, PanelMatrix::pack(w.dense, o.conv.groups), bias, o))) << what;
  const Tensor plain = codebook_conv2d(x, w.packed, bias, {.conv = o.conv});
  ConvAttrs attrs = detail::fused_conv_attrs("codebook_conv2d", {.conv = o.conv}).conv;
  attrs.size_h = weight[2], attrs.size_w = weight[3];
  expect_close(plain, reference::conv2d(x, w, bias, attrs, plain.size(2), plain.size(3)),
               of_sum(weight[1] * weight[2] * weight[3]), what);
}

TEST(LookUp, IsThePlainLoopOnEveryTarget) {
  on_every_target([](int64_t) {
    std::mt19937_64 rng(1);
    manual_seed(1);
    for (const int64_t count : kCounts) {
      const Tensor table = randn({simd::kMostCodes});
      for (const int64_t n : {0, 8, 16, 24, 32, 136, 1000}) {
        const Tensor codes = any_codes({n + simd::kLookUpSlack}, count, rng);
        const Tensor got = full({n + 2 * simd::kLookUpSlack}, 77.0), want = looked_up(codes, table);
        simd::look_up(codes.data<uint8_t>(), n, table.data<float>(), count, got.data<float>());
        ASSERT_TRUE(same_bits(slice(got, 0, 0, n), slice(want, 0, 0, n))) << n << " of " << count;
        for (int64_t i = n + simd::kLookUpSlack; i < got.numel(); ++i) ASSERT_EQ(got.data<float>()[i], 77) << i;
      }
    }
    for (const int64_t n : {0, 1, 31, 32, 33, 64, 65, 200})
      for (int64_t at = 0; at < n; ++at) {
        const Tensor codes = full({n}, 3, u8);
        codes.data<uint8_t>()[at] = 200;
        ASSERT_EQ(simd::largest_code(codes.data<uint8_t>(), n), 200) << at << " of " << n;
        ASSERT_EQ(simd::largest_code(codes.data<uint8_t>(), at), at > 0 ? 3 : 0);
      }
  });
}

TEST(CodebookLinear, HasTheBitsOfPanelsAndIsNearPlainLoopsOnEveryTarget) {
  on_every_target([](int64_t) {
    std::mt19937_64 rng(2);
    manual_seed(2);
    NoGrad no_grad;
    const auto upto = [&](int64_t n) { return static_cast<int64_t>(rng() % static_cast<uint64_t>(n + 1)); };
    for (const int64_t count : kCounts)
      for (int i = 0; i < 12 && !::testing::Test::HasFatalFailure(); ++i)
        check_linear(upto(60), i % 2 ? upto(90) : upto(400), 1 + upto(150), count, rng);
    for (const int64_t in : {0, 1, 255, 256, 257, 512, 513})  // about where codes are looked up anew
      for (const int64_t outs : {1, 8, 9, 16, 24, 64, 65, 72})
        if (!::testing::Test::HasFatalFailure()) check_linear(1 + upto(60), in, outs, 1 + upto(255), rng);
  });
}

TEST(CodebookConv, HasTheBitsOfPanelsAndIsNearPlainLoopsOnEveryTarget) {
  on_every_target([](int64_t) {
    std::mt19937_64 rng(3);
    manual_seed(3);
    NoGrad no_grad;
    const auto upto = [&](int64_t n) { return 1 + static_cast<int64_t>(rng() % static_cast<uint64_t>(n)); };
    for (int i = 0; i < 150 && !::testing::Test::HasFatalFailure(); ++i) {
      const int64_t groups = rng() % 3 == 0 ? upto(3) : 1, c = upto(5), o = upto(rng() % 3 ? 20 : 50);
      const int64_t kh = upto(5), kw = upto(5), pad = static_cast<int64_t>(rng() % 3);
      const int64_t dilation = rng() % 4 ? 1 : 2;
      const Shape image = {upto(3), groups * c, dilation * (kh - 1) + upto(14), dilation * (kw - 1) + upto(30)};
      FusedConv2dOptions options{.conv = {.stride = {rng() % 3 ? 1 : upto(3), rng() % 3 ? 1 : upto(3)},
                                          .padding = {pad, pad},
                                          .dilation = {dilation, dilation},
                                          .groups = groups},
                                 .activation = any_activation(rng)};
      const int64_t oh = (image[2] + 2 * pad - dilation * (kh - 1) - 1) / options.conv.stride[0] + 1;
      const int64_t ow = (image[3] + 2 * pad - dilation * (kw - 1) - 1) / options.conv.stride[1] + 1;
      if (rng() % 2 && oh >= 2 && ow >= 2) options.pool = {2};
      if (rng() % 4 == 0 && oh >= 3 && ow >= 3)
        options.pool = {3}, options.pool_options = {.stride = {2}, .padding = {1}};
      check_conv(image, {groups * o, c, kh, kw}, kCounts[rng() % std::size(kCounts)], options, rng);
    }
    const Conv2dOptions plain{.stride = {1, 1}, .padding = {1, 1}, .dilation = {1, 1}};
    check_conv({1, 3, 70, 61}, {6, 3, 5, 5}, 16, {.conv = plain, .pool = {2}}, rng);  // over positions, in bands
    check_conv({1, 3, 70, 61}, {16, 3, 5, 5}, 200, {.conv = plain, .pool = {2}}, rng);
    check_conv({1, 70, 12, 12}, {24, 70, 5, 5}, 64, {.conv = plain}, rng);  // beyond 1600 taps
    check_conv({0, 3, 9, 9}, {6, 3, 3, 3}, 4, {.conv = plain}, rng);
  });
}

TEST(CodebookRun, AnyLayoutAndThreadCount) {
  manual_seed(4);
  std::mt19937_64 rng(4);
  NoGrad no_grad;
  const Weight fc({300, 200}, 50, 1, rng), conv({40, 8, 3, 3}, 16, 1, rng);
  const Tensor rows = randn({130, 200}), image = randn({3, 8, 33, 30}), bias = randn({40});
  const FusedConv2dOptions o{.conv = {.padding = {1}}, .activation = Activation::relu, .pool = {2}};
  const Tensor y = codebook_linear(rows, fc.packed), z = codebook_conv2d(image, conv.packed, bias, o);
  EXPECT_TRUE(same_at_any_thread_count([&] { return codebook_linear(rows, fc.packed, {}, Activation::gelu); }));
  EXPECT_TRUE(same_at_any_thread_count([&] { return codebook_conv2d(image, conv.packed, bias, o); }));
  for (const auto& [name, x] : layouts(rows)) EXPECT_TRUE(same_bits(codebook_linear(x, fc.packed), y)) << name;
  for (const auto& [name, x] : layouts(image))
    EXPECT_TRUE(same_bits(codebook_conv2d(x, conv.packed, bias, o), z)) << name;
  CodebookMatrix strided = fc.packed;
  for (Tensor* t : {&strided.codes, &strided.centroids}) *t = layouts(*t).back().second;
  ASSERT_FALSE(strided.codes.is_contiguous());
  EXPECT_TRUE(same_bits(codebook_linear(rows, strided), y));
  EXPECT_TRUE(same_bits(strided.dense(), fc.dense));
}

TEST(CodebookPack, GivesTheWeightBack) {
  manual_seed(5);
  std::mt19937_64 rng(5);
  for (const auto& [shape, groups] : std::vector<std::pair<Shape, int64_t>>{
           {{1, 1}, 1}, {{9, 3}, 1}, {{16, 5}, 1}, {{25, 0}, 1}, {{6, 2, 3, 5}, 3}, {{40, 3, 1, 2}, 2}}) {
    const Weight w(shape, 7, groups, rng);
    EXPECT_NO_THROW(w.packed.check());
    EXPECT_TRUE(same_bits(w.packed.dense(), w.dense)) << str(shape);
    const CodebookMatrix found = CodebookMatrix::pack(w.dense, groups);
    EXPECT_TRUE(same_bits(found.dense(), w.dense)) << str(shape);
    EXPECT_LE(found.centroids.numel(), 7) << str(shape);
  }
  // Told apart by bits: both zeros, and NaN.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor w = tensor<float>({nan, 0, -0.0f, nan, 1, -0.0f}, {2, 3});
  const CodebookMatrix packed = CodebookMatrix::pack(w);
  EXPECT_TRUE(same_bits(packed.centroids, tensor<float>({nan, 0, -0.0f, 1})));
  EXPECT_TRUE(same_bits(packed.dense(), w));
  // An output beside which the last panel holds code 0, here a NaN, does not see it.
  EXPECT_TRUE(std::isnan(codebook_linear(ones({1, 3}), packed).data<float>()[0]));
  EXPECT_TRUE(std::isnan(codebook_linear(ones({1, 3}), packed).data<float>()[1]));
  const CodebookMatrix one = CodebookMatrix::pack(tensor<float>({nan, 1, 1, 1}, {2, 2}));
  EXPECT_EQ(codebook_linear(tensor<float>({3, 4}, {1, 2}), one).data<float>()[1], 7);
}

TEST(CodebookPack, LayoutIsTheDocumentedOne) {
  const CodebookMatrix w = CodebookMatrix::pack(tensor<float>({5, 7, 5, 9, 7, 7}, {3, 2}));
  EXPECT_TRUE(equal(w.centroids, tensor<float>({5, 7, 9})));
  ASSERT_EQ(w.codes.shape(), (Shape{8 * 2 + 16}));  // a panel of 8 outputs by 2 taps, and its slack: a byte each
  std::vector<uint8_t> want(32);
  want[0] = 0, want[1] = 0, want[2] = 1, want[8] = 1, want[9] = 2, want[10] = 1;
  EXPECT_EQ(w.codes.to_vector<uint8_t>(), want);
}

TEST(CodebookMatrix, RefusesWhatIsNone) {
  const Tensor codes = full({3, 4}, 5, u8), centroids = ones({6});
  expect_error<ValueError>([&] { CodebookMatrix::pack(codes, ones({5})); }, "a code is 5 with 5 centroids");
  expect_error<ValueError>([&] { CodebookMatrix::pack(codes, Tensor()); }, "defined");
  expect_error<ValueError>([&] { CodebookMatrix::pack(Tensor()); }, "undefined");
  expect_error<DTypeError>([&] { CodebookMatrix::pack(cast(codes, i32), centroids); }, "codes must be u8, not i32");
  expect_error<DTypeError>([&] { CodebookMatrix::pack(codes, cast(centroids, f64)); }, "must be f32, not f64");
  expect_error<DTypeError>([&] { CodebookMatrix::pack(ones({2, 2}, f64)); }, "must be f32, not f64");
  expect_error<ShapeError>([&] { CodebookMatrix::pack(codes, ones({257})); }, "[257]");
  expect_error<ShapeError>([&] { CodebookMatrix::pack(codes, ones({0})); }, "[0]");
  expect_error<ShapeError>([&] { CodebookMatrix::pack(codes, ones({2, 6})); }, "[2, 6]");
  expect_error<ShapeError>([&] { CodebookMatrix::pack(codes, centroids, 3); }, "3 groups");
  expect_error<ShapeError>([&] { CodebookMatrix::pack(full({3}, 0, u8), centroids); }, "weight [3]");
  expect_error<ShapeError>([&] { CodebookMatrix::pack(ones({0, 3})); }, "[0, 3]");
  expect_error<ValueError>(
      [&] {
        CodebookMatrix::pack(reshape(arange(0, 257, 1, f32), {1, 257}));
      },
      "weight [1, 257] has more than 256 distinct values");
  EXPECT_EQ(CodebookMatrix::pack(reshape(arange(0, 256, 1, f32), {1, 256})).centroids.numel(), 256);

  // From a file.
  const CodebookMatrix w = CodebookMatrix::pack(codes, centroids);
  const auto refuse = [&](const std::string& part, const std::function<void(CodebookMatrix&)>& change) {
    CodebookMatrix bad = w;
    change(bad);
    expect_error<FormatError>([&] { bad.check(); }, part);
    expect_error<FormatError>([&] { bad.dense(); }, part);
  };
  refuse("a code is 5 with 5 centroids", [](auto& m) { m.centroids = ones({5}); });
  refuse("centroids must be f32", [](auto& m) { m.centroids = ones({6}, f64); });
  refuse("centroids must be f32", [](auto& m) { m.centroids = ones({257}); });
  refuse("centroids must be f32", [](auto& m) { m.centroids = {}; });
  refuse("codes of a weight [3, 5] must be u8 of shape", [](auto& m) { m.shape = {3, 5}; });
  refuse("codes of a weight [3, 4] must be u8", [](auto& m) { m.codes = cast(m.codes, f32); });
  refuse("codes of a weight [3, 4] must be u8", [](auto& m) { m.codes = {}; });
  refuse("[3, 4] in 2 groups is no weight", [](auto& m) { m.groups = 2; });
  refuse("[3, -4]", [](auto& m) { m.shape = {3, -4}; });
}

TEST(CodebookRun, Errors) {
  const CodebookMatrix w = CodebookMatrix::pack(full({5, 4}, 2, u8), ones({3}));
  const CodebookMatrix conv = CodebookMatrix::pack(full({6, 2, 3, 3}, 2, u8), ones({3}), 3);
  const FusedConv2dOptions three{.conv = {.groups = 3}};
  const Tensor x = ones({2, 4}), image = ones({1, 6, 5, 5});
  const auto changed = [](CodebookMatrix m, const std::function<void(CodebookMatrix&)>& f) {
    f(m);
    return m;
  };
  const auto few = [](CodebookMatrix& m) { m.centroids = ones({2}); };
  expect_error<ValueError>([&] { codebook_linear(x, changed(w, few)); }, "codebook_linear: a code is 2 with 2");
  expect_error<ValueError>([&] { codebook_conv2d(image, changed(conv, few), {}, three); },
                           "codebook_conv2d: a code is 2 with 2");
  // The slack behind the panels is read too.
  const auto slack = [](CodebookMatrix& m) { m.codes = clone(m.codes), m.codes.data<uint8_t>()[8 * 4 + 15] = 3; };
  expect_error<ValueError>([&] { codebook_linear(x, changed(w, slack)); }, "a code is 3 with 3 centroids");
  expect_error<ShapeError>([&] { codebook_linear(x, changed(w, [](auto& m) { m.centroids = ones({257}); })); },
                           "257 centroids; there must be 1 to 256");
  expect_error<ShapeError>([&] { codebook_linear(x, changed(w, [](auto& m) { m.centroids = ones({0}); })); },
                           "0 centroids");
  expect_error<ShapeError>([&] { codebook_linear(x, changed(w, [](auto& m) {
                                                   m.centroids = ones({1, 3});
                                                 })); },
                           "centroids");
  expect_error<DTypeError>([&] { codebook_linear(x, changed(w, [](auto& m) { m.centroids = ones({3}, f64); })); },
                           "centroids must be f32, not f64");
  expect_error<DTypeError>([&] { codebook_linear(x, changed(w, [](auto& m) { m.codes = cast(m.codes, f32); })); },
                           "codes must be u8, not f32");
  expect_error<ShapeError>([&] { codebook_linear(ones({2, 3}), w); }, {"codes", "must have shape"});
  expect_error<ShapeError>([&] { codebook_linear(x, w, ones({4})); }, {"bias", "[4]", "[5]"});
  expect_error<DTypeError>([&] { codebook_linear(ones({2, 4}, f64), w); }, "x must be f32, not f64");
  expect_error<ShapeError>([&] { codebook_linear(x, conv); }, "codebook_linear: the packed weight has shape [6, 2");
  expect_error<ShapeError>([&] { codebook_conv2d(image, w); }, "codebook_conv2d: the packed weight has shape [5, 4]");
  expect_error<ValueError>([&] { codebook_conv2d(image, conv); }, {"codebook_conv2d", "groups 1", "packed in 3"});
  expect_error<ShapeError>([&] { codebook_conv2d(ones({1, 5, 5, 5}), conv, {}, three); }, "channels");
  expect_error<ShapeError>([&] { codebook_conv2d(ones({1, 6, 2, 2}), conv, {}, three); }, "larger than");
  const Tensor y = codebook_linear(ones({2, 4}).requires_grad_(), w);
  expect_error<GradError>([&] { sum(y).backward(); }, "packed weights are for inference");
}

}  // namespace
}  // namespace hone::test
