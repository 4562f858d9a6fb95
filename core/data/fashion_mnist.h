#pragma once
// Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) and MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 grey 28×28 images.

#include <string>
#include <vector>

#include "hone/core/data/dataset.h"

namespace hone::data {

/// Training and test images, u8 [N, 1, 28, 28], with labels i64 [N] below class_names.size().
struct ImageClasses {
  Dataset train, test;
  std::vector<std::string> class_names;
};

struct FashionMNIST : ImageClasses {
  static constexpr double kMean = 0.2860, kStd = 0.3530;  ///< of the training pixels, in [0, 1]
  /// From `folder`; without one, from $HONE_DATA (its folder fashion-mnist, or itself), else from where Debian's
  /// package dataset-fashion-mnist puts it. The four IDX files may be compressed (.gz). IoError where one is missing,
  /// FormatError where one is damaged, images and labels differ in number, or a label is not below 10.
  static FashionMNIST open(const std::string& folder = {});
};

struct MNIST : ImageClasses {
  static constexpr double kMean = 0.1307, kStd = 0.3081;
  /// As FashionMNIST::open, but from the folder mnist of $HONE_DATA.
  static MNIST open(const std::string& folder = {});
};

}  // namespace hone::data
