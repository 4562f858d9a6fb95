// Metrics against numbers worked out by hand or by another route.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "hone/hone.h"
#include "support.h"

namespace hone::train {
namespace {

using test::expect_error;

Tensor labels(std::vector<int64_t> v) { return tensor(v); }

TEST(Accuracy, LogitsAndClasses) {
  const Tensor logits = tensor(std::vector<float>{0.1f, 0.9f, 0.0f,  //
                                                  2.0f, 1.0f, 3.0f,  //
                                                  5.0f, 5.0f, 1.0f,  //
                                                  -1.f, -2.f, -3.f},
                               {4, 3});
  EXPECT_DOUBLE_EQ(accuracy(logits, labels({1, 2, 1, 0})), 0.75);  // row 2: the first of equals
  EXPECT_EQ(predicted_classes(logits), (std::vector<int64_t>{1, 2, 0, 0}));
  EXPECT_DOUBLE_EQ(accuracy(labels({3, 1, 2}), labels({3, 0, 2})), 2.0 / 3);
  EXPECT_TRUE(std::isnan(accuracy(zeros({0, 3}), tensor(std::vector<int64_t>{}))));
  EXPECT_DOUBLE_EQ(top_k_accuracy(logits, labels({1, 2, 1, 0}), 1), accuracy(logits, labels({1, 2, 1, 0})));
  EXPECT_DOUBLE_EQ(top_k_accuracy(logits, labels({2, 1, 1, 1}), 1), 0.0);
  EXPECT_DOUBLE_EQ(top_k_accuracy(logits, labels({2, 1, 1, 1}), 2), 0.5);
  EXPECT_DOUBLE_EQ(top_k_accuracy(logits, labels({2, 1, 1, 1}), 3), 1.0);
}

TEST(Accuracy, Errors) {
  const Tensor logits = zeros({2, 3});
  expect_error<ShapeError>([&] { accuracy(logits, labels({0})); }, "2 predictions, 1 labels");
  expect_error<ValueError>([&] { accuracy(logits, labels({0, 3})); }, "label 3 at 1 is outside [0, 3)");
  expect_error<ValueError>([&] { accuracy(logits, labels({-1, 0})); }, "label -1 at 0");
  expect_error<DTypeError>([&] { accuracy(logits, zeros({2})); }, "labels must be integer, got f32");
  expect_error<ShapeError>([&] { accuracy(zeros({2, 3, 1}), labels({0, 0})); }, "[2, 3, 1]");
  expect_error<ShapeError>([&] { accuracy(Tensor(), labels({0, 0})); }, "undefined");
  expect_error<ValueError>([&] { top_k_accuracy(logits, labels({0, 0}), 4); }, "k must be in [1, 3], got 4");
  const Tensor nan = full({2, 3}, std::numeric_limits<double>::quiet_NaN());
  expect_error<NumericError>([&] { accuracy(nan, labels({0, 0})); }, "NaN logit in row 0");
}

TEST(ConfusionMatrix, ScoresByHand) {
  ConfusionMatrix m(3);
  m.update(labels({0, 0, 1, 1, 2, 0}), labels({0, 0, 0, 1, 1, 1}));
  m.update(labels({1}), labels({1}));
  // rows are labels: 0 → [2, 1, 0], 1 → [1, 2, 1], 2 → none
  EXPECT_EQ(m(0, 0), 2);
  EXPECT_EQ(m(0, 1), 1);
  EXPECT_EQ(m(1, 0), 1);
  EXPECT_EQ(m(1, 1), 2);
  EXPECT_EQ(m(1, 2), 1);
  EXPECT_EQ(m.total(), 7);
  EXPECT_DOUBLE_EQ(m.accuracy(), 4.0 / 7);
  EXPECT_DOUBLE_EQ(m.scores(0).precision, 2.0 / 3);
  EXPECT_DOUBLE_EQ(m.scores(0).recall, 2.0 / 3);
  EXPECT_DOUBLE_EQ(m.scores(1).precision, 2.0 / 3);
  EXPECT_DOUBLE_EQ(m.scores(1).recall, 0.5);
  EXPECT_DOUBLE_EQ(m.scores(1).f1, 4.0 / 7);
  EXPECT_DOUBLE_EQ(m.scores(2).precision, 0);
  EXPECT_DOUBLE_EQ(m.scores(2).recall, 0);
  EXPECT_DOUBLE_EQ(m.scores(2).f1, 0);
  EXPECT_EQ(m.scores(2).support, 0);
  EXPECT_DOUBLE_EQ(m.macro().recall, (2.0 / 3 + 0.5) / 3);
  EXPECT_DOUBLE_EQ(m.balanced_accuracy(), (2.0 / 3 + 0.5) / 2);
  m.reset();
  EXPECT_EQ(m.total(), 0);
  EXPECT_TRUE(std::isnan(m.accuracy()));
  EXPECT_TRUE(std::isnan(m.confusion_entropy()));
}

TEST(ConfusionMatrix, ErrorsAddNothing) {
  ConfusionMatrix m(3);
  expect_error<ValueError>([&] { m.update(labels({0, 1, 3}), labels({0, 1, 2})); }, "predicted class 3 at 2");
  expect_error<ValueError>([&] { m.update(labels({0, 1, 2}), labels({0, 1, 9})); }, "label 9 at 2");
  expect_error<ShapeError>([&] { m.update(zeros({2, 4}), labels({0, 1})); }, "[2, 4] for 3 classes");
  EXPECT_EQ(m.total(), 0);
  expect_error<ValueError>([] { ConfusionMatrix(0); }, "classes");
  expect_error<ValueError>([] { ConfusionMatrix::from_counts({1, 2, 3}); }, "no square");
  expect_error<ValueError>([] { ConfusionMatrix::from_counts({1, 2, -3, 4}); }, "-3");
}

// Worked by hand from the paper's definitions.
TEST(ConfusionEntropy, Binary) {
  // [[50, 10], [5, 35]]: class sums 60 + 55 = 115 and 40 + 45 = 85, N = 100, base 2.
  const ConfusionMatrix m = ConfusionMatrix::from_counts({50, 10, 5, 35});
  const double cen0 = -(10.0 / 115 * std::log2(10.0 / 115) + 5.0 / 115 * std::log2(5.0 / 115));
  const double cen1 = -(5.0 / 85 * std::log2(5.0 / 85) + 10.0 / 85 * std::log2(10.0 / 85));
  EXPECT_NEAR(cen0, 0.50308, 1e-4);
  EXPECT_NEAR(m.class_confusion_entropy(0), cen0, 1e-12);
  EXPECT_NEAR(m.class_confusion_entropy(1), cen1, 1e-12);
  EXPECT_NEAR(m.confusion_entropy(), 115.0 / 200 * cen0 + 85.0 / 200 * cen1, 1e-12);
}

TEST(ConfusionEntropy, ThreeClassesAndItsBorders) {
  // [[3, 1, 0], [0, 4, 2], [1, 0, 5]]: P_0 = 8/32, P_1 = 11/32, P_2 = 13/32; base 4.
  const ConfusionMatrix m = ConfusionMatrix::from_counts({3, 1, 0, 0, 4, 2, 1, 0, 5});
  const auto h = [](double p) { return -p * std::log(p) / std::log(4.0); };
  const double cen0 = h(1.0 / 8) + h(1.0 / 8), cen1 = h(1.0 / 11) + h(2.0 / 11), cen2 = h(2.0 / 13) + h(1.0 / 13);
  EXPECT_NEAR(cen0, 0.375, 1e-12);  // twice 1/8 · log4 8 = 3/16
  EXPECT_NEAR(m.confusion_entropy(), 8.0 / 32 * cen0 + 11.0 / 32 * cen1 + 13.0 / 32 * cen2, 1e-12);
  EXPECT_EQ(ConfusionMatrix::from_counts({7, 0, 0, 0, 8, 0, 0, 0, 9}).confusion_entropy(), 0);
  // All wrong, evenly: each of the 2(N−1) terms is 1/(2(N−1)), so CEN_j = 1.
  EXPECT_NEAR(ConfusionMatrix::from_counts({0, 5, 5, 5, 0, 5, 5, 5, 0}).confusion_entropy(), 1, 1e-12);
  EXPECT_NEAR(ConfusionMatrix::from_counts({0, 6, 6, 6, 6, 0, 6, 6, 6, 6, 0, 6, 6, 6, 6, 0}).confusion_entropy(), 1,
              1e-12);
  EXPECT_EQ(ConfusionMatrix::from_counts({4}).confusion_entropy(), 0);
}

TEST(Entropy, ByHand) {
  EXPECT_EQ(entropy(std::vector<double>{1, 0, 0}), 0);
  EXPECT_NEAR(entropy(std::vector<double>{0.5, 0.25, 0.25, 0}, EntropyUnit::bits), 1.5, 1e-15);
  EXPECT_NEAR(entropy(std::vector<double>{0.5, 0.5}), std::log(2.0), 1e-15);
  EXPECT_NEAR(entropy(tensor(std::vector<double>{0.5, 0.5, 1, 0}, {2, 2}), EntropyUnit::bits), 0.5, 1e-15);
  EXPECT_NEAR(entropy(tensor(std::vector<float>{0.1f, 0.9f})), -0.1 * std::log(0.1) - 0.9 * std::log(0.9), 1e-6);
  EXPECT_NEAR(label_entropy(labels({3, 3, 7, 7}), EntropyUnit::bits), 1, 1e-15);
  EXPECT_NEAR(label_entropy(labels({0, 0, 0, 1})), -0.75 * std::log(0.75) - 0.25 * std::log(0.25), 1e-15);
  EXPECT_EQ(label_entropy(labels({5, 5})), 0);
  expect_error<ValueError>([] { entropy(std::vector<double>{0.5, 0.6}); }, "sum to 1.1");
  expect_error<ValueError>([] { entropy(std::vector<double>{1.5, -0.5}); }, "-0.5");
  expect_error<DTypeError>([] { entropy(labels({0, 1})); }, "floating");
}

TEST(Progress, YieldsEveryElementAndOneLine) {
  std::vector<int> v = {1, 2, 3};
  testing::internal::CaptureStderr();
  int sum = 0;
  for (int& x : progress(v, "epoch", 4)) {
    sum += x;
    x = 0;
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(sum, 6);
  EXPECT_EQ(v, (std::vector<int>{0, 0, 0}));  // references, not copies
  EXPECT_EQ(text.find("epoch 4: 3 in 0.0 s, "), 0u) << text;
  EXPECT_EQ(text.find('\n'), text.size() - 1) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
  testing::internal::CaptureStderr();
  for (int x : progress(std::vector<int>{}, "none")) sum += x;
  for (int x : progress(v, "left early")) {
    sum += x;
    break;
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "none: 0 in 0.0 s, –/s\n");
}

TEST(Progress, Lines) {
  EXPECT_EQ(format_seconds(0.04), "0.0 s");
  EXPECT_EQ(format_seconds(12.3), "12 s");
  EXPECT_EQ(format_seconds(185), "3:05");
  EXPECT_EQ(format_seconds(3727), "1:02:07");
  EXPECT_EQ(format_seconds(std::nan("")), "?");
  EXPECT_EQ(format_plain("epoch 1", 60, 60, 2, "loss 0.5"), "epoch 1: 60 in 2.0 s, 30.0/s, loss 0.5");
  const std::string bar = format_bar("epoch 1", 30, 60, 2, "", 80);
  EXPECT_NE(bar.find("30/60 · 15.0/s · 2.0 s left"), std::string::npos) << bar;
  EXPECT_NE(bar.find("█"), std::string::npos);
  // Never wider than the terminal, whatever the label; characters counted, not bytes.
  for (int columns : {1, 5, 20, 40, 80, 200}) {
    const std::string line = format_bar("épôque très longue", 3, 7, 1, "loss 0.25", columns);
    int64_t n = 0;
    for (char c : line) n += (c & 0xC0) != 0x80;
    EXPECT_LT(n, std::max(columns, 2)) << line;
  }
}

}  // namespace
}  // namespace hone::train
