// Knowledge distillation on Fashion-MNIST: what a student of 8,188 parameters gains from a LeNet of twice the usual
// width on 1, 10 and 100 % of the training images, with the other images as an unlabelled transfer set, and as a
// student that equals its teacher. Teachers have the part's labels and no others, but for one method that says so. All
// students of a part take the same number of steps. --held-out scores on images held out of the training set alone,
// --tune tries each method's settings there; otherwise the test images are read once for each network, as reloaded
// from its file. With --keep FOLDER a run can be made in pieces: what was trained before is loaded.

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "fashion.h"

using namespace hone;
using compress::Taps;
using compress::Teacher;
using compress::TeacherCache;

namespace {

struct Options {
  CommonOptions common;
  int64_t seeds = 3, steps = 0, teacher_steps = 0;
  std::vector<std::string> only;
  std::string keep;
  bool tune = false, held_out = false;
};

constexpr int64_t kBatch = 64;
constexpr uint64_t kTeachers = 3, kLargeSeed = 7;
constexpr double kLr = 4e-3, kTeacherLr = 2e-3, kTeacherWidth = 2, kMixup = 0.2, kTemperature = 2;

enum class Shown { labelled, augmented, unlabelled, mirrored };
enum class Teaches {
  nobody,
  one,       ///< a network that learnt from the labelled images
  ensemble,  ///< kTeachers of them
  large      ///< one network for all seeds, trained on the labels of all images: a model that exists already
};
constexpr const char* kTeacherNames[] = {"", "(its teacher)", "(its teachers)", "(the large teacher)"};

/// What students are trained on, and how.
struct Part {
  std::string name;
  int64_t images = 0;             ///< with labels
  Shown shown = Shown::labelled;  ///< these alone; each shifted and mirrored too; all, no label; mirrored at random
  bool equal = false;             ///< the student is as large as its teacher
  int64_t steps = 0;
  double temperature = 2;  ///< of soft targets; chosen by --tune, as the methods' settings
  std::vector<std::string> methods = {};
};
const std::vector<std::string> kAllMethods = {"alone",         "soft",      "teacher_class", "ensemble",
                                              "large_teacher", "decoupled", "hint",          "attention",
                                              "relational",    "mutual",    "self"};
const std::vector<Part> kParts = {
    {.name = "1%", .images = 550, .steps = 860, .methods = kAllMethods},
    {.name = "1%+unlabelled",
     .images = 550,
     .shown = Shown::unlabelled,
     .steps = 5160,
     .temperature = 1,
     .methods = {"ensemble"}},
    {.name = "10%", .images = 5500, .steps = 2580, .methods = kAllMethods},
    {.name = "10%+unlabelled",
     .images = 5500,
     .shown = Shown::unlabelled,
     .steps = 10320,
     .temperature = 1,
     .methods = {"soft", "teacher_class", "ensemble", "large_teacher"}},
    {.name = "10%+augmented",
     .images = 5500,
     .shown = Shown::augmented,
     .steps = 5160,
     .methods = {"alone", "soft", "ensemble"}},
    {.name = "10%+equal", .images = 5500, .equal = true, .steps = 2580, .methods = {"alone", "soft", "ensemble"}},
    {.name = "100%", .images = 55000, .steps = 10320, .temperature = 1, .methods = kAllMethods},
    {.name = "100%+mirrored",
     .images = 55000,
     .shown = Shown::mirrored,
     .steps = 34360,
     .methods = {"alone", "large_teacher"}},
};

int64_t teacher_steps(const Options& o, int64_t images) {
  return o.teacher_steps > 0 ? o.teacher_steps : images <= 550 ? 860 : images <= 5500 ? 3440 : 10320;
}

/// How a student is taught, and the one setting that --tune tries values of. A temperature is the part's own.
struct Method {
  std::string name;
  Teaches teacher = Teaches::one;
  std::string setting = {};
  double value = 0;
  std::vector<double> candidates = {};
};
const std::vector<Method> kMethods = {
    {.name = "alone", .teacher = Teaches::nobody},
    {.name = "soft", .setting = "temperature", .candidates = {1, 2, 4}},
    {.name = "teacher_class"},
    {.name = "ensemble", .teacher = Teaches::ensemble, .setting = "temperature", .candidates = {1, 2, 4}},
    {.name = "large_teacher", .teacher = Teaches::large, .setting = "temperature", .candidates = {1, 2, 4}},
    {.name = "decoupled", .setting = "beta", .value = 2, .candidates = {0.5, 2, 8}},
    {.name = "hint", .setting = "weight", .value = 10, .candidates = {0.1, 1, 10}},
    {.name = "attention", .setting = "weight", .value = 100, .candidates = {100, 1000, 10000}},
    {.name = "relational", .setting = "weight", .value = 1, .candidates = {0.1, 1, 10}},
    {.name = "mutual", .teacher = Teaches::nobody, .setting = "weight", .value = 0.5, .candidates = {0.5, 1, 2}},
    {.name = "self", .teacher = Teaches::nobody, .setting = "alpha", .value = 0.5, .candidates = {0.2, 0.5, 0.8}},
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

/// `steps` steps of Adam under a one-cycle schedule; loss(batch, step), and what follows a step.
template <class Loss>
void fit(const std::vector<ParameterRef>& parameters, data::Loader& batches, int64_t steps, double lr, const Loss& loss,
         const std::function<void()>& after = {}) {
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
      if (after) after();
      if (++step == steps) break;
    }
}

/// One seed's labelled images, the teachers that learnt from them, and their answers.
class Task {
 public:
  Task(const Options& o, int64_t images, uint64_t seed, const data::Dataset& all)
      : o_(o), seed_(seed), all_(all), labelled_(all) {
    const double share = static_cast<double>(images) / static_cast<double>(all.size());
    if (share < 1) labelled_ = data::random_split(all, {share}, seed)[0];
  }

