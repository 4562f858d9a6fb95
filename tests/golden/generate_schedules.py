#!/usr/bin/env python3
"""Writes schedules.txt: the rates of PyTorch's schedules in f64 over 200 steps, for tests/schedule_test.cpp.

Two groups of base rates 0.1 and 0.03, SGD with momentum 0.9 or (names that end in _adam) Adam. Per schedule: "schedule
NAME N", then the lines "lr" of group 0 and "momentum" (Adam: beta1) for t = 0 … N − 1, and "lr1" of group 1 at each
seventh t; v*k is v k times.

    python generate_schedules.py > schedules.txt
"""
import itertools
import math
import warnings
import torch

warnings.filterwarnings("ignore")
o, s = torch.optim, torch.optim.lr_scheduler


def line(word, values):
    runs = [(v, len(list(run))) for v, run in itertools.groupby("%.14g" % v for v in values)]
    print(word, *(v if n == 1 else f"{v}*{n}" for v, n in runs))


def schedule(name, make, count=200, metric=None):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.1, 0.03)]
    optimizer = o.Adam(groups) if name.endswith("_adam") else o.SGD(groups, momentum=0.9)
    scheduler = make(optimizer)
    rates, momenta = ([], []), []
    for t in range(count):
        for group, out in zip(optimizer.param_groups, rates):
            out.append(float(group["lr"]))
        group = optimizer.param_groups[0]
        momenta.append(float(group["betas"][0] if "betas" in group else group["momentum"]))
        optimizer.step()
        scheduler.step(*([metric(t)] if metric else []))
    print("schedule", name, count)
    line("lr", rates[0])
    line("momentum", momenta)
    line("lr1", rates[1][::7])


print("# PyTorch", torch.__version__)
schedule("step", lambda p: s.StepLR(p, 30))
schedule("step_short", lambda p: s.StepLR(p, 7, gamma=0.9))
schedule("multistep", lambda p: s.MultiStepLR(p, [10, 50, 150], gamma=0.5))
schedule("multistep_edges", lambda p: s.MultiStepLR(p, [1, 2, 199]))
schedule("exponential", lambda p: s.ExponentialLR(p, 0.95))
schedule("exponential_up", lambda p: s.ExponentialLR(p, 1.01))
schedule("polynomial", lambda p: s.PolynomialLR(p, 150))
schedule("polynomial_power", lambda p: s.PolynomialLR(p, 250, power=2.5))
schedule("polynomial_root", lambda p: s.PolynomialLR(p, 40, power=0.5))
schedule("linear", lambda p: s.LinearLR(p))
schedule("linear_long", lambda p: s.LinearLR(p, start_factor=0.01, end_factor=0.8, total_iters=120))
schedule("constant", lambda p: s.ConstantLR(p))
schedule("constant_long", lambda p: s.ConstantLR(p, factor=0.25, total_iters=150))
schedule("cosine", lambda p: s.CosineAnnealingLR(p, T_max=200, eta_min=0.001))
schedule("cosine_past_end", lambda p: s.CosineAnnealingLR(p, T_max=70))
schedule("restarts", lambda p: s.CosineAnnealingWarmRestarts(p, 50))
schedule("restarts_growing", lambda p: s.CosineAnnealingWarmRestarts(p, 10, 2, eta_min=0.003))
schedule("restarts_thrice", lambda p: s.CosineAnnealingWarmRestarts(p, 3, 3))
schedule("onecycle_adam", lambda p: s.OneCycleLR(p, max_lr=0.002, total_steps=200))
schedule("onecycle_fraction", lambda p: s.OneCycleLR(
    p, max_lr=[0.5, 0.2], total_steps=97, pct_start=0.21, div_factor=10, final_div_factor=100, base_momentum=0.8,
    max_momentum=0.9), 97)
schedule("onecycle_linear", lambda p: s.OneCycleLR(
    p, max_lr=0.5, total_steps=200, anneal_strategy="linear", cycle_momentum=False))
