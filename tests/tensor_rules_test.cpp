// Rules of tensors and parameters: numbers that a dtype cannot hold, in-place changes, ownership, devices, rounding.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

TEST(Allclose, InfinityIsCloseToItselfAlone) {
  const auto close = [](double a, double b) { return allclose(tensor({0.0, a}), tensor({0.0, b}), 1, 1); };
  EXPECT_TRUE(close(kInf, kInf));
  EXPECT_TRUE(close(-kInf, -kInf));
  EXPECT_FALSE(close(1, kInf));
  EXPECT_FALSE(close(kInf, 1));
  EXPECT_FALSE(close(-kInf, kInf));
  EXPECT_FALSE(close(kNan, kInf));
  EXPECT_FALSE(close(kNan, kNan));
  EXPECT_TRUE(close(1, 2));
}

// ---- numbers that a dtype cannot hold

TEST(Scalars, FillRefusesWhatTheDTypeCannotHold) {
  expect_error<ValueError>([] { zeros({2}, u8).fill_(256); }, "fill_: the scalar 256 is out of range for u8");
  expect_error<ValueError>([] { zeros({2}, u8).fill_(-1); }, "fill_");
  expect_error<ValueError>([] { full({2}, 128, i8); }, "full: the scalar 128 is out of range for i8");
  expect_error<ValueError>([] { full({2}, 2, boolean); }, "bool");
  expect_error<ValueError>([] { full({2}, 0x1p63, i64); }, "i64");
  expect_error<ValueError>([] { full({2}, 0x1p31, i32); }, "i32");
  expect_error<DTypeError>([] { full({2}, 0.5, i64); }, "full: the scalar 0.5 is not integral");
  expect_error<DTypeError>([] { full({2}, kNan, i32); }, "nan");
  expect_error<DTypeError>([] { full({2}, -kInf, i8); }, "-inf");
  EXPECT_EQ(full({1}, -0x1p63, i64).item<int64_t>(), INT64_MIN);
  EXPECT_EQ(full({1}, -0x1p31, i32).item<int64_t>(), INT32_MIN);
  EXPECT_EQ(full({1}, 255, u8).item<int64_t>(), 255);
  EXPECT_EQ(full({1}, -128, i8).item<int64_t>(), -128);
  EXPECT_EQ(full({1}, 1e300).item(), kInf);
  EXPECT_TRUE(std::isnan(full({1}, kNan, bf16).item()));
}

