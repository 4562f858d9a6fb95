#!/usr/bin/env python3
"""The peer of tests/bench/lenet_loop.cpp: LeNet's training loop in PyTorch, on batches in memory.

Prints one line of JSON: {"samples_per_second": …, "loss": …, "version": …}. Forward, loss, backward, Adam step.
"""
import argparse
import json
import time

import torch
from torch import nn


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of measurement, after the warm-up")
    parser.add_argument("--warmup", type=int, default=30, help="steps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    net = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    cross_entropy = nn.CrossEntropyLoss()
    batches = [(torch.randn(options.batch, 3, 32, 32), torch.randint(0, 10, (options.batch,))) for _ in range(8)]

    def step(i):
        images, labels = batches[i % len(batches)]
        loss = cross_entropy(net(images), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    for i in range(options.warmup):
        loss = step(i)
    steps = 0
    start = time.perf_counter()
    while True:
        for _ in range(10):
            loss = step(steps)
            steps += 1
        seconds = time.perf_counter() - start
        if seconds >= options.seconds:
            break
    print(json.dumps({"samples_per_second": steps * options.batch / seconds, "loss": loss.item(),
                      "version": "torch " + torch.__version__}))


main()
