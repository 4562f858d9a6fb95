// Teachers: copies that do not touch their originals, ensembles, averages of the student, cached answers, taps.

#include <set>

#include "regularizer_support.h"

namespace hone {
namespace {

using namespace compress;
using regularizer_test::expect_error;
using regularizer_test::values;

struct Net : nn::Module {
  nn::Conv2d conv{{.in = 1, .out = 3, .kernel = 3}};
  nn::BatchNorm2d norm{{.features = 3}};
  nn::Dropout drop{{.p = 0.5}};
  nn::Linear fc{{.in = 12, .out = 4}};
  HONE_MODULE(Net, conv, norm, drop, fc)
  Tensor forward(const Tensor& x) { return fc(drop(flatten(relu(norm(conv(x))), 1))); }
};

std::string bytes_of(nn::Module& m) {
  std::string all;
  for (const auto& [name, t] : m.state_dict().tensors)
    for (double v : values(t)) all += str(v, ' ');
  return all;
}

TEST(Teacher, TouchesNothingOfItsModule) {
  manual_seed(1);
  Net net;
  const Tensor x = randn({5, 1, 4, 4});
  net(x);  // running statistics of its own
  sum(net(x)).backward();
  const std::string before = bytes_of(net);
  const Tensor gradient = clone(net.fc.weight.grad());
  const Teacher teacher(net);
  const Tensor z = teacher.logits(x);
  EXPECT_TRUE(net.training());
  EXPECT_TRUE(net.drop.training());
  EXPECT_TRUE(net.fc.weight.raw().requires_grad());
  EXPECT_TRUE(equal(net.fc.weight.grad(), gradient));
  EXPECT_EQ(bytes_of(net), before);

  EXPECT_FALSE(z.requires_grad());
  EXPECT_TRUE(equal(z, teacher.logits(x)));  // no dropout, no new statistics
  net.eval();
  EXPECT_TRUE(equal(z, net(x).detach()));
  optim::SGD sgd(net.parameters(), {.lr = 1});
  sgd.step();
  EXPECT_FALSE(equal(net(x).detach(), z));
  EXPECT_TRUE(equal(teacher.logits(x), z));  // its own copy
  Teacher copy = teacher;
  copy.network().requires_grad_(true);
  EXPECT_FALSE(teacher.network().parameters()[0].raw().requires_grad());
}

TEST(Teacher, TeachesAStudentThatIsPruned) {
  manual_seed(2);
  nn::Linear wide({.in = 20, .out = 3}), student = wide;
  const Teacher teacher(wide);
  nn::init::constant_(student.weight, 0.1);
  optim::Adam adam(student.parameters(), {.lr = 0.05});
  Pruner pruner(student, {.criterion = taylor(), .density = 0.4, .schedule = CubicRamp{.end = 40, .every = 10}});
  const Tensor x = randn({64, 20});
  double first = 0, last = 0;
  for (int step = 0; step < 200; ++step) {
    const Tensor loss = kd_loss(student(x), teacher.logits(x), {}, {.temperature = 2, .alpha = 1});
    adam.zero_grad();
    loss.backward();
    pruner.observe();
    adam.step();
    pruner.step();
    (step == 0 ? first : last) = loss.item();
  }
  EXPECT_LT(last, 0.5 * first);
  const Tensor mask = student.weight.ref().mask();
  EXPECT_EQ(sum(mask).item<int64_t>(), 24);
  EXPECT_TRUE(equal(student.weight.value(), student.weight.value() * cast(mask, f32)));
}

/// The whole network, and features inside it.
TEST(Teacher, MayBeASavedGraph) {
  manual_seed(9);
  nn::LeNet net;
  const Tensor x = randn({4, 3, 32, 32});
  const test::TempDir dir;
  graph::save(graph::trace(net, x), dir / "teacher.safetensors");
  graph::Network loaded = graph::load(dir / "teacher.safetensors");
  EXPECT_TRUE(equal(Teacher(loaded).logits(x), Teacher(net).logits(x)));

  const NoGrad no_grad;
  Taps taps(net, {"conv2", "fc2"});
  net(x);
  const auto output_of = [&](const char* node) { return loaded.nodes()[loaded.find_node(node)].outputs[0]; };
  loaded.set_outputs({output_of("conv2"), output_of("fc2")});
  const std::vector<Tensor> features = loaded.run({x});
  EXPECT_TRUE(equal(features[0], taps[0]) && equal(features[1], taps[1]));
  expect_error<ValueError>([&] { Taps(loaded, {"conv2"}); }, {"conv2", "set_outputs"});
}

TEST(Ensemble, IsAModuleOfCopies) {
  manual_seed(3);
  nn::Linear a({.in = 4, .out = 3}), b = a;
  nn::init::constant_(b.weight, 0.1);
  Ensemble both({.temperature = 2, .weights = {1, 3}});
  both.add(a).add(b);
  const Tensor x = randn({5, 4});
  const std::vector<Tensor> z = {a(x), b(x)};
  const Tensor want = ensemble_logits(z, both.options).detach();
  EXPECT_TRUE(equal(both(x).detach(), want));
  EXPECT_EQ(both.named_parameters()[2].name, "members.1.weight");
  const Teacher teacher(both);
  nn::init::constant_(a.weight, 0);
  EXPECT_TRUE(equal(teacher.logits(x), want));

  const test::TempDir dir;
  both.save(dir / "both.safetensors");
  Ensemble other = both;
  other.members[0]->parameters()[0].replace(zeros({3, 4}));
  EXPECT_FALSE(equal(other(x).detach(), want));
  other.load(dir / "both.safetensors");
  EXPECT_TRUE(equal(other(x).detach(), want));

  Ensemble none;
  expect_error<ValueError>([&] { none(x); }, "no members");
  both.add(nn::Linear({.in = 4, .out = 2}));
  both.options.weights = {};
  expect_error<ShapeError>([&] { both(x); }, {"member 2", "[5, 2]"});
}

TEST(SelfTeacher, IsTheMovingAverage) {
  manual_seed(4);
  Net student;
  const Tensor x = randn({6, 1, 4, 4});
  SelfTeacher teacher(student, {.decay = 0.75, .warmup = false});
  const Tensor at_first = teacher.logits(x);
  {
    Net copy = student;
    copy.eval();
    EXPECT_TRUE(equal(at_first, copy(x).detach()));
  }
  optim::SGD sgd(student.parameters(), {.lr = 0.1});
  std::vector<double> average;
  for (int step = 0; step < 5; ++step) {
    const Tensor loss = kd_loss(student(x), teacher.logits(x), tensor({0, 1, 2, 3, 0, 1}));
    sgd.zero_grad();
    loss.backward();
    sgd.step();
    teacher.update();
    const auto w = values(student.fc.weight.raw());
    if (step == 0) average = w;
    for (size_t i = 0; i < w.size(); ++i) average[i] += 0.25 * (w[i] - average[i]);
  }
  test::expect_close(values(teacher.network().named_parameters()[4].parameter.raw()), average, {1e-5, 1e-6},
                     "fc.weight");
  EXPECT_EQ(teacher.network().named_parameters()[4].name, "fc.weight");
  EXPECT_TRUE(
      equal(teacher.network().named_buffers()[0].buffer->tensor(), student.named_buffers()[0].buffer->tensor()));
  EXPECT_FALSE(teacher.network().training());
  EXPECT_TRUE(student.training());
  EXPECT_FALSE(equal(teacher.logits(x), at_first));
  student.fc.weight.ref().replace(zeros({2, 12}));
  expect_error<GradError>([&] { teacher.update(); }, {"'fc.weight'", "changed its shape", "[2, 12]"});
}

int64_t nonzero(const Tensor& t) { return sum(cast(ne(t, 0), i64)).item<int64_t>(); }

TEST(SelfTeacher, IsPrunedWithItsStudent) {
  manual_seed(14);
  nn::Linear student({.in = 12, .out = 10});
  const Tensor x = randn({6, 12});
  SelfTeacher teacher(student, {.decay = 0.5, .warmup = false});
  const ParameterRef w = student.weight.ref(), taught = teacher.network().parameters()[0];
  optim::SGD sgd(student.parameters(), {.lr = 0.1});
  Pruner pruner(student, {.density = 0.2, .schedule = CubicRamp{.begin = 0, .end = 4, .every = 1}});
  std::vector<double> average;
  for (int step = 0; step < 5; ++step) {
    sum(square(student(x))).backward();
    sgd.step();
    sgd.zero_grad();
    pruner.step();
    teacher.update();
    const auto raw = values(w.raw());
    if (step == 0) average = raw;
    for (size_t i = 0; i < raw.size(); ++i) average[i] += 0.5 * (raw[i] - average[i]);
    EXPECT_EQ(nonzero(taught.value()), nonzero(w.value())) << step;
    EXPECT_TRUE(equal(taught.mask(), w.mask())) << step;
  }
  EXPECT_EQ(nonzero(taught.value()), 24);
  EXPECT_FALSE(taught.raw().requires_grad());
  // The average goes on under the mask.
  test::expect_close(values(taught.raw()), average, {1e-5, 1e-6}, "average");
  const auto kept = w.mask().to_vector<double>();
  for (size_t i = 0; i < average.size(); ++i) average[i] *= kept[i];
  test::expect_close(values(taught.value()), average, {1e-5, 1e-6}, "masked average");

  // Pruned by hand; another mask; none any more.
  w.set_mask(zeros({10, 12}, DType::boolean), MaskGradient::dense);
  teacher.update();
  EXPECT_EQ(nonzero(taught.value()), 0);
  EXPECT_EQ(taught.mask_gradient(), MaskGradient::dense);
  w.set_mask(ones({10, 12}, DType::boolean));
  prune(student, {.density = 0.5});
  teacher.update();
  EXPECT_EQ(nonzero(taught.value()), 60);
  w.bake();
  teacher.update();
  EXPECT_EQ(taught.type(), WeightType::dense);
}

TEST(SelfTeacher, FollowsGridsAndRefusesOtherShapesByName) {
  manual_seed(15);
  Net student;
  SelfTeacher teacher(student, {.decay = 0.5, .warmup = false});
  teacher.update();
  const ParameterRef w = student.fc.weight.ref(), taught = teacher.network().named_parameters()[4].parameter;
  w.set_grid({full({1}, 0.05), tensor({0.0, -8.0, 7.0, 0.0}, {1, 4})});
  teacher.update();
  EXPECT_EQ(taught.type(), WeightType::fake_quantized);
  EXPECT_TRUE(equal(taught.value(), w.value()));  // the average of equal values is they
  Tensor(w.scale().raw()).detach().fill_(0.1);
  teacher.update();
  EXPECT_TRUE(equal(taught.value(), w.value()));

  // What has no average: nothing changes, not even the parameters before it.
  const auto refused = [&](Net& of, SelfTeacher& by, const std::string& name) {
    of.conv.weight.ref().replace(randn(of.conv.weight.shape()));
    const std::string before = bytes_of(by.network());
    expect_error<GradError>([&] { by.update(); }, {"SelfTeacher.update", "'" + name + "'", "new SelfTeacher"});
    EXPECT_EQ(bytes_of(by.network()), before);
  };
  Net coded, shrunk;
  SelfTeacher of_coded(coded), of_shrunk(shrunk);
  const Tensor codes = cast(randint(0, 3, {4, 12}), DType::u8);
  coded.fc.weight.ref().set_codebook(codes, tensor(std::vector<float>{-1, 0, 1}));
  refused(coded, of_coded, "fc.weight");
  shrunk.fc.bias.ref().shrink(0, {0, 1});
  refused(shrunk, of_shrunk, "fc.bias");
  Net normed;
  SelfTeacher of_normed(normed);
  normed.norm.running_mean = Buffer(zeros({2}));
  normed.conv.weight.ref().replace(randn(normed.conv.weight.shape()));
  const std::string before = bytes_of(of_normed.network());
  expect_error<ShapeError>([&] { of_normed.update(); }, {"SelfTeacher.update", "'norm.running_mean'", "[2]", "[3]"});
  EXPECT_EQ(bytes_of(of_normed.network()), before);

  // A codebook that was there when the teacher was made: the average is of its centroids.
  SelfTeacher again(coded, {.decay = 0.5, .warmup = false});
  again.update();
  Tensor centroids = coded.fc.weight.raw().detach();
  centroids.copy_(tensor(std::vector<float>{-3, 0, 2}));
  again.update();
  const ParameterRef average = again.network().named_parameters()[4].parameter;
  EXPECT_EQ(values(average.raw()), (std::vector<double>{-2, 0, 1.5}));
  EXPECT_TRUE(equal(average.codes(), codes));
}

/// Sample i is an image of value i, of class i mod 4.
data::Dataset images(int64_t n) {
  Tensor x = empty({n, 1, 4, 4}), y = empty({n}, i64);
  for (int64_t i = 0; i < n; ++i) {
    std::fill_n(x.data<float>() + i * 16, 16, static_cast<float>(i) / 10);
    y.data<int64_t>()[i] = i % 4;
  }
  return {x, y};
}

void expect_answers(const TeacherCache& cache, const Teacher& teacher, data::LoaderOptions options, int64_t shown) {
  data::Loader batches = cache.loader(std::move(options));
  for (int epoch = 0; epoch < 3; ++epoch) {
    int64_t seen = 0;
    for (auto& [x, samples] : batches) {
      seen += x.size(0);
      // The same images in other batches: matrix products may differ in their last bits.
      test::expect_close(cache.logits(samples), teacher.logits(x), {1e-5, 1e-5}, "logits");
      for (int64_t i = 0; i < x.size(0); ++i) {
        const int64_t number = std::lround(10 * x.data<float>()[i * 16]);
        EXPECT_EQ(cache.targets(samples).to_vector<int64_t>()[static_cast<size_t>(i)], number % 4);
      }
    }
    EXPECT_EQ(seen, shown);
  }
}

TEST(TeacherCache, FindsTheAnswersInAnyOrder) {
  manual_seed(5);
  Net net;
  const Teacher teacher(net);
  const data::Dataset all = images(57);
  const TeacherCache cache(teacher, all, {.batch = 10});
  EXPECT_EQ(to_string(cache.all_logits().shape()), "[57, 4]");
  std::set<double> distinct;
  for (double v : values(select(cache.all_logits(), 1, 0))) distinct.insert(v);
  EXPECT_GT(distinct.size(), 50u);  // the answers tell the samples apart
  expect_answers(cache, teacher, {.batch = 8}, 57);
  expect_answers(cache, teacher, {.batch = 8, .shuffle = true, .seed = 3}, 57);
  expect_answers(cache, teacher, {.batch = 5, .sampler = data::class_aware_sampler(all, 100), .seed = 4}, 100);

  // A subset, out of order, with samples that repeat: numbers are those of the subset.
  const data::Dataset some = all.subset({50, 3, 3, 17, 56, 0, 50});
  const TeacherCache part(teacher, some);
  EXPECT_EQ(part.targets(arange(0, 7)).to_vector<int64_t>(), (std::vector<int64_t>{2, 3, 3, 1, 0, 0, 2}));
  expect_answers(part, teacher, {.batch = 3, .shuffle = true, .seed = 5}, 7);
  expect_answers(part, teacher, {.batch = 2, .sampler = data::weighted_sampler(std::vector<double>(7, 1.0), 20)}, 20);

  const TeacherCache again(cache.all_logits(), all);
  expect_answers(again, teacher, {.batch = 8, .shuffle = true, .seed = 6}, 57);
}

TEST(TeacherCache, TransformsAreThoseOfTheTeacher) {
  manual_seed(6);
  Net net;
  const Teacher teacher(net);
  const TeacherCache cache(teacher, images(9), {.transform = {data::normalize(0.5, 0.25)}});
  data::Loader batches = cache.loader({.batch = 9});
  for (auto& [x, samples] : batches) {
    EXPECT_NEAR(x.data<float>()[0], -2, 1e-6);
    test::expect_close(cache.logits(samples), teacher.logits(x), {1e-6, 1e-6}, "logits");
  }
}

/// Sample i's rows rise from i, so that a mirrored image is told by its first row.
data::Dataset slopes(int64_t n, DType dtype) {
  Tensor x = empty({n, 1, 4, 4}), y = empty({n}, i64);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < 16; ++k) x.data<float>()[i * 16 + k] = static_cast<float>(10 * i + k % 4);
    y.data<int64_t>()[i] = i % 4;
  }
  return {cast(x, dtype), y};
}

