// Checkpoints: a resumed run is the run that never stopped, byte for byte; what does not fit is refused and changes
// nothing; a killed or failing save leaves the former file.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>

#include "hone/hone.h"
#include "support.h"

namespace hone::train {
namespace {

namespace fs = std::filesystem;

struct CheckpointTest : testing::Test {
  const test::TempDir folder;
  std::string path(const std::string& name) const { return folder / name; }
  size_t files() const { return folder.files(); }
  /// All bytes of a state.
  std::string bytes(const Checkpoint& c) const {
    c.save(path("bytes"));
    std::string s = test::read_file(path("bytes"));
    fs::remove(path("bytes"));
    return s;
  }
  /// load() refuses with these parts in its message, and not a byte of the state differs.
  void expect_refused(Checkpoint& c, const std::string& file, std::initializer_list<const char*> parts) const {
    const std::string before = bytes(c);
    try {
      c.load(file);
      ADD_FAILURE() << "accepted";
    } catch (const FormatError& e) {
      const std::string what = e.what();
      for (const char* part : parts) EXPECT_NE(what.find(part), std::string::npos) << what << "\nlacks " << part;
      EXPECT_NE(what.find(file), std::string::npos) << what;
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    }
    EXPECT_EQ(bytes(c), before);
  }
};

/// A network with buffers and random numbers of its own.
struct Net : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 4, .kernel = 3}};
  nn::BatchNorm2d norm{{.features = 4}};
  nn::Dropout drop{{.p = 0.3}};
  nn::Linear fc{{.in = 64, .out = 3}};
  HONE_MODULE(Net, conv, norm, drop, fc)
  Tensor forward(const Tensor& x) { return fc(drop(flatten(relu(norm(conv(x))), 1))); }
};

