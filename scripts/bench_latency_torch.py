#!/usr/bin/env python3
"""The peer of tests/bench/latency_bench.cpp: the same network in PyTorch, eval mode, no gradients.

Prints one line of JSON: medians of single calls, in microseconds, of the eager module ("eager_us") and of the scripted, frozen and
optimized one ("frozen_us", null where this PyTorch cannot make it); "version".
"""
import argparse
import json
import statistics
import time

import torch
from torch import nn


def lenet():
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


def mlp():
    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


def resnet8():
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2),
                         Block(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def median_us(call, x, seconds):
    with torch.no_grad():
        for _ in range(50):
            call(x)
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not times:
            start = time.perf_counter()
            call(x)
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="lenet", choices=["lenet", "mlp", "resnet8"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    net = {"lenet": lenet, "mlp": mlp, "resnet8": resnet8}[o.net]().eval()
    x = torch.randn(o.batch, 784) if o.net == "mlp" else torch.randn(o.batch, 3, 32, 32)
    result = {"eager_us": median_us(net, x, o.seconds), "frozen_us": None, "version": "torch " + torch.__version__}
    try:
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.script(net)))
        result["frozen_us"] = median_us(frozen, x, o.seconds)
    except (RuntimeError, AttributeError):
        pass
    print(json.dumps(result))


main()