TEST(TeacherCache, AnswersForMirrorsToo) {
  manual_seed(8);
  Net net;
  const Teacher teacher(net);
  for (const DType dtype : {DType::u8, DType::f32}) {
    const double scale = dtype == DType::u8 ? 255 : 1;
    const data::Dataset all = slopes(23, dtype), some = all.subset({20, 3, 3, 7, 0});
    const data::Transforms steps{data::normalize(0.5, 0.25), data::random_flip(0.3)};
    for (const data::Dataset& samples : {all, some}) {
      const int64_t n = samples.size();
      const TeacherCache cache(teacher, samples, {.transform = steps, .batch = 7});
      EXPECT_EQ(cache.all_logits().shape(), (Shape{2 * n, 4}));
      const TeacherCache again(cache.all_logits(), samples, {.transform = steps});
      for (const TeacherCache* c : {&cache, &again}) {
        data::Loader shuffled = c->loader({.batch = 4, .shuffle = true, .seed = 9});
        data::Loader ordered = c->loader({.batch = 4, .seed = 9});
        data::Loader sampled = c->loader(
            {.batch = 4, .sampler = data::weighted_sampler(std::vector<double>(static_cast<size_t>(n), 1)), .seed = 9});
        for (data::Loader* batches : {&shuffled, &ordered, &sampled}) {
          int64_t shown = 0, mirrored = 0;
          std::vector<int64_t> times(static_cast<size_t>(n));
          for (int epoch = 0; epoch < 40; ++epoch)
            for (auto& [x, numbers] : *batches) {
              test::expect_close(c->logits(numbers), teacher.logits(x), {1e-5, 1e-5}, "logits");
              const auto which = numbers.to_vector<int64_t>(), labels = c->targets(numbers).to_vector<int64_t>();
              for (int64_t i = 0; i < x.size(0); ++i) {
                const float* row = x.data<float>() + i * 16;
                const bool mirror = row[0] > row[3];
                const double left = scale * (0.25 * row[mirror ? 3 : 0] + 0.5);  // the image's own left
                const auto number = which[static_cast<size_t>(i)];
                EXPECT_EQ(number >= n, mirror);
                EXPECT_EQ(std::lround(left), 10 * samples.row(number % n));
                EXPECT_EQ(labels[static_cast<size_t>(i)], samples.row(number % n) % 4);
                ++times[static_cast<size_t>(number % n)];
                ++shown, mirrored += mirror;
              }
            }
          EXPECT_EQ(shown, 40 * n);
          const double p = static_cast<double>(mirrored) / static_cast<double>(shown);
          EXPECT_NEAR(p, 0.3, 5 * std::sqrt(0.3 * 0.7 / static_cast<double>(shown)));
          if (batches != &sampled && n == 23) { EXPECT_EQ(times, std::vector<int64_t>(23, 40)); }
        }
      }
    }
  }
  const data::Dataset all = slopes(6, DType::f32);
  expect_error<ValueError>(
      [&] {
        TeacherCache(teacher, all, {.transform = {data::random_flip(), data::random_flip()}});
      },
      {"random_flip", "twice"});
  expect_error<ShapeError>(
      [&] {
        TeacherCache(zeros({6, 4}), all, {.transform = {data::random_flip()}});
      },
      {"[6, 4]", "[12, C]", "mirrors"});
  const TeacherCache cache(teacher, all, {.transform = {data::random_flip()}});
  expect_error<ValueError>([&] { cache.loader({.shuffle = true, .sampler = data::shuffled_sampler(6)}); },
                           {"shuffle", "sampler"});
  expect_error<ValueError>([&] { cache.logits(tensor({12})); },
                           {"TeacherCache.logits", "sample number 12", "[0, 12)", "mirrors"});
}

