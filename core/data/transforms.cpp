#include "hone/core/data/transforms.h"

#include <cmath>

#include "hone/core/error.h"

namespace hone::data {

Transform normalize(double mean, double std) { return normalize({mean}, {std}); }

Transform normalize(std::initializer_list<double> mean, std::initializer_list<double> std) {
  HONE_CHECK(mean.size() == std.size() && mean.size() > 0, ValueError, "normalize: ", mean.size(), " means and ",
             std.size(), " standard deviations: one of each per channel is wanted");
  Transform t{.kind = Transform::Kind::normalize};
  for (const double m : mean) {
    HONE_CHECK(std::isfinite(m), ValueError, "normalize: mean ", m, " is not finite");
    t.mean.push_back(static_cast<float>(m));
  }
  for (const double s : std) {
    HONE_CHECK(std::isfinite(s) && static_cast<float>(s) > 0, ValueError, "normalize: standard deviation ", s,
               " is not positive");
    t.std.push_back(static_cast<float>(s));
  }
  return t;
}

Transform pad_to(int64_t size) {
  HONE_CHECK(size >= 1 && size <= 65536, ValueError, "pad_to: size ", size, " is outside [1, 65536]");
  return {.kind = Transform::Kind::pad_to, .size = size};
}

Transform repeat_channels(int64_t count) {
  HONE_CHECK(count >= 1 && count <= 65536, ValueError, "repeat_channels: count ", count, " is outside [1, 65536]");
  return {.kind = Transform::Kind::repeat_channels, .size = count};
}

Transform random_flip(double probability) {
  HONE_CHECK(probability >= 0 && probability <= 1, ValueError, "random_flip: probability ", probability,
             " is outside [0, 1]");
  return {.kind = Transform::Kind::random_flip, .probability = probability};
}

Transform random_crop(int64_t pad) {
  HONE_CHECK(pad >= 0 && pad <= 65536, ValueError, "random_crop: pad ", pad, " is outside [0, 65536]");
  return {.kind = Transform::Kind::random_crop, .size = pad};
}

Transform custom(SampleFunction f) {
  HONE_CHECK(f, ValueError, "custom: the function is empty");
  return {.kind = Transform::Kind::custom, .function = std::move(f)};
}

}  // namespace hone::data
