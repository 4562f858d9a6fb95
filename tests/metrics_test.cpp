// Metrics against numbers worked out by hand or by another route.

#include <gtest/gtest.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <thread>
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

TEST(Accuracy, ReadsEveryDTypeAndLayout) {
  manual_seed(9);
  for (int64_t classes : {1, 2, 7}) {
    const Tensor base = cast(randint(-3, 4, {classes, 50}), f32), y = randint(0, classes, {50});  // many ties
    const std::vector<double> v = base.to_vector<double>();
    const std::vector<int64_t> label = y.to_vector<int64_t>();
    int64_t right = 0;
    for (size_t r = 0; r < 50; ++r) {
      size_t best = 0;
      for (size_t c = 1; c < static_cast<size_t>(classes); ++c)
        if (v[c * 50 + r] > v[best * 50 + r]) best = c;
      right += static_cast<int64_t>(best) == label[r];
    }
    const double want = static_cast<double>(right) / 50;
    for (DType d : {f64, f32, bf16}) {
      const Tensor logits = transpose(cast(base, d), 0, 1);  // strided
      for (DType t : {i64, i32, i8, u8}) EXPECT_EQ(accuracy(logits, cast(y, t)), want) << name(d) << name(t);
      EXPECT_EQ(accuracy(transpose(cast(base, d).requires_grad_(), 0, 1), y), want);
    }
    const Tensor sparse = slice(reshape(stack({y, y}, 1), {100}), 0, 0, kEnd, 2);
    EXPECT_EQ(accuracy(transpose(base, 0, 1), sparse), want);
    EXPECT_EQ(accuracy(sparse, y), 1);
  }
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
  EXPECT_NEAR(ConfusionMatrix::from_counts({0, 5, 5, 0}).confusion_entropy(), 1, 1e-12);
  // Above 1 with two classes: both off-diagonal terms are 2/6, base 2.
  EXPECT_NEAR(ConfusionMatrix::from_counts({1, 2, 2, 1}).confusion_entropy(), 2.0 / 3 * std::log2(3), 1e-12);
  EXPECT_NEAR(2.0 / 3 * std::log2(3), 1.057, 5e-4);
  // With more, none lies above 1.
  manual_seed(11);
  for (int round = 0; round < 300; ++round) {
    const int64_t classes = 3 + round % 3;
    const Tensor counts = randint(0, round % 2 ? 3 : 40, {classes * classes});
    const double cen = ConfusionMatrix::from_counts(counts.to_vector<int64_t>()).confusion_entropy();
    EXPECT_TRUE(std::isnan(cen) || (cen >= 0 && cen <= 1 + 1e-12)) << cen << "\n" << to_string(counts);
  }
}

TEST(Entropy, ByHand) {
  EXPECT_EQ(train::entropy(std::vector<double>{1, 0, 0}), 0);
  EXPECT_NEAR(train::entropy(std::vector<double>{0.5, 0.25, 0.25, 0}, EntropyUnit::bits), 1.5, 1e-15);
  EXPECT_NEAR(train::entropy(std::vector<double>{0.5, 0.5}), std::log(2.0), 1e-15);
  EXPECT_NEAR(train::entropy(tensor(std::vector<double>{0.5, 0.5, 1, 0}, {2, 2}), EntropyUnit::bits), 0.5, 1e-15);
  EXPECT_NEAR(train::entropy(tensor(std::vector<float>{0.1f, 0.9f})), -0.1 * std::log(0.1) - 0.9 * std::log(0.9), 1e-6);
  EXPECT_NEAR(label_entropy(labels({3, 3, 7, 7}), EntropyUnit::bits), 1, 1e-15);
  EXPECT_NEAR(label_entropy(labels({0, 0, 0, 1})), -0.75 * std::log(0.75) - 0.25 * std::log(0.25), 1e-15);
  EXPECT_EQ(label_entropy(labels({5, 5})), 0);
  expect_error<ValueError>([] { train::entropy(std::vector<double>{0.5, 0.6}); }, "sum to 1.1");
  expect_error<ValueError>([] { train::entropy(std::vector<double>{1.5, -0.5}); }, "-0.5");
  expect_error<DTypeError>([] { train::entropy(labels({0, 1})); }, "floating");
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
  try {
    for (int x : progress(v, "thrown")) throw x;
  } catch (int) {}
  try {
    throw 1;
  } catch (int) {
    ProgressBar bar("by hand", 2);  // an exception that is handled does not unwind
    bar.advance();
    bar.advance();
  }
  const std::string rest = testing::internal::GetCapturedStderr();
  EXPECT_EQ(rest.find("none: 0 in 0.0 s, –/s\nleft early: 0/3 in 0.0 s, –/s\nby hand: 2 in "), 0u) << rest;
  EXPECT_EQ(std::count(rest.begin(), rest.end(), '\n'), 3) << rest;
}