schedule("onecycle_three", lambda p: s.OneCycleLR(p, max_lr=[0.5, 0.2], total_steps=200, three_phase=True))
schedule("onecycle_three_linear_adam", lambda p: s.OneCycleLR(
    p, max_lr=0.5, total_steps=143, pct_start=0.37, anneal_strategy="linear", three_phase=True), 143)
base = [0.1, 0.03]
schedule("cyclic", lambda p: s.CyclicLR(p, base, 0.5, step_size_up=20))
schedule("cyclic_adam", lambda p: s.CyclicLR(p, base, [0.5, 0.3], step_size_up=9, step_size_down=14))
schedule("cyclic2", lambda p: s.CyclicLR(p, base, 0.5, step_size_up=13, step_size_down=7, mode="triangular2"))
schedule("cyclic2_adam", lambda p: s.CyclicLR(
    p, base, 0.7, step_size_up=1, step_size_down=30, mode="triangular2", base_momentum=0.7, max_momentum=0.95))
schedule("cyclic_exp", lambda p: s.CyclicLR(p, base, 0.5, step_size_up=11, mode="exp_range", gamma=0.99))
schedule("cyclic_exp_alone", lambda p: s.CyclicLR(
    p, base, 0.5, step_size_up=40, step_size_down=3, mode="exp_range", gamma=0.995, cycle_momentum=False))
schedule("lambda", lambda p: s.LambdaLR(p, lambda t: 1 / (1 + t)))
schedule("lambda_groups", lambda p: s.LambdaLR(p, [lambda t: 0.95**t, lambda t: 1 if t < 100 else 0.1]))
schedule("multiplicative", lambda p: s.MultiplicativeLR(p, lambda t: 0.97))
schedule("multiplicative_groups", lambda p: s.MultiplicativeLR(p, [lambda t: 1 - 1 / (t + 2), lambda t: 1.01]))
schedule("sequential", lambda p: s.SequentialLR(p, [s.ConstantLR(p, 0.1, 20), s.ExponentialLR(p, 0.9)], [20]))
schedule("sequential_three", lambda p: s.SequentialLR(
    p, [s.LinearLR(p, 0.01, 1, 10), s.CosineAnnealingLR(p, 90), s.StepLR(p, 30, 0.5)], [10, 100]))
schedule("sequential_restarts", lambda p: s.SequentialLR(
    p, [s.ExponentialLR(p, 0.99), s.CosineAnnealingWarmRestarts(p, 10, 2)], [50]))
schedule("chained", lambda p: s.ChainedScheduler([s.ConstantLR(p, 0.1, 20), s.ExponentialLR(p, 0.9)]))
schedule("chained_three", lambda p: s.ChainedScheduler(
    [s.LinearLR(p, 0.1, 1, 50), s.StepLR(p, 40, 0.5), s.MultiStepLR(p, [100], 0.3)]))
schedule("chained_cosine", lambda p: s.ChainedScheduler([s.CosineAnnealingLR(p, 400), s.ExponentialLR(p, 0.99)]))
falling = lambda t: max(0.3, math.exp(-t / 30)) + 0.01 * math.cos(t)
rising = lambda t: min(0.8, t / 60) + 0.02 * math.sin(2 * t)
schedule("plateau", lambda p: s.ReduceLROnPlateau(p, patience=3, factor=0.5), metric=falling)
schedule("plateau_abs", lambda p: s.ReduceLROnPlateau(
    p, patience=0, factor=0.9, threshold=0.02, threshold_mode="abs", cooldown=5, min_lr=[0.02, 0.01]), metric=falling)
schedule("plateau_max", lambda p: s.ReduceLROnPlateau(
    p, mode="max", patience=5, factor=0.2, threshold=0.01, eps=1e-4), metric=rising)
schedule("plateau_max_abs", lambda p: s.ReduceLROnPlateau(
    p, mode="max", patience=2, factor=0.7, threshold=1e-3, threshold_mode="abs", cooldown=1), metric=rising)