  /// temperature: that of the loss, at which an ensemble's answers are averaged.
  compress::Ensemble teacher(Teaches who, double temperature) {
    compress::Ensemble teachers({.temperature = temperature});
    if (who == Teaches::large) return teachers.add(teacher_net(all_, kLargeSeed));
    for (uint64_t k = 0; k < (who == Teaches::ensemble ? kTeachers : 1); ++k)
      teachers.add(teacher_net(labelled_, seed_ + 1000 * k));
    return teachers;
  }

  nn::LeNet student(const Part& part, const Method& m, double value, int64_t steps) {
    manual_seed(seed_);  // every method starts from the same weights
    nn::LeNet net = part.equal ? nn::LeNet({.width = kTeacherWidth}) : small_lenet();
    const std::string setting = m.setting.empty() ? "" : str("-", m.setting, "-", value);
    return kept(str(part.name, "-", m.name, setting, "-", steps, "-seed-", seed_), std::move(net),
                [&](nn::LeNet& untrained) { teach(untrained, part, m, value, steps); });
  }

 private:
  /// The network of this name: from the folder, or trained and put there.
  template <class Train> nn::LeNet kept(const std::string& name, nn::LeNet net, const Train& train) const {
    const auto path = std::filesystem::path(o_.keep) / (name + ".safetensors");
    if (!o_.keep.empty() && std::filesystem::exists(path)) {
      net.load(path.string());
      return net;
    }
    train(net);
    if (!o_.keep.empty()) net.save(path.string());
    return net;
  }

  /// Trained with mixup on shifted and mirrored images: whoever teaches may use every means.
  nn::LeNet teacher_net(const data::Dataset& images, uint64_t seed) const {
    manual_seed(seed);
    const int64_t steps = teacher_steps(o_, images.size());
    return kept(str("teacher-", images.size(), "-", steps, "-seed-", seed), nn::LeNet({.width = kTeacherWidth}),
                [&](nn::LeNet& net) {
                  data::Loader batches(images, {.batch = kBatch,
                                                .shuffle = true,
                                                .seed = seed,
                                                .drop_last = true,
                                                .transform = fashion_transforms("crop")});
                  const auto loss = [&](const data::Batch& batch, int64_t step) {
                    const auto [x, y] = data::mixup(batch, {.classes = 10, .alpha = kMixup, .seed = seed}, step);
                    return cross_entropy(net(x), y);
                  };
                  fit(net.parameters(), batches, steps, kTeacherLr, loss);
                });
  }

