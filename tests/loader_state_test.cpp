// A loader that goes on inside an epoch: what was consumed, not what was made ahead.

#include <gtest/gtest.h>

#include "hone/hone.h"

namespace hone::data {
namespace {

Dataset images(int64_t n) {
  Tensor x = empty({n, 1, 6, 6}, u8);
  for (int64_t i = 0; i < x.numel(); ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>((i * 7 + i / 24 * 13 + 1) % 256);
  return {x, arange(0, static_cast<double>(n))};
}

LoaderOptions shuffled(int64_t prefetch, bool drop_last) {
  return {.batch = 5,
          .shuffle = true,
          .seed = 11,
          .drop_last = drop_last,
          .prefetch = prefetch,
          .transform = {random_flip(), random_crop(2)}};
}

/// Batches with their bytes.
using Batches = std::vector<std::pair<std::vector<float>, std::vector<int64_t>>>;
void keep(Batches& to, const Batch& b) { to.emplace_back(b.inputs.to_vector<float>(), b.targets.to_vector<int64_t>()); }
int64_t entry(const Loader& loader, const char* name) { return loader.state_dict().at(name).item<int64_t>(); }

/// Epochs 0 to 2 of a loader that was never stopped.
Batches uninterrupted(const Dataset& d, bool drop_last) {
  Loader loader(d, shuffled(0, drop_last));
  Batches all;
  for (int epoch = 0; epoch < 3; ++epoch)
    for (const Batch& b : loader) keep(all, b);
  return all;
}

TEST(LoaderState, EverySplitOfAnEpochGivesTheSameBatches) {
  const Dataset d = images(33);
  for (const bool drop_last : {false, true}) {
    const Batches want = uninterrupted(d, drop_last);
    const int64_t n = drop_last ? 6 : 7;
    ASSERT_EQ(want.size(), static_cast<size_t>(3 * n));
    for (const int64_t prefetch : {0, 1, 2, 8}) {
      for (int64_t consumed = 0; consumed <= n; ++consumed) {
        for (const bool in_body : {true, false}) {  // left by break after the save, or run to the end by another reader
          Loader first(d, shuffled(prefetch, drop_last));
          for (Batch& b : first) static_cast<void>(b);  // epoch 0
          Batches got(want.begin(), want.begin() + n);
          TensorFile state = first.state_dict();  // consumed == 0
          int64_t k = 0;
          if (consumed > 0)
            for (const Batch& b : first) {
              if (++k > consumed) break;
              keep(got, b);
              if (k == consumed) state = first.state_dict();
              if (k == consumed && in_body) break;
            }
          Loader second(d, shuffled(prefetch == 0 ? 3 : prefetch, drop_last));  // another prefetch changes nothing
          if (!in_body) static_cast<void>(second.begin());                      // a pass that goes on does not matter
          second.load_state_dict(state);
          EXPECT_EQ(second.epoch(), 1);
          EXPECT_EQ(second.remaining(), n - consumed);
          while (second.epoch() < 3)
            for (const Batch& b : second) keep(got, b);
          ASSERT_EQ(got, want) << "prefetch " << prefetch << ", consumed " << consumed << ", drop_last " << drop_last;
        }
      }
    }
  }
}

TEST(LoaderState, ASamplerGoesOnInsideAnEpoch) {
  const Dataset d(images(20).all_inputs(), arange(0, 20));
  const auto make = [&] {
    return Loader(d, {.batch = 4,
                      .sampler = weighted_sampler(std::vector<double>(20, 1.0), 17),
                      .seed = 5,
                      .transform = {random_crop(2)}});
  };
  Loader whole = make();
  Batches want;
  for (int epoch = 0; epoch < 2; ++epoch)
    for (const Batch& b : whole) keep(want, b);
  ASSERT_EQ(want.size(), 10u);
  for (int64_t consumed = 1; consumed <= 5; ++consumed) {
    Loader first = make(), second = make();
    Batches got;
    for (const Batch& b : first) {
      keep(got, b);
      if (static_cast<int64_t>(got.size()) == consumed) break;
    }
    second.load_state_dict(first.state_dict());
    while (second.epoch() < 2)
      for (const Batch& b : second) keep(got, b);
    EXPECT_EQ(got, want) << consumed;
  }
}

TEST(LoaderState, SaysWhatWasConsumed) {
  Loader loader(images(20), {.batch = 5, .seed = 1, .prefetch = 8});
  const auto expect_place = [&](int64_t epoch, int64_t consumed) {
    EXPECT_EQ(entry(loader, "epoch"), epoch);
    EXPECT_EQ(entry(loader, "consumed"), consumed);
  };
  expect_place(0, 0);
  int64_t k = 0;
  for (Batch& b : loader) {
    expect_place(0, ++k);
    EXPECT_EQ(b.inputs.size(0), 5);
  }
  expect_place(1, 0);  // the pass is over: not "all of epoch 0"
  loader.set_epoch(7);
  expect_place(7, 0);
  static_cast<void>(loader.begin());
  expect_place(7, 1);
  EXPECT_EQ(loader.remaining(), 4);  // of the next pass
}

TEST(LoaderState, SavedWhileTheLastBatchIsInUse) {
  Loader loader(images(20), {.batch = 5, .seed = 1});
  TensorFile last;
  for (Batch& b : loader) last = (static_cast<void>(b), loader.state_dict());
  Loader again(images(20), {.batch = 5, .seed = 1});
  again.load_state_dict(last);
  EXPECT_EQ(again.epoch(), 0);
  EXPECT_EQ(again.remaining(), 0);
  for (Batch& b : again) FAIL() << b.inputs.size(0);  // the rest of the epoch is empty …
  EXPECT_EQ(again.epoch(), 1);                        // … and it is over
  EXPECT_EQ(again.remaining(), 4);
  EXPECT_EQ(entry(again, "consumed"), 0);
}

TEST(LoaderState, ABatchThatFailedWasNotConsumed) {
  for (const int64_t prefetch : {0, 3}) {
    bool broken = true;
    const auto bomb = custom([&](std::span<float> v, const Shape&, const Philox&) {
      if (broken && v[0] > 0.9f) throw NumericError("too bright");
    });
    Tensor x = zeros({40, 1, 1, 1});
    x.data<float>()[25] = 1;
    const Dataset d(x, arange(0, 40));
    Loader loader(d, {.batch = 4, .prefetch = prefetch, .transform = {bomb}});
    EXPECT_THROW(
        {
          for (Batch& b : loader) static_cast<void>(b);
        },
        NumericError);
    EXPECT_EQ(entry(loader, "consumed"), 6);
    EXPECT_EQ(entry(loader, "epoch"), 0);
    broken = false;
    loader.load_state_dict(loader.state_dict());
    int64_t next = 24;
    for (Batch& b : loader)
      for (const int64_t y : b.targets.to_vector<int64_t>()) EXPECT_EQ(y, next++);
    EXPECT_EQ(next, 40);
  }
}

TEST(LoaderState, LoadingEndsAPassUnlessItIsThere) {
  Loader loader(images(20), {.batch = 5, .shuffle = true, .seed = 1});
  int count = 0;
  for (Batch& b : loader) {
    static_cast<void>(b);
    loader.load_state_dict(loader.state_dict());  // where it is: nothing changes
    ++count;
  }
  EXPECT_EQ(count, 4);
  EXPECT_EQ(loader.epoch(), 1);
  const TensorFile start = loader.state_dict();
  for (Batch& b : loader) {
    static_cast<void>(b);
    loader.load_state_dict(start);
    ++count;
  }
  EXPECT_EQ(count, 5);
  EXPECT_EQ(loader.epoch(), 1);
  EXPECT_EQ(loader.remaining(), 4);
}

TEST(LoaderState, SeedIsTakenOverUnlessGiven) {
  const Dataset d = images(30);
  const auto options = [](std::optional<uint64_t> seed) {
    return LoaderOptions{.batch = 30, .shuffle = true, .seed = seed, .transform = {random_crop(2)}};
  };
  Loader first(d, options(~uint64_t{0}));  // all 64 bits go through
  Batches want, got;
  for (const Batch& b : first) keep(want, b);
  Loader fresh(d, options(~uint64_t{0}));
  Loader second(d, options(std::nullopt));
  second.load_state_dict(fresh.state_dict());
  for (const Batch& b : second) keep(got, b);
  EXPECT_EQ(got, want);
  Loader third(d, options(5));
  EXPECT_THROW(third.load_state_dict(fresh.state_dict()), FormatError);
}

TEST(LoaderState, RefusesOthersAndChangesNothing) {
  const Dataset d = images(33);
  Loader loader(d, shuffled(2, true));
  int64_t k = 0;
  for (Batch& b : loader)
    if (static_cast<void>(b), ++k == 2) break;
  const TensorFile good = loader.state_dict();
  const auto refused = [&](Loader& to, const TensorFile& file, const std::string& part) {
    const TensorFile before = to.state_dict();
    try {
      to.load_state_dict(file);
      ADD_FAILURE() << "accepted: " << part;
    } catch (const FormatError& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what() << "\nlacks " << part;
    }
    const TensorFile after = to.state_dict();
    ASSERT_EQ(before.tensors.size(), after.tensors.size());
    for (size_t i = 0; i < before.tensors.size(); ++i)
      EXPECT_TRUE(equal(before.tensors[i].second, after.tensors[i].second)) << before.tensors[i].first;
  };
  const auto other = [&](const Dataset& data, LoaderOptions o, const std::string& part) {
    Loader l(data, std::move(o));
    refused(l, good, part);
  };
  LoaderOptions o = shuffled(2, true);
  other(images(34), o, "samples 33, this one has 34");
  other(d.subset([] {
    std::vector<int64_t> order(33);
    for (int64_t i = 0; i < 33; ++i) order[static_cast<size_t>(i)] = 32 - i;
    return order;
  }()),
        o, "other rows");
  other({zeros({33, 1, 6, 7}), arange(0, 33)}, {.batch = 5, .shuffle = true, .drop_last = true},
        "input.2 6, this one has 7");
  o.batch = 6;
  other(d, o, "batch 5, this one has 6");
  o = shuffled(2, false);
  other(d, o, "drop_last 1, this one has 0");
  o = shuffled(2, true);
  o.shuffle = false;
  other(d, o, "shuffle 1, this one has 0");

  const auto edited = [&](const std::string& name, const Tensor& t, const std::string& part) {
    TensorFile file = good;
    bool found = false;
    for (size_t i = 0; i < file.tensors.size(); ++i)
      if (file.tensors[i].first == name) {
        found = true;
        if (t.defined())
          file.tensors[i].second = t;
        else
          file.tensors.erase(file.tensors.begin() + static_cast<int64_t>(i--));
      }
    if (!found) file.tensors.emplace_back(name, t);
    refused(loader, file, part);
  };
  const auto number = [](int64_t v) { return tensor(std::vector<int64_t>{v}, Shape{}); };
  edited("consumed", number(7), "7 batches of 6");
  edited("consumed", number(-1), "-1 batches of 6");
  edited("epoch", number(-1), "epoch -1");
  edited("epoch", number(std::numeric_limits<int64_t>::max()), "outside the range");
  edited("epoch", tensor({1}), "not one whole number");
  edited("epoch", scalar(1), "not one whole number");
  edited("seed", {}, "no entry 'seed'");
  edited("surprise", number(1), "'surprise'");
  TensorFile version = good;
  version.metadata["loader"] = "2";
  refused(loader, version, "version 1");
  refused(loader, {}, "version 1");
  // and the pass that went on still does
  loader.load_state_dict(good);
  for (Batch& b : loader) static_cast<void>(b), ++k;
  EXPECT_EQ(k, 6);
}

}  // namespace
}  // namespace hone::data