TEST(Scalars, RangesStayInTheirDType) {
  expect_error<ValueError>([] { arange(0, 300, 1, u8); }, "arange: the scalar 299 is out of range for u8");
  expect_error<ValueError>([] { arange(2, -2, -1, u8); }, "-1");
  expect_error<DTypeError>([] { arange(0, 3, 0.5, i64); }, "0.5");
  expect_error<DTypeError>([] { arange(0.5, 3, 1, i64); }, "0.5");
  EXPECT_EQ(arange(0, 256, 1, u8).to_vector<int64_t>().back(), 255);
  EXPECT_EQ(arange(0, 2.5).to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(arange(300, 300, 1, u8).numel(), 0);
  EXPECT_EQ(arange(0x1p53, 0x1p53 + 4).to_vector<int64_t>()[1], (int64_t{1} << 53) + 1);
}

TEST(Scalars, RandomIntegersStayInsideTheirBounds) {
  expect_error<ValueError>([] { randint(0, 300, {4}, u8); }, "299");
  expect_error<ValueError>([] { randint(-1, 3, {4}, u8); }, "-1");
  expect_error<ValueError>([] { randint(0, 3, {4}, boolean); }, "bool");
  // The largest value would round up to `high` itself.
  expect_error<ValueError>([] { randint(0, (1 << 24) + 4, {4}, f32); }, "f32");
  expect_error<ValueError>([] { randint(0, 258, {4}, bf16); }, "bf16");
  EXPECT_EQ(randint(INT64_MAX - 1, INT64_MAX, {1}).item<int64_t>(), INT64_MAX - 1);
  EXPECT_EQ(randint(INT64_MIN, INT64_MIN + 1, {1}).item<int64_t>(), INT64_MIN);
  EXPECT_EQ(randint(255, 256, {1}, u8).item<int64_t>(), 255);
  EXPECT_EQ(randint(1 << 24, (1 << 24) + 1, {1}, f32).item(), 1 << 24);
}

TEST(Scalars, ItemConvertsAsCastDoes) {
  EXPECT_EQ(tensor({300.0}).item<int8_t>(), 127);
  EXPECT_EQ(tensor({-300.0}).item<uint8_t>(), 0);
  EXPECT_EQ(tensor({1e30}).item<int64_t>(), INT64_MAX);
  EXPECT_EQ(tensor({-1e30}).item<int32_t>(), INT32_MIN);
  EXPECT_EQ(tensor({kNan}).item<int64_t>(), 0);
  EXPECT_EQ(tensor({0.5}).item<bool>(), true);
  EXPECT_EQ(tensor({7.9f}).item<int>(), 7);
  EXPECT_EQ(tensor({(int64_t{1} << 53) + 1}).item<int64_t>(), (int64_t{1} << 53) + 1);
  EXPECT_EQ(tensor({2.5}).item<float>(), 2.5f);
  EXPECT_EQ(slice(tensor({1.0, 2.0, 3.0}), 0, 1, 2).item<long long>(), 2);
}

TEST(Scalars, PadRefusesWhatTheDTypeCannotHold) {
  const Padding one[] = {{1, 1}};
  expect_error<ValueError>([&] { pad(zeros({2}, u8), one, 256); }, "pad: the scalar 256");
  expect_error<DTypeError>([&] { pad(zeros({2}, i64), one, 0.5); }, "pad: the scalar 0.5");
  EXPECT_EQ(pad(zeros({1}, u8), one, 255).to_vector<int64_t>(), (std::vector<int64_t>{255, 0, 255}));
}

// ---- rounding

// The nearest number with 8 significant bits, ties to even; none below 2^-133.
double as_bf16(double v) {
  if (v == 0) return v;
  const double unit = std::ldexp(1.0, std::max(std::ilogb(v) - 7, -133));
  return std::nearbyint(v / unit) * unit;
}

TEST(BFloat16, DoublesAndIntegersAreRoundedOnce) {
  const double above_tie = 1 + 0x1p-8 + 0x1p-40;  // through f32 it is the tie itself, which goes down
  EXPECT_EQ(cast(tensor({above_tie, -above_tie}), bf16).to_vector<double>(),
            (std::vector<double>{1 + 0x1p-7, -1 - 0x1p-7}));
  EXPECT_EQ(full({1}, above_tie, bf16).item(), 1 + 0x1p-7);
  EXPECT_EQ(arange(above_tie, 2, 1, bf16).item(), 1 + 0x1p-7);
  EXPECT_EQ(sum(cast(tensor({1.0, 0x1p-8, 0x1p-40}), bf16)).item(), 1 + 0x1p-7);
  EXPECT_EQ(mean(cast(tensor({2.0, 0x1p-7, 0x1p-39, 0.0}), bf16)).item(), as_bf16(0.5 + 0x1p-9 + 0x1p-41));
  for (int64_t k : {40, 62}) {
    const int64_t v = (int64_t{1} << k) + (int64_t{1} << (k - 8)) + 1;
    const double want = std::ldexp(1 + 0x1p-7, static_cast<int>(k));
    EXPECT_EQ(cast(tensor({v, -v}), bf16).to_vector<double>(), (std::vector<double>{want, -want})) << k;
  }
  manual_seed(3);
  const Tensor scale = arange(-140, 126, 1, f64), x = randn({266}, f64);
  std::vector<double> v = x.to_vector<double>(), want;
  for (size_t i = 0; i < v.size(); ++i) {
    v[i] = std::ldexp(v[i], static_cast<int>(i) - 140);
    // Every third one close to a tie, from either side.
    if (i % 3 == 0)
      v[i] = as_bf16(v[i]) +
             std::ldexp(1.0, std::max(std::ilogb(v[i]) - 7, -133) - 1) * (1 + (i % 2 ? 0x1p-40 : -0x1p-40));
    want.push_back(as_bf16(v[i]));
  }
  EXPECT_EQ(cast(tensor(v), bf16).to_vector<double>(), want);
  const double largest = 0x1.fep127;
  EXPECT_EQ(cast(tensor({1e300, -kInf, largest, largest + 0x1p119, largest + 0x1p119 - 0x1p80, 1e-300}), bf16)
                .to_vector<double>(),
            (std::vector<double>{kInf, -kInf, largest, kInf, largest, 0}));
  EXPECT_TRUE(std::isnan(cast(tensor({kNan}), bf16).item()));
}

// ---- in place

TEST(InPlace, CopyDoesNotCutGradients) {
  const Tensor w = tensor({1.0, 2.0}).requires_grad_();
  Tensor buffer = zeros({2}, f64);
  expect_error<GradError>([&] { buffer.copy_(w * 2.0); }, "copy_");
  expect_error<GradError>([&] { buffer.copy_(w); }, "copy_");
  EXPECT_EQ(buffer.to_vector<double>(), (std::vector<double>{0, 0}));
  buffer.copy_(w.detach());
  NoGrad guard;
  buffer.copy_(w * 2.0);
  EXPECT_EQ(buffer.to_vector<double>(), (std::vector<double>{2, 4}));
}

TEST(InPlace, ExpandedViewsAreRefused) {
  const Tensor base = zeros({1, 3});
  expect_error<ValueError>([&] { expand(base, {4, 3}).fill_(1); }, "fill_");
  expect_error<ValueError>([&] { expand(base, {4, 3}).copy_(ones({4, 3})); }, "[4, 3]");
  expect_error<ValueError>([&] { expand(zeros({}), {2}).zero_(); }, "fill_");
  expand(base, {1, 3}).fill_(2);                      // nothing is shared
  expand(zeros({1}), {0}).fill_(2);                   // nothing is written
  Tensor(unsqueeze(base, 0)).copy_(ones({1, 1, 3}));  // a stride of any value at size 1
  EXPECT_EQ(base.to_vector<double>(), (std::vector<double>{1, 1, 1}));
}

TEST(Slice, LongStepsDoNotOverflowTheStride) {
  const Tensor x = arange(0, 12, 1, f32);
  const Tensor m = reshape(x, {4, 3});
  const Tensor one = slice(m, 0, 1, kEnd, INT64_MAX);
  EXPECT_EQ(one.strides()[0], 3);
  EXPECT_EQ(one.to_vector<double>(), (std::vector<double>{3, 4, 5}));
  EXPECT_EQ(slice(m, 0, 4, kEnd, INT64_MAX).strides()[0], 3);
  EXPECT_EQ(slice(m, 0, 0, kEnd, 3).strides()[0], 9);
}

// ---- parameters

TEST(ParameterStorage, IsItsOwn) {
  const Tensor t = ones({2, 3});
  Parameter a(t), b(t);
  EXPECT_FALSE(a.raw().is_same(b.raw()));
  EXPECT_FALSE(a.raw().shares_storage_with(b.raw()));
  EXPECT_FALSE(t.requires_grad());

  Tensor w = arange(0, 10, 1, f32);
  Parameter part(slice(w, 0, 0, 5));
  EXPECT_FALSE(part.raw().shares_storage_with(w));
  const Tensor other = w;  // a second handle to one array
  Parameter shared(w.detach());
  EXPECT_FALSE(shared.raw().shares_storage_with(w));

  // The storage outlives the handle it came by, but is larger than the parameter.
  Parameter front([] { return slice(arange(0, 10, 1, f32), 0, 0, 5); }());
  EXPECT_EQ(front.raw().storage()->bytes, 20u);
  EXPECT_EQ(front.raw().to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 2, 3, 4}));

  Tensor fresh = ones({4});
  const void* at = fresh.raw_data();
  Parameter moved(std::move(fresh));  // alone already: no copy
  EXPECT_EQ(moved.raw().raw_data(), at);
}

