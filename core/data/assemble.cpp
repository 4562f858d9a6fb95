#include "hone/core/data/assemble.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "hone/core/error.h"

namespace hone::data::detail {
namespace {

using Kind = Transform::Kind;

const char* name_of(Kind k) {
  constexpr const char* names[] = {"normalize", "pad_to", "repeat_channels", "random_flip", "random_crop", "custom"};
  return names[static_cast<int>(k)];
}

bool in_place(Kind k) { return k == Kind::normalize || k == Kind::random_flip || k == Kind::custom; }

/// The sample's shape after a step; checks that the step can take it.
Shape after(const Transform& t, Shape s) {
  const char* name = name_of(t.kind);
  if (t.kind == Kind::normalize) {
    const auto channels = static_cast<int64_t>(t.mean.size());
    HONE_CHECK(channels == 1 || (s.ndim() > 0 && s[0] == channels), ShapeError, name, ": ", channels,
               " channels are given, but a sample has shape ", to_string(s));
  }
  if (t.kind == Kind::normalize || t.kind == Kind::custom) return s;
  HONE_CHECK(s.ndim() == 3, ShapeError, name, ": a sample must be [C, H, W], but has shape ", to_string(s));
  if (t.kind == Kind::pad_to) {
    HONE_CHECK(s[1] <= t.size && s[2] <= t.size, ShapeError, name, ": samples of shape ", to_string(s),
               " are larger than ", t.size);
    s[1] = s[2] = t.size;
  } else if (t.kind == Kind::repeat_channels) {
    HONE_CHECK(s[0] == 1, ShapeError, name, ": a sample must have one channel, but has shape ", to_string(s));
    s[0] = t.size;
  }
  return s;
}

/// to[y][x] = from[y + down][x + right], zero outside; planes of different sizes.
void shift_plane(const float* from, int64_t h, int64_t w, float* to, int64_t to_h, int64_t to_w, int64_t down,
                 int64_t right) {
  const int64_t left = std::clamp<int64_t>(-right, 0, to_w), stop = std::clamp<int64_t>(w - right, left, to_w);
  for (int64_t y = 0; y < to_h; ++y, to += to_w) {
    const int64_t row = y + down;
    if (row < 0 || row >= h) {
      std::fill_n(to, to_w, 0.0f);
      continue;
    }
    std::fill_n(to, left, 0.0f);
    std::copy_n(from + row * w + left + right, stop - left, to + left);
    std::fill(to + stop, to + to_w, 0.0f);
  }
}

}  // namespace

void permutation(std::span<int64_t> order, uint64_t seed, uint64_t stream) {
  std::iota(order.begin(), order.end(), 0);
  const Philox random{seed, stream};
  for (size_t i = order.size(); i > 1; --i) {  // Fisher and Yates
    const auto words = random(i);
    std::swap(order[i - 1], order[below(uint64_t{words[1]} << 32 | words[0], i)]);
  }
}

Assembler::Assembler(Dataset dataset, Transforms transform, uint64_t seed)
    : dataset_(std::move(dataset)), steps_(std::move(transform)), seed_(seed) {
  HONE_CHECK(dataset_.all_inputs().defined(), ValueError, "data: the dataset is empty: it was never given tensors");
  plan();
}

void Assembler::plan() {
  const DType from = dataset_.all_inputs().dtype();
  raw_ = steps_.empty() && from != DType::u8;
  out_dtype_ = raw_ ? from : DType::f32;
  HONE_CHECK(raw_ || from == DType::u8 || from == DType::f32, DTypeError,
             "data: transforms take u8 or f32 samples, not ", name(from));
  out_shape_ = dataset_.input_shape();
  const float unit = from == DType::u8 ? 1.0f / 255.0f : 1.0f;
  scale_ = {unit};
  shift_ = {0.0f};
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Transform& t = steps_[i];
    shapes_.push_back(out_shape_);
    out_shape_ = after(t, out_shape_);
    if (i == 0 && t.kind == Kind::normalize) {
      scale_.clear();
      shift_.clear();
      for (size_t c = 0; c < t.mean.size(); ++c) {
        scale_.push_back(unit / t.std[c]);
        shift_.push_back(-t.mean[c] / t.std[c]);
      }
      first_ = 1;
    }
    if (!in_place(t.kind)) last_move_ = i + 1;
  }
  int64_t largest = 0;
  for (const Shape& s : shapes_) largest = std::max(largest, s.numel());
  if (last_move_ > 0)
    for (auto& s : scratch_) s.resize(static_cast<size_t>(largest));
}

