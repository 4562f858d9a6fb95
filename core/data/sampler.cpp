#include "hone/core/data/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>

#include "hone/core/data/assemble.h"
#include "hone/core/data/imbalance.h"
#include "hone/core/error.h"

namespace hone::data {
namespace {

/// Draws i with probability w_i / Σ w: a column at random, then its own index or the one that fills the column up.
class AliasTable {
 public:
  explicit AliasTable(std::span<const double> weights) : own_(weights.size()), alias_(weights.size()) {
    double sum = 0, n = static_cast<double>(weights.size());
    size_t heaviest = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      sum += weights[i];
      if (weights[i] > weights[heaviest]) heaviest = i;
    }
    std::vector<size_t> light, heavy;
    for (size_t i = 0; i < weights.size(); ++i) {
      own_[i] = weights[i] / sum * n;
      alias_[i] = heaviest;
      (own_[i] < 1 ? light : heavy).push_back(i);
    }
    while (!light.empty() && !heavy.empty()) {
      const size_t l = light.back(), h = heavy.back();
      light.pop_back();
      alias_[l] = h;
      own_[h] -= 1 - own_[l];
      if (own_[h] >= 1) continue;
      heavy.pop_back();
      light.push_back(h);
    }
    // What is left differs from 1 by rounding; a weight of 0 stays 0, and its column goes to the heaviest.
    for (const size_t i : heavy) own_[i] = 1;
    for (const size_t i : light)
      if (weights[i] > 0) own_[i] = 1;
  }
  int64_t draw(const std::array<uint32_t, 4>& words) const {
    const auto column = static_cast<size_t>(below(uint64_t{words[1]} << 32 | words[0], own_.size()));
    return static_cast<int64_t>(uniform_f64(words[3], words[2]) < own_[column] ? column : alias_[column]);
  }

 private:
  std::vector<double> own_;
  std::vector<size_t> alias_;
};

/// The random words of one pass, one after another.
struct Draws {
  Philox random;
  uint64_t next = 0;
  std::array<uint32_t, 4> words() { return random(next++); }
  void shuffle(std::span<int64_t> v) {
    for (size_t i = v.size(); i > 1; --i) {
      const auto w = words();
      std::swap(v[i - 1], v[below(uint64_t{w[1]} << 32 | w[0], i)]);
    }
  }
};

/// Positions of the samples, class by class.
struct Classes {
  std::vector<int64_t> members, first;  // of class c: members[first[c]] … members[first[c + 1] − 1]
  int64_t size() const { return static_cast<int64_t>(first.size()) - 1; }
  int64_t count(int64_t c) const { return first[static_cast<size_t>(c) + 1] - first[static_cast<size_t>(c)]; }
};

Classes group(const char* op, const Dataset& dataset) {
  const std::vector<int64_t> counts = class_counts(dataset), labels = class_labels(dataset);
  HONE_CHECK(!labels.empty(), ValueError, op, ": the dataset has no samples");
  Classes g{std::vector<int64_t>(labels.size()), {0}};
  for (size_t c = 0; c < counts.size(); ++c) {
    HONE_CHECK(counts[c] > 0, ValueError, op, ": class ", c, " of ", counts.size(), " has no samples");
    g.first.push_back(g.first.back() + counts[c]);
  }
  std::vector<int64_t> at(g.first.begin(), g.first.end() - 1);
  for (size_t i = 0; i < labels.size(); ++i)
    g.members[static_cast<size_t>(at[static_cast<size_t>(labels[i])]++)] = static_cast<int64_t>(i);
  return g;
}

int64_t checked_length(const char* op, int64_t length, int64_t samples) {
  HONE_CHECK(length >= 0, ValueError, op, ": length must be at least 0, got ", length);
  return length == 0 ? samples : length;
}

/// next_class() says whose turn it is; each class's samples come in shuffled rounds.
template <class NextClass>
void fill_by_class(const Classes& g, std::span<int64_t> order, Draws& draws, NextClass&& next_class) {
  std::vector<int64_t> members = g.members,
                       at(g.first.begin() + 1, g.first.end());  // all used up: shuffled at first use
  for (int64_t& place : order) {
    const auto c = static_cast<size_t>(next_class());
    if (at[c] == g.first[c + 1]) {
      at[c] = g.first[c];
      draws.shuffle({members.data() + g.first[c], static_cast<size_t>(g.count(static_cast<int64_t>(c)))});
    }
    place = members[static_cast<size_t>(at[c]++)];
  }
}

Draws draws_of(uint64_t seed, int64_t epoch) { return {Philox{seed, detail::stream_of(detail::kSample, epoch)}}; }

/// Classes at random with the probabilities that `weights_of(epoch)` gives.
template <class Weights>
Sampler random_class_sampler(std::shared_ptr<const Classes> g, int64_t length, Weights weights_of) {
  return {length, [g = std::move(g), weights_of](std::span<int64_t> order, uint64_t seed, int64_t epoch) {
            const AliasTable table(weights_of(*g, epoch));
            Draws draws = draws_of(seed, epoch);
            fill_by_class(*g, order, draws, [&] { return table.draw(draws.words()); });
          }};
}

}  // namespace

