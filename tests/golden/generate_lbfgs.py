#!/usr/bin/env python3
"""Writes lbfgs.txt beside it: parameters and losses of PyTorch's L-BFGS after each step on three functions.

Format: "trace FUNCTION SETTING", then for each of 8 steps: loss at its beginning, evaluations so far, parameters."""
import os

import torch

torch.set_default_dtype(torch.float64)


def rosenbrock(p):
    return ((1 - p[:-1]) ** 2).sum() + 100 * ((p[1:] - p[:-1] ** 2) ** 2).sum()


def logistic(p):  # 12 points in 5 dimensions, labels by a rule, with a small penalty
    i = torch.arange(12.0).reshape(-1, 1)
    j = torch.arange(5.0).reshape(1, -1)
    x = torch.sin(1.3 * i + 0.7 * j * j) + 0.1 * j
    y = ((i * 7) % 5 < 2).to(torch.float64).reshape(-1)
    z = x @ p
    return (torch.nn.functional.softplus(z) - y * z).mean() + 0.01 * (p * p).sum()


def quartic(p):
    k = torch.arange(1.0, 6.0)
    return (k * (p - 1 / k) ** 4).sum() + 0.5 * (p * p).sum() + (p[0] * p[4]) ** 2


FUNCTIONS = {"rosenbrock": rosenbrock, "logistic": logistic, "quartic": quartic}
SETTINGS = {
    "wolfe": dict(lr=1.0, max_iter=4, line_search_fn="strong_wolfe"),
    "wolfe_short_history": dict(lr=0.5, max_iter=6, history_size=2, line_search_fn="strong_wolfe"),
    "wolfe_few_evaluations": dict(lr=1.0, max_iter=20, max_eval=7, history_size=5, line_search_fn="strong_wolfe"),
    "plain": dict(lr=0.02, max_iter=5),
    "plain_one": dict(lr=0.01, max_iter=1, history_size=3),
}


def main():
    lines = []
    for name, f in FUNCTIONS.items():
        for setting, options in SETTINGS.items():
            p = torch.tensor([-1.2, 1.0, 0.6, -0.4, 0.9]).requires_grad_()
            optimizer = torch.optim.LBFGS([p], **options)
            lines.append(f"trace {name} {setting}")

            def closure():
                optimizer.zero_grad()
                loss = f(p)
                loss.backward()
                return loss

            for _ in range(8):
                loss = float(optimizer.step(closure))
                evaluations = optimizer.state[p]["func_evals"]
                lines.append(" ".join([f"{loss:.17g}", str(evaluations)] + [f"{v:.17g}" for v in p.tolist()]))
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lbfgs.txt")
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
