#!/usr/bin/env python3
"""Writes clip.txt: PyTorch's gradient clipping in f64, for tests/clip_test.cpp.

Gradients of two parameters of 12 and 5 elements (i = 0 … 16 together): g_i = scale · sin(3 i + 1). Lines: "norm SCALE MAX P
TOTAL" or "value SCALE LIMIT", then a line of the 17 gradients after clipping.

    python generate_clip.py > clip.txt
"""
import math
import torch

torch.set_default_dtype(torch.float64)


def problem(scale):
    g = torch.tensor([scale * math.sin(3 * i + 1) for i in range(17)])
    parameters = [torch.zeros(3, 4, requires_grad=True), torch.zeros(5, requires_grad=True)]
    parameters[0].grad, parameters[1].grad = g[:12].reshape(3, 4).clone(), g[12:].clone()
    return parameters


def show(parameters):
    print(*(repr(v) for p in parameters for v in p.grad.flatten().tolist()))


print("# PyTorch", torch.__version__)
for scale, limit, p in [(1, 0.5, 2), (1, 100, 2), (1e-7, 1e-7, 2), (30, 2, 1), (30, 2, 3.5), (5, 1, math.inf), (0, 1, 2)]:
    parameters = problem(scale)
    total = torch.nn.utils.clip_grad_norm_(parameters, limit, norm_type=p)
    print("norm", scale, limit, p, repr(total.item()))
    show(parameters)
for scale, limit in [(1, 0.3), (4, 5)]:
    parameters = problem(scale)
    torch.nn.utils.clip_grad_value_(parameters, limit)
    print("value", scale, limit)
    show(parameters)
