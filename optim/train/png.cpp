#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <cmath>
#include <limits>

#include "hone/core/error.h"
#include "hone/optim/train/report.h"

namespace hone::train {

std::string encode_png(const Tensor& image) {
  HONE_CHECK(image.defined(), ShapeError, "encode_png: an undefined image");
  const bool planes = image.ndim() == 3;
  HONE_CHECK((image.ndim() == 2 || (planes && (image.size(0) == 1 || image.size(0) == 3))) && image.numel() > 0,
             ShapeError, "encode_png: an image must be [H, W], [1, H, W] or [3, H, W], got ", image.shape());
  HONE_CHECK(image.dtype() == u8 || is_floating(image.dtype()), DTypeError,
             "encode_png: an image must be u8 or floating, got ", image.dtype());
  HONE_CHECK(image.size(-1) <= 16384 && image.size(-2) <= 16384, ShapeError, "encode_png: an image of ", image.shape(),
             " is too large");
  const std::vector<double> v = image.to_vector<double>();
  double low = 0, high = 255;
  if (image.dtype() != u8) {
    low = std::numeric_limits<double>::infinity();
    high = -low;
    for (double x : v) {
      HONE_CHECK(std::isfinite(x), NumericError, "encode_png: a pixel is ", x);
      low = std::min(low, x);
      high = std::max(high, x);
    }
  }
  const double scale = high > low ? 255 / (high - low) : 0;
  const int64_t height = image.size(-2), width = image.size(-1), channels = planes ? image.size(0) : 1;
  std::vector<unsigned char> pixels(v.size());
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < height * width; ++i)
      pixels[static_cast<size_t>(i * channels + c)] =
          static_cast<unsigned char>(std::lround((v[static_cast<size_t>(c * height * width + i)] - low) * scale));
  std::string out;
  const auto append = [](void* to, void* data, int size) {
    static_cast<std::string*>(to)->append(static_cast<const char*>(data), static_cast<size_t>(size));
  };
  const int written =
      stbi_write_png_to_func(append, &out, static_cast<int>(width), static_cast<int>(height),
                             static_cast<int>(channels), pixels.data(), static_cast<int>(width * channels));
  HONE_CHECK(written != 0, Error, "encode_png: no memory for an image of ", image.shape());
  return out;
}

}  // namespace hone::train
