// Rows of dropout's kin: against their definition, with the words that the first stream after manual_seed(11) has.

#include <algorithm>
#include <cmath>

#include "op_rows.h"

namespace hone::test {
namespace {

// Whether word i of the stream says "drop" for probability p.
bool drops(const Philox& stream, int64_t i, double p) {
  return static_cast<double>(stream.word(static_cast<uint64_t>(i))) * 0x1p-32 < p;
}

// A factor for each run of numel/count elements.
Array leading_reference(const Array& x, int64_t count, double p) {
  manual_seed(11);
  const Philox stream = next_stream();
  Array y = x;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const int64_t lead = i / (x.numel() / count);
    y[i] = drops(stream, lead, p) ? 0 : x[i] / (1 - p);
  }
  return y;
}

Array block_reference(const Array& x, double p, int64_t b) {
  if (x.numel() == 0) return x;
  manual_seed(11);
  const Philox stream = next_stream();
  const int64_t h = x.shape[2], w = x.shape[3], rows = h - b + 1, cols = w - b + 1, places = rows * cols;
  const double gamma = p / static_cast<double>(b * b) * static_cast<double>(h * w) / static_cast<double>(places);
  Array mask(x.shape, 1);
  for (int64_t u = 0; u < x.shape[0] * x.shape[1]; ++u)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        if (!drops(stream, u * ((places + 3) / 4) * 4 + i * cols + j, gamma)) continue;
        for (int64_t r = i; r < i + b; ++r)
          for (int64_t c = j; c < j + b; ++c) mask[(u * h + r) * w + c] = 0;
      }
  double kept = 0;
  for (double v : mask.v) kept += v;
  Array y = x;
  for (int64_t i = 0; i < x.numel(); ++i) y[i] = mask[i] == 0 ? 0 : x[i] * static_cast<double>(x.numel()) / kept;
  return y;
}

std::vector<Sample> plane_samples() {
  return {{"planes", {uniform({3, 4, 5, 6}, -2, 2, 60)}},
          {"one plane as small as the block", {uniform({2, 9, 3, 3}, -2, 2, 61)}},
          {"several parallel pieces", {uniform({40, 30, 7, 5}, -1, 1, 62)}, false},
          {"no samples", {uniform({0, 2, 4, 4}, 0, 1, 0)}}};
}

OpRow row(const std::string& op, const std::string& variant, std::function<Tensor(const Tensor&)> call,
          std::function<Array(const Array&)> reference, std::function<std::vector<Sample>()> samples) {
  return {.op = op,
          .variant = variant,
          .call = [call](const Tensors& x) { return Tensors{call(x[0])}; },
          .samples = std::move(samples),
          .reference = [reference](const Arrays& x) { return Arrays{reference(x[0])}; },
          .bf16 = {2.4e-2, 1e-2},  // the factor is rounded, and the product
          .composite = true};
}

}  // namespace

std::vector<OpRow> dropout_rows() {
  const auto channels = [](const Array& x) { return x.shape[0] * x.shape[1]; };
  std::vector<OpRow> rows;
  for (double p : {0.25, 0.6}) {
    const std::string variant = p < 0.5 ? "quarter" : "most";
    rows.push_back(row(
        "dropout2d", variant, [p](const Tensor& x) { return dropout2d(x, p); },
        [=](const Array& x) { return x.numel() == 0 ? x : leading_reference(x, channels(x), p); }, plane_samples));
    rows.push_back(row(
        "drop_path", variant, [p](const Tensor& x) { return drop_path(x, p); },
        [=](const Array& x) { return x.numel() == 0 ? x : leading_reference(x, x.shape[0], p); }, plane_samples));
    rows.push_back(row(
        "drop_block", variant + "_3", [p](const Tensor& x) { return drop_block(x, p, 3); },
        [=](const Array& x) { return block_reference(x, p, 3); }, plane_samples));
  }
  rows.push_back(row(
      "drop_block", "single_elements", [](const Tensor& x) { return drop_block(x, 0.3, 1); },
      [](const Array& x) { return block_reference(x, 0.3, 1); }, plane_samples));
  rows.push_back(row(
      "drop_block", "even", [](const Tensor& x) { return drop_block(x, 0.4, 2); },
      [](const Array& x) { return block_reference(x, 0.4, 2); }, plane_samples));
  return rows;
}

}  // namespace hone::test
