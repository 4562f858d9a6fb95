#include "regularizer_support.h"

namespace hone {
namespace {

using namespace regularizer_test;
using optim::Aim;
using train::EarlyStopping;

TEST(EarlyStopping, StopsAfterPatienceWithoutANewBest) {
  EarlyStopping early({.patience = 2});
  EXPECT_EQ(early.best(), kInf);
  EXPECT_EQ(early.best_at(), -1);
  const double metrics[] = {1.0, 0.8, 0.9, 0.7, 0.7, 0.71};
  const bool best[] = {true, true, false, true, false, false};
  for (int i = 0; i < 6; ++i) {
    EXPECT_FALSE(early.stop()) << i;
    EXPECT_EQ(early.update(metrics[i]), best[i]) << i;
  }
  EXPECT_TRUE(early.stop());
  EXPECT_EQ(early.best(), 0.7);
  EXPECT_EQ(early.best_at(), 3);
  EXPECT_EQ(early.updates(), 6);
  EXPECT_EQ(early.waited(), 2);
}

TEST(EarlyStopping, HigherMinDeltaAndNaN) {
  EarlyStopping early({.patience = 3, .min_delta = 0.1, .mode = Aim::max});
  EXPECT_FALSE(early.update(kNaN));
  EXPECT_TRUE(early.update(0.5));
  EXPECT_FALSE(early.update(0.6 - 1e-9));  // not by min_delta
  EXPECT_FALSE(early.update(kNaN));
  EXPECT_EQ(early.best(), 0.5);
  EXPECT_TRUE(early.update(0.75));
  EXPECT_FALSE(early.update(kNaN));
  EXPECT_FALSE(early.update(kNaN));
  EXPECT_FALSE(early.stop());
  EXPECT_FALSE(early.update(kNaN));
  EXPECT_TRUE(early.stop());
  EXPECT_EQ(early.best(), 0.75);
}

TEST(EarlyStopping, ResumesAtEveryUpdate) {
  const double metrics[] = {0.9, 0.5, kNaN, 0.6, 0.4, 0.45, 0.41, 0.42};
  for (int cut = 0; cut <= 8; ++cut) {
    EarlyStopping whole({.patience = 3}), first({.patience = 3}), second({.patience = 3});
    for (int i = 0; i < cut; ++i) first.update(metrics[i]);
    second.update(-5);  // forgotten
    second.load_state_dict(first.state_dict());
    for (int i = 0; i < 8; ++i) {
      const bool is_best = whole.update(metrics[i]);
      if (i < cut) continue;
      EXPECT_EQ(second.update(metrics[i]), is_best) << cut << " " << i;
    }
    EXPECT_EQ(second.best(), whole.best());
    EXPECT_EQ(second.best_at(), whole.best_at());
    EXPECT_EQ(second.updates(), whole.updates());
    EXPECT_EQ(second.stop(), whole.stop());
  }
}

TEST(EarlyStopping, RefusesWhatDoesNotFit) {
  expect_error<ValueError>([] { EarlyStopping({.patience = 0}); }, "patience must be at least 1, got 0");
  for (double bad : {-1.0, kNaN, kInf})
    expect_error<ValueError>([&] { EarlyStopping({.min_delta = bad}); }, "min_delta must be finite and at least 0");
  EarlyStopping early;
  early.update(0.5);
  const TensorFile good = early.state_dict();
  const auto refuse = [&](auto change, const std::string& part) {
    TensorFile file = good;
    change(file);
    expect_error<FormatError>([&] { early.load_state_dict(file); }, part);
    EXPECT_EQ(early.best(), 0.5);
  };
  refuse([](TensorFile& f) { f.tensors.erase(f.tensors.begin()); }, "best");
  refuse([](TensorFile& f) { f.tensors.emplace_back("more", scalar(1)); }, "not known here: 'more'");
  refuse([](TensorFile& f) { f.tensors[0].second = scalar(1); }, "'best' is f32");
  refuse([](TensorFile& f) { f.tensors[3].second = tensor({7}, Shape{}); }, "do not belong together");
  refuse([](TensorFile& f) { f.metadata.clear(); }, "here it is 'lower'");
  refuse([](TensorFile& f) { f.metadata["version"] = "2"; }, "version '2'");
  EarlyStopping other({.mode = Aim::max});
  expect_error<FormatError>([&] { other.load_state_dict(good); }, "'lower', here it is 'higher'");
}

}  // namespace
}  // namespace hone
