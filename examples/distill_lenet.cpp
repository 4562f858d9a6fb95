// Knowledge distillation on Fashion-MNIST: what a student of 8,188 parameters gains from a LeNet of twice the usual
// width on 1, 10 and 100 % of the training images, with the other images as an unlabelled transfer set, and as a
// student that equals its teacher. All students of a part take the same number of steps over the same images. --tune
// tries settings by images held out of the training set and reads no test image; without it the test images are read
// once for each network, as reloaded from its file.

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "fashion.h"

using namespace hone;
using compress::Taps;
using compress::Teacher;
using compress::TeacherCache;

namespace {

struct Options {
  CommonOptions common;
  int64_t seeds = 3, epochs = 0;
  std::vector<std::string> only;
  bool tune = false;
};

constexpr int64_t kBatch = 64, kTeachers = 3;
constexpr double kLr = 4e-3, kTeacherLr = 2e-3, kTeacherWidth = 2, kMixup = 0.2, kTemperature = 2;

enum class Shown { plain, augmented, unlabelled };
enum class Teaches { nobody, one, all };

/// What students are trained on.
struct Part {
  std::string name;
  int64_t images = 0;          ///< with labels
  Shown shown = Shown::plain;  ///< these alone; each shifted and mirrored too; or all others as well, without labels
  bool equal = false;          ///< the student is as large as its teacher
  int64_t epochs = 0;          ///< of students: passes over as many images as have labels
  int64_t teacher_epochs = 0;  ///< equal for equal images
};
const std::vector<Part> kParts = {
    {.name = "1%", .images = 550, .epochs = 300, .teacher_epochs = 200},
    {.name = "1%+unlabelled", .images = 550, .shown = Shown::unlabelled, .epochs = 300, .teacher_epochs = 200},
    {.name = "10%", .images = 5500, .epochs = 60, .teacher_epochs = 40},
    {.name = "10%+unlabelled", .images = 5500, .shown = Shown::unlabelled, .epochs = 60, .teacher_epochs = 40},
    {.name = "10%+augmented", .images = 5500, .shown = Shown::augmented, .epochs = 60, .teacher_epochs = 40},
    {.name = "10%+equal", .images = 5500, .equal = true, .epochs = 40, .teacher_epochs = 40},
    {.name = "100%", .images = 55000, .epochs = 8, .teacher_epochs = 8},
};

/// How a student is taught, and the one setting that --tune tries values of.
struct Method {
  std::string name;
  Teaches teacher = Teaches::one;
  std::string setting = {};
  double value = 0;
  std::vector<double> candidates = {};
  bool needs_labels = false;  ///< of every image
  bool only_small = false;    ///< of the part "10%" alone
};
const std::vector<Method> kMethods = {
    {.name = "alone", .teacher = Teaches::nobody, .needs_labels = true},
    {.name = "soft", .setting = "temperature", .value = 2, .candidates = {1, 2, 4}},
    {.name = "teacher_class"},
    {.name = "ensemble", .teacher = Teaches::all, .setting = "temperature", .value = 2, .candidates = {1, 2, 4}},
    {.name = "decoupled",
     .setting = "beta",
     .value = 2,
     .candidates = {0.5, 2, 8},
     .needs_labels = true,
     .only_small = true},
    {.name = "hint", .setting = "weight", .value = 1, .candidates = {0.1, 1, 10}, .only_small = true},
    {.name = "attention", .setting = "weight", .value = 1000, .candidates = {100, 1000, 10000}, .only_small = true},
    {.name = "relational", .setting = "weight", .value = 1, .candidates = {0.1, 1, 10}, .only_small = true},
    {.name = "mutual",
     .teacher = Teaches::nobody,
     .setting = "weight",
     .value = 1,
     .candidates = {0.5, 1, 2},
     .needs_labels = true,
     .only_small = true},
    {.name = "self",
     .teacher = Teaches::nobody,
     .setting = "alpha",
     .value = 0.5,
     .candidates = {0.2, 0.5, 0.8},
     .needs_labels = true,
     .only_small = true},
};

/// LeNet's layers, with more of the few parameters in the convolutions than a LeNet of small width has.
nn::LeNet small_lenet() {
  nn::LeNet net({.width = 0.1});
  net.conv1 = nn::Conv2d({.in = 3, .out = 4, .kernel = 5});
  net.conv2 = nn::Conv2d({.in = 4, .out = 10, .kernel = 5});
  net.fc1 = nn::Linear({.in = 250, .out = 24});
  net.fc2 = nn::Linear({.in = 24, .out = 24});
  net.fc3 = nn::Linear({.in = 24, .out = 10});
  return net;
}

/// Every image shifted by up to one pixel each way, and mirrored: 18 images for one.
data::Dataset shifted_and_mirrored(const data::Dataset& images) {
  const int64_t side = 28, kinds = 18, n = images.size();
  const Tensor x = zeros({n * kinds, 1, side, side}, u8), y = empty({n * kinds}, i64);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t kind = 0; kind < kinds; ++kind) {
      const int64_t dy = kind / 6 - 1, dx = kind / 2 % 3 - 1;
      const uint8_t* from = images.all_inputs().data<uint8_t>() + images.row(i) * side * side;
      uint8_t* to = x.data<uint8_t>() + (i * kinds + kind) * side * side;
      for (int64_t r = std::max<int64_t>(0, -dy); r < std::min(side, side - dy); ++r)
        for (int64_t c = std::max<int64_t>(0, -dx); c < std::min(side, side - dx); ++c)
          to[r * side + (kind % 2 ? side - 1 - c : c)] = from[(r + dy) * side + c + dx];
      y.data<int64_t>()[i * kinds + kind] = images.all_targets().data<int64_t>()[images.row(i)];
    }
  return {x, y};
}

