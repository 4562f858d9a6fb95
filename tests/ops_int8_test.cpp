// Rows of the ops on codes: the plain reference in integers. Products are tested further in int8_test.cpp.

#include "hone/ops/packed/reference.h"
#include "op_rows.h"

namespace hone::test {
namespace {

using reference::Codes;
using reference::codes_of;
using reference::conv_sums;
using reference::linear_sums;
using reference::max_pooled;
using reference::rescaled;

Codes codes_of(const Array& a) { return Codes(a.v.begin(), a.v.end()); }
Array array_of(const Codes& q, const Shape& shape) {
  Array a(shape);
  a.v.assign(q.begin(), q.end());
  return a;
}
Tensor draw(const Shape& s, DType dtype, int64_t low, int64_t high, uint64_t seed) {
  return cast(integers(s, low, high, seed), dtype);
}
Tensor bytes(const Shape& s, uint64_t seed) { return draw(s, u8, 0, 256, seed); }

OpRow row(const std::string& op, std::function<Tensors(const Tensors&)> call,
          std::function<std::vector<Sample>()> samples, std::function<Arrays(const Arrays&)> reference) {
  return {.op = op,
          .call = std::move(call),
          .samples = std::move(samples),
          .reference = std::move(reference),
          .f32 = {0, 0},
          .differentiable = false,
          .second_order = false,
          .dtypes = {DType::f32}};
}

const Int8Range kRange = {100, 3, 250};

OpRow quantize_row() {
  return row(
      "int8_quantize", [](const Tensors& x) { return Tensors{int8_quantize(x[0], 0.25, kRange)}; },
      [] {
        return std::vector<Sample>{{"any", {uniform({3, 50}, -40, 40, 800)}},
                                   {"ties, ends, beyond them, NaN",
                                    {values({0.125, 0.375, -0.125, -0.375, 0, -0.0, 37.5, 37.6, -24.25, -25, 1e30,
                                             -1e30, kInf, -kInf, kNan})}},
                                   {"nothing", {uniform({0, 4}, 0, 1, 801)}}};
      },
      [](const Arrays& in) {
        return Arrays{map(in[0], [](double v) {
          if (v != v) return 3.0;
          const double t = v * 4, down = std::floor(t), rest = t - down;
          const double q = std::isinf(t) ? t : rest < 0.5 || (rest == 0.5 && std::fmod(down, 2) == 0) ? down : down + 1;
          return std::min(std::max(q + 100, 3.0), 250.0);
        })};
      });
}
OpRow quantize_rows_row() {
  return row(
      "int8_quantize_rows",
      [](const Tensors& x) {
        const Outputs out = int8_quantize_rows(x[0]);
        return Tensors{out[0], out[1]};
      },
      [] {
        return std::vector<Sample>{
            {"any", {uniform({5, 3, 11}, -4, 2, 814)}},
            {"zeros, denormals, large", {values({0, 0, 0, 1e-40, -1e-41, 0, 3e38, -1e38, 0}, {3, 3})}},
            {"infinity", {values({1, -kInf, 2, -1}, {2, 2})}},
            {"no rows", {uniform({0, 4}, 0, 1, 815)}}};
      },
      [](const Arrays& in) {
        const Array& x = in[0];
        Shape shape = x.shape;
        for (int d = 1; d < shape.ndim(); ++d) shape[d] = 1;
        Array q(x.shape), scales(shape);
        for (int64_t r = 0; r < scales.numel(); ++r) {
          const int64_t n = x.numel() / scales.numel();
          double most = 0;
          for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[r * n + i]));
          auto scale = static_cast<float>(most / 127);
          if (most < 1e-36) scale = 1;
          if (std::isinf(most)) scale = NAN;
          scales[r] = scale;
          for (int64_t i = 0; i < n; ++i) {
            const float t = static_cast<float>(x[r * n + i]) * (1 / scale);
            q[r * n + i] = std::isnan(t) ? 1 : std::clamp(128 + std::nearbyint(t), 1.0f, 255.0f);
          }
        }
        return Arrays{q, scales};
      });
}
OpRow dequantize_row() {
  return row(
      "int8_dequantize", [](const Tensors& x) { return Tensors{int8_dequantize(x[0], 0.25, 100)}; },
      [] {
        return std::vector<Sample>{{"any", {bytes({7, 41}, 802)}}, {"nothing", {bytes({0}, 803)}}};
      },
      [](const Arrays& in) { return Arrays{map(in[0], [](double q) { return 0.25 * (q - 100); })}; });
}
OpRow add_row() {
  return row(
      "int8_add", [](const Tensors& x) { return Tensors{int8_add(x[0], 90, 0.7, x[1], 160, 1.3, kRange)}; },
      [] {
        return std::vector<Sample>{{"any", {bytes({2, 3, 17}, 804), bytes({2, 3, 17}, 805)}},
                                   {"nothing", {bytes({0, 2}, 806), bytes({0, 2}, 807)}}};
      },
      [](const Arrays& in) {
        return Arrays{broadcast(in[0], in[1], [](double a, double b) {
          // 1.3 · 2^14 and 0.7 · 2^14, rounded
          const auto sum = static_cast<int64_t>(a - 90) * 11469 + static_cast<int64_t>(b - 160) * 21299;
          return static_cast<double>(std::clamp<int64_t>(100 + rescaled(sum, 1, 14), 3, 250));
        })};
      });
}
OpRow lookup_row() {
  return row(
      "int8_lookup", [](const Tensors& x) { return Tensors{int8_lookup(x[0], x[1])}; },
      [] {
        return std::vector<Sample>{{"any", {bytes({5, 30}, 808), bytes({256}, 809)}, true, false}};
      },
      [](const Arrays& in) { return Arrays{map(in[0], [&](double q) { return in[1][static_cast<int64_t>(q)]; })}; });
}
OpRow max_pool_row() {
  static const MaxPool2dOptions options = {.stride = {2, 1}, .padding = {1, 0}, .dilation = {1, 2}};
  return row(
      "int8_max_pool2d",
      [](const Tensors& x) {
        return Tensors{int8_max_pool2d(x[0], {3, 2}, options)};
      },
      [] {
        return std::vector<Sample>{{"any", {bytes({2, 3, 7, 9}, 810)}}, {"no images", {bytes({0, 3, 7, 9}, 811)}}};
      },
      [](const Arrays& in) {
        Shape shape;
        const Codes y = max_pooled(codes_of(in[0]), in[0].shape, {3, 2}, options, shape);
        return Arrays{array_of(y, shape)};
      });
}
OpRow avg_pool_row() {
  return row(
      "int8_avg_pool2d",
      [](const Tensors& x) {
        return Tensors{int8_avg_pool2d(x[0], 30, {3, 2}, {2, 1}, 1.5, kRange)};
      },
      [] {
        return std::vector<Sample>{{"any", {bytes({2, 3, 7, 9}, 812)}}};
      },
      [](const Arrays& in) {
        const Array& x = in[0];
        Array y(Shape{x.shape[0], x.shape[1], 3, 8});
        for (int64_t i = 0; i < y.numel(); ++i) {
          const Shape at = index_of(y.shape, i);
          int64_t sum = -6 * 30;
          for (int64_t k = 0; k < 6; ++k)
            sum += static_cast<int64_t>(x.at({at[0], at[1], at[2] * 2 + k / 2, at[3] + k % 2}));
          // 1.5 / 6 = 2^30 / 2^32
          y[i] = static_cast<double>(std::clamp<int64_t>(100 + rescaled(sum, 1, 2), 3, 250));
        }
        return Arrays{y};
      });
}

