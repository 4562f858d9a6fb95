#pragma once
// From a pruned network to a packed file: weights shared, centroids trained, coded, saved; and a file scored and timed
// by a process of its own, which has nothing but the file.

#include <algorithm>
#include <map>

#include "latency.h"
#include "lenet_pruning.h"

/// Chosen with deep_compression --held-out.
struct ShareRecipe {
  int64_t clusters = 32;                       ///< values of a layer's weights, where `layers` does not name it
  std::map<std::string, int64_t> layers = {};  ///< clusters by layer
  hone::compress::quantize::KMeansStart start = hone::compress::quantize::KMeansStart::linear;
  RetrainRecipe retrain = {.epochs = 2, .lr = 1e-3};
  int mantissa_bits = 7;  ///< of centroids and biases in the file
};

/// Makes codebooks of the weights and trains what their codes stand for, and the biases. after_epoch(epoch, mean loss);
/// epoch 0 is before training.
template <class AfterEpoch>
hone::compress::quantize::ShareReport share_and_retrain(hone::nn::Module& net,
                                                        const hone::compress::TeacherCache* answers,
                                                        const hone::data::Dataset& training, const ShareRecipe& r,
                                                        const AfterEpoch& after_epoch) {
  const auto report =
      hone::compress::quantize::share_weights(net, {.clusters = r.clusters, .start = r.start, .layers = r.layers});
  after_epoch(0, 0.0);
  retrain(
      net, answers, training, r.retrain, [] {}, [] {}, after_epoch);
  return report;
}

/// A packed file's answers.
struct FileScore {
  int64_t right = 0, images = 0;
  double microseconds = 0;  ///< one image, one thread
  double accuracy() const { return static_cast<double>(right) / static_cast<double>(images); }
};

/// What `program --score FILE` prints: the network of a packed file on images, and unless `timed` is false the time of
/// one, optimized, with sparse weights where they are faster.
inline void print_score(const std::string& path, const hone::data::Dataset& images,
                        const hone::data::Transforms& transform, bool timed = true) {
  using namespace hone;
  graph::Network network = compress::Packed::load(path).network();
  const Evaluation answers = evaluate(network, images, transform);
  double microseconds = 0;
  if (timed) {
    data::Loader one(images, {.batch = 1, .transform = transform});
    const Tensor image = clone((*one.begin()).inputs);
    graph::Network fast = graph::optimize(network);
    graph::sparsify(fast, image, {.threads = 1});
    microseconds = latencies_us({&fast}, image)[0];
  }
  std::printf("right %lld of %lld images, %.3f us an image\n",
              static_cast<long long>(std::llround(answers.accuracy * static_cast<double>(images.size()))),
              static_cast<long long>(images.size()), microseconds);
}

/// A word of a shell's command line.
inline std::string quoted(const std::string& word) {
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

/// What the other process is to know of this one's images and threads.
inline std::vector<std::string> data_options(const CommonOptions& common) {
  std::vector<std::string> words{"--threads", hone::str(common.threads)};
  if (!common.data.empty()) words.insert(words.end(), {"--data", common.data});
  return words;
}

/// Has this program, started anew, score a packed file: `options` follow --score FILE. IoError where that fails.
inline FileScore score_in_a_process_of_its_own(const std::string& path, const std::vector<std::string>& options) {
  std::string command = quoted(std::filesystem::read_symlink("/proc/self/exe").string()) + " --score " + quoted(path);
  for (const std::string& word : options) command += ' ' + quoted(word);
  FILE* pipe = popen(command.c_str(), "r");
  HONE_CHECK(pipe, hone::IoError, "cannot start ", command);
  FileScore score;
  long long right = 0, images = 0;
  const int read = std::fscanf(pipe, "right %lld of %lld images, %lf us", &right, &images, &score.microseconds);
  HONE_CHECK(pclose(pipe) == 0 && read == 3 && images > 0, hone::IoError, command, " did not score ", path);
  score.right = right, score.images = images;
  return score;
}
