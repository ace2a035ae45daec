"""Answers to the exercises of chapter 10."""

import math

import torch


def digits(indices, levels):
    columns = []
    for size in levels:
        columns.append(indices % size)
        indices = indices // size
    return torch.stack(columns, 1)


def entropies(z, tau, signs=(-1.0, 1.0)):
    codes = torch.cartesian_prod(*[torch.tensor(signs)] * z.shape[1])
    p = (-torch.cdist(z, codes).square() / tau).softmax(1)
    each, mean = (-(q * q.log()).sum(-1) for q in (p, p.mean(0)))
    return each.mean(), mean


def turn(z, e, back=False):
    a, b = z / z.norm(), e / e.norm()
    r = (a + b) / (a + b).norm()
    rotation = torch.eye(len(z)) - 2 * torch.outer(r, r) + 2 * torch.outer(b, a)
    return (rotation.T if back else rotation) * e.norm() / z.norm()


RIGHT = {
    "10.1": [digits],
    "10.2": [entropies],
    "10.3": [lambda books, k, n: sum(books[i][k[:, i]] for i in range(n))],
    "10.4": [turn],
    "10.5": [lambda N, R: torch.tensor([N - math.floor(N * math.cos(math.pi * r / 2 / R)) for r in range(1, R + 1)])],
}
WRONG = {
    "10.1": [lambda k, levels: digits(k, levels).flip(1), lambda k, levels: k],
    "10.2": [lambda z, tau: entropies(z, 2 * tau), lambda z, tau: entropies(z, tau)[::-1]],
    "10.3": [
        lambda books, k, n: books[n - 1][k[:, n - 1]],
        lambda books, k, n: sum(b[k[:, i]] for i, b in enumerate(books)),
    ],
    "10.4": [lambda z, e: turn(z, e, back=True), lambda z, e: turn(z, e) * z.norm() / e.norm()],
    "10.5": [lambda N, R: [N * r // R for r in range(1, R + 1)], lambda N, R: [N] * R],
}