/// All images; those that are not in `labelled` have the label −100, which is none.
data::Dataset with_labels_of(const data::Dataset& all, const data::Dataset& labelled) {
  const Tensor y = full(all.all_targets().shape(), -100, i64);
  for (int64_t i = 0; i < labelled.size(); ++i)
    y.data<int64_t>()[labelled.row(i)] = all.all_targets().data<int64_t>()[labelled.row(i)];
  std::vector<int64_t> rows(static_cast<size_t>(all.size()));
  for (int64_t i = 0; i < all.size(); ++i) rows[static_cast<size_t>(i)] = all.row(i);
  return data::Dataset(all.all_inputs(), y).subset(std::move(rows));
}

/// `steps` steps of Adam under a one-cycle schedule; loss(batch, step), and what follows a step.
template <class Loss, class After>
void fit(const std::vector<ParameterRef>& parameters, data::Loader& batches, int64_t steps, double lr, const Loss& loss,
         const After& after) {
  optim::Adam adam(parameters, {.lr = lr});
  optim::OneCycle schedule(adam, {.max_lr = lr, .steps = steps});
  int64_t step = 0;
  while (step < steps)
    for (const data::Batch& batch : batches) {
      Tensor l = loss(batch, step);
      adam.zero_grad();
      l.backward();
      adam.step();
      schedule.step();
      after();
      if (++step == steps) break;
    }
}

/// One seed's labelled images, the teachers that learnt from them, and their answers.
class Task {
 public:
  Task(const Part& part, uint64_t seed, const data::Dataset& all)
      : seed_(seed), teacher_epochs_(part.teacher_epochs), all_(all), labelled_(all) {
    const double share = static_cast<double>(part.images) / static_cast<double>(all.size());
    if (share < 1) labelled_ = data::random_split(all, {share}, seed)[0];
  }

  /// Trained with mixup on shifted and mirrored images: whoever teaches may use every means.
  const nn::LeNet& teacher_net(size_t k) {
    if (nets_[k]) return *nets_[k];
    const uint64_t seed = seed_ + 1000 * k;
    manual_seed(seed);
    nn::LeNet net({.width = kTeacherWidth});
    data::Loader batches(
        labelled_,
        {.batch = kBatch, .shuffle = true, .seed = seed, .drop_last = true, .transform = fashion_transforms("crop")});
    const auto loss = [&](const data::Batch& batch, int64_t step) {
      const auto [x, y] = data::mixup(batch, {.classes = 10, .alpha = kMixup, .seed = seed}, step);
      return cross_entropy(net(x), y);
    };
    fit(net.parameters(), batches, teacher_epochs_ * batches.size(), kTeacherLr, loss, [] {});
    return nets_[k].emplace(std::move(net));
  }
  compress::Ensemble ensemble() {
    compress::Ensemble all;
    for (size_t k = 0; k < nets_.size(); ++k) all.add(teacher_net(k));
    return all;
  }

  /// The images that a part's students see, and what their teacher says of each.
  const TeacherCache& answers(Shown shown, Teaches teacher) {
    std::optional<TeacherCache>& cache = caches_[{shown, teacher}];
    if (cache) return *cache;
    const data::Dataset images = shown == Shown::augmented    ? shifted_and_mirrored(labelled_)
                                 : shown == Shown::unlabelled ? with_labels_of(all_, labelled_)
                                                              : labelled_;
    const compress::TeacherCacheOptions options{.transform = fashion_transforms()};
    if (teacher == Teaches::nobody) return cache.emplace(zeros({images.size(), 10}), images, options);
    return cache.emplace(teacher == Teaches::one ? Teacher(teacher_net(0)) : Teacher(ensemble()), images, options);
  }

