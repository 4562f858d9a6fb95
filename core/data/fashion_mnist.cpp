#include "hone/core/data/fashion_mnist.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "hone/core/basic_ops.h"
#include "hone/core/data/idx.h"
#include "hone/core/error.h"
#include "hone/core/tensor_impl.h"

namespace hone::data {
namespace {

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// The file as one of its known spellings: train-images-idx3-ubyte.gz, train-images-idx3-ubyte,
/// train-images.idx3-ubyte.
std::string spelling(const std::string& stem) {
  std::string dotted = stem;
  dotted[dotted.rfind("-idx")] = '.';
  for (const std::string& s : {stem + ".gz", stem, dotted, dotted + ".gz"})
    if (exists(s)) return s;
  return {};
}

Dataset read(const std::string& folder, const std::string& part, int64_t classes, const std::string& hint) {
  const auto find = [&](const std::string& file) {
    const std::string found = spelling(folder + "/" + part + file);
    if (found.empty())
      throw IoError(
          str("cannot read '", folder, "/", part, file, ".gz': there is no such file, with or without .gz; ", hint));
    return found;
  };
  const std::string images_path = find("-images-idx3-ubyte"), labels_path = find("-labels-idx1-ubyte");
  const Tensor images = read_idx(images_path), labels = read_idx(labels_path);
  if (images.dtype() != DType::u8 || images.ndim() != 3 || images.size(1) != 28 || images.size(2) != 28)
    throw FormatError(str("'", images_path, "' holds ", name(images.dtype()), " ", to_string(images.shape()),
                          ", not u8 images of 28 by 28"));
  if (labels.dtype() != DType::u8 || labels.ndim() != 1)
    throw FormatError(str("'", labels_path, "' holds ", name(labels.dtype()), " ", to_string(labels.shape()),
                          ", not a list of u8 labels"));
  if (images.size(0) != labels.size(0))
    throw FormatError(str("'", folder, "': ", images.size(0), " ", part, " images, but ", labels.size(0), " labels"));
  const Tensor wide = cast(labels, DType::i64);
  const auto* p = wide.data<int64_t>();
  const auto* bad = std::find_if(p, p + wide.numel(), [&](int64_t y) { return y >= classes; });
  if (bad != p + wide.numel())
    throw FormatError(str("'", labels_path, "': label ", *bad, " of item ", bad - p, " is not below ", classes));
  const Shape shape{images.size(0), 1, 28, 28};
  return {make_view(images.storage(), shape, contiguous_strides(shape), 0, DType::u8), wide};
}

ImageClasses open(const std::string& folder, const char* name, const char* system, const std::string& hint,
                  std::vector<std::string> classes) {
  std::string where = folder;
  if (where.empty()) {
    const char* data = std::getenv("HONE_DATA");
    where = data && *data ? data : system;
    if (const std::string inner = where + "/" + name; data && *data && exists(inner)) where = inner;
  }
  const auto count = static_cast<int64_t>(classes.size());
  return {read(where, "train", count, hint), read(where, "t10k", count, hint), std::move(classes)};
}

}  // namespace

FashionMNIST FashionMNIST::open(const std::string& folder) {
  return {data::open(
      folder, "fashion-mnist", "/usr/share/datasets/fashion-mnist",
      "install Debian's package dataset-fashion-mnist, or set HONE_DATA to the folder that has the files",
      {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"})};
}

MNIST MNIST::open(const std::string& folder) {
  return {data::open(folder, "mnist", "/usr/share/datasets/mnist", "set HONE_DATA to the folder that has the files",
                     {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"})};
}

}  // namespace hone::data