data::Dataset images(int64_t n) {
  Tensor x = empty({n, 1, 6, 6}, u8), y = empty({n}, i64);
  for (int64_t i = 0; i < x.numel(); ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>(i * i % 251);
  for (int64_t i = 0; i < n; ++i) y.data<int64_t>()[i] = i * 7 % 3;
  return {x, y};
}

enum class Kind { adam, sgd, average };

/// A whole run: 3 epochs of 5 steps.
struct Training {
  Net net;
  std::unique_ptr<optim::Optimizer> optimizer;
  data::Loader batches;
  std::unique_ptr<optim::OneCycle> schedule;
  std::unique_ptr<optim::EMA> ema;
  std::unique_ptr<optim::Lookahead> lookahead;
  std::vector<double> losses;
  std::vector<int64_t> ends;
  int64_t step = 0;
  double best = 1e9;
  Checkpoint checkpoint;

  explicit Training(Kind kind, uint64_t seed = 1)
      : batches((manual_seed(seed), images(43)),
                {.batch = 8, .shuffle = true, .seed = 3, .drop_last = true, .transform = {data::random_crop(1)}}) {
    net = Net();
    if (kind == Kind::sgd)
      optimizer = std::make_unique<optim::SGD>(net.parameters(),
                                               optim::SGDOptions{.lr = 0.1, .momentum = 0.9, .nesterov = true});
    else
      optimizer = std::make_unique<optim::Adam>(net.parameters(), optim::AdamOptions{.lr = 0.01});
    schedule = std::make_unique<optim::OneCycle>(*optimizer, optim::OneCycleOptions{.max_lr = 0.02, .steps = 15});
    checkpoint.add("model", net).add("optimizer", *optimizer).add("schedule", *schedule).add("loader", batches);
    checkpoint.add("losses", losses).add("ends", ends).add("step", step).add("best", best).require("kind", int(kind));
    if (kind != Kind::average) return;
    ema = std::make_unique<optim::EMA>(net.parameters());
    lookahead = std::make_unique<optim::Lookahead>(*optimizer, optim::LookaheadOptions{.steps = 3});
    checkpoint.add("ema", *ema).add("lookahead", *lookahead);
  }
  Training(const Training&) = delete;

  /// To the end; or until save() says so.
  template <class Save> void go(Save&& save) {
    while (batches.epoch() < 3) {
      for (auto& [x, y] : batches) {
        Tensor loss = cross_entropy(net(x), y);
        optimizer->zero_grad();
        loss.backward();
        lookahead ? lookahead->step() : optimizer->step();
        if (ema) ema->update();
        schedule->step();
        losses.push_back(loss.item());
        best = std::min(best, losses.back());
        ++step;
        if (!save(str("step", step))) return;
      }
      ends.push_back(step);
      if (!save(str("epoch", batches.epoch()))) return;
    }
  }
};

TEST_F(CheckpointTest, ResumeAtAnyStepIsTheSameRun) {
  for (const Kind kind : {Kind::adam, Kind::sgd, Kind::average}) {
    std::vector<std::string> saved;
    Training whole(kind);
    whole.checkpoint.save(path("start"));
    saved.emplace_back("start");
    whole.go([&](const std::string& name) {
      whole.checkpoint.save(path(name));
      saved.push_back(name);
      return true;
    });
    ASSERT_EQ(saved.size(), 19u);
    ASSERT_EQ(whole.losses.size(), 15u);
    const std::string want = bytes(whole.checkpoint);
    for (size_t i = 0; i < saved.size(); ++i) {
      Training again(kind, 100 + i);  // other first weights and another generator: all of it must come from the file
      const int threads = num_threads();
      set_num_threads(1 + static_cast<int>(i % 3));
      EXPECT_TRUE(again.checkpoint.resume(path(saved[i])));
      EXPECT_EQ(bytes(again.checkpoint), test::read_file(path(saved[i]))) << "loaded and saved again: " << saved[i];
      again.go([&](const std::string& name) {
        EXPECT_EQ(bytes(again.checkpoint), test::read_file(path(name))) << "from " << saved[i] << ", at " << name;
        return !testing::Test::HasFailure();
      });
      set_num_threads(threads);
      ASSERT_EQ(bytes(again.checkpoint), want) << "from " << saved[i];
    }
  }
}

TEST_F(CheckpointTest, NumbersOfEveryKind) {
  int64_t whole = INT64_MIN;
  double real = -0.0;
  std::vector<int64_t> wholes{1, INT64_MAX};
  std::vector<double> reals{0.1, -HUGE_VAL, std::nan("")}, none;
  Checkpoint c;
  c.add("a", whole).add("b", real).add("c c", wholes).add("ð", reals).add("none", none);
  set_generator_state({~uint64_t{0}, uint64_t{1} << 63});
  c.save(path("f"));
  const std::string bytes_of_file = test::read_file(path("f"));
  whole = 1, real = 2, wholes = {}, reals = {5}, none = {1, 2};
  manual_seed(1);
  c.load(path("f"));
  EXPECT_EQ(whole, INT64_MIN);
  EXPECT_TRUE(std::signbit(real));
  EXPECT_EQ(wholes, (std::vector<int64_t>{1, INT64_MAX}));
  EXPECT_EQ(reals.size(), 3u);
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(generator_state().seed, ~uint64_t{0});
  EXPECT_EQ(generator_state().next_stream, uint64_t{1} << 63);
  EXPECT_EQ(bytes(c), bytes_of_file);
  std::vector<double> short_list;
  Checkpoint other;
  other.add("a", whole).add("b", real).add("c c", wholes).add("ð", real).add("none", short_list);
  expect_refused(other, path("f"), {"'ð' was saved as numbers", "here it is number"});
  manual_seed(1);
}

TEST_F(CheckpointTest, Names) {
  double x = 0;
  Checkpoint c;
  c.add("x", x);
  for (const char* bad : {"x", "", "a/b", "generator", "part", "require", "a\nb", "a\x7f"})
    EXPECT_THROW(c.add(bad, x), ValueError) << bad;
  c.require("lr", 0.1);
  EXPECT_THROW(c.require("lr", 0.1), ValueError);
  EXPECT_THROW(c.require("", 1), ValueError);
  EXPECT_FALSE(c.resume(path("absent")));
  EXPECT_THROW(c.load(path("absent")), IoError);
  EXPECT_THROW(c.resume(folder.path().string()), IoError);  // something is there, and it is no file
  std::ofstream(path("file")) << "x";
  EXPECT_THROW(c.resume(path("file/inside")), IoError);  // whether there is one cannot be said
}

TEST_F(CheckpointTest, RefusesAnotherRunAndChangesNothing) {
  const auto save_after = [&](Training& run, int64_t steps, const char* name) {
    run.go([&](const std::string&) { return run.step < steps; });
    run.checkpoint.save(path(name));
  };
  Training adam(Kind::adam);
  save_after(adam, 7, "adam");
  Training sgd(Kind::sgd);
  save_after(sgd, 3, "sgd");
  expect_refused(adam.checkpoint, path("sgd"), {"part 'optimizer' was saved as SGD, here it is Adam"});
  expect_refused(sgd.checkpoint, path("adam"), {"part 'optimizer' was saved as Adam, here it is SGD"});
  Training average(Kind::average);
  save_after(average, 4, "average");
  expect_refused(adam.checkpoint, path("average"), {"unexpected: 'ema', 'lookahead'"});
  expect_refused(average.checkpoint, path("adam"), {"missing: 'ema', 'lookahead'"});
  save_safetensors(path("weights"), adam.net.state_dict());
  expect_refused(adam.checkpoint, path("weights"), {"no checkpoint"});

  // Differences that only the parts know of: each is found after other parts were loaded already.
  double number = 1;
  const auto two_lenets = [&](nn::LeNet& net, optim::Optimizer& o, data::Loader& loader, Checkpoint& c) {
    c.add("number", number).add("model", net).add("optimizer", o).add("loader", loader);
  };
  nn::LeNet one({.width = 1}), two({.width = 2});
  optim::Adam adam_one(one.parameters()), adam_two(two.parameters());
  cross_entropy(one(randn({2, 3, 32, 32})), zeros({2}, i64)).backward();
  adam_one.step();
  data::Loader loader(images(20), {.batch = 5, .seed = 1}), larger(images(21), {.batch = 5, .seed = 1});
  static_cast<void>(larger.begin());
  Checkpoint first, second, third, fourth;
  two_lenets(one, adam_one, loader, first);
  number = 5;
  first.save(path("one"));
  number = 6;
  two_lenets(two, adam_two, loader, second);
  expect_refused(second, path("one"), {"part 'model'", "conv1.weight", "[6, 3, 5, 5]", "[12, 3, 5, 5]"});
  two_lenets(one, adam_two, loader, third);
  expect_refused(third, path("one"), {"part 'optimizer'", "parameter.0.exp_avg"});
  two_lenets(one, adam_one, larger, fourth);
  expect_refused(fourth, path("one"), {"part 'loader'", "samples 20, this one has 21"});
  EXPECT_EQ(number, 6);
}

TEST_F(CheckpointTest, RefusesAnotherVersionSettingOrDamage) {
  Training run(Kind::adam);
  run.go([&](const std::string&) { return run.step < 7; });
  run.checkpoint.save(path("good"));
  const TensorFile good = load_safetensors(path("good"));
  const auto refused = [&](auto&& edit, std::initializer_list<const char*> parts) {
    TensorFile file = good;
    edit(file);
    save_safetensors(path("bad"), file);
    expect_refused(run.checkpoint, path("bad"), parts);
  };
  const auto set = [](const char* key, const char* value) { return [=](TensorFile& f) { f.metadata[key] = value; }; };
  refused(set("hone.checkpoint", "2"), {"version '2'", "reads version 1"});
  refused([](TensorFile& f) { f.metadata.erase("hone.checkpoint"); }, {"no checkpoint"});
  refused(set("part/model", "LeNet"), {"part 'model' was saved as LeNet, here it is Net"});
  refused(set("part/extra", "numbers"), {"unexpected: 'extra'"});
  refused(set("part", "numbers"), {"unexpected"});
  refused(set("extra/version", "1"), {"unknown entry 'extra/version'"});
  refused(set("extra", "1"), {"unknown entry 'extra'"});
  refused(set("model", "1"), {"unknown entry 'model'"});
  refused(set("require/kind", "9"), {"kind was 9, here it is 0"});
  refused(set("require/colour", "red"), {"it requires colour red"});
  refused([](TensorFile& f) { f.metadata.erase("require/kind"); }, {"does not say its kind"});
  refused(set("optimizer/version", "2"), {"part 'optimizer'", "version '2'"});
  refused(set("loader/loader", "2"), {"part 'loader'", "version 1"});
  refused(set("generator/x", "2"), {"generator"});
  refused(set("best/x", "2"), {"part 'best'", "more than 'value'"});
  for (size_t i = 0; i < good.tensors.size(); ++i) {
    const std::string name = good.tensors[i].first;
    refused([&](TensorFile& f) { f.tensors.erase(f.tensors.begin() + static_cast<int64_t>(i)); },
            {name.substr(name.find('/') + 1).c_str()});
    refused([&](TensorFile& f) { f.tensors[i].second = zeros({2, 1, 3}, u8); }, {});
  }
  const Tensor extra = ones({1});
  for (const char* name : {"model/extra", "optimizer/extra", "schedule/extra", "loader/extra", "best/extra", "extra",
                           "model", "generator/extra", "extra/value"})
    refused([&](TensorFile& f) { f.tensors.emplace_back(name, extra); }, {});

  // Every length that is too short, and bytes changed in the header: refused or, where it says the same, accepted.
  const std::string all = test::read_file(path("good"));
  const auto write = [&](const std::string& s) { std::ofstream(path("bad"), std::ios::binary) << s; };
  for (size_t n = 0; n < all.size(); n += 97) {
    write(all.substr(0, n));
    expect_refused(run.checkpoint, path("bad"), {});
  }
  write(all + "x");
  expect_refused(run.checkpoint, path("bad"), {});
}

TEST_F(CheckpointTest, FullDiskLeavesTheFormerFile) {
  Training run(Kind::adam);
  run.checkpoint.save(path("f"));
  const std::string former = test::read_file(path("f"));
  run.go([&](const std::string&) { return run.step < 2; });
  struct sigaction ignore {
  }, old{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &ignore, &old);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  for (const size_t allowed : {size_t{0}, size_t{8}, size_t{100}, former.size() - 1, former.size()}) {
    rlimit small = limit;
    small.rlim_cur = allowed;
    setrlimit(RLIMIT_FSIZE, &small);
    EXPECT_THROW(run.checkpoint.save(path("f")), IoError) << allowed;  // with moments it is longer than before
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_EQ(test::read_file(path("f")), former);
    EXPECT_EQ(files(), 1u);
  }
  sigaction(SIGXFSZ, &old, nullptr);
  EXPECT_THROW(run.checkpoint.save("/dev/full"), IoError);
  EXPECT_THROW(run.checkpoint.save(path("no/such/folder")), IoError);
  run.checkpoint.save(path("f"));
  EXPECT_NE(test::read_file(path("f")), former);
}

/// Runs `body` in a process of its own and returns what waitpid says.
template <class Body> int in_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    body();
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

// A write past the limit kills the process by signal, after exactly that many bytes of the temporary were written.
TEST_F(CheckpointTest, KilledAnywhereInASaveLeavesTheFormerFile) {
  set_num_threads(1);  // the children have no other threads
  Training run(Kind::adam);
  run.go([&](const std::string&) { return run.step < 2; });
  run.checkpoint.save(path("f"));
  const std::string former = test::read_file(path("f"));
  const double best = run.best;
  run.best = -1;
  size_t killed = 0;
  for (size_t at = 0; at < former.size(); at += 1 + former.size() / 40) {
    const int status = in_child([&] {
      signal(SIGXFSZ, SIG_DFL);
      const rlimit small{at, at};
      setrlimit(RLIMIT_FSIZE, &small);
      run.checkpoint.save(path("f"));
    });
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ) << status;
    ++killed;
    EXPECT_EQ(test::read_file(path("f")), former);
    EXPECT_EQ(files(), 2u) << "the temporary of the process killed last, and none of those before";
  }
  EXPECT_GE(killed, 30u);
  std::ofstream(path("f.1-0.tmp")) << "of a process that lives";
  std::ofstream(path("f.999999999-x.tmp")) << "of no process";
  run.checkpoint.load(path("f"));
  EXPECT_EQ(run.best, best);
  run.checkpoint.save(path("f"));
  EXPECT_EQ(test::read_file(path("f")), former);
  EXPECT_EQ(files(), 3u);
  // Through a link: the temporaries lie beside the file that it points to.
  fs::create_directory(path("links"));
  fs::create_symlink(path("f"), path("links/f"));
  std::ofstream(path("f.999999999-0.tmp")) << "of a process that is gone";
  run.checkpoint.save(path("links/f"));
  EXPECT_EQ(test::read_file(path("f")), former);
  EXPECT_TRUE(fs::is_symlink(path("links/f")));
  EXPECT_FALSE(fs::exists(path("f.999999999-0.tmp")));
}

