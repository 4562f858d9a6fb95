#pragma once
// Mixed quantization: a part A of the weights is quantized, the rest is not, or more coarsely; and A, with a bit width
// a layer, found from measured sensitivity.
//
//   compress::quantize::mixed(net, {.part = !compress::quantize::outliers(0.01), .inside = {.range = {-8, 7}}});
//
//   auto plan = compress::quantize::plan_bits(net, [&] { return accuracy(net, validation); }, {.bits_per_weight = 4});
//   std::cout << plan.table();
//   compress::quantize::apply(net, plan);

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "hone/compress/quantize/uniform.h"

namespace hone::compress::quantize {

/// The predicate of A. `holds` is asked once a parameter with its raw values (f64) and which of them are kept (bool: no
/// mask hides them; what is hidden takes no part), both on the cpu, and says for each whether it is in A: a bool tensor
/// of the same shape. One of your own:
///   Part negative{"negative", [](const std::string&, const Tensor& w, const Tensor&) { return lt(w, 0.0); }};
struct Part {
  std::string name;
  std::function<Tensor(const std::string& parameter, const Tensor& value, const Tensor& kept)> holds;
  std::vector<std::string> layers = {};  ///< names that it looks for: each must mean a parameter that takes part
};
Part in_layers(std::vector<std::string> names);     ///< whole parameters: "fc1.weight", or "fc1" and all below
Part in_mask(std::map<std::string, Tensor> masks);  ///< by parameter, named likewise; others lie outside
Part in_interval(double low, double high);          ///< low ≤ w ≤ high
/// The round(share · n) largest in magnitude of the n weights of a parameter that no mask hides; of equal ones the
/// earlier. share in [0, 1].
Part outliers(double share);
Part operator!(Part part);

/// What becomes of weights outside A.
enum class Outside : uint8_t {
  keep_float,        ///< nothing: the survey's prose
  coarse,            ///< w_q = round(w · coarse_step), of any size
  round_to_integer,  ///< round(w): the survey's formula. It makes 0 of nearly every weight of a trained network
};

/// The grid inside A; of UniformOptions.
struct InsideOptions {
  Range range = {};
  Shift shift = Shift::none;
  Rounding rounding = Rounding::nearest_even;
};
struct MixedOptions {
  Part part = {};
  InsideOptions inside = {};
  Outside outside = Outside::keep_float;
  double coarse_step = 8;  ///< above 0
  std::vector<std::string> only = {}, except = {};
  bool biases = false;  ///< parameters of fewer than two dims too
};

/// w_q = clamp(round((w − μ) · step)) for w in A, and outside A what the options say. A is decided by the weights as
/// they are; each weight then carries one of two levels, unless its whole parameter is on one side. round_to_integer
/// warns in the report of what it zeroed. ValueError as uniform(), and for a part without `holds` or one that answers
/// with another shape or dtype or looks for a name that is not there, a share outside [0, 1], a coarse_step not above 0
/// or without a finite inverse.
QuantizeReport mixed(nn::Module& module, const MixedOptions& options);

struct PlanOptions {
  std::vector<int64_t> bits = {2, 4, 8, 32};  ///< to choose from, each in [2, 16], or 32: outside A, the float stays
  double bits_per_weight = 4;                 ///< of codes, the mean over all weights that no mask hides
  Shift shift = Shift::none;
  std::vector<std::string> only = {}, except = {};
  bool biases = false;
};
struct BitPlan {
  std::vector<std::string> layers = {};         ///< parameters
  std::vector<int64_t> choices = {};            ///< PlanOptions::bits, ascending
  std::vector<std::vector<double>> score = {};  ///< [layer][choice]: measured with that layer alone quantized
  double whole = 0;                             ///< with none
  std::vector<int64_t> bits = {};               ///< the plan, a layer
  double bits_per_weight = 0;                   ///< what it takes
  Shift shift = Shift::none;
  std::string table() const;  ///< a line a layer: scores in percent, and the bits chosen
};

/// Quantizes one parameter at a time to each width and asks `score` (accuracy on held-out data, say); then takes the
/// widths that lose least, Σ (whole − score) over the layers, within Σ n · bits ≤ bits_per_weight · Σ n. Losses of
/// layers are taken to add up; equal ones get the lesser width. The parameters are as they were afterwards, gradients
/// included, whatever score throws (a learned step a row becomes a parameter of another identity). ValueError as
/// uniform(), for bits against the above, and for a budget below the least width; NumericError naming layer and bits
/// for a score that is not finite. Widths of b bits have the codes −2^(b−1) to 2^(b−1) − 1; StaticCounts::regridded
/// says where integer networks do without the first.
BitPlan plan_bits(nn::Module& module, const std::function<double()>& score, const PlanOptions& options = {});
/// Quantizes the layers of a plan as it says. ValueError for a layer that is not there, bits against the above, and as
/// uniform(); then the module is as it was.
QuantizeReport apply(nn::Module& module, const BitPlan& plan);

}  // namespace hone::compress::quantize
