// Deep Compression (Han, Mao and Dally, 2016) on Fashion-MNIST: a trained LeNet is pruned, its weights are shared, and
// what is left is coded, by the paper's relative index and Huffman codes and by Hone's range coder, into one file; for
// several sizes, each beside a small dense network whose file is about as large. Settings were chosen on images held
// out of the training set; a process of its own scores each file on the test images, once. With --mnist the paper's two
// networks are compressed instead. What is lost is counted against the trained network, which learnt from labels alone;
// what is retrained, the small dense networks too, has more epochs and, but with --distil none, a teacher.

#include <functional>
#include <memory>
#include <set>

#include "lenet_packing.h"
#include "table.h"

using namespace hone;
using compress::TeacherCache;

namespace {

struct Options {
  CommonOptions common;
  int64_t seeds = 1, images = 60000, validation = 5000, epochs = 15, teacher_epochs = 12;
  std::vector<std::string> only;
  std::string distil, keep, score;
  double scale = 1;
  bool mnist = false, held_out = false;
};

/// A file to be made: from the trained network by pruning, or from a small dense one by training.
struct Level {
  std::string name;
  std::function<nn::AnyModule()> small = {};  ///< the control's network; none: prune the trained one
  PruneRecipe prune = {};                     ///< of a control: how it is trained, at density 1
  ShareRecipe share = {};
};

/// A network to be compressed.
struct Subject {
  std::string name;
  std::function<nn::AnyModule()> make;
  Tensor sample;
  data::Transforms plain, random;  ///< of images scored, and trained on
  std::vector<Level> levels;
};

template <class M> std::function<nn::AnyModule()> maker(const M& prototype) {
  return [prototype] { return nn::AnyModule(prototype.clone()); };
}

/// LeNet's layers in other sizes.
std::function<nn::AnyModule()> small_lenet(int64_t c1, int64_t c2, int64_t f1, int64_t f2) {
  return [=] {
    auto net = std::make_unique<nn::LeNet>(nn::LeNetOptions{.width = 0.1});
    net->conv1 = nn::Conv2d({.in = 3, .out = c1, .kernel = 5});
    net->conv2 = nn::Conv2d({.in = c1, .out = c2, .kernel = 5});
    net->fc1 = nn::Linear({.in = c2 * 25, .out = f1});
    net->fc2 = nn::Linear({.in = f1, .out = f2});
    net->fc3 = nn::Linear({.in = f2, .out = 10});
    return nn::AnyModule(std::move(net));
  };
}

Subject lenet(const Options& o) {
  const auto epochs = [&](int64_t n) { return std::max<int64_t>(1, std::llround(static_cast<double>(n) * o.scale)); };
  const auto pruned = [&](const char* name, double density, int64_t clusters) {
    return Level{.name = name,
                 .prune = {.density = density, .retrain = {.epochs = epochs(40)}},
                 .share = {.clusters = clusters, .retrain = {.epochs = epochs(4), .lr = 1e-3}}};
  };
  const auto control = [&](const char* name, int64_t c1, int64_t c2, int64_t f1, int64_t f2) {
    Level level = pruned(name, 1, 32);
    level.prune.retrain.epochs = o.epochs + epochs(40);
    level.small = small_lenet(c1, c2, f1, f2);
    return level;
  };
  return {.name = "LeNet",
          .make = [] { return nn::AnyModule(std::make_unique<nn::LeNet>()); },
          .sample = zeros({1, 3, 32, 32}),
          .plain = fashion_transforms(),
          .random = fashion_transforms("flip"),  // dense
          .levels = {pruned("40 times", 0.09, 32), control("40 times, small dense", 4, 11, 31, 30),
                     pruned("60 times", 0.0645, 16), control("60 times, small dense", 3, 9, 25, 21),
                     pruned("100 times", 0.032, 16), control("100 times, small dense", 3, 7, 16, 14)}};
}

template <class Net> Subject of_the_paper(const char* name, const char* figures, double density, const Options& o) {
  const auto epochs = [&](int64_t n) { return std::max<int64_t>(1, std::llround(static_cast<double>(n) * o.scale)); };
  const data::Transforms plain = {data::normalize(data::MNIST::kMean, data::MNIST::kStd)};
  const RetrainRecipe pruning{.epochs = epochs(10), .lr = 2e-3, .transform = plain},
      sharing{.epochs = epochs(3), .lr = 1e-3, .transform = plain};
  return {.name = name,
          .make = [] { return nn::AnyModule(std::make_unique<Net>()); },
          .sample = zeros({1, 1, 28, 28}),
          .plain = plain,
          .random = plain,
          .levels = {{.name = str(name, ", the paper's ", figures),
                      .prune = {.density = density, .retrain = pruning},
                      .share = {.clusters = 32, .retrain = sharing}}}};
}

/// What was found for one file of one seed.
struct Found {
  double density = 0, pruned = 0, shared = 0, retrained = 0;  ///< accuracies on held-out images
  int64_t range_bytes = 0, huffman_bytes = 0;
  double bits = 0;  ///< entropy of the codes of kept weights, bits each
  FileScore score = {};
};

void add(Figures& f, double v) { f.values.push_back(v); }

class Job {
 public:
  Job(const Options& o, const Subject& subject, uint64_t seed)
      : o_(o), subject_(subject), seed_(seed), dense_(subject.make()) {
    CommonOptions common = o.common;
    common.seed = seed;
    if (o.mnist) {
      const auto all = data::MNIST::open(o.common.data);
      const double part = static_cast<double>(o.validation) / static_cast<double>(all.train.size());
      HONE_CHECK(part < 1, ValueError, o.validation, " held out of ", all.train.size(), " images");
      const auto [training, validation] = data::random_split(all.train, {1 - part, part}, seed);
      fashion_ = {training.first(o.images), validation, all.test, all.class_names};
    } else {
      fashion_ = open_fashion(common, o.validation, o.images);
    }
    manual_seed(seed);
    dense_ = subject.make();
    kept("dense", *dense_, [&] {
      retrain(*dense_, nullptr, fashion_.training,
              {.epochs = o.epochs, .label_smoothing = 0.05, .transform = subject.random});
    });
    const auto teach = [&](nn::Module& teacher) {
      std::printf("%s, seed %llu: teacher %.2f %% of the held-out images\n", subject.name.c_str(),
                  static_cast<unsigned long long>(seed), 100 * held(teacher));
      answers_.emplace(answers_of(teacher, fashion_.training, subject.random, subject.sample));
    };
    if (o.distil == "self") teach(*dense_);
    if (o.distil == "wide") {
      TeacherRecipe recipe;
      recipe.train.epochs = o.teacher_epochs;
      nn::LeNet wide({.width = recipe.width});
      kept(str("teacher_", o.teacher_epochs), wide, [&] { wide = train_teacher(fashion_.training, recipe); });
      teach(wide);
    }
    std::printf("%s, seed %llu: trained network %.2f %% of the held-out images\n", subject.name.c_str(),
                static_cast<unsigned long long>(seed), 100 * held(*dense_));
    std::fflush(stdout);
  }