// A process that saves in a loop is killed at any moment: what lies there is a whole checkpoint.
TEST_F(CheckpointTest, KilledAtRandomMoments) {
  set_num_threads(1);
  int64_t number = 0;
  std::vector<int64_t> many(1 << 15);
  Checkpoint c;
  c.add("number", number).add("many", many);
  uint64_t draw = 0;
  int64_t last = 0;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      for (;;) {
        std::fill(many.begin(), many.end(), ++number);
        c.save(path("f"));
      }
    }
    usleep(3000 + Philox{5, 0}.word(draw++) % 30000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (!c.resume(path("f"))) continue;
    EXPECT_GE(number, last);
    last = number;
    EXPECT_EQ(std::count(many.begin(), many.end(), number), 1 << 15);
  }
  EXPECT_GT(last, 0);
}

TEST_F(CheckpointTest, APartThatFailsLateIsUndone) {
  struct Bomb {
    int64_t calls = 0, fail_at = 0;
    TensorFile state_dict() const { return {}; }
    void load_state_dict(const TensorFile&) {
      if (++calls == fail_at) throw std::bad_alloc();
    }
  } bomb;
  std::vector<double> list{1};
  double first = 2, last = 3;
  Checkpoint c;
  c.add("first", first).add("list", list).add("bomb", bomb).add("last", last);
  c.save(path("f"));
  for (const int64_t at : {1, 2}) {  // in the first pass over the parts, and in the second
    list = {7, 8};
    first = last = 9;
    manual_seed(77);
    bomb = {0, at};
    EXPECT_THROW(c.load(path("f")), std::bad_alloc);
    EXPECT_EQ(list, (std::vector<double>{7, 8}));
    EXPECT_EQ(first, 9);
    EXPECT_EQ(last, 9);
    EXPECT_EQ(generator_state().seed, 77u);
  }
  bomb = {};
  c.load(path("f"));
  EXPECT_EQ(last, 3);
}

