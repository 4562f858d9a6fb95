#include "hone/ops/nn/dropout.h"

#include "hone/ops/dropout.h"
#include "hone/ops/matmul.h"

namespace hone::nn {
namespace {

double checked_p(const char* module, double p) {
  HONE_CHECK(p >= 0 && p < 1, ValueError, module, ": p must be in [0, 1), is ", p);
  return p;
}

}  // namespace

Dropout2d::Dropout2d(Dropout2dOptions o) : p(checked_p("Dropout2d", o.p)) {}

Tensor Dropout2d::forward(const Tensor& x) { return dropout2d(x, p, training()); }

DropPath::DropPath(DropPathOptions o) : p(checked_p("DropPath", o.p)) {}

Tensor DropPath::forward(const Tensor& x) { return drop_path(x, p, training()); }

DropBlock::DropBlock(DropBlockOptions o) : p(checked_p("DropBlock", o.p)), block(o.block) {
  HONE_CHECK(o.block >= 1, ValueError, "DropBlock: block must be at least 1, is ", o.block);
}

Tensor DropBlock::forward(const Tensor& x) { return drop_block(x, p, block, training()); }

DropConnect::DropConnect(DropConnectOptions o) : p(checked_p("DropConnect", o.p)) {
  HONE_CHECK(o.in > 0 && o.out > 0, ValueError, "DropConnect: in and out must be positive, are ", o.in, " and ", o.out);
  Linear linear({.in = o.in, .out = o.out, .bias = o.bias});
  weight = std::move(linear.weight);
  bias = std::move(linear.bias);
}

Tensor DropConnect::forward(const Tensor& x) { return linear(x, dropout(weight.value(), p, training()), bias.value()); }

}  // namespace hone::nn
