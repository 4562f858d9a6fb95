#pragma once
// What is done to a sample on its way into a batch. Random ones are functions of (seed, epoch, sample) alone.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "hone/core/random.h"
#include "hone/core/shape.h"

namespace hone::data {

/// Changes one sample in place: its values, its shape, and random words that belong to (seed, epoch, sample, step).
using SampleFunction = std::function<void(std::span<float> values, const Shape& shape, const Philox& random)>;

/// One step. Made by the functions below.
struct Transform {
  enum class Kind : uint8_t { normalize, pad_to, repeat_channels, random_flip, random_crop, custom };
  Kind kind;
  int64_t size = 0;
  double probability = 0;
  std::vector<float> mean = {}, std = {};
  SampleFunction function = {};
};

/// Steps in order, over f32 samples: u8 ones are divided by 255 first.
using Transforms = std::vector<Transform>;

/// (x − mean) / std. ValueError unless std > 0.
Transform normalize(double mean, double std);
/// The same, channel by channel.
Transform normalize(std::initializer_list<double> mean, std::initializer_list<double> std);
/// [C, H, W] → [C, size, size], zeros around the sample; one more on the right and below where the sum is odd.
Transform pad_to(int64_t size);
/// [1, H, W] → [count, H, W].
Transform repeat_channels(int64_t count);
/// Mirrors left and right with this probability.
Transform random_flip(double probability = 0.5);
/// Pads all four sides with `pad` zeros and cuts the former size out again, anywhere.
Transform random_crop(int64_t pad);
/// Calls `f` on every sample, from the loader's thread.
Transform custom(SampleFunction f);

}  // namespace hone::data
