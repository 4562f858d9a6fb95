#include "hone/compress/prune/observe.h"

#include "hone/core/autograd.h"
#include "hone/core/basic_ops.h"
#include "hone/ops/reduce.h"

namespace hone::compress::detail {
namespace {

/// While it lives the network gives other outputs, and all of its parameters take part in gradients.
class Opened {
 public:
  Opened(graph::Network& network, std::vector<graph::ValueId> outputs, bool gradients)
      : network_(network), outputs_(network.outputs()) {
    network.set_outputs(std::move(outputs));
    if (!gradients) return;
    for (const ParameterRef& p : network.parameters()) {
      if (p.raw().requires_grad()) continue;
      frozen_.push_back(p.raw());
      frozen_.back().requires_grad_();
    }
  }
  ~Opened() {
    network_.set_outputs(outputs_);
    for (Tensor& raw : frozen_) raw.requires_grad_(false);
  }
  Opened(const Opened&) = delete;

 private:
  graph::Network& network_;
  std::vector<graph::ValueId> outputs_;
  std::vector<Tensor> frozen_;
};

}  // namespace

void observe(graph::Network& network, const char* who, const Pass& data, const std::vector<graph::ValueId>& watched,
             Watch what, const std::function<void(const Observed&)>& see) {
  HONE_CHECK(data, ValueError, who, ": this needs data to score by; give it a pass (.data)");
  HONE_CHECK(network.outputs().size() == 1 && network.inputs().size() == 1, ValueError, who, ": the network has ",
             network.inputs().size(), " inputs and ", network.outputs().size(), " outputs; one of each is scored");
  const bool gradients = what == Watch::gradients;
  std::vector<graph::ValueId> outputs = network.outputs();
  outputs.insert(outputs.end(), watched.begin(), watched.end());
  const Opened opened(network, std::move(outputs), gradients);
  const nn::ModeScope mode(network, false);
  int64_t batches = 0;
  data([&](const Tensor& x, const LossOf& loss_of) {
    const NoGrad no_grad;
    Observed observed{{}, {}, static_cast<double>(x.size(0))};
    if (gradients) {
      const EnableGrad enable;
      std::vector<Tensor> out = network.run({x});
      const Tensor loss = loss_of(out[0]);
      HONE_CHECK(loss.defined() && loss.numel() == 1 && loss.requires_grad(), ValueError, who,
                 ": the loss of a batch must be one number made of the network's output");
      observed.values.assign(out.begin() + 1, out.end());
      observed.gradients = grad({loss}, observed.values, {.allow_unused = true});
    } else {
      std::vector<Tensor> out = network.run({x});
      observed.values.assign(out.begin() + 1, out.end());
    }
    see(observed);
    ++batches;
  });
  HONE_CHECK(batches > 0, ValueError, who, ": the data held no batch");
}

std::vector<double> sums_along(const Tensor& t, int64_t dim) {
  Shape others;
  for (int64_t d = 0; d < t.ndim(); ++d)
    if (d != dim) others.push_back(d);
  const Tensor wide = cast(t.detach(), f64);
  return (others.empty() ? wide : sum(wide, others)).to_vector<double>();
}

}  // namespace hone::compress::detail