TEST(ParameterStorage, StartsWithoutGradient) {
  Tensor t = ones({2}).requires_grad_();
  t.set_grad(ones({2}));
  const Tensor kept = t;
  Parameter p(ones({2}));
  p.ref().replace(t);
  EXPECT_FALSE(p.grad().defined());
  EXPECT_TRUE(kept.grad().defined());  // of its own
  EXPECT_FALSE(p.raw().shares_storage_with(kept));
  Tensor alone = ones({2});
  alone.set_grad(ones({2}));
  p.ref().replace(std::move(alone));
  EXPECT_FALSE(p.grad().defined());
  EXPECT_TRUE(p.raw().requires_grad());
  Tensor third = ones({2});
  third.set_grad(ones({2}));
  EXPECT_FALSE(Parameter(std::move(third)).grad().defined());
}

// ---- memory and devices

TEST(OutOfMemory, IsATypedErrorEverywhere) {
  const OpDef greedy = {.name = "greedy",
                        .shapes = [](ShapeContext& c) { c.add(c.shape(0), c.dtype(0)); },
                        .run = [](RunContext& c) { c.workspace.get<double>(int64_t{1} << 50); },
                        .not_differentiable = "it is a test"};
  expect_error<Error>([&] { apply(greedy, {}, {ones({2})}); }, "out of memory: 9007199254740992 bytes");
  expect_error<Error>([] { parallel_for_scratch<double>(1, 1, int64_t{1} << 50, [](int64_t, int64_t, double*) {}); },
                      "out of memory: 9007199254740992 bytes");
  expect_error<Error>([] { empty({int64_t{1} << 50}, f64); }, "out of memory: 9007199254740992 bytes");
}