  nn::LeNet student(const Part& part, const Method& m, double value, int64_t epochs) {
    const TeacherCache& cache = answers(part.shown, m.teacher);
    data::Loader batches = cache.loader({.batch = kBatch, .shuffle = true, .seed = seed_, .drop_last = true});
    manual_seed(seed_);  // every method starts from the same weights
    const auto untrained = [&] { return part.equal ? nn::LeNet({.width = kTeacherWidth}) : small_lenet(); };
    nn::LeNet net = untrained();
    std::vector<ParameterRef> learning = net.parameters();
    const auto learns_too = [&](nn::Module& other) {
      for (const ParameterRef& p : other.parameters()) learning.push_back(p);
    };
    const int64_t steps = std::max<int64_t>(1, epochs * part.images / kBatch);
    using Loss = std::function<Tensor(const Tensor& x, const Tensor& s, const Tensor& t, const Tensor& labels)>;
    const auto fit_with = [&](
                              const Loss& loss, const std::function<void()>& after = [] {}) {
      const auto of_batch = [&](const data::Batch& b, int64_t) {
        return loss(b.inputs, net(b.inputs), cache.logits(b.targets), cache.targets(b.targets));
      };
      fit(learning, batches, steps, kLr, of_batch, after);
      return net;
    };
    using In = const Tensor&;

    if (m.name == "alone") return fit_with([](In, In s, In, In y) { return cross_entropy(s, y); });
    if (m.name == "soft" || m.name == "ensemble")
      return fit_with([&](In, In s, In t, In y) { return compress::kd_loss(s, t, y, {.temperature = value}); });
    if (m.name == "teacher_class")
      return fit_with([](In, In s, In t, In) { return compress::teacher_class_loss(s, t); });
    if (m.name == "decoupled")
      return fit_with([&](In, In s, In t, In y) {
        return cross_entropy(s, y) + compress::decoupled_kd_loss(s, t, y, {.temperature = kTemperature, .beta = value});
      });
    if (m.name == "mutual") {
      nn::LeNet peer = untrained();
      learns_too(peer);
      return fit_with([&](In x, In s, In, In y) { return compress::mutual_loss({s, peer(x)}, y, {.weight = value}); });
    }
    if (m.name == "self") {
      compress::SelfTeacher average(net, {.decay = 0.99});
      return fit_with(
          [&](In x, In s, In, In y) {
            return compress::kd_loss(s, average.logits(x), y, {.temperature = kTemperature, .alpha = value});
          },
          [&] { average.update(); });
    }

    // What remains reads features, beside soft targets.
    const Teacher teacher(teacher_net(0));
    Taps of_net(net, {"conv1", "conv2", "fc2"}), of_teacher(teacher.network(), {"conv1", "conv2", "fc2"});
    const auto ours = [&](int64_t i) { return relu(of_net[i]); };
    const auto theirs = [&](int64_t i) { return relu(of_teacher[i]); };
    const auto fit_features = [&](const std::function<Tensor()>& features) {
      return fit_with([&](In x, In s, In t, In y) {
        teacher.logits(x);
        return compress::kd_loss(s, t, y, {.temperature = kTemperature}) + value * features();
      });
    };
    if (m.name == "hint") {
      nn::AnyModule regressor = compress::hint_regressor({1, net.conv2.out(), 5, 5}, {1, nets_[0]->conv2.out(), 5, 5});
      learns_too(*regressor);
      return fit_features(
          [&] { return compress::hint_loss(regressor(max_pool2d(ours(1), 2)), max_pool2d(theirs(1), 2)); });
    }
    if (m.name == "attention")
      return fit_features([&] {
        return compress::attention_transfer_loss(ours(0), theirs(0)) +
               compress::attention_transfer_loss(ours(1), theirs(1));
      });
    return fit_features([&] { return compress::relational_kd_loss(ours(2), theirs(2), {.distance = 1, .angle = 2}); });
  }

 private:
  uint64_t seed_;
  int64_t teacher_epochs_;
  data::Dataset all_, labelled_;
  std::array<std::optional<nn::LeNet>, kTeachers> nets_;
  std::map<std::pair<Shown, Teaches>, std::optional<TeacherCache>> caches_;
};

/// Accuracies over the seeds.
struct Row {
  std::string name;
  Figures held_out = {}, test = {}, seconds = {};
};

/// Prints a row, and keeps it for the JSON file. `baseline`: a row of this part that gains are taken from, or nullptr.
void report(const Row& row, const Row* baseline, train::Results& results) {
  train::Record& to = results.rows.emplace_back();
  to.set("name", row.name)
      .set("validation_accuracy_mean", row.held_out.mean())
      .set("validation_accuracy_sd", row.held_out.sd());
  std::printf("%-36s %6.2f +- %.2f", row.name.c_str(), 100 * row.held_out.mean(), 100 * row.held_out.sd());
  const bool tested = !row.test.values.empty();
  if (tested) {
    to.set("test_accuracy_mean", row.test.mean()).set("test_accuracy_sd", row.test.sd());
    std::printf("   %6.2f +- %.2f", 100 * row.test.mean(), 100 * row.test.sd());
  }
  to.set("seconds", row.seconds.mean());
  std::printf(" %7.1f s", row.seconds.mean());
  if (baseline) {
    const double gain =
        tested ? row.test.mean() - baseline->test.mean() : row.held_out.mean() - baseline->held_out.mean();
    to.set("gain_points", 100 * gain);
    std::printf("  %+6.2f", 100 * gain);
  }
  std::printf("\n");
  std::fflush(stdout);
}

