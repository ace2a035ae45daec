"""Checks of chapter 10."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_lib import LFQ

from ..exercises import disagreement, exercise


@exercise("10.1", "The first channel counts ones; neighbors in index can be far apart.")
def digits(answer: Callable) -> str | None:
    def ours(indices: Tensor, levels: list[int]) -> Tensor:
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        return indices[:, None] // torch.tensor(places) % torch.tensor(levels)

    sizes = [5], [3, 5], [8, 8, 4, 4]
    cases = [(torch.randint(math.prod(size), (30,)), size) for size in sizes]
    return disagreement(answer, ours, *cases)


@exercise("10.2", "A product over channels: the first entropy has D terms, not 2^D.")
def entropies(answer: Callable) -> str | None:
    def ours(z: Tensor, tau: float) -> tuple[float, ...]:
        found = LFQ(z.shape[1], temperature=tau).entropies(z)
        return tuple(float(entropy) for entropy in found)

    cases = [(torch.randn(20, D) * 0.3, tau) for D, tau in ((2, 1.0), (5, 0.5))]
    return disagreement(answer, ours, *cases)


@exercise("10.3", "The vector is the sum of one code per stage that is used.")
def partial(answer: Callable) -> str | None:
    def ours(codebooks: Tensor, indices: Tensor, stages: int) -> Tensor:
        chosen = [codebooks[i, indices[:, i]] for i in range(stages)]
        return torch.stack(chosen).sum(dim=0)

    draws = [(n, torch.randn(n, 16, 3), torch.randint(16, (40, n))) for n in (2, 4)]
    cases = [(*draw, stages) for n, *draw in draws for stages in range(1, n + 1)]
    return disagreement(answer, ours, *cases)


@exercise("10.4", "It takes z to e, and only scales what is at right angles to both.")
def turn(answer: Callable) -> str | None:
    def ours(z: Tensor, e: Tensor) -> Tensor:
        a, b = F.normalize(z, dim=0), F.normalize(e, dim=0)
        r = F.normalize(a + b, dim=0)
        rotation = torch.eye(len(z)) - 2 * r.outer(r) + 2 * b.outer(a)
        return e.norm() / z.norm() * rotation

    cases = [(torch.randn(D), torch.randn(D)) for D in (2, 3, 8)]
    return disagreement(answer, ours, *cases)


@exercise("10.5", "Most codes are kept late, when others are already given.")
def known(answer: Callable) -> str | None:
    def ours(N: int, R: int) -> tuple[float, ...]:
        cosines = [math.cos(math.pi * r / (2 * R)) for r in range(1, R + 1)]
        return tuple(float(N - int(N * cosine)) for cosine in cosines)

    return disagreement(answer, ours, (49, 8), (49, 1), (256, 10))
