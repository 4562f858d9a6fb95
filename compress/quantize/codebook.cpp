#include "hone/compress/quantize/codebook.h"

#include <cmath>

#include "hone/compress/pack/entropy.h"
#include "hone/compress/quantize/choice.h"
#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/core/text_table.h"

namespace hone::compress::quantize {
namespace {

constexpr const char* kWhat = "share_weights";

/// A parameter's codebook, and what the report says of it.
struct Shared {
  Tensor codes, centroids;
  SharedLayer layer;
};
Shared shared(const nn::NamedParameter& named, const KMeansOptions& options) {
  const auto& [name, p] = named;
  HONE_CHECK(p.type() == WeightType::dense || p.type() == WeightType::masked, ValueError, kWhat, ": '", name, "' is ",
             hone::name(p.type()), " already; bake() makes it dense");
  const detail::Kept kept = detail::kept_of(kWhat, name, p);
  Shared s{
      zeros(p.shape(), DType::u8), zeros({1}, p.raw().dtype()), {.name = name, .clusters = 1, .total = kept.total}};
  s.layer.kept = static_cast<int64_t>(kept.values.size());
  if (kept.values.empty()) return s;
  const KMeans found = kmeans(kept.values, options);
  std::vector<uint64_t> counts(found.centroids.size(), 0);
  auto* codes = s.codes.data<uint8_t>();
  for (size_t i = 0; i < kept.at.size(); ++i) {
    codes[kept.at[i]] = static_cast<uint8_t>(found.codes[i]);
    ++counts[static_cast<size_t>(found.codes[i])];
  }
  s.centroids = cast(tensor(found.centroids), p.raw().dtype());
  const auto k = static_cast<double>(found.centroids.size()), n = static_cast<double>(s.layer.kept);
  s.layer.clusters = static_cast<int64_t>(found.centroids.size());
  s.layer.error = found.distortion / n;
  s.layer.entropy = coding::entropy_bits_of_counts(counts) / n;
  s.layer.bits = n * std::ceil(std::log2(k)) + k * 8 * static_cast<double>(size_of(p.raw().dtype()));
  return s;
}

void check_clusters(const std::string& of, int64_t n) {
  HONE_CHECK(n >= 1 && n <= 256, ValueError, kWhat, ": clusters", of, " must be in [1, 256], got ", n);
}

}  // namespace

std::string ShareReport::table() const {
  std::vector<std::vector<std::string>> lines{
      {"parameter", "clusters", "kept", "total", "mean squared error", "entropy, bits", "bytes"}};
  for (const SharedLayer& l : layers)
    lines.push_back({l.name, str(l.clusters), hone::detail::grouped(l.kept), hone::detail::grouped(l.total),
                     detail::scientific(l.error), detail::fixed(l.entropy, 2),
                     hone::detail::grouped(static_cast<int64_t>(std::ceil(l.bits / 8)))});
  return hone::detail::text_table(lines, 1);
}

ShareReport share_weights(nn::Module& module, const ShareOptions& o) {
  check_clusters("", o.clusters);
  for (const auto& [name, n] : o.layers) check_clusters(" of '" + name + "'", n);
  const auto parameters = detail::chosen(kWhat, module, o.only, o.except, o.biases);
  std::vector<std::string> names;
  for (const auto& entry : o.layers) names.push_back(entry.first);
  detail::check_used(kWhat, names, parameters);
  const NoGrad no_grad;
  std::vector<Shared> all;
  for (const auto& named : parameters)
    all.push_back(shared(named, {.clusters = detail::for_parameter(o.layers, named.name, o.clusters),
                                 .start = o.start,
                                 .iterations = o.iterations}));
  ShareReport report;
  for (size_t i = 0; i < all.size(); ++i) {
    const ParameterRef& p = parameters[i].parameter;
    p.set_codebook(to(all[i].codes, p.raw().device()), to(all[i].centroids, p.raw().device()));
    report.layers.push_back(std::move(all[i].layer));
  }
  return report;
}

}  // namespace hone::compress::quantize