// A part that breaks its promise and changes before it refuses is put back as well.
TEST_F(CheckpointTest, APartThatRefusesHalfwayIsUndone) {
  struct Half {
    int64_t value = 1, refused = 2;
    TensorFile state_dict() const { return {.tensors = {{"value", tensor({value})}}, .metadata = {}}; }
    void load_state_dict(const TensorFile& file) {
      value = file.at("value").to_vector<int64_t>()[0];
      if (value == refused) throw FormatError("not this one");
    }
  } half;
  Checkpoint c;
  c.add("half", half);
  half.value = 2;
  c.save(path("f"));
  half.value = 7;
  expect_refused(c, path("f"), {"part 'half'", "not this one"});
  EXPECT_EQ(half.value, 7);
}

// A schedule sets its optimizer's rate when it is loaded; a rate set by hand since then must survive.
TEST_F(CheckpointTest, TheFirstPartHasTheLastWord) {
  for (const bool schedule_first : {false, true}) {
    Training run(Kind::sgd);
    optim::SGD& sgd = dynamic_cast<optim::SGD&>(*run.optimizer);
    Checkpoint c;
    if (schedule_first)
      c.add("schedule", *run.schedule).add("optimizer", sgd);
    else
      c.add("optimizer", sgd).add("schedule", *run.schedule);
    const double scheduled = sgd.lr();
    sgd.set_lr(0.125);
    c.save(path("f"));
    sgd.set_lr(0.5);
    c.load(path("f"));
    EXPECT_EQ(sgd.lr(), schedule_first ? scheduled : 0.125);
  }
}

}  // namespace
}  // namespace hone::train