  /// The trained network's own accuracy, of the images that count.
  double dense_accuracy() {
    const compress::Packed packed = compress::pack(graph::trace(*dense_, subject_.sample));
    return score(packed, subject_.name + " dense").accuracy();
  }

  Found run(const Level& level) {
    manual_seed(seed_ + 1000);
    Found f;
    nn::AnyModule net = level.small ? level.small() : dense_;
    const TeacherCache* answers = answers_ ? &*answers_ : nullptr;
    const auto told = [&](const char* stage, int64_t epoch, double loss) {
      std::printf("%s, %s, epoch %lld: loss %.4f, %.2f %%\n", level.name.c_str(), stage, static_cast<long long>(epoch),
                  loss, 100 * held(*net));
      std::fflush(stdout);
    };
    if (level.prune.density < 1)
      prune_and_retrain(*net, answers, fashion_.training, level.prune,
                        [&](int64_t epoch, double loss, double) { told("pruning", epoch, loss); });
    else
      retrain(
          *net, answers, fashion_.training, level.prune.retrain, [] {}, [] {},
          [&](int64_t epoch, double loss) { told("training", epoch, loss); });
    f.density = compress::prune_report(*net).density();
    f.pruned = held(*net);
    const auto report =
        share_and_retrain(*net, answers, fashion_.training, level.share, [&](int64_t epoch, double loss) {
          if (epoch > 0) return told("sharing", epoch, loss);
          f.shared = held(*net);
          std::printf("%s, shared: %.2f %%\n", level.name.c_str(), 100 * f.shared);
        });
    f.retrained = held(*net);
    double kept_weights = 0;
    for (const auto& layer : report.layers) {
      f.bits += layer.entropy * static_cast<double>(layer.kept);
      kept_weights += static_cast<double>(layer.kept);
    }
    f.bits /= kept_weights;
    const graph::Network network = graph::trace(*net, subject_.sample);
    const compress::PackOptions packing{.mantissa_bits = level.share.mantissa_bits};
    const compress::Packed ours = compress::pack(network, packing);
    const compress::Packed paper =
        compress::pack(network, {.coder = compress::Coder::huffman, .mantissa_bits = packing.mantissa_bits});
    f.range_bytes = static_cast<int64_t>(ours.bytes().size());
    f.huffman_bytes = static_cast<int64_t>(paper.bytes().size());
    f.score = score(ours, level.name);
    // Both files hold the same network, bit for bit.
    graph::Network a = ours.network(), b = paper.network();
    HONE_CHECK(graph::difference(a, b).empty(), FormatError, "the two coders' files differ: ", graph::difference(a, b));
    return f;
  }

