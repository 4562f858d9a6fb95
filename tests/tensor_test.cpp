// Tensors without ops: factories, views, copies, dtype conversion, versions, printing, errors.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>

#include "hone/hone.h"
#include "support.h"

namespace hone {
namespace {

using test::expect_error;

TEST(Factories, Values) {
  EXPECT_EQ(zeros({2, 2}).to_vector<float>(), std::vector<float>(4, 0.f));
  EXPECT_EQ(full({3}, 2.5, f64).to_vector<double>(), std::vector<double>(3, 2.5));
  EXPECT_EQ(arange(2, 8, 2).to_vector<int64_t>(), (std::vector<int64_t>{2, 4, 6}));
  EXPECT_EQ(arange(3, 0, -1, f32).to_vector<float>(), (std::vector<float>{3, 2, 1}));
  EXPECT_EQ(arange(0, 0).numel(), 0);
  const auto line = linspace(0, 1, 11, f64).to_vector<double>();
  EXPECT_EQ(line.front(), 0.0);
  EXPECT_EQ(line.back(), 1.0);
  EXPECT_NEAR(line[3], 0.3, 1e-15);
  EXPECT_EQ(linspace(5, 9, 1).item(), 5);
  EXPECT_EQ(eye(2, 3).to_vector<float>(), (std::vector<float>{1, 0, 0, 0, 1, 0}));
  EXPECT_EQ(tensor({1.f, 2.f, 3.f, 4.f}, {2, 2}).size(-1), 2);
  EXPECT_EQ(scalar(7, i64).item<int64_t>(), 7);
  EXPECT_EQ(ones({}, boolean).item<int64_t>(), 1);
  const auto p = randperm(100).to_vector<int64_t>();
  std::vector<int> seen(100);
  for (int64_t i : p) ++seen[static_cast<size_t>(i)];
  EXPECT_EQ(seen, std::vector<int>(100, 1));
}

TEST(Factories, Errors) {
  expect_error<ShapeError>([&] { zeros({2, -1}); }, "[2, -1]");
  expect_error<ShapeError>([&] { zeros({INT64_MAX, 4}); }, "");
  expect_error<ShapeError>([&] { tensor({1.f, 2.f, 3.f}, {2, 2}); }, "does not hold 3");
  expect_error<ValueError>([&] { arange(0, 1, 0); }, "step");
  expect_error<ValueError>([&] { arange(0, 5, -1); }, "leads away");
  expect_error<ValueError>([&] { randint(3, 3, {1}); }, "low 3");
  expect_error<DTypeError>([&] { rand({2}, i64); }, "i64");
  expect_error<Error>([&] { zeros({int64_t{1} << 48}); }, "out of memory");
  if (!kHasCuda) {
    expect_error<DeviceError>([&] { zeros({2}, cuda_device(0)); }, "CPU build");
  }
  expect_error<ValueError>([&] { Tensor().shape(); }, "undefined");
  expect_error<ShapeError>([&] { zeros({2}).item(); }, "exactly one");
  expect_error<DTypeError>([&] { zeros({2}).data<double>(); }, "f32");
  expect_error<ShapeError>([&] { zeros({2}).size(1); }, "out of range");
}

TEST(Factories, RandomNumbersAreFunctionsOfTheSeed) {
  manual_seed(5);
  const auto a = rand({1000}).to_vector<float>();
  const auto n = randn({200000}, f64).to_vector<double>();
  manual_seed(5);
  EXPECT_EQ(rand({1000}).to_vector<float>(), a);
  const auto other = rand({1000}).to_vector<float>();
  EXPECT_NE(other, a);
  for (float v : a) {
    EXPECT_GE(v, 0.f);
    EXPECT_LT(v, 1.f);
  }
  double mean = 0, var = 0, fourth = 0, lag = 0;
  for (size_t i = 0; i < n.size(); ++i) {
    mean += n[i];
    var += n[i] * n[i];
    fourth += std::pow(n[i], 4);
    if (i) lag += n[i] * n[i - 1];
  }
  const double count = static_cast<double>(n.size());
  EXPECT_NEAR(mean / count, 0, 5 / std::sqrt(count));
  EXPECT_NEAR(var / count, 1, 5 * std::sqrt(2 / count));
  EXPECT_NEAR(fourth / count, 3, 5 * std::sqrt(96 / count));
  EXPECT_NEAR(lag / count, 0, 5 / std::sqrt(count));
  const auto r = randint(-3, 4, {70000}).to_vector<int64_t>();
  std::vector<double> hist(7);
  for (int64_t v : r) hist.at(static_cast<size_t>(v + 3)) += 1;
  for (double h : hist) EXPECT_NEAR(h, 10000, 5 * std::sqrt(10000.0));
  // Known words: a change of the stream layout must not pass unseen.
  EXPECT_EQ((Philox{0, 0}.word(0)), 0x6627e8d5u);
}

TEST(Cast, EveryPairOfTypes) {
  const std::vector<double> values = {0, 1, 2, 5, 100};
  const Tensor x = tensor(values);
  for (DType a : {f64, f32, bf16, i64, i32, i8, u8}) {
    for (DType b : {f64, f32, bf16, i64, i32, i8, u8}) {
      EXPECT_EQ(cast(cast(x, a), b).to_vector<double>(), values) << name(a) << " to " << name(b);
    }
    EXPECT_EQ(cast(cast(x, a), boolean).to_vector<double>(), (std::vector<double>{0, 1, 1, 1, 1}));
  }
  const Tensor odd = tensor({-1.9, 1.9, std::nan(""), 1e30, -1e30});
  EXPECT_EQ(cast(odd, i8).to_vector<int64_t>(), (std::vector<int64_t>{-1, 1, 0, 127, -128}));
  EXPECT_EQ(cast(odd, u8).to_vector<int64_t>(), (std::vector<int64_t>{0, 1, 0, 255, 0}));
  EXPECT_EQ(cast(odd, i64).to_vector<int64_t>()[3], INT64_MAX);
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(BFloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // half way: to even
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);
  EXPECT_EQ(BFloat16(std::bit_cast<float>(0x3f808001u)).bits, 0x3f81);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
}

TEST(InPlace, CopiesFillsAndVersions) {
  Tensor x = zeros({2, 3});
  const uint64_t v = x.version();
  x.copy_(tensor({1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, {2, 3}));
  EXPECT_EQ(x.version(), v + 1);
  EXPECT_EQ(x.to_vector<int64_t>(), (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
  Tensor d = x.detach();
  EXPECT_TRUE(d.shares_storage_with(x));
  d.fill_(9);
  EXPECT_EQ(x.version(), v + 2);
  EXPECT_EQ(x.to_vector<int64_t>(), std::vector<int64_t>(6, 9));
  expect_error<ShapeError>([&] { x.copy_(zeros({3})); }, "[3]");
  Tensor leaf = zeros({2}).requires_grad_();
  expect_error<GradError>([&] { leaf.fill_(1); }, "fill_");
  NoGrad guard;
  leaf.fill_(1);
  EXPECT_EQ(leaf.to_vector<int64_t>(), (std::vector<int64_t>{1, 1}));
}

TEST(Copy, LargeAndThreadIndependent) {
  const Tensor x = arange(0, 300000, 1, f64);
  const Tensor y = cast(x, f32);
  const auto v = y.to_vector<double>();
  for (size_t i = 0; i < v.size(); i += 997) EXPECT_EQ(v[i], static_cast<double>(i));
  EXPECT_EQ(v.back(), 299999.0);
}

TEST(Print, LooksAsPeopleExpect) {
  EXPECT_EQ(to_string(tensor({1.f, 2.f, 3.f})), "Tensor([1., 2., 3.], shape=[3], dtype=f32)");
  EXPECT_EQ(to_string(scalar(0.5, f64)), "Tensor(0.5000, shape=[], dtype=f64)");
  EXPECT_EQ(to_string(tensor({1, 20, 3, 4}, {2, 2})), "Tensor([[ 1, 20],\n        [ 3,  4]], shape=[2, 2], dtype=i64)");
  EXPECT_EQ(to_string(tensor({1e-10, 1.0})), "Tensor([1.0000e-10, 1.0000e+00], shape=[2], dtype=f64)");
  EXPECT_EQ(to_string(zeros({0, 3})), "Tensor([], shape=[0, 3], dtype=f32)");
  EXPECT_EQ(to_string(tensor({1.5, std::nan(""), -HUGE_VAL})),
            "Tensor([1.5000,    nan,   -inf], shape=[3], dtype=f64)");
  EXPECT_EQ(to_string(ones({2}, boolean)), "Tensor([true, true], shape=[2], dtype=bool)");
  EXPECT_EQ(to_string(arange(0, 2000)), "Tensor([   0,    1,    2, …, 1997, 1998, 1999], shape=[2000], dtype=i64)");
  EXPECT_EQ(to_string(Tensor()), "Tensor(undefined)");
  EXPECT_NE(to_string(zeros({1}).requires_grad_()).find("requires_grad"), std::string::npos);
}

TEST(Memory, StatisticsAndReuse) {
  const int64_t before = memory_stats().live_bytes;
  {
    const Tensor x = empty({1000});
    EXPECT_GE(memory_stats().live_bytes, before + 4000);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(x.raw_data()) % 64, 0u);
  }
  EXPECT_EQ(memory_stats().live_bytes, before);
  const int64_t calls = memory_stats().system_calls;
  for (int i = 0; i < 100; ++i) empty({1000});
  EXPECT_EQ(memory_stats().system_calls, calls);
  empty_cache();
  EXPECT_EQ(memory_stats().cached_bytes, 0);
}

TEST(Shapes, BroadcastAndWrap) {
  EXPECT_EQ(broadcast_shapes("op", {2, 1, 3}, {4, 1}), (Shape{2, 4, 3}));
  EXPECT_EQ(broadcast_shapes("op", {}, {0}), (Shape{0}));
  expect_error<ShapeError>([&] { broadcast_shapes("op", {2}, {3}); }, "op");
  EXPECT_EQ(wrap_dim("op", -1, 3), 2);
  EXPECT_EQ(wrap_dim("op", -1, 0), 0);
  expect_error<ShapeError>([&] { wrap_dim("op", 3, 3); }, "dimension 3");
  expect_error<ShapeError>([&] { dim_mask("op", {0, -2}, 2); }, "");
  EXPECT_EQ(dim_mask("op", {}, 3), 7u);
  expect_error<ShapeError>([&] { (Shape{1, 2, 3, 4, 5, 6, 7, 8, 9}); }, "");
}

}  // namespace
}  // namespace hone
