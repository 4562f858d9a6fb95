#pragma once
// What the quantizers share: which parameters options mean, their kept weights as numbers, going back. Private to
// compress/quantize.

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "hone/compress/prune/select.h"
#include "hone/core/error.h"
#include "hone/ops/nn/module.h"

namespace hone::compress::quantize::detail {

/// As pruning chooses (compress/prune/select.h), with the messages of quantization. ValueError naming `what`.
std::vector<nn::NamedParameter> chosen(const char* what, nn::Module& module, const std::vector<std::string>& only,
                                       const std::vector<std::string>& except, bool biases);
/// The entry of `by_name` for a parameter: the longest name that means it; else `otherwise`.
template <class T> T for_parameter(const std::map<std::string, T>& by_name, const std::string& name, T otherwise) {
  size_t longest = 0;
  for (const auto& [key, value] : by_name)
    if (compress::detail::is_named(name, key) && key.size() > longest) longest = key.size(), otherwise = value;
  return otherwise;
}
/// ValueError, offering the nearest, for one of `names` that means none of `parameters`.
void check_used(const std::string& what, const std::vector<std::string>& names,
                const std::vector<nn::NamedParameter>& parameters);

/// The weights of a parameter that no mask hides, in order, and where they lie. ValueError for one that is not finite.
struct Kept {
  std::vector<double> values;
  std::vector<int64_t> at;
  int64_t total = 0;
};
/// Of raw values, unless the parameter is a codebook.
Kept kept_of(const char* what, const std::string& name, const ParameterRef& p);

std::string fixed(double v, int digits);
std::string scientific(double v);

/// Every parameter of a module as it is now, gradients included; put back by restore().
class Former {
 public:
  explicit Former(nn::Module& module);
  void restore() const;

 private:
  struct Entry {
    ParameterRef parameter;
    Parameter copy;
    Tensor grad, scale_grad;
  };
  std::vector<Entry> entries_;
};

}  // namespace hone::compress::quantize::detail
