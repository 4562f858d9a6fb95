#pragma once
// Random networks of every coupling, which keep their own account of which channels go together: by naive relabelling,
// while they are built. forward() can hold chosen labels at 0 wherever a value has them: what pruning must equal.

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "support.h"

namespace hone::test {

using Labels = std::vector<int>;  // of the channels of one value

/// Convolutions (dense, grouped, depthwise), batch and layer norms, residual adds, concats, exchanged halves, squeeze
/// and excitation, channel shuffles, padded shortcuts, transposes, pools and linear layers, drawn from `seed`. Images
/// [N, 3, 8, 8], five outputs.
struct RandomNet : nn::Module {
  std::vector<nn::Conv2d> convs;
  std::vector<nn::BatchNorm2d> norms;
  std::vector<nn::LayerNorm> row_norms;
  std::vector<nn::Linear> layers;
  HONE_MODULE(RandomNet, convs, norms, row_norms, layers)

  std::vector<Labels> labels;                                   // of all values, in the order in which they are made
  std::set<int> locked;                                         // of inputs and outputs
  std::vector<std::pair<std::string, size_t>> labels_of_layer;  // a node's name, and its place in `labels`
  std::set<std::string> kinds;                                  // of the blocks drawn
  std::set<int> zero;                                           // labels held at 0

  std::vector<size_t> shuffled;  // values, in labels

  explicit RandomNet(uint64_t seed) : random_(seed) {
    now_ = add({-1, -2, -3});
    locked = {-1, -2, -3};
    conv(2 + 2 * draw(3), 1);
    for (int i = 0, n = 3 + draw(4); i < n; ++i) block();
    head();
  }
  Tensor forward(const Tensor& x) {
    Tensor h = x;
    for (const Step& s : steps_) h = s(*this, h);
    return h;
  }

  /// A shuffle whose channels are all tied by taking one of each group at a time could be cut the other way, into whole
  /// groups: this account does not try that.
  bool could_be_finer() const {
    return std::any_of(shuffled.begin(), shuffled.end(),
                       [&](size_t v) { return std::set<int>(labels[v].begin(), labels[v].end()).size() == 1; });
  }

  /// Labels that can go: neither locked nor all that some value has.
  std::set<int> free() const {
    std::set<int> all, stuck = locked;
    for (const Labels& l : labels) {
      all.insert(l.begin(), l.end());
      if (std::set<int>(l.begin(), l.end()).size() == 1) stuck.insert(l[0]);
    }
    for (const int s : stuck) all.erase(s);
    return all;
  }

 private:
  using Step = std::function<Tensor(RandomNet&, const Tensor&)>;

