#include "hone/ops/nn/sequential.h"

namespace hone::nn {

Sequential& Sequential::push_back(AnyModule m) {
  HONE_CHECK(m.get(), ValueError, "Sequential: push_back of a module that was moved from");
  children_.push_back(std::move(m));
  return *this;
}

Module& Sequential::operator[](int64_t i) const {
  HONE_CHECK(i >= 0 && i < size(), ValueError, "Sequential: no module ", i, ", there are ", size());
  return *children_[static_cast<size_t>(i)];
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor h = x;
  for (const AnyModule& m : children_) h = m(h);
  return h;
}

void Sequential::visit(MemberVisitor& v) {
  for (size_t i = 0; i < children_.size(); ++i) v.member(std::to_string(i), *children_[i]);
}

}  // namespace hone::nn
