#!/usr/bin/env python3
"""Writes distill.txt: losses of knowledge distillation and their gradients by PyTorch in f64, for tests/distill_golden_test.cpp.

Inputs are waves: element i of wave(shape, phase, scale) is scale · sin(1.7 i + phase). A case is a line "case NAME" with lines
"value …" and one "grad …" for each input that learns. The formulas are spelt as the papers' programs spell them, not
as Hone does: decoupled distillation by probabilities and a mask of −1000, relational distillation by products of matrices.

    python generate_distill.py > distill.txt
"""
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def wave(shape, phase, scale=1.0):
    n = 1
    for s in shape:
        n *= s
    return (scale * torch.sin(1.7 * torch.arange(n, dtype=torch.float64) + phase)).reshape(shape)


def case(name, f, *learning):
    inputs = [x.clone().requires_grad_() for x in learning]
    value = f(*inputs)
    value.backward()
    print("case", name)
    print("value", repr(value.item()))
    for x in inputs:
        print("grad", *(repr(v) for v in x.grad.flatten().tolist()))


def kl(s, t, T):
    return F.kl_div(F.log_softmax(s / T, 1), F.softmax(t / T, 1), reduction="batchmean") * T * T


print("# PyTorch", torch.__version__)
N, C = 6, 5
S, T = wave((N, C), 0.3, 3), wave((N, C), 1.1, 4)
Y = torch.tensor([0, 4, 2, 2, 1, 3])
PARTLY = torch.tensor([0, -100, 2, -100, -100, 3])
SOFT = F.softmax(wave((N, C), 2.0), 1)

for temperature, alpha in [(4, 0.9), (1, 0.5), (0.5, 0.3), (20, 0.7), (3, 0)]:
    case(f"kd_{temperature}_{alpha}", lambda s: alpha * kl(s, T, temperature) + (1 - alpha) * F.cross_entropy(s, Y), S)
case("kd_unlabelled", lambda s: 0.9 * kl(s, T, 20), S)
case("kd_partly_labelled",
     lambda s: 0.6 * kl(s, T, 2) + 0.4 * F.cross_entropy(s, PARTLY, ignore_index=-100, reduction="sum") / N, S)
case("kd_soft_labels", lambda s: 0.6 * kl(s, T, 2) + 0.4 * F.cross_entropy(s, SOFT), S)
case("kd_large_logits", lambda s: kl(s, 300 * T, 4), 200 * S)
case("teacher_class", lambda s: F.cross_entropy(s, T.argmax(1)), S)


def dkd(s, t, y, alpha, beta, temperature):
    mask = F.one_hot(y, s.shape[1]).bool()

    def binary(z):
        p = F.softmax(z / temperature, 1)
        return torch.stack([(p * mask).sum(1), (p * ~mask).sum(1)], 1)
    scale = temperature ** 2 / len(y)
    tckd = F.kl_div(torch.log(binary(s)), binary(t), reduction="sum") * scale
    nckd = F.kl_div(F.log_softmax(s / temperature - 1000.0 * mask, 1), F.softmax(t / temperature - 1000.0 * mask, 1),
                    reduction="sum") * scale
    return alpha * tckd + beta * nckd


for temperature, alpha, beta in [(4, 1, 8), (1, 0.5, 2), (2, 0, 1), (2, 1, 0)]:
    case(f"dkd_{temperature}_{alpha}_{beta}", lambda s: dkd(s, T, Y, alpha, beta, temperature), S)
case("dkd_two_classes", lambda s: dkd(s, T[:, :2], Y % 2, 1, 8, 2), S[:, :2])


def mutual(zs, y, weight, temperature):
    total = 0
    for k, z in enumerate(zs):
        others = [kl(z, o.detach(), temperature) for l, o in enumerate(zs) if l != k]
        total = total + F.cross_entropy(z, y) + weight * sum(others) / len(others)
    return total


U = wave((N, C), 2.2, 2)
case("mutual_2", lambda a, b: mutual([a, b], Y, 1, 1), S, T)
case("mutual_3", lambda a, b, c: mutual([a, b, c], Y, 0.5, 2), S, T, U)


def ensemble(zs, weights, temperature):
    p = sum(w * F.softmax(z / temperature, 1) for w, z in zip(weights, zs)) / sum(weights)
    return temperature * torch.log(p)


case("ensemble_probabilities", lambda a, b, c: (ensemble([a, b, c], [1, 1, 1], 1) * SOFT).sum(), S, T, U)
case("ensemble_weighted", lambda a, b, c: (ensemble([a, b, c], [1, 2, 0.5], 3) * SOFT).sum(), S, T, U)
case("ensemble_logits", lambda a, b: ((1 * a + 3 * b) / 4 * SOFT).sum(), S, T)

FS, FT = wave((3, 2, 4, 5), 0.4), wave((3, 3, 4, 5), 0.9, 2)
case("hint", lambda s, w, b: F.mse_loss(F.conv2d(s, w, b), FT), FS, wave((3, 2, 1, 1), 0.7), wave((3,), 0.2))
case("hint_linear", lambda s, w, b: F.mse_loss(F.linear(s, w, b), T), wave((N, 3), 0.8), wave((C, 3), 0.1), wave((C,), 0.6))


def attention(x):
    return F.normalize(x.pow(2).mean(1).reshape(len(x), -1))


DEAD = FS.clone()
DEAD[1] = 0  # a sample of zeros
case("attention", lambda s: (attention(s) - attention(FT)).pow(2).mean(), FS)
case("attention_dead_sample", lambda s: (attention(s) - attention(FT)).pow(2).mean(), DEAD)


def pdist(e):
    square = e.pow(2).sum(1)
    res = (square.unsqueeze(1) + square.unsqueeze(0) - 2 * e @ e.t()).clamp(min=1e-12).sqrt()
    return res * (1 - torch.eye(len(e)))


def rkd(s, t, distance, angle):
    s, t = s.reshape(len(s), -1), t.reshape(len(t), -1)
    d, t_d = pdist(s), pdist(t)
    loss_d = F.smooth_l1_loss(d / d[d > 0].mean(), t_d / t_d[t_d > 0].mean())

    def angles(x):
        e = F.normalize(x.unsqueeze(0) - x.unsqueeze(1), p=2, dim=2)
        return torch.bmm(e, e.transpose(1, 2))
    return distance * loss_d + angle * F.smooth_l1_loss(angles(s), angles(t))


RS, RT = wave((N, 2, 4), 0.3), wave((N, 7), 1.9, 5)
for distance, angle in [(25, 50), (1, 0), (0, 1)]:
    case(f"relational_{distance}_{angle}", lambda s: rkd(s, RT, distance, angle), RS)