TEST(TeacherCache, MirrorsTheSamplesOfItsSubsetAlone) {
  manual_seed(11);
  Net net;
  const Teacher teacher(net);
  const int64_t n = 1 << 14;  // more than products have in scratch memory on any machine
  const data::Dataset all = slopes(n, DType::f32), some = all.subset({4000, 3, 3, 7, 0});
  const data::Transforms steps{data::random_flip(0.5)};
  const int64_t before = memory_stats().live_bytes;
  reset_peak_memory();
  const TeacherCache cache(teacher, some, {.transform = steps});
  EXPECT_LT(memory_stats().peak_bytes - before, n * 16 * 4) << "less than all images once";
  EXPECT_EQ(cache.targets(arange(0, 10)).to_vector<int64_t>(), (std::vector<int64_t>{0, 3, 3, 3, 0, 0, 3, 3, 3, 0}));
  data::Loader batches = cache.loader({.batch = 5});
  for (auto& [x, numbers] : batches) {
    // Samples 1 and 2 are one image, with one number.
    const auto which = numbers.to_vector<int64_t>();
    for (size_t i = 0; i < which.size(); ++i) {
      EXPECT_EQ(which[i] % 5, i == 2 ? 1 : static_cast<int64_t>(i));
      const float* row = x.data<float>() + i * 16;
      EXPECT_EQ(std::min(row[0], row[3]), static_cast<float>(10 * some.row(static_cast<int64_t>(i))));
    }
  }
}