/// What `f` writes to a terminal of that many columns.
template <class F> std::string on_terminal(int columns, F&& f) {
  int master = -1, slave = -1;
  winsize size{.ws_row = 24, .ws_col = static_cast<unsigned short>(columns), .ws_xpixel = 0, .ws_ypixel = 0};
  termios plain{};
  cfmakeraw(&plain);  // newlines stay newlines
  if (openpty(&master, &slave, nullptr, &plain, &size) != 0) return "no terminal";
  std::FILE* out = fdopen(slave, "w");
  std::string text;
  std::thread reader([&] {
    char part[512];
    for (ssize_t n; (n = read(master, part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
  });
  f(out);
  std::fclose(out);  // the reader's end
  reader.join();
  close(master);
  return text;
}

TEST(Progress, RedrawsOneLineOnATerminal) {
  setenv("TERM", "xterm", 1);
  const auto loop = [](std::FILE* out, int steps) {
    ProgressBar bar("epoch 1", 4, out);
    for (int i = 0; i < steps; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(110));  // more than the pause between two drawings
      bar.advance();
    }
    bar.note("loss 0.5");
  };
  const std::string whole = on_terminal(70, [&](std::FILE* out) { loop(out, 4); });
  // Every drawing begins at the first column, is shorter than the line and clears what it leaves; one newline, last.
  EXPECT_EQ(std::count(whole.begin(), whole.end(), '\r'), 5) << whole;
  EXPECT_EQ(whole.find('\n'), whole.size() - 1) << whole;
  EXPECT_EQ(whole.substr(whole.size() - 4), "\x1b[K\n");
  EXPECT_EQ(whole.find("\repoch 1 "), 0u) << whole;
  EXPECT_NE(whole.find(" 2/4 · "), std::string::npos) << whole;
  EXPECT_NE(whole.find(" left\x1b[K\r"), std::string::npos) << whole;
  EXPECT_NE(whole.find(" 4/4 · ", whole.rfind('\r')), std::string::npos) << whole;
  EXPECT_NE(whole.find("loss 0.5", whole.rfind('\r')), std::string::npos) << whole;
  const std::string narrow = on_terminal(12, [&](std::FILE* out) { loop(out, 1); });
  for (size_t at = narrow.find('\r'); at != std::string::npos; at = narrow.find('\r', at + 1)) {
    const std::string line = narrow.substr(at + 1, narrow.find('\x1b', at) - at - 1);
    EXPECT_LT(std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; }), 12) << narrow;
  }
  const std::string thrown = on_terminal(70, [&](std::FILE* out) {
    try {
      ProgressBar bar("epoch 1", 4, out);
      throw 1;
    } catch (int) {}
  });
  EXPECT_EQ(thrown, "\n");
  setenv("TERM", "dumb", 1);
  const std::string dumb = on_terminal(70, [&](std::FILE* out) { loop(out, 1); });
  EXPECT_EQ(dumb.find("epoch 1: 1/4 in 0.1 s"), 0u) << dumb;
  EXPECT_EQ(dumb.find('\r'), std::string::npos);
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