template <class T> void Assembler::convert(const T* from, float* to) const {
  const auto channels = static_cast<int64_t>(scale_.size());
  const int64_t n = dataset_.input_shape().numel() / channels;
  for (int64_t c = 0; c < channels; ++c, from += n, to += n) {
    const float scale = scale_[static_cast<size_t>(c)], shift = shift_[static_cast<size_t>(c)];
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]) * scale + shift;
  }
}

void Assembler::sample(int64_t position, int64_t epoch, int64_t words, float* out) {
  const Tensor& x = dataset_.all_inputs();
  const int64_t at = dataset_.row(position) * dataset_.input_shape().numel();
  int flip = 0;
  float* now = last_move_ == 0 ? out : scratch_[0].data();
  if (x.dtype() == DType::u8) {
    convert(x.data<uint8_t>() + at, now);
  } else {
    convert(x.data<float>() + at, now);
  }
  for (size_t i = first_; i < steps_.size(); ++i) {
    const Transform& t = steps_[i];
    const Shape& s = shapes_[i];
    const auto random = [&] {  // a stream for (seed, epoch, sample, step)
      const auto w = Philox{seed_, stream_of(kAugment, epoch)}(static_cast<uint64_t>(words) << 8 | i);
      return Philox{seed_, uint64_t{w[1]} << 32 | w[0]};
    };
    float* next = now;
    if (!in_place(t.kind)) next = i + 1 == last_move_ ? out : scratch_[flip ^= 1].data();
    switch (t.kind) {
      case Kind::normalize: {
        const auto channels = static_cast<int64_t>(t.mean.size());
        const int64_t n = s.numel() / channels;
        for (int64_t c = 0; c < channels; ++c) {
          const float mean = t.mean[static_cast<size_t>(c)], std = t.std[static_cast<size_t>(c)];
          for (int64_t j = c * n; j < (c + 1) * n; ++j) now[j] = (now[j] - mean) / std;
        }
        break;
      }
      case Kind::pad_to:
        for (int64_t c = 0; c < s[0]; ++c)
          shift_plane(now + c * s[1] * s[2], s[1], s[2], next + c * t.size * t.size, t.size, t.size,
                      -((t.size - s[1]) / 2), -((t.size - s[2]) / 2));
        break;
      case Kind::repeat_channels:
        for (int64_t c = 0; c < t.size; ++c) std::copy_n(now, s[1] * s[2], next + c * s[1] * s[2]);
        break;
      case Kind::random_flip:
        if (uniform_f32(random().word(0)) < static_cast<float>(t.probability))
          for (int64_t y = 0; y < s[0] * s[1]; ++y) std::reverse(now + y * s[2], now + (y + 1) * s[2]);
        break;
      case Kind::random_crop: {
        const auto w = random()(0);
        const auto range = static_cast<uint64_t>(2 * t.size + 1);
        const int64_t down = static_cast<int64_t>(below(uint64_t{w[0]} << 32 | w[1], range)) - t.size;
        const int64_t right = static_cast<int64_t>(below(uint64_t{w[2]} << 32 | w[3], range)) - t.size;
        for (int64_t c = 0; c < s[0]; ++c)
          shift_plane(now + c * s[1] * s[2], s[1], s[2], next + c * s[1] * s[2], s[1], s[2], down, right);
        break;
      }
      case Kind::custom: t.function({now, static_cast<size_t>(s.numel())}, s, random()); break;
    }
    now = next;
  }
}

void Assembler::fill(std::span<const int64_t> positions, int64_t epoch, void* x, void* y, int64_t first_place) {
  const Tensor& from_x = dataset_.all_inputs();
  const Tensor& from_y = dataset_.all_targets();
  const auto x_row = static_cast<size_t>(out_shape_.numel() * size_of(out_dtype_));
  const auto y_row = static_cast<size_t>(dataset_.target_shape().numel() * size_of(from_y.dtype()));
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto row = static_cast<size_t>(dataset_.row(positions[i]));
    char* to = static_cast<char*>(x) + i * x_row;
    if (x_row > 0 && raw_) std::memcpy(to, static_cast<const char*>(from_x.raw_data()) + row * x_row, x_row);
    const int64_t words = first_place < 0 ? positions[i] : first_place + static_cast<int64_t>(i);
    if (x_row > 0 && !raw_) sample(positions[i], epoch, words, reinterpret_cast<float*>(to));
    if (y_row > 0)
      std::memcpy(static_cast<char*>(y) + i * y_row, static_cast<const char*>(from_y.raw_data()) + row * y_row, y_row);
  }
}

}  // namespace hone::data::detail