  int64_t weight_bytes() const {
    int64_t bytes = 0;
    for (const ParameterRef& p : dense_->parameters()) bytes += p.raw().numel() * 4;
    return bytes;
  }

 private:
  /// From the folder --keep where it is there, else made, and written there.
  void kept(const std::string& what, nn::Module& net, const std::function<void()>& make) {
    const std::string path = str(o_.keep, "/", subject_.name, "_", what, "_", o_.epochs, "_of_",
                                 fashion_.training.size(), "_seed_", seed_, ".safetensors");
    if (!o_.keep.empty() && std::filesystem::exists(path)) {
      net.load(path);
      return;
    }
    make();
    if (!o_.keep.empty()) net.save(path);
  }

  double held(nn::Module& net) const { return evaluate(net, fashion_.validation, subject_.plain).accuracy; }

  FileScore score(const compress::Packed& packed, const std::string& name) {
    std::string file = name;
    std::replace_if(
        file.begin(), file.end(), [](char c) { return c == ' ' || c == ',' || c == '\''; }, '_');
    file = str(file, "_seed_", seed_, ".hone");
    const TemporaryFile temporary(file);
    const std::string path = o_.keep.empty() ? temporary.path : str(o_.keep, "/", file);
    packed.save(path);
    FileScore s;
    if (o_.held_out) {
      graph::Network network = compress::Packed::load(path).network();
      s.images = fashion_.validation.size();
      s.right = std::llround(held(network) * static_cast<double>(s.images));
    } else {
      std::vector<std::string> words = data_options(o_.common);
      if (o_.mnist) words.push_back("--mnist");
      s = score_in_a_process_of_its_own(path, words);
    }
    return s;
  }