  int draw(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  int64_t channels() const { return static_cast<int64_t>(labels[now_].size()); }
  size_t add(Labels l) {
    labels.push_back(std::move(l));
    return labels.size() - 1;
  }
  Labels fresh(int64_t n) {
    Labels l;
    for (int64_t i = 0; i < n; ++i) l.push_back(next_label_++);
    return l;
  }
  void merge(int a, int b) {
    if (locked.count(b)) std::swap(a, b);
    for (Labels& l : labels) std::replace(l.begin(), l.end(), b, a);
  }
  void merge(size_t v, size_t w) {
    for (size_t i = 0; i < labels[v].size(); ++i) merge(labels[v][i], labels[w][i]);
  }

  /// x with the held channels of labels[v] at 0, along dim 1.
  Tensor held(const Tensor& x, size_t v) const {
    if (zero.empty()) return x;
    std::vector<double> mask;
    for (const int l : labels[v]) mask.push_back(zero.count(l) ? 0 : 1);
    Shape shape = Shape::filled(static_cast<int>(x.ndim()), 1);
    shape[1] = static_cast<int64_t>(mask.size());
    return x * cast(tensor(mask, shape), x.dtype());
  }
  void step(size_t v, Step f) {
    now_ = v;
    steps_.push_back([f = std::move(f), v](RandomNet& m, const Tensor& x) { return m.held(f(m, x), v); });
  }
  void same(Step f) { step(now_, std::move(f)); }

  size_t new_conv(int64_t in, int64_t out, int64_t kernel, int64_t groups, size_t v) {
    convs.push_back(nn::Conv2d(
        {.in = in, .out = out, .kernel = kernel, .padding = kernel / 2, .groups = groups, .bias = draw(2) == 0}));
    labels_of_layer.emplace_back(str("convs.", convs.size() - 1), v);
    return convs.size() - 1;
  }
  size_t new_norm(int64_t features) {
    norms.push_back(nn::BatchNorm2d({.features = features}));
    nn::BatchNorm2d& n = norms.back();
    const NoGrad no_grad;
    n.running_mean.tensor().copy_(randn({features}));
    n.running_var.tensor().copy_(rand({features}) + 0.5);
    Tensor(n.weight.raw()).copy_(randn({features}));
    Tensor(n.bias.raw()).copy_(randn({features}));
    return norms.size() - 1;
  }

  void conv(int64_t out, int64_t groups) {
    const int64_t in = channels(), per_in = in / groups, per_out = out / groups;
    Labels l;
    if (groups == 1) {
      l = fresh(out);
    } else if (per_in == 1) {
      for (int64_t o = 0; o < out; ++o) l.push_back(labels[now_][static_cast<size_t>(o / per_out)]);
    } else if (per_out == 1) {  // whole groups
      for (int64_t i = 0; i < in; ++i)
        merge(labels[now_][static_cast<size_t>(i / per_in * per_in)], labels[now_][static_cast<size_t>(i)]);
      for (int64_t o = 0; o < out; ++o) l.push_back(labels[now_][static_cast<size_t>(o * per_in)]);
    } else {  // in step
      in_step(per_in);
      const Labels one = fresh(per_out);
      for (int64_t o = 0; o < out; ++o) l.push_back(one[static_cast<size_t>(o % per_out)]);
    }
    const size_t v = add(l), c = new_conv(in, out, draw(2) ? 3 : 1, groups, v);
    step(v, [c](RandomNet& m, const Tensor& x) { return m.convs[c](x); });
    if (draw(2)) {
      const size_t b = new_norm(out);
      same([b](RandomNet& m, const Tensor& x) { return m.norms[b](x); });
    }
    activation();
  }
  void in_step(int64_t period) {
    for (int64_t i = period; i < channels(); ++i)
      merge(labels[now_][static_cast<size_t>(i % period)], labels[now_][static_cast<size_t>(i)]);
  }
  void activation() {
    switch (draw(5)) {
      case 0: return same([](RandomNet&, const Tensor& x) { return relu(x); });
      case 1: return same([](RandomNet&, const Tensor& x) { return sigmoid(x); });  // not 0 at 0
      case 2: return same([](RandomNet&, const Tensor& x) { return tanh(x) * 0.5 + 0.25; });
      case 3: return same([](RandomNet&, const Tensor& x) { return gelu(x); });
      default: return;
    }
  }

  void block() {
    constexpr const char* names[] = {"conv",     "depthwise", "multiplier", "grouped", "whole groups",
                                     "residual", "concat",    "pool",       "halves",  "excitation",
                                     "shuffle",  "padded",    "transposed", "row norm"};
    const int kind = draw(14);
    const int64_t c = channels();
    // Four channels can be shuffled by either of two equal dims: which is no matter of right and wrong.
    if (((kind == 3 || kind == 10) && (c % 2 != 0 || c < (kind == 3 ? 4 : 6))) ||
        (kind == 4 && (c % 2 != 0 || c < 4)) || (kind == 7 && size_ <= 2) || (kind == 2 && c > 12) ||
        (kind == 13 && size_ <= 2))
      return block();
    kinds.insert(names[kind]);
    switch (kind) {
      case 0: return conv(2 + 2 * draw(4), 1);
      case 1: return conv(c, c);
      case 2: return conv(2 * c, c);
      case 3: return conv(4 + 4 * draw(2), 2);
      case 4: return conv(c / 2, c / 2);
      case 5: return residual();
      case 6: return concatenation();
      case 7: return pool();
      case 8: return halves();
      case 9: return excitation();
      case 10: return shuffle();
      case 11: return padded();
      case 13: return row_norm();
      default:
        return same([](RandomNet&, const Tensor& x) {
          return permute(transpose(relu(permute(x, {0, 2, 3, 1})), -1, 1), {0, 1, 3, 2});
        });
    }
  }
  void residual() {
    const int64_t inner = 3 + draw(3);
    const size_t x = now_, v = add(fresh(inner)), w = add(fresh(channels()));
    const size_t a = new_conv(channels(), inner, 3, 1, v), b = new_conv(inner, channels(), 1, 1, w);
    const size_t n = new_norm(channels());
    merge(x, w);
    same(
        [=](RandomNet& m, const Tensor& h) { return m.held(m.norms[n](m.convs[b](m.held(m.convs[a](h), v))), w) + h; });
  }
  void concatenation() {
    const int64_t more = 2 + draw(3);
    const size_t v = add(fresh(more)), a = new_conv(channels(), more, 3, 1, v);
    const bool before = draw(2) == 0;
    Labels l = labels[now_];
    l.insert(before ? l.begin() : l.end(), labels[v].begin(), labels[v].end());
    step(add(l), [=](RandomNet& m, const Tensor& x) {
      const Tensor y = m.held(m.convs[a](x), v);
      return before ? concat({y, x}, 1) : concat({x, y}, 1);
    });
  }
  void pool() {
    const bool average = draw(2) == 0;
    same([average](RandomNet&, const Tensor& x) { return average ? avg_pool2d(x, 2) : max_pool2d(x, 2); });
    size_ /= 2;
  }
  void halves() {
    const int64_t at = 1 + draw(static_cast<int>(channels()) - 1);
    const auto cut = labels[now_].begin() + at;
    const Labels first(labels[now_].begin(), cut), second(cut, labels[now_].end());
    add(first), add(second);  // each must keep one
    Labels l = second;
    l.insert(l.end(), first.begin(), first.end());
    step(add(l), [at](RandomNet&, const Tensor& x) { return concat({slice(x, 1, at), slice(x, 1, 0, at)}, 1); });
  }
  void excitation() {
    const int64_t c = channels(), inner = 2 + draw(2);
    const size_t x = now_, v = add(fresh(inner)), w = add(fresh(c));
    const size_t a = new_linear(c, inner, v), b = new_linear(inner, c, w);
    merge(x, w);
    same([=](RandomNet& m, const Tensor& h) {
      const Tensor s = sigmoid(m.held(m.layers[b](m.held(relu(m.layers[a](mean(h, {2, 3}))), v)), w));
      return h * unsqueeze(unsqueeze(s, -1), -1);
    });
  }
  void shuffle() {
    const int64_t c = channels(), per = c / 2;
    in_step(per);
    Labels l;
    for (int64_t i = 0; i < c; ++i) l.push_back(labels[now_][static_cast<size_t>(i % 2 * per + i / 2)]);
    shuffled.push_back(add(l));
    step(shuffled.back(), [=](RandomNet&, const Tensor& x) {
      const Shape s = x.shape();
      return reshape(transpose(reshape(x, {s[0], 2, per, s[2], s[3]}), 1, 2), s);
    });
  }
  void row_norm() {  // over the last dim: each channel apart
    row_norms.push_back(nn::LayerNorm({.shape = {size_}}));
    const NoGrad no_grad;
    Tensor(row_norms.back().weight.raw()).copy_(randn({size_}));
    Tensor(row_norms.back().bias.raw()).copy_(randn({size_}));
    same([i = row_norms.size() - 1](RandomNet& m, const Tensor& x) { return m.row_norms[i](x); });
  }
  void padded() {
    const int64_t before = draw(3), after = 1 + draw(2);
    Labels l = fresh(before), tail = fresh(after);
    l.insert(l.end(), labels[now_].begin(), labels[now_].end());
    l.insert(l.end(), tail.begin(), tail.end());
    step(add(l), [=](RandomNet&, const Tensor& x) { return pad(x, {{before, after}, {0, 0}, {0, 0}}, 0.5); });
  }
  size_t new_linear(int64_t in, int64_t out, size_t v) {
    layers.push_back(nn::Linear({.in = in, .out = out}));
    labels_of_layer.emplace_back(str("layers.", layers.size() - 1), v);
    return layers.size() - 1;
  }
  void linear(int64_t out) {
    const size_t v = add(fresh(out)), l = new_linear(channels(), out, v);
    step(v, [l](RandomNet& m, const Tensor& x) { return m.layers[l](x); });
  }
  void head() {
    const int kind = draw(3);
    if (kind == 0) {
      same([](RandomNet&, const Tensor& x) { return flatten(adaptive_avg_pool2d(x, 1), 1); });
    } else {
      Labels l;
      for (const int c : labels[now_]) l.insert(l.end(), static_cast<size_t>(size_ * size_), c);
      const int64_t features = static_cast<int64_t>(l.size());
      step(add(l), [kind, features](RandomNet&, const Tensor& x) {
        return kind == 1 ? flatten(x, 1) : reshape(x, {x.size(0), features});
      });
    }
    linear(6);
    same([](RandomNet&, const Tensor& x) { return relu(x); });
    linear(5);
    locked.insert(labels[now_].begin(), labels[now_].end());
  }

  std::mt19937_64 random_;
  std::vector<Step> steps_;
  size_t now_ = 0;  // the value that the next step reads, in labels
  int next_label_ = 0;
  int64_t size_ = 8;
};

}  // namespace hone::test
