#pragma once
// Fashion-MNIST as the examples train on it: 28×28 grey images as 3×32×32, part of the training images held out.

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>

#include "common.h"

struct Fashion {
  hone::data::Dataset training, validation, test;
  std::vector<std::string> classes;
};

/// `images`: training images used (the first of a random split by seed); `held_out` others validate.
inline Fashion open_fashion(const CommonOptions& common, int64_t held_out = 5000, int64_t images = 60000) {
  const auto all = hone::data::FashionMNIST::open(common.data);
  const double part = static_cast<double>(held_out) / static_cast<double>(all.train.size());
  HONE_CHECK(part > 0 && part < 1, hone::ValueError, held_out, " held out of ", all.train.size(), " images");
  const auto [training, validation] = hone::data::random_split(all.train, {1 - part, part}, common.seed);
  return {training.first(images), validation, all.test, all.class_names};
}

/// Random steps come before the border is added and the values are normalized. augment: "none", "flip", "crop".
inline hone::data::Transforms fashion_transforms(const std::string& augment = "none") {
  using namespace hone::data;
  Transforms steps;
  if (augment != "none") steps.push_back(random_flip());
  if (augment == "crop") steps.push_back(random_crop(1));
  steps.push_back(pad_to(32));
  steps.push_back(normalize(FashionMNIST::kMean, FashionMNIST::kStd));
  steps.push_back(repeat_channels(3));
  return steps;
}

struct Evaluation {
  hone::Tensor logits, labels;
  double loss = 0, accuracy = 0;
};

/// The network's answers to all images of a dataset, in eval mode.
template <class Net>
Evaluation evaluate(Net& net, const hone::data::Dataset& images,
                    const hone::data::Transforms& transform = fashion_transforms()) {
  const hone::NoGrad no_grad;
  const bool training = net.training();
  net.eval();
  hone::data::Loader batches(images, {.batch = 500, .transform = transform});
  std::vector<hone::Tensor> logits, labels;
  for (auto& [x, y] : batches) {
    logits.push_back(net(x));
    labels.push_back(clone(y));
  }
  net.train(training);
  Evaluation e{concat(logits), concat(labels)};
  e.loss = cross_entropy(e.logits, e.labels).item();
  e.accuracy = hone::train::accuracy(e.logits, e.labels);
  return e;
}

/// A file's name among temporary ones; what is there goes with it.
struct TemporaryFile {
  const std::string path;
  explicit TemporaryFile(const std::string& name)
      : path((std::filesystem::temp_directory_path() / hone::str("hone_", getpid(), "_", name)).string()) {}
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
};

/// The network as a file of it holds it: saved, and loaded into a copy whose weights were cleared.
template <class Net> Net reloaded(Net& net) {
  const TemporaryFile file("example.safetensors");
  net.save(file.path);
  Net copy = net;
  for (const hone::ParameterRef& p : copy.parameters()) p.replace(hone::zeros(p.raw().shape(), p.raw().dtype()));
  copy.load(file.path);
  return copy;
}
/// Accuracy on the test images of what a file of this network holds.
template <class Net> double test_accuracy_of_saved(Net& net, const hone::data::Dataset& test) {
  Net copy = reloaded(net);
  return evaluate(copy, test).accuracy;
}