bool wanted(const Options& o, const Part& part, const Method& m) {
  if (m.needs_labels && part.shown == Shown::unlabelled) return false;
  if (m.only_small && part.name != "10%") return false;
  return o.only.empty() || std::any_of(o.only.begin(), o.only.end(), [&](const std::string& name) {
           return name == part.name || name == m.name || name == part.name + "/" + m.name;
         });
}

void run(const Options& o) {
  const auto fashion = data::FashionMNIST::open(o.common.data);
  const auto split = data::random_split(fashion.train, {5.5 / 6, 0.5 / 6}, 1);
  const data::Dataset &all = split[0], &held_out = split[1];
  train::Results results{.job = "distill_lenet", .figures = {}, .settings = {}, .rows = {}};
  const Stopwatch total;
  std::map<int64_t, std::vector<Task>> tasks;  // by number of images with labels
  // The latest students of that many labels and that size without a teacher: gains are over these.
  std::map<std::pair<int64_t, bool>, Row> alone;
  std::set<std::pair<int64_t, Teaches>> shown_teachers;
  std::printf("%-36s %15s %17s %9s   gain\n", "accuracy, %", "held out", o.tune ? "" : "test", "");

  for (const Part& part : kParts) {
    std::vector<Task>& seeds = tasks[part.images];
    const auto score = [&](const std::string& name, const auto& network) {
      for (int64_t s = std::ssize(seeds); s < o.seeds; ++s)
        seeds.emplace_back(part, o.common.seed + static_cast<uint64_t>(s), all);
      Row row{.name = part.name + "/" + name};
      for (Task& task : seeds) {
        const Stopwatch watch;
        auto net = network(task);
        row.seconds.values.push_back(watch.seconds());
        row.held_out.values.push_back(evaluate(net, held_out).accuracy);
        if (!o.tune) row.test.values.push_back(test_accuracy_of_saved(net, fashion.test));
      }
      return row;
    };
    for (const Method& m : kMethods) {
      if (!wanted(o, part, m)) continue;
      if (m.teacher != Teaches::nobody && shown_teachers.emplace(part.images, m.teacher).second)
        report(m.teacher == Teaches::one ? score("teacher", [](Task& task) { return task.teacher_net(0); })
                                         : score("teachers", [](Task& task) { return task.ensemble(); }),
               nullptr, results);
      for (const double value : o.tune && !m.candidates.empty() ? m.candidates : std::vector<double>{m.value}) {
        const std::string name = o.tune && !m.setting.empty() ? str(m.name, ", ", m.setting, " ", value) : m.name;
        const Row row = score(
            name, [&](Task& task) { return task.student(part, m, value, o.epochs > 0 ? o.epochs : part.epochs); });
        const auto baseline = alone.find({part.images, part.equal});
        report(row, m.name == "alone" || baseline == alone.end() ? nullptr : &baseline->second, results);
        if (m.name == "alone") alone[{part.images, part.equal}] = row;
      }
    }
  }
  results.figures.set("student_parameters", small_lenet().parameter_count()).set("seconds", total.seconds());
  results.settings.set("teacher_width", kTeacherWidth)
      .set("teachers", kTeachers)
      .set("batch", kBatch)
      .set("lr", kLr)
      .set("teacher_lr", kTeacherLr)
      .set("epochs", o.epochs)
      .set("seed", o.common.seed)
      .set("seeds", o.seeds)
      .set("threads", o.common.threads)
      .set("scored_on", o.tune ? "held out" : "test");
  std::printf("%.0f s\n", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What a small LeNet gains from a larger one on Fashion-MNIST.", "distill_lenet");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  std::vector<std::string> names;
  for (const Method& m : kMethods) names.push_back(m.name);
  for (const Part& part : kParts) {
    names.push_back(part.name);
    for (const Method& m : kMethods) names.push_back(part.name + "/" + m.name);
  }
  app.add_option("--seeds", o.seeds, "Runs of each row, from --seed upwards")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--epochs", o.epochs, "Students' passes over as many images as have labels; 0: each part's own")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  app.add_option("--only", o.only, "These alone: PART, METHOD or PART/METHOD,…")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  app.add_flag("--tune", o.tune, "Try each method's settings on the held-out images; no test image is read");
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