  const Options& o_;
  const Subject& subject_;
  uint64_t seed_;
  Fashion fashion_ = {};
  nn::AnyModule dense_;
  std::optional<TeacherCache> answers_ = {};
};

struct Row {
  Figures density, pruned, shared, retrained, range_bytes, huffman_bytes, bits, accuracy, drop, microseconds;
};

void compress_subject(const Options& o, const Subject& subject, train::Results& results) {
  const std::vector<Level>& levels = subject.levels;
  if (levels.empty()) return;
  std::vector<Row> rows(levels.size());
  Figures dense;
  int64_t weight_bytes = 0;
  for (int64_t s = 0; s < o.seeds; ++s) {
    Job job(o, subject, o.common.seed + static_cast<uint64_t>(s));
    weight_bytes = job.weight_bytes();
    add(dense, job.dense_accuracy());
    for (size_t i = 0; i < levels.size(); ++i) {
      const Found f = job.run(levels[i]);
      Row& r = rows[i];
      add(r.density, f.density), add(r.pruned, f.pruned), add(r.shared, f.shared), add(r.retrained, f.retrained);
      add(r.range_bytes, static_cast<double>(f.range_bytes)),
          add(r.huffman_bytes, static_cast<double>(f.huffman_bytes));
      add(r.bits, f.bits), add(r.accuracy, f.score.accuracy()), add(r.microseconds, f.score.microseconds);
      add(r.drop, dense.values.back() - f.score.accuracy());
      std::printf("%s: %lld bytes (Huffman %lld), %.2f %% of the %s images, %.2f points below the trained network\n",
                  levels[i].name.c_str(), static_cast<long long>(f.range_bytes),
                  static_cast<long long>(f.huffman_bytes), 100 * f.score.accuracy(), o.held_out ? "held-out" : "test",
                  100 * r.drop.values.back());
      std::fflush(stdout);
    }
  }
  const std::string accuracy = o.held_out ? "validation_accuracy" : "test_accuracy";
  const auto times = [&](const Figures& bytes) { return static_cast<double>(weight_bytes) / bytes.mean(); };
  std::printf("\n%s, %lld seeds: %lld bytes of weights, %s %%\n", subject.name.c_str(), static_cast<long long>(o.seeds),
              static_cast<long long>(weight_bytes), points(dense).c_str());
  std::printf("%-28s %7s %5s %16s %16s %8s %8s %8s %14s %14s %7s\n", "file", "kept", "bits", "bytes (times)",
              "Huffman (times)", "pruned", "shared", "trained", "accuracy", "lost", "us");
  results.rows.emplace_back()
      .set("name", subject.name)
      .set("weight_bytes", weight_bytes)
      .set(accuracy + "_mean", dense.mean())
      .set(accuracy + "_sd", dense.sd());
  for (size_t i = 0; i < levels.size(); ++i) {
    const Row& r = rows[i];
    std::printf("%-28s %5.1f %% %5.2f %7.0f (%5.1f) %8.0f (%5.1f) %8.2f %8.2f %8.2f %14s %14s %7.1f\n",
                levels[i].name.c_str(), 100 * r.density.mean(), r.bits.mean(), r.range_bytes.mean(),
                times(r.range_bytes), r.huffman_bytes.mean(), times(r.huffman_bytes), 100 * r.pruned.mean(),
                100 * r.shared.mean(), 100 * r.retrained.mean(), points(r.accuracy).c_str(), points(r.drop).c_str(),
                r.microseconds.mean());
    train::Record& row = results.rows.emplace_back();
    row.set("name", levels[i].name).set("density", r.density.mean()).set("code_entropy_bits", r.bits.mean());
    row.set("bytes_mean", r.range_bytes.mean())
        .set("bytes_max", *std::max_element(r.range_bytes.values.begin(), r.range_bytes.values.end()));
    row.set("huffman_bytes_mean", r.huffman_bytes.mean());
    row.set("pruned_validation_accuracy_mean", r.pruned.mean());
    row.set("shared_validation_accuracy_mean", r.shared.mean());
    row.set("retrained_validation_accuracy_mean", r.retrained.mean());
    row.set(accuracy + "_mean", r.accuracy.mean()).set(accuracy + "_sd", r.accuracy.sd());
    row.set("lost_mean", r.drop.mean()).set("lost_sd", r.drop.sd());
    if (!o.held_out) row.set("latency_us", r.microseconds.mean());
  }
}

void run(const Options& o) {
  if (!o.score.empty()) {
    const data::ImageClasses all = o.mnist ? data::ImageClasses(data::MNIST::open(o.common.data))
                                           : data::ImageClasses(data::FashionMNIST::open(o.common.data));
    print_score(
        o.score, all.test,
        o.mnist ? data::Transforms{data::normalize(data::MNIST::kMean, data::MNIST::kStd)} : fashion_transforms());
    return;
  }
  const Stopwatch total;
  train::Results results{.job = "deep_compression", .figures = {}, .settings = {}, .rows = {}};
  results.settings.set("seed", o.common.seed).set("seeds", o.seeds).set("epochs", o.epochs).set("distil", o.distil);
  results.settings.set("teacher_epochs", o.teacher_epochs).set("threads", o.common.threads);
  results.settings.set("images", o.images).set("validation", o.validation).set("scale", o.scale).set("mnist", o.mnist);
  results.settings.set("scored_on", o.held_out ? "held out" : "test");
  std::vector<Subject> subjects;
  if (o.mnist) {
    HONE_CHECK(o.distil != "wide", ValueError, "--mnist: a wide LeNet teaches LeNet alone; --distil none or self");
    subjects = {of_the_paper<nn::LeNet300_100>("LeNet-300-100", "27 KB, 40 times", 0.05, o),
                of_the_paper<nn::LeNet5Caffe>("LeNet-5-Caffe", "44 KB, 39 times", 0.05, o)};
  } else {
    subjects = {lenet(o)};
  }
  std::vector<Level> all;
  for (const Subject& s : subjects) all.insert(all.end(), s.levels.begin(), s.levels.end());
  std::set<std::string> wanted;
  for (const Level& level : named_only(o.only, all, &Level::name)) wanted.insert(level.name);
  for (Subject& s : subjects) {
    std::erase_if(s.levels, [&](const Level& level) { return !wanted.contains(level.name); });
    compress_subject(o, s, results);
  }
  results.figures.set("seconds", total.seconds());
  if (!o.common.json.empty()) train::save_json(o.common.json, results);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Deep Compression of LeNet on Fashion-MNIST: pruned, shared, coded.", "deep_compression");
  Options o;
  o.common.add_to(app, "Folder of the four IDX files (default: $HONE_DATA, else Debian's dataset-fashion-mnist)");
  app.add_option("--seeds", o.seeds, "Runs, of seeds one after the other")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--only", o.only, "Names of files, separated by ';'")->delimiter(';');
  app.add_option("--epochs", o.epochs, "Epochs of the network that is compressed")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--teacher-epochs", o.teacher_epochs, "Epochs of the wide teacher")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--scale", o.scale, "Factor for the epochs of compression")->check(positive())->capture_default_str();
  app.add_option("--distil", o.distil,
                 "Who teaches what is retrained: none, self (the trained network; the default with --mnist), wide (a "
                 "wider LeNet; else the default)")
      ->check(CLI::IsMember({"none", "self", "wide"}));
  app.add_option("--images", o.images, "Training images used")->check(CLI::Range(64, 60000));
  app.add_option("--validation", o.validation, "Training images held out")
      ->check(CLI::Range(1, 59999))
      ->capture_default_str();
  app.add_option("--keep", o.keep, "Folder for trained networks and files, to make a run in pieces")
      ->check(CLI::ExistingDirectory);
  app.add_flag("--held-out", o.held_out, "Score on the training images that are not trained on, not on the test set");
  app.add_flag("--mnist", o.mnist, "The images are MNIST's: the paper's LeNet-300-100 and LeNet-5-Caffe");
  app.add_option("--score", o.score, "Only score this packed file on the test images");
  return run_example(app, argc, argv, o.common, [&] {
    if (o.distil.empty()) o.distil = o.mnist ? "self" : "wide";
    run(o);
  });
}
