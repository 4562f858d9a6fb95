#include "hone/core/basic_ops.h"

#include "hone/core/autograd.h"

namespace hone {

namespace {
struct CastAttrs {
  DType dtype = DType::f32;
  void fields(FieldVisitor& v) { v("dtype", dtype); }
};

void same_shape(ShapeContext& c) {
  check_inputs(c, 1, 1);
  c.add(c.shape(0), c.dtype(0));
}
void copy_run(RunContext& c) { detail::copy_strided(c.in[0], c.out[0]); }

void cast_shapes(ShapeContext& c) {
  check_inputs(c, 1, 1);
  c.add(c.shape(0), c.attrs.as<CastAttrs>().dtype);
}
void accumulate_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_same_dtype(c, 0, 1);
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": shapes ", c.shape(0), " and ", c.shape(1), " differ");
  c.add(c.shape(0), c.dtype(0));
}
void accumulate_run(RunContext& c) {
  detail::copy_strided(c.in[0], c.out[0]);
  if (c.in[1].is_contiguous()) return detail::accumulate_into(c.in[1], c.out[0]);
  View copy = c.out[0];
  copy.data = c.workspace.get<std::byte>(copy.numel() * size_of(copy.dtype));
  detail::copy_strided(c.in[1], copy);
  detail::accumulate_into(copy, c.out[0]);
}
void pass_through(BackwardContext& c) {
  for (int i = 0; i < c.inputs(); ++i) {
    if (c.needs(i)) c.set(i, c.grad());
  }
}
}  // namespace

const OpDef kAlias = {.name = "alias",
                      .shapes = same_shape,
                      .alias = [](const View& in, const Attrs&, View& out) { return out = in, true; },
                      .run = copy_run,
                      .runs_on_cuda = true,
                      .backward = pass_through};
const OpDef kCast = {.name = "cast",
                     .attributes = attributes<CastAttrs>(),
                     .shapes = cast_shapes,
                     .run = copy_run,
                     .runs_on_cuda = true,
                     .backward = [](BackwardContext& c) { c.set(0, cast(c.grad(), c.input_dtype(0))); }};
const OpDef kAccumulate = {
    .name = "accumulate", .shapes = accumulate_shapes, .run = accumulate_run, .backward = pass_through};

Tensor cast(const Tensor& x, DType dtype) { return apply(kCast, CastAttrs{dtype}, {x}); }
Tensor clone(const Tensor& x) { return cast(x, x.dtype()); }
Tensor contiguous(const Tensor& x) { return x.is_contiguous() ? x : clone(x); }

Tensor to(const Tensor& x, Device device) {
  if (x.device() == device) return x;
  check_usable(device);
  HONE_CHECK(!x.requires_grad() || !grad_enabled(), GradError, "to: move a tensor that requires grad under NoGrad");
  const Tensor from = contiguous(x);
  Tensor moved = empty(x.shape(), {x.dtype(), device});
  detail::copy_between_devices(from, moved);
  return moved;
}

}  // namespace hone