// A CPU array that says it lies on a device: an op that would read it there anyway is found out.
TEST(Devices, AnOpWithoutADeviceRunIsNamed) {
  if (kHasCuda) GTEST_SKIP() << "the storage would be given back to the wrong allocator";
  Tensor x = ones({2, 2});
  x.storage()->device = cuda_device(0);
  expect_error<DeviceError>([&] { sum(x); }, "sum: runs on cpu alone");
  expect_error<DeviceError>([&] { matmul(x, x); }, "matmul");
  expect_error<DeviceError>([&] { softmax(x); }, "softmax");
  EXPECT_EQ(transpose(x).device(), cuda_device(0));  // a view runs nothing
}

// ---- text

TEST(Print, IntegersAreExactAndOnlyShownElementsAreRead) {
  EXPECT_EQ(to_string(tensor({(int64_t{1} << 53) + 1, INT64_MIN})),
            "Tensor([    9007199254740993, -9223372036854775808], shape=[2], dtype=i64)");
  EXPECT_EQ(to_string(transpose(tensor({1, 2, 3, 4}, {2, 2}))),
            "Tensor([[1, 3],\n        [2, 4]], shape=[2, 2], dtype=i64)");
  const Tensor huge = expand(full({1}, 7, u8), {int64_t{1} << 50});
  EXPECT_EQ(to_string(huge), "Tensor([7, 7, 7, …, 7, 7, 7], shape=[1125899906842624], dtype=u8)");
}

TEST(TensorFile, NamesTheFileOfAMissingEntry) {
  const std::string path = testing::TempDir() + "hone_missing_entry.safetensors";
  save_safetensors(path, {.tensors = {{"weight", ones({2})}}, .metadata = {}});
  const TensorFile file = load_safetensors(path);
  EXPECT_EQ(file.at("weight").numel(), 2);
  expect_error<FormatError>([&] { file.at("bias"); }, path);
  expect_error<FormatError>([&] { file.at("bias"); }, "'bias'");
  std::remove(path.c_str());
  expect_error<FormatError>([] { TensorFile().at("x"); }, "no tensor 'x'");
}

}  // namespace
}  // namespace hone
