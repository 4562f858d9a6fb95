#!/usr/bin/env python3
"""Writes ops.safetensors and lenet.safetensors beside itself, with PyTorch (no NumPy needed): what tests/golden_test.cpp
compares with. Same bytes every time for one PyTorch version.

Entries of ops.safetensors: CASE/in0, in1, … (f64, or i64 for labels), CASE/out, CASE/seed (the output's gradient) and
CASE/grad0, … of the floating inputs; "state" entries hold buffers before and after.
"""
import json
import os
import struct

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {torch.float64: ("F64", "d"), torch.float32: ("F32", "f"), torch.int64: ("I64", "q")}
entries = {}


def save(path, tensors, metadata):
    header, blobs, at = {"__metadata__": metadata}, [], 0
    for name, t in tensors.items():
        code, fmt = DTYPES[t.dtype]
        flat = t.detach().contiguous().reshape(-1).tolist()
        blob = struct.pack(f"<{len(flat)}{fmt}", *flat)
        header[name] = {"dtype": code, "shape": list(t.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(HERE, path), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def rand(*shape, low=-2.0, high=2.0):
    return low + (high - low) * torch.rand(*shape, dtype=torch.float64)


def case(name, f, *inputs):
    """Runs f, and backward with a random gradient; an input given as (tensor,) gets no gradient."""
    leaves = []
    for x in inputs:
        fixed = isinstance(x, tuple)
        x = (x[0] if fixed else x).clone()
        leaves.append(x.requires_grad_() if x.is_floating_point() and not fixed else x)
    y = f(*leaves)
    seed = rand(*y.shape, low=-1, high=1) if y.dim() else torch.tensor(0.75, dtype=torch.float64)
    y.backward(seed)
    for i, x in enumerate(leaves):
        entries[f"{name}/in{i}"] = x
        if x.grad is not None:
            entries[f"{name}/grad{i}"] = x.grad
    entries[f"{name}/out"] = y
    entries[f"{name}/seed"] = seed


def ops():
    torch.manual_seed(20)
    case("conv2d/plain", F.conv2d, rand(2, 3, 6, 5), rand(4, 3, 3, 2), rand(4))
    case("conv2d/no_bias", F.conv2d, rand(1, 2, 4, 4), rand(3, 2, 1, 1))
    case("conv2d/stride_padding_dilation", lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(2, 1)),
         rand(2, 2, 7, 6), rand(3, 2, 3, 3), rand(3))
    case("conv2d/groups", lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2), rand(2, 4, 5, 5), rand(6, 2, 3, 3), rand(6))
    case("conv2d/depthwise", lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=4), rand(2, 4, 6, 6), rand(4, 1, 3, 3))
    case("max_pool2d/2", lambda x: F.max_pool2d(x, 2), rand(2, 3, 6, 5))
    case("max_pool2d/3_2_1", lambda x: F.max_pool2d(x, 3, 2, 1), rand(2, 2, 7, 6))
    case("avg_pool2d/2", lambda x: F.avg_pool2d(x, 2), rand(2, 3, 6, 5))
    case("avg_pool2d/3_2_1", lambda x: F.avg_pool2d(x, 3, 2, 1), rand(2, 2, 7, 6))
    case("avg_pool2d/3_2_1_exclude", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), rand(2, 2, 7, 6))
    case("adaptive_avg_pool2d/3_2", lambda x: F.adaptive_avg_pool2d(x, (3, 2)), rand(2, 2, 7, 5))
    case("adaptive_max_pool2d/3_2", lambda x: F.adaptive_max_pool2d(x, (3, 2)), rand(2, 2, 7, 5))

    case("linear/bias", F.linear, rand(4, 5), rand(3, 5), rand(3))
    case("linear/three_dims", F.linear, rand(2, 3, 5), rand(4, 5))
    case("matmul/matrix", torch.matmul, rand(3, 4), rand(4, 2))
    case("matmul/broadcast", torch.matmul, rand(2, 1, 3, 4), rand(5, 4, 2))
    case("matmul/row", torch.matmul, rand(4), rand(3, 4, 2))
    case("matmul/column", torch.matmul, rand(2, 3, 4), rand(4))

    labels, weight = torch.tensor([2, 0, 4, 2, 1, 3]), rand(5, low=0.2, high=2)
    ignored = torch.tensor([2, -100, 4, -100, 1, 3])
    for reduction in ("mean", "sum", "none"):
        for smooth in (0.0, 0.1):
            for weighted in (False, True):
                tail = f"{reduction}{'_smooth' if smooth else ''}{'_weight' if weighted else ''}"

                def loss(x, t, w=None):
                    return F.cross_entropy(x, t, weight=w, label_smoothing=smooth, reduction=reduction)

                more = ((weight,),) if weighted else ()
                case(f"cross_entropy/labels_{tail}", loss, rand(6, 5), labels, *more)
                case(f"cross_entropy/ignored_{tail}", loss, rand(6, 5), ignored, *more)
                case(f"cross_entropy/soft_{tail}", loss, rand(6, 5), torch.softmax(rand(6, 5), 1), *more)
    case("mse_loss/mean", F.mse_loss, rand(3, 4), rand(3, 4))
    case("l1_loss/mean", F.l1_loss, rand(3, 4), rand(3, 4))
    case("huber_loss/sum", lambda x, t: F.huber_loss(x, t, delta=0.7, reduction="sum"), rand(3, 4), rand(3, 4))
    for reduction in ("batchmean", "mean", "sum", "none"):
        case(f"kl_div/{reduction}", lambda x, t: F.kl_div(x, t, reduction=reduction), torch.log_softmax(rand(3, 4), 1),
             torch.softmax(rand(3, 4), 1))
        case(f"kl_div/{reduction}_log_target", lambda x, t: F.kl_div(x, t, reduction=reduction, log_target=True),
             torch.log_softmax(rand(3, 4), 1), torch.log_softmax(rand(3, 4), 1))

    case("softmax/last", lambda x: torch.softmax(x, -1), rand(3, 7))
    case("softmax/first", lambda x: torch.softmax(x, 0), rand(3, 7))
    case("log_softmax/middle", lambda x: torch.log_softmax(x, 1), rand(2, 5, 3))
    case("logsumexp/last", lambda x: torch.logsumexp(x, -1), rand(3, 7))
    case("logsumexp/two_keep", lambda x: torch.logsumexp(x, (0, 2), keepdim=True), rand(3, 4, 2))
    case("gelu/exact", F.gelu, rand(4, 7, low=-4, high=4))
    case("gelu/tanh", lambda x: F.gelu(x, approximate="tanh"), rand(4, 7, low=-4, high=4))
    case("silu/plain", F.silu, rand(4, 7, low=-4, high=4))
    case("layer_norm/affine", lambda x, w, b: F.layer_norm(x, (3, 4), w, b), rand(5, 3, 4), rand(3, 4), rand(3, 4))
    case("layer_norm/plain", lambda x: F.layer_norm(x, (6,), eps=1e-3), rand(2, 3, 6))

    for name, shape in (("2d", (5, 3)), ("4d", (3, 2, 4, 3))):
        mean, var = rand(shape[1]), rand(shape[1], low=0.5, high=2)
        entries[f"batch_norm/{name}_state/mean_before"] = mean.clone()
        entries[f"batch_norm/{name}_state/var_before"] = var.clone()
        case(f"batch_norm/{name}_eval", lambda x, w, b: F.batch_norm(x, mean, var, w, b, eps=1e-4), rand(*shape), rand(shape[1]),
             rand(shape[1]))
        case(f"batch_norm/{name}_training",
             lambda x, w, b: F.batch_norm(x, mean, var, w, b, training=True, momentum=0.3, eps=1e-4), rand(*shape),
             rand(shape[1]), rand(shape[1]))
        entries[f"batch_norm/{name}_state/mean_after"] = mean
        entries[f"batch_norm/{name}_state/var_after"] = var
    save("ops.safetensors", entries, {"pytorch": torch.__version__.split("+")[0]})