TEST(TeacherCache, RefusesWhatItCannotAnswer) {
  Net net;
  const Teacher teacher(net);
  const data::Dataset all = images(6);
  for (const auto& [step, named] : {std::pair{data::random_crop(1), "random_crop"},
                                    {data::custom([](std::span<float>, const Shape&, const Philox&) {}), "custom"}}) {
    const TeacherCacheOptions options{.transform = {data::normalize(0, 1), step}};
    expect_error<ValueError>([&] { TeacherCache(teacher, all, options); }, {"TeacherCache", named, "on each batch"});
    expect_error<ValueError>([&] { TeacherCache(zeros({6, 4}), all, options); }, {"TeacherCache", named});
  }
  const TeacherCache cache(teacher, all);
  expect_error<ValueError>([&] { cache.loader({.transform = {data::random_flip()}}); }, "when the cache is made");
  expect_error<ValueError>(
      [&] {
        cache.logits(tensor({0, 6}));
      },
      {"TeacherCache.logits", "sample number 6", "position 1", "[0, 6)"});
  expect_error<ValueError>([&] { cache.targets(tensor({-1})); },
                           {"TeacherCache.targets", "sample number -1", "position 0", "[0, 6)"});
  expect_error<ValueError>([&] { cache.logits({}); }, {"TeacherCache.logits", "undefined"});
  expect_error<DTypeError>([&] { cache.logits(zeros({2})); }, {"TeacherCache.logits", "i64", "f32"});
  expect_error<ShapeError>([&] { cache.targets(zeros({2, 1}, i64)); }, {"TeacherCache.targets", "[n]", "[2, 1]"});
  expect_error<ShapeError>([&] { TeacherCache(zeros({5, 4}), all); }, {"[5, 4]", "6 samples"});
  expect_error<ValueError>([&] { TeacherCache(teacher, all.first(0)); }, "empty");
  Tensor silent = zeros({6, 4});
  silent.data<float>()[4 * 3 + 1] = std::nanf("");
  expect_error<NumericError>([&] { TeacherCache(silent, all); }, {"sample 3", "NaN"});
  struct Flat : nn::Module {
    HONE_MODULE(Flat)
    Tensor forward(const Tensor& x) { return flatten(x); }
  };
  expect_error<ShapeError>([&] { TeacherCache(Teacher(Flat()), all); }, {"[96]", "expected [n, C]"});
}