// Inputs x, weight, bias; the output's factor is 2^-9, so that a plain shift is the reference.
Int8Output output(int64_t outs) {
  return Int8Output::codes(std::vector<double>(static_cast<size_t>(outs), 1.0 / 512), 100, 3, 250);
}
Codes shifted(Codes sums) {
  for (int64_t& s : sums) s = std::clamp<int64_t>(100 + rescaled(s, 1, 9), 3, 250);
  return sums;
}
OpRow linear_row(int64_t bits) {
  const int64_t most = bits == 8 ? 127 : 7;
  OpRow r = row(
      "int8_linear",
      [bits](const Tensors& x) {
        const Int8Matrix w = Int8Matrix::pack(x[1], bits);
        return Tensors{int8_linear(x[0], w, w.start(x[2], 30), output(x[1].size(0)))};
      },
      [most] {
        const auto sample = [most](const char* why, const Shape& x, int64_t outs, uint64_t seed) {
          return Sample{why,
                        {bytes(x, seed), draw({outs, x.back()}, i8, -most, most + 1, seed + 1),
                         draw({outs}, i32, -3000, 3000, seed + 2)}};
        };
        return std::vector<Sample>{sample("one vector", {9}, 18, 820), sample("a batch", {21, 12}, 5, 823),
                                   sample("three dims", {2, 3, 70}, 33, 826), sample("no rows", {0, 4}, 2, 829)};
      },
      [](const Arrays& in) {
        Shape shape = in[0].shape;
        const int64_t features = shape.back();
        shape[shape.ndim() - 1] = in[1].shape[0];
        if (shape.numel() == 0) return Arrays{Array(shape)};
        return Arrays{
            array_of(shifted(linear_sums(codes_of(in[0]), 30, codes_of(in[1]), codes_of(in[2]), features)), shape)};
      });
  r.variant = str(bits, "_bits");
  return r;
}
OpRow conv_row() {
  static const Int8ConvOptions options = {
      .conv = {.stride = {2, 1}, .padding = {1}, .dilation = {1, 2}, .groups = 2}, .pool = {2, 1}, .x_zero_point = 30};
  return row(
      "int8_conv2d",
      [](const Tensors& x) {
        const Int8Matrix w = Int8Matrix::pack(x[1], 8, 2, 2);
        return Tensors{int8_conv2d(x[0], w, w.start(x[2], 30), output(x[1].size(0)), options)};
      },
      [] {
        const auto sample = [](const char* why, const Shape& x, uint64_t seed) {
          return Sample{
              why,
              {bytes(x, seed), draw({8, 2, 3, 2}, i8, -127, 128, seed + 1), draw({8}, i32, -3000, 3000, seed + 2)}};
        };
        return std::vector<Sample>{sample("a batch", {2, 4, 9, 6}, 840), sample("one image", {1, 4, 7, 40}, 843),
                                   sample("no images", {0, 4, 9, 6}, 846)};
      },
      [](const Arrays& in) {
        const auto as = [](const Array& a, DType d) { return cast(tensor(a.v, a.shape), d); };
        Shape shape;
        const Codes sums = conv_sums(as(in[0], u8), 30, as(in[1], i8), codes_of(in[2]), options.conv, shape);
        const Codes y = max_pooled(shifted(sums), Shape(shape), options.pool, options.pool_options, shape);
        return Arrays{array_of(y, shape)};
      });
}

}  // namespace

std::vector<OpRow> int8_rows() {
  return {quantize_row(), quantize_rows_row(), dequantize_row(), add_row(),     lookup_row(),
          max_pool_row(), avg_pool_row(),      linear_row(8),    linear_row(4), conv_row()};
}

}  // namespace hone::test
