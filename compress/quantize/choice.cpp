#include "hone/compress/quantize/choice.h"

#include <cmath>
#include <cstdio>

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/text_table.h"

namespace hone::compress::quantize::detail {

std::vector<nn::NamedParameter> chosen(const char* what, nn::Module& module, const std::vector<std::string>& only,
                                       const std::vector<std::string>& except, bool biases) {
  auto found = compress::detail::named(what, module, only, except, biases);
  HONE_CHECK(!found.empty(), ValueError, what, ": no parameter of ", module.type_name(),
             " is left to quantize (those of fewer than two dims count with .biases alone)");
  return found;
}

void check_used(const std::string& what, const std::vector<std::string>& names,
                const std::vector<nn::NamedParameter>& parameters) {
  std::vector<std::string> there;
  for (const auto& n : parameters) there.push_back(n.name);
  for (const std::string& name : names)
    HONE_CHECK(std::any_of(there.begin(), there.end(),
                           [&](const std::string& n) { return compress::detail::is_named(n, name); }),
               ValueError, what, ": '", name, "' names nothing that is quantized here",
               hone::detail::nearest_names(name, there));
}

Kept kept_of(const char* what, const std::string& name, const ParameterRef& p) {
  const NoGrad no_grad;
  const bool shared = p.type() == WeightType::codebook;
  const std::vector<double> values = (shared ? p.value() : p.raw()).detach().to_vector<double>();
  const std::vector<bool> mask = p.mask().defined() ? p.mask().to_vector<bool>() : std::vector<bool>();
  Kept kept{{}, {}, static_cast<int64_t>(values.size())};
  for (size_t i = 0; i < values.size(); ++i) {
    if (!mask.empty() && !mask[i]) continue;
    HONE_CHECK(std::isfinite(values[i]), ValueError, what, ": element ", i, " of '", name, "' is ", values[i]);
    kept.values.push_back(values[i]);
    kept.at.push_back(static_cast<int64_t>(i));
  }
  return kept;
}

std::string fixed(double v, int digits) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", digits, v);
  return text;
}
std::string scientific(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", v);
  return text;
}

Former::Former(nn::Module& module) {
  const auto grad_of = [](const ParameterRef& p) {
    return p.defined() && p.grad().defined() ? clone(p.grad().detach()) : Tensor();
  };
  for (const ParameterRef& p : module.parameters())
    entries_.push_back({p, Parameter::copy_of(p), grad_of(p), grad_of(p.scale())});
}
void Former::restore() const {
  const auto set_grad = [](const ParameterRef& p, const Tensor& grad) {
    Tensor(p.raw()).set_grad(grad.defined() ? clone(grad) : Tensor());
  };
  for (const Entry& e : entries_) {
    e.parameter.assign(e.copy);
    set_grad(e.parameter, e.grad);
    if (const ParameterRef scale = e.parameter.scale(); scale.defined()) {
      Tensor(scale.raw()).requires_grad_(e.copy.ref().scale().raw().requires_grad());  // a new grid may have ended it
      set_grad(scale, e.scale_grad);
    }
  }
}

}  // namespace hone::compress::quantize::detail
