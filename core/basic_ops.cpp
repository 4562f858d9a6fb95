#include "hone/core/basic_ops.h"

#include "hone/core/autograd.h"
#include "hone/core/parallel.h"

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
struct MaskedAttrs {
  bool dense_gradient = false;
  void fields(FieldVisitor& v) { v("dense_gradient", dense_gradient); }
};
void masked_shapes(ShapeContext& c) {
  check_inputs(c, 2, 2);
  check_floating(c, 0, "x");
  HONE_CHECK(c.dtype(1) == DType::boolean, DTypeError, c.op, ": the mask must be bool, not ", c.dtype(1));
  HONE_CHECK(c.shape(0) == c.shape(1), ShapeError, c.op, ": mask ", c.shape(1), " must have x's shape ", c.shape(0));
  c.add(c.shape(0), c.dtype(0));
}
void masked_run(RunContext& c) {
  detail::copy_strided(c.in[0], c.out[0]);
  const View& mask = c.in[1];
  HONE_ASSERT(mask.is_contiguous());
  visit_floating(c.out[0].dtype, [&]<class T>() {
    T* out = c.out[0].as<T>();
    const bool* keep = mask.as<bool>();
    parallel_for(c.out[0].numel(), int64_t{1} << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = keep[i] ? out[i] : T(0);
    });
  });
}
void masked_backward(BackwardContext& c) {
  if (!c.needs(0)) return;
  c.set(0, c.attrs<MaskedAttrs>().dense_gradient ? c.grad() : masked(c.grad(), c.input(1)));
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
const OpDef kMasked = {.name = "masked",
                       .attributes = attributes<MaskedAttrs>(),
                       .shapes = masked_shapes,
                       .run = masked_run,
                       .saves = {.inputs = 0b10},
                       .backward = masked_backward};

Tensor masked(const Tensor& x, const Tensor& mask, MaskGradient gradient) {
  return apply(kMasked, MaskedAttrs{gradient == MaskGradient::dense}, {x, mask.defined() ? contiguous(mask) : mask});
}

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
