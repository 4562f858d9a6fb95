#!/usr/bin/env python3
"""Writes optim_rule_traces.txt: traces of PyTorch's optimizers in f64, for tests/optim_rules_test.cpp.

Problem: parameters of the shapes given, elements numbered i = 0, 1, … through all of them, w_i = sin(i + 1), and at step
t (from 0) the gradient g_i = 0.1 (i mod 5) w_i + cos(0.3 t + i). Lines: "NAME SHAPE …" with shapes as 3x4, then a line
of all values after each ten steps of 50.

Muon's iteration is run in f64 instead of bf16, where its last bits depend on the order of every product.

    python generate_optim_rules.py > optim_rule_traces.txt
"""
import math
import torch

torch.set_default_dtype(torch.float64)


class WithoutBfloat16:
    bfloat16 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


torch.optim._muon.torch = WithoutBfloat16()
USUAL = ((3, 4), (3,))


def trace(name, make, shapes=USUAL):
    parameters, first = [], []
    i = 0
    for shape in shapes:
        n = math.prod(shape)
        values = [math.sin(k + 1) for k in range(i, i + n)]
        parameters.append(torch.tensor(values).reshape(shape).requires_grad_())
        first.append(i)
        i += n
    optimizer = make(parameters)
    print(name, *("x".join(map(str, shape)) for shape in shapes))
    for t in range(50):
        for p, i in zip(parameters, first):
            index = torch.arange(i, i + p.numel()).reshape(p.shape)
            p.grad = 0.1 * (index % 5) * p.detach() + torch.cos(0.3 * t + index)
        optimizer.step()
        if t % 10 == 9:
            print(*("%.13g" % v for p in parameters for v in p.flatten().tolist()))


o = torch.optim
print("# PyTorch", torch.__version__)
trace("adam_amsgrad", lambda p: o.Adam(p, lr=0.03, betas=(0.8, 0.9), amsgrad=True))
trace("adamw_amsgrad", lambda p: o.AdamW(p, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1, amsgrad=True, maximize=True))

trace("adagrad", lambda p: o.Adagrad(p))
trace("adagrad_decay", lambda p: o.Adagrad(p, lr=0.1, lr_decay=0.05, weight_decay=0.1))
trace("adagrad_start", lambda p: o.Adagrad(p, lr=0.2, initial_accumulator_value=0.5, eps=1e-3, maximize=True))

trace("adadelta", lambda p: o.Adadelta(p))
trace("adadelta_rho", lambda p: o.Adadelta(p, lr=0.5, rho=0.7, eps=1e-3, weight_decay=0.05))
trace("adadelta_maximize", lambda p: o.Adadelta(p, lr=2, rho=0.95, maximize=True))

trace("rmsprop", lambda p: o.RMSprop(p))
trace("rmsprop_momentum", lambda p: o.RMSprop(p, lr=0.005, alpha=0.9, momentum=0.8, weight_decay=0.1))
trace("rmsprop_centered", lambda p: o.RMSprop(p, lr=0.02, alpha=0.8, eps=1e-2, centered=True, maximize=True))
trace("rmsprop_both", lambda p: o.RMSprop(p, lr=0.01, alpha=0.95, momentum=0.5, centered=True))

trace("adamax", lambda p: o.Adamax(p, lr=0.01))
trace("adamax_decay", lambda p: o.Adamax(p, lr=0.05, betas=(0.7, 0.9), eps=1e-2, weight_decay=0.1))
trace("adamax_maximize", lambda p: o.Adamax(p, maximize=True))

trace("nadam", lambda p: o.NAdam(p))
trace("nadam_decay", lambda p: o.NAdam(p, lr=0.02, betas=(0.8, 0.95), momentum_decay=0.1, weight_decay=0.1))
trace("nadam_decoupled", lambda p: o.NAdam(
    p, lr=0.01, eps=1e-3, weight_decay=0.2, decoupled_weight_decay=True, maximize=True))

trace("radam", lambda p: o.RAdam(p, lr=0.01))
trace("radam_decay", lambda p: o.RAdam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1))
trace("radam_decoupled", lambda p: o.RAdam(
    p, lr=0.03, betas=(0.9, 0.6), weight_decay=0.2, decoupled_weight_decay=True, maximize=True))

trace("rprop", lambda p: o.Rprop(p))
trace("rprop_etas", lambda p: o.Rprop(p, lr=0.05, etas=(0.3, 1.5), step_sizes=(1e-3, 0.2)))
trace("rprop_maximize", lambda p: o.Rprop(p, lr=0.1, maximize=True))

trace("asgd", lambda p: o.ASGD(p))
trace("asgd_decay", lambda p: o.ASGD(p, lr=0.1, lambd=0.5, alpha=0.6, t0=20, weight_decay=0.1))
trace("asgd_maximize", lambda p: o.ASGD(p, lr=0.02, lambd=0.1, alpha=1, t0=0, maximize=True))

blocks = ((3, 4), (3,), (2, 2, 3), ())
trace("adafactor", lambda p: o.Adafactor(p), blocks)
trace("adafactor_decay", lambda p: o.Adafactor(
    p, lr=0.3, beta2_decay=-0.5, eps=(1e-4, 0.02), d=1.5, weight_decay=0.1), blocks)
trace("adafactor_maximize", lambda p: o.Adafactor(p, lr=0.1, eps=(0.5, 1e-3), maximize=True), blocks)

matrices = ((3, 4), (4, 2), (2, 2))
trace("muon", lambda p: o.Muon(p, lr=0.02), matrices)
trace("muon_plain", lambda p: o.Muon(
    p, lr=0.01, momentum=0.8, nesterov=False, weight_decay=0, adjust_lr_fn="match_rms_adamw"), matrices)
trace("muon_spectral", lambda p: o.Muon(
    p, lr=0.05, weight_decay=0.5, ns_coefficients=(2, -1.5, 0.5), ns_steps=8, eps=0.1,
    adjust_lr_fn="spectral_unclamped"), matrices)