Sampler::Sampler(int64_t length, SampleOrder order) : length_(length) {
  HONE_CHECK(length >= 0, ValueError, "data::Sampler: length must be at least 0, got ", length);
  HONE_CHECK(order != nullptr, ValueError, "data::Sampler: no function is given");
  order_ = std::make_shared<const SampleOrder>(std::move(order));
}

Sampler shuffled_sampler(int64_t samples) {
  return Sampler(samples, [](std::span<int64_t> order, uint64_t seed, int64_t epoch) {
    detail::permutation(order, seed, detail::stream_of(detail::kShuffle, epoch));
  });
}

Sampler two_view_sampler(int64_t samples, double probability, const Sampler& order) {
  HONE_CHECK(order, ValueError, "two_view_sampler: there is no order; shuffled_sampler makes one");
  HONE_CHECK(probability >= 0 && probability <= 1, ValueError,
             "two_view_sampler: the probability must be in [0, 1], got ", probability);
  return Sampler(order.length(), [=](std::span<int64_t> places, uint64_t seed, int64_t epoch) {
    order.fill(places, seed, epoch);
    const Philox random{seed, detail::stream_of(detail::kView, epoch)};
    for (size_t i = 0; i < places.size(); ++i) {
      HONE_CHECK(places[i] >= 0 && places[i] < samples, ValueError, "two_view_sampler: the order's position ",
                 places[i], " at place ", i, " is outside [0, ", samples, ")");
      const auto w = random(i);
      if (uniform_f64(w[0], w[1]) < probability) places[i] += samples;
    }
  });
}

Sampler weighted_sampler(std::span<const double> weights, int64_t length) {
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    HONE_CHECK(std::isfinite(weights[i]) && weights[i] >= 0, ValueError, "weighted_sampler: weight ", i,
               " must be finite and at least 0, got ", weights[i]);
    sum += weights[i];
  }
  HONE_CHECK(std::isfinite(sum) && sum > 0, ValueError, "weighted_sampler: the sum of ", weights.size(),
             " weights must be finite and above 0, got ", sum);
  length = checked_length("weighted_sampler", length, static_cast<int64_t>(weights.size()));
  return {length, [table = std::make_shared<const AliasTable>(weights)](std::span<int64_t> order, uint64_t seed,
                                                                        int64_t epoch) {
            Draws draws = draws_of(seed, epoch);
            for (int64_t& place : order) place = table->draw(draws.words());
          }};
}

Sampler class_aware_sampler(const Dataset& dataset, int64_t length) {
  auto g = std::make_shared<const Classes>(group("class_aware_sampler", dataset));
  length = checked_length("class_aware_sampler", length, dataset.size());
  return {length, [g](std::span<int64_t> order, uint64_t seed, int64_t epoch) {
            Draws draws = draws_of(seed, epoch);
            std::vector<int64_t> round(static_cast<size_t>(g->size()));
            for (size_t c = 0; c < round.size(); ++c) round[c] = static_cast<int64_t>(c);
            size_t turn = round.size();
            fill_by_class(*g, order, draws, [&] {
              if (turn == round.size()) {
                draws.shuffle(round);
                turn = 0;
              }
              return round[turn++];
            });
          }};
}

Sampler class_power_sampler(const Dataset& dataset, double power, int64_t length) {
  HONE_CHECK(std::isfinite(power), ValueError, "class_power_sampler: power must be finite, got ", power);
  auto g = std::make_shared<const Classes>(group("class_power_sampler", dataset));
  length = checked_length("class_power_sampler", length, dataset.size());
  return random_class_sampler(std::move(g), length, [power](const Classes& classes, int64_t) {
    // Relative to the heaviest class: no power overflows.
    auto most = static_cast<double>(classes.count(0));
    for (int64_t c = 1; c < classes.size(); ++c) {
      const auto n = static_cast<double>(classes.count(c));
      most = power >= 0 ? std::max(most, n) : std::min(most, n);
    }
    std::vector<double> w;
    for (int64_t c = 0; c < classes.size(); ++c)
      w.push_back(std::pow(static_cast<double>(classes.count(c)) / most, power));
    return w;
  });
}

Sampler progressively_balanced_sampler(const Dataset& dataset, int64_t epochs, int64_t length) {
  HONE_CHECK(epochs >= 1, ValueError, "progressively_balanced_sampler: epochs must be at least 1, got ", epochs);
  auto g = std::make_shared<const Classes>(group("progressively_balanced_sampler", dataset));
  length = checked_length("progressively_balanced_sampler", length, dataset.size());
  return random_class_sampler(std::move(g), length, [epochs](const Classes& classes, int64_t epoch) {
    const double t = static_cast<double>(std::min(epoch, epochs)) / static_cast<double>(epochs);
    const auto samples = static_cast<double>(classes.members.size()), n = static_cast<double>(classes.size());
    std::vector<double> w;
    for (int64_t c = 0; c < classes.size(); ++c)
      w.push_back((1 - t) * static_cast<double>(classes.count(c)) / samples + t / n);
    return w;
  });
}

}  // namespace hone::data