  /// The images that a part's students see, and what their teacher says of each.
  const TeacherCache& answers(Shown shown, Teaches who, double temperature) {
    std::optional<TeacherCache>& cache = caches_[{shown, who, who == Teaches::ensemble ? temperature : 1}];
    if (cache) return *cache;
    const data::Dataset images = shown == Shown::augmented    ? shifted_and_mirrored(labelled_)
                                 : shown == Shown::unlabelled ? all_
                                                              : labelled_;
    const bool mirrors = shown == Shown::mirrored;
    const compress::TeacherCacheOptions options{.transform = fashion_transforms(mirrors ? "flip" : "none")};
    if (who == Teaches::nobody) return cache.emplace(zeros({(mirrors ? 2 : 1) * images.size(), 10}), images, options);
    return cache.emplace(Teacher(teacher(who, temperature)), images, options);
  }

  void teach(nn::LeNet& net, const Part& part, const Method& m, double value, int64_t steps) {
    const TeacherCache& cache = answers(part.shown, m.teacher, m.setting == "temperature" ? value : part.temperature);
    data::Loader batches = cache.loader({.batch = kBatch, .shuffle = true, .seed = seed_, .drop_last = true});
    std::vector<ParameterRef> learning = net.parameters();
    const auto learns_too = [&](nn::Module& other) {
      for (const ParameterRef& p : other.parameters()) learning.push_back(p);
    };
    using Loss = std::function<Tensor(const Tensor& x, const Tensor& s, const Tensor& t, const Tensor& labels)>;
    const auto fit_with = [&](const Loss& loss, const std::function<void()>& after = {}) {
      const auto of_batch = [&](const data::Batch& b, int64_t) {
        const Tensor labels = part.shown == Shown::unlabelled ? Tensor() : cache.targets(b.targets);
        return loss(b.inputs, net(b.inputs), cache.logits(b.targets), labels);
      };
      fit(learning, batches, steps, kLr, of_batch, after);
    };
    using In = const Tensor&;

    if (m.name == "alone") return fit_with([](In, In s, In, In y) { return cross_entropy(s, y); });
    if (m.setting == "temperature")
      return fit_with(
          [&](In, In s, In t, In) { return compress::kd_loss(s, t, {}, {.temperature = value, .alpha = 1}); });
    if (m.name == "teacher_class")
      return fit_with([](In, In s, In t, In) { return compress::teacher_class_loss(s, t); });
    if (m.name == "decoupled")
      return fit_with([&](In, In s, In t, In y) {
        return cross_entropy(s, y) + compress::decoupled_kd_loss(s, t, y, {.temperature = kTemperature, .beta = value});
      });
    if (m.name == "mutual") {
      nn::LeNet peer = small_lenet();
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
    const nn::LeNet wide = teacher_net(labelled_, seed_);
    const Teacher teacher(wide);
    Taps of_net(net, {"conv1", "conv2", "fc2"}), of_teacher(teacher.network(), {"conv1", "conv2", "fc2"});
    const auto ours = [&](int64_t i) { return relu(of_net[i]); };
    const auto theirs = [&](int64_t i) { return relu(of_teacher[i]); };
    const auto fit_features = [&](const std::function<Tensor()>& features) {
      return fit_with([&](In x, In s, In, In) {
        const Tensor t = teacher.logits(x);
        return compress::kd_loss(s, t, {}, {.temperature = kTemperature, .alpha = 1}) + value * features();
      });
    };
    if (m.name == "hint") {
      nn::AnyModule regressor = compress::hint_regressor({1, net.conv2.out(), 5, 5}, {1, wide.conv2.out(), 5, 5});
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

  const Options& o_;
  uint64_t seed_;
  data::Dataset all_, labelled_;
  std::map<std::tuple<Shown, Teaches, double>, std::optional<TeacherCache>> caches_;
};

/// Accuracies over the seeds.
struct Row {
  std::string name;
  int64_t steps = 0;
  Figures held_out = {}, test = {};

  const Figures& scored() const { return test.values.empty() ? held_out : test; }
};

/// Prints a row, and keeps it for the JSON file. `baseline`: what gains are over, seed by seed, or nullptr.
void report(const Row& row, const Row* baseline, train::Results& results) {
  train::Record& to = results.rows.emplace_back();
  to.set("name", row.name).set("steps", row.steps);
  std::printf("%-36s %6lld", row.name.c_str(), static_cast<long long>(row.steps));
  const auto put = [&](const char* what, const Figures& f, double unit) {
    to.set(str(what, "_mean"), unit * f.mean()).set(str(what, "_sd"), unit * f.sd());
    std::printf("   %14s", points(f).c_str());
  };
  put("validation_accuracy", row.held_out, 1);
  if (!row.test.values.empty()) put("test_accuracy", row.test, 1);
  if (baseline) {
    Figures gains;
    for (size_t s = 0; s < row.scored().values.size(); ++s)
      gains.values.push_back(row.scored().values[s] - baseline->scored().values[s]);
    put("gain_points", gains, 100);
  }
  std::printf("\n");
  std::fflush(stdout);
}

bool wanted(const Options& o, const Part& part, const Method& m) {
  if (std::find(part.methods.begin(), part.methods.end(), m.name) == part.methods.end()) return false;
  return o.only.empty() || std::any_of(o.only.begin(), o.only.end(), [&](const std::string& name) {
           return name == part.name || name == m.name || name == part.name + "/" + m.name;
         });
}

void run(const Options& o) {
  const bool tests = !o.tune && !o.held_out;
  const auto fashion = data::FashionMNIST::open(o.common.data);
  const auto split = data::random_split(fashion.train, {5.5 / 6, 0.5 / 6}, 1);
  const data::Dataset &all = split[0], &held_out = split[1];
  train::Results results{.job = "distill_lenet", .figures = {}, .settings = {}, .rows = {}};
  const Stopwatch total;
  std::map<int64_t, std::vector<Task>> tasks;  // by number of images with labels
  // The latest students of that many labels and that size without a teacher: gains are over these.
  std::map<std::pair<int64_t, bool>, Row> alone;
  std::set<std::pair<int64_t, Teaches>> shown_teachers;
  std::printf("%-36s %6s%17s%17s%17s\n", "accuracy, %", "steps", "held out", tests ? "test" : "gain",
              tests ? "gain" : "");

  for (const Part& part : kParts) {
    std::vector<Task>& seeds = tasks[part.images];
    const auto score = [&](const std::string& name, int64_t steps, const auto& network) {
      for (int64_t s = std::ssize(seeds); s < o.seeds; ++s)
        seeds.emplace_back(o, part.images, o.common.seed + static_cast<uint64_t>(s), all);
      Row row{.name = part.name + "/" + name, .steps = steps};
      for (Task& task : seeds) {
        auto net = network(task);
        row.held_out.values.push_back(evaluate(net, held_out).accuracy);
        if (tests) row.test.values.push_back(test_accuracy_of_saved(net, fashion.test));
      }
      return row;
    };
    for (const Method& m : kMethods) {
      if (!wanted(o, part, m)) continue;
      if (m.teacher != Teaches::nobody && shown_teachers.emplace(part.images, m.teacher).second) {
        const int64_t images = m.teacher == Teaches::large ? all.size() : part.images;
        report(score(kTeacherNames[static_cast<size_t>(m.teacher)], teacher_steps(o, images),
                     [&](Task& t) { return t.teacher(m.teacher, part.temperature); }),
               nullptr, results);
      }
      const double chosen = m.setting == "temperature" ? part.temperature : m.value;
      for (const double value : o.tune && !m.candidates.empty() ? m.candidates : std::vector{chosen}) {
        const std::string name = o.tune && !m.setting.empty() ? str(m.name, ", ", m.setting, " ", value) : m.name;
        const int64_t steps = o.steps > 0 ? o.steps : part.steps;
        const Row row = score(name, steps, [&](Task& task) { return task.student(part, m, value, steps); });
        const auto baseline = alone.find({part.images, part.equal});
        report(row, m.name == "alone" || baseline == alone.end() ? nullptr : &baseline->second, results);
        if (!m.setting.empty()) results.rows.back().set(m.setting, value);
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
      .set("seed", o.common.seed)
      .set("seeds", o.seeds)
      .set("threads", o.common.threads)
      .set("scored_on", tests ? "test" : "held out");
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
    for (const std::string& method : part.methods) names.push_back(part.name + "/" + method);
  }
  app.add_option("--seeds", o.seeds, "Runs of each row, from --seed upwards")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--steps", o.steps, "Steps of each student; 0: each part's own")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--teacher-steps", o.teacher_steps, "Steps of each teacher; 0: by the number of images")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--only", o.only, "These alone: PART, METHOD or PART/METHOD,…")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
  app.add_option("--keep", o.keep, "A folder that trained networks are put in, and loaded from in later runs")
      ->check(CLI::ExistingDirectory);
  app.add_flag("--held-out", o.held_out, "Score on the held-out images alone; no test image is read");
  app.add_flag("--tune", o.tune, "As --held-out, with all settings of each method");
  return run_example(app, argc, argv, o.common, [&] { run(o); });
}
