// Rows of layer_norm and batch_norm.

#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

bool given(const Arrays& in, size_t i) { return in.size() > i && !in[i].v.empty(); }

Array layer_norm_reference(const Arrays& in, int64_t n, double eps) {
  Array y = in[0];
  for (int64_t r = 0; n > 0 && r < y.numel() / n; ++r) {
    double mean = 0, var = 0;
    for (int64_t i = 0; i < n; ++i) mean += in[0][r * n + i] / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) var += std::pow(in[0][r * n + i] - mean, 2) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) {
      double v = (in[0][r * n + i] - mean) / std::sqrt(var + eps);
      if (given(in, 1)) v *= in[1][i];
      if (given(in, 2)) v += in[2][i];
      y[r * n + i] = v;
    }
  }
  return y;
}

OpRow layer_norm_row(const std::string& variant, const Shape& normalized, bool affine, const Shape& leading,
                     double eps) {
  return {
      .op = "layer_norm",
      .variant = variant,
      .call =
          [=](const Tensors& x) {
            return Tensors{layer_norm(x[0], normalized, affine ? x[1] : Tensor(), affine ? x[2] : Tensor(), eps)};
          },
      .samples =
          [=] {
            const auto inputs = [&](double shift, uint64_t seed, Shape lead) {
              for (int64_t d : normalized) lead.push_back(d);
              Tensors in = {uniform(lead, shift - 2, shift + 2, seed)};
              if (affine) {
                in.push_back(uniform(normalized, 0.5, 1.5, seed + 1));
                in.push_back(uniform(normalized, -1, 1, seed + 2));
              }
              return in;
            };
            Shape none = leading;
            none.push_back(0);
            std::vector<Sample> s = {{"random", inputs(0, 60, leading), true, false}, {"no rows", inputs(0, 61, none)}};
            if (!affine)
              s.push_back({"constant rows have variance 0", {full({2, normalized.numel()}, 3, DType::f64)}, false});
            if (!affine && normalized.ndim() > 1) s.pop_back();
            return s;
          },
      .reference = [=](const Arrays& x) { return Arrays{layer_norm_reference(x, normalized.numel(), eps)}; },
      .f32 = {2e-5, 2e-5},
      .bf16 = {2e-2, 3e-2}};
}

// Inputs: x, running mean, running var, weight, bias.
Array batch_norm_reference(const Arrays& in, bool training, double eps) {
  Array y = in[0];
  const Shape& s = y.shape;
  int64_t inner = 1;
  for (int d = 2; d < s.ndim(); ++d) inner *= s[d];
  for (int64_t c = 0; c < s[1]; ++c) {
    double mean = 0, var = 0;
    const auto n = static_cast<double>(s[0] * inner);
    const auto each = [&](auto f) {
      for (int64_t b = 0; b < s[0]; ++b) {
        for (int64_t i = 0; i < inner; ++i) f((b * s[1] + c) * inner + i);
      }
    };
    each([&](int64_t i) { mean += in[0][i] / n; });
    each([&](int64_t i) { var += (in[0][i] - mean) * (in[0][i] - mean) / n; });
    if (!training) {
      mean = in[1][c];
      var = in[2][c];
    }
    each([&](int64_t i) {
      const double v = (in[0][i] - mean) / std::sqrt(var + eps);
      y[i] = (given(in, 3) ? in[3][c] : 1) * v + (given(in, 4) ? in[4][c] : 0);
    });
  }
  return y;
}

OpRow batch_norm_row(const std::string& variant, bool training, bool affine, const Shape& shape) {
  return {.op = "batch_norm",
          .variant = variant,
          .call =
              [=](const Tensors& x) {
                // Rows must not change their inputs: in training the buffers are tested on their own.
                return Tensors{batch_norm(x[0], training ? Tensor() : x[1], training ? Tensor() : x[2],
                                          affine ? x[3] : Tensor(), affine ? x[4] : Tensor(), {.training = training})};
              },
          .samples =
              [=] {
                const auto inputs = [&](const Shape& s, double shift, uint64_t seed) {
                  const Shape c{s[1]};
                  Tensors in = {uniform(s, shift - 2, shift + 2, seed), uniform(c, -1, 1, seed + 1),
                                uniform(c, 0.5, 2, seed + 2)};
                  if (affine) {
                    in.push_back(uniform(c, 0.5, 1.5, seed + 3));
                    in.push_back(uniform(c, -1, 1, seed + 4));
                  }
                  return in;
                };
                Shape wide = shape, empty = shape;
                wide[1] = 37;  // more channels than one piece takes
                empty[0] = 0;
                std::vector<Sample> s = {{"random", inputs(shape, 0, 70), true, false},
                                         {"many channels", inputs(wide, 0.5, 71), false, false}};
                if (!training) s.push_back({"no rows", inputs(empty, 0, 72)});
                return s;
              },
          .reference = [=](const Arrays& x) { return Arrays{batch_norm_reference(x, training, 1e-5)}; },
          .f32 = {2e-5, 2e-5},
          .bf16 = {2e-2, 3e-2},
          .constant = {1, 2}};
}

}  // namespace

std::vector<OpRow> norm_rows() {
  return {
      layer_norm_row("affine", {6}, true, {4}, 1e-5),           layer_norm_row("plain", {5}, false, {2, 3}, 1e-3),
      layer_norm_row("two_dims", {3, 4}, true, {3}, 1e-5),      layer_norm_row("one_row", {7}, true, {}, 1e-5),
      batch_norm_row("training_4d", true, true, {3, 2, 2, 3}),  batch_norm_row("training_2d", true, true, {5, 3}),
      batch_norm_row("training_plain", true, false, {4, 2, 3}), batch_norm_row("running_4d", false, true, {2, 3, 2, 2}),
      batch_norm_row("running_plain", false, false, {3, 4})};
}

}  // namespace hone::test