def pattern(shape, seed, scale):
    """Values that the test makes again: the same integers, one division, one product, all exact in f32 up to it."""
    n = 1
    for s in shape:
        n *= s
    i = torch.arange(n, dtype=torch.int64)
    return ((((i * 7919 + seed * 104729) % 2003 - 1001).to(torch.float64) / 1001 * scale).to(torch.float32)).reshape(shape)


def lenet():
    shapes = {"conv1.weight": (6, 3, 5, 5), "conv1.bias": (6,), "conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,),
              "fc1.weight": (120, 400), "fc1.bias": (120,), "fc2.weight": (84, 120), "fc2.bias": (84,),
              "fc3.weight": (10, 84), "fc3.bias": (10,)}
    p = {}
    for k, (name, shape) in enumerate(shapes.items()):
        fan = 1
        for s in shape[1:]:
            fan *= s
        p[name] = pattern(shape, k + 1, fan ** -0.5 * 1.5 if len(shape) > 1 else 0.1).requires_grad_()
    x, labels = pattern((4, 3, 32, 32), 50, 1.0), torch.tensor([3, 9, 0, 6])
    h = F.max_pool2d(F.relu(F.conv2d(x, p["conv1.weight"], p["conv1.bias"])), 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, p["conv2.weight"], p["conv2.bias"])), 2).flatten(1)
    h = F.relu(F.linear(h, p["fc1.weight"], p["fc1.bias"]))
    h = F.relu(F.linear(h, p["fc2.weight"], p["fc2.bias"]))
    logits = F.linear(h, p["fc3.weight"], p["fc3.bias"])
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    tensors = {"logits": logits, "loss": loss}
    tensors.update({f"grad.{name}": t.grad for name, t in p.items()})
    save("lenet.safetensors", tensors, {"pytorch": torch.__version__.split("+")[0]})


if __name__ == "__main__":
    torch.set_num_threads(1)
    ops()
    lenet()
    for name in ("ops.safetensors", "lenet.safetensors"):
        print(name, os.path.getsize(os.path.join(HERE, name)), "bytes")