TEST(Taps, HoldWhatModulesReturned) {
  manual_seed(7);
  Net net;
  const Tensor x = randn({2, 1, 4, 4});
  Taps taps(net, {"conv", "fc"});
  expect_error<ValueError>([&] { taps[0]; }, {"'conv'", "not called"});
  const Tensor z = net(x);
  EXPECT_EQ(taps.size(), 2);
  EXPECT_TRUE(taps[1].is_same(z));
  EXPECT_TRUE(equal(taps[0].detach(), net.conv(x).detach()));
  sum(square(taps[0])).backward();  // the graph is there
  EXPECT_TRUE(net.conv.weight.grad().defined());
  EXPECT_FALSE(net.fc.weight.grad().defined());
  expect_error<ValueError>([&] { taps[2]; }, "2 of 2");
  expect_error<ValueError>([&] { Taps(net, {"conv", "fc9"}); }, {"'fc9'", "Net", "conv, norm, drop, fc"});

  const Tensor held = taps[1];
  taps = Taps(net, {"norm"});
  net(x);
  EXPECT_EQ(taps.size(), 1);
  EXPECT_EQ(to_string(taps[0].shape()), "[2, 3, 2, 2]");
  EXPECT_TRUE(held.is_same(z));
  Taps moved = std::move(taps);
  net(x * 2.0);
  EXPECT_EQ(moved.size(), 1);

  std::unique_ptr<Net> gone = std::make_unique<Net>();
  Taps last(*gone, {"fc"});
  (*gone)(x);
  gone.reset();
  EXPECT_EQ(to_string(last[0].shape()), "[2, 4]");

  const Teacher teacher(net);
  const Taps of_teacher(teacher.network(), {"conv"});
  teacher.logits(x);
  EXPECT_FALSE(of_teacher[0].requires_grad());
}

TEST(Distill, SameBitsAtAnyThreadCount) {
  const int threads = num_threads();
  std::vector<double> results[2];
  for (int k : {0, 1}) {
    set_num_threads(k == 0 ? 1 : 4);
    manual_seed(8);
    const Tensor s = randn({200, 50}).requires_grad_(), t = randn({200, 50}), y = randint(0, 50, {200});
    const Tensor loss = kd_loss(s, t, y) + decoupled_kd_loss(s, t, y) + relational_kd_loss(s, t);
    loss.backward();
    results[k] = values(s.grad());
    results[k].push_back(loss.item());
  }
  set_num_threads(threads);
  EXPECT_EQ(results[0], results[1]);
}

}  // namespace
}  // namespace hone
