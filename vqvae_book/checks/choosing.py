"""Checks of chapter 7."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..exercises import disagreement, exercise, first_wrong


@exercise("7.1", "Three doublings leave less than 70% of the error, two 74%.")
def budget(answer: Tensor) -> str | None:
    return first_wrong(answer, {"K": 512, "the bits per image": 441})


@exercise("7.2", "Vectors that fill a square measure as two-dimensional.")
def dimension(answer: float) -> str | None:
    if abs(answer) < 1.5:
        return "That looks like the slope: by (7.1) it is -2 / d."
    near = abs(answer - 2) < 0.2
    return None if near else "Do you measure on points that kmeans has not seen?"


@exercise("7.3", "The indices you return refer to the whole codebook.")
def nearest_kept(answer: Callable) -> str | None:
    def brute_force(z: Tensor, codes: Tensor, kept: Tensor) -> Tensor:
        distances = (z[:, None] - codes[kept]).square().sum(dim=2)
        return kept[distances.argmin(dim=1)]

    cases = [
        (torch.randn(50, 4), torch.randn(32, 4), torch.randperm(32)[:n])
        for n in (1, 5, 32)
    ]
    return disagreement(answer, brute_force, *cases)


@exercise("7.4", "The square of the length makes up for β.")
def scale(answer: float) -> str | None:
    if abs(answer - 16) < 0.1:
        return "The term is proportional to the square of the length."
    if abs(answer - 0.25) < 0.01:
        return "Which of the two values of β pulls harder?"
    return None if abs(answer - 4) < 0.01 else "Set both terms equal, and divide."
