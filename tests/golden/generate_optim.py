#!/usr/bin/env python3
"""Writes optim_traces.txt: traces of PyTorch's optimizers in f64, for tests/optim_test.cpp.

Problem: two parameters of 12 and 5 elements (numbered i = 0 … 16 together), w_i = sin(i + 1), and at step t (from 0)
the gradient g_i = 0.1 (i mod 5) w_i + cos(0.3 t + i). Lines: "trace NAME", then a line of 17 values after each ten
steps of 50.

    python generate_optim.py > optim_traces.txt
"""
import math
import torch

torch.set_default_dtype(torch.float64)


def problem():
    w = torch.tensor([math.sin(i + 1) for i in range(17)])
    return [w[:12].reshape(3, 4).clone().requires_grad_(), w[12:].clone().requires_grad_()]


def trace(name, make):
    parameters = problem()
    optimizer = make(parameters)
    print("trace", name)
    for t in range(50):
        i = 0
        for p in parameters:
            n = p.numel()
            index = torch.arange(i, i + n).reshape(p.shape)
            p.grad = 0.1 * (index % 5) * p.detach() + torch.cos(0.3 * t + index)
            i += n
        optimizer.step()
        if t % 10 == 9:
            print(*(repr(v) for p in parameters for v in p.flatten().tolist()))


o = torch.optim
print("# PyTorch", torch.__version__)
trace("sgd", lambda p: o.SGD(p, lr=0.05))
trace("sgd_decay_maximize", lambda p: o.SGD(p, lr=0.01, weight_decay=0.1, maximize=True))
trace("sgd_momentum", lambda p: o.SGD(p, lr=0.05, momentum=0.9))
trace("sgd_dampening", lambda p: o.SGD(p, lr=0.05, momentum=0.8, dampening=0.3, weight_decay=0.02))
trace("sgd_nesterov", lambda p: o.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True))
trace("adam", lambda p: o.Adam(p, lr=0.01))
trace("adam_betas", lambda p: o.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-3))
trace("adam_decay", lambda p: o.Adam(p, lr=0.02, weight_decay=0.1, maximize=True))
trace("adamw", lambda p: o.AdamW(p, lr=0.01))
trace("adamw_decay", lambda p: o.AdamW(p, lr=0.05, betas=(0.7, 0.9), weight_decay=0.2))
trace("adamw_maximize", lambda p: o.AdamW(p, lr=0.01, eps=1e-4, maximize=True))
