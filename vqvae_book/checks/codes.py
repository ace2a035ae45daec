"""Checks of chapter 6."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..exercises import disagreement, exercise, first_wrong, guarded


@exercise("6.1", "Only what calculates with indices can notice the new names.")
def renumbered(answer: Tensor) -> str | None:
    probes = {"the probe on one-hot codes": 0, "the probe on plain numbers": 1}
    return first_wrong(answer, {"the error": 0, "the perplexity": 0, **probes})


@exercise("6.2", "Close indices now mean close codes, along this one direction.")
def sorted_codes(answer: Callable) -> str | None:
    def along(codes: Tensor) -> Tensor:
        centered = codes - codes.mean(dim=0)
        return centered @ torch.linalg.svd(centered, full_matrices=False).Vh[0]

    def rising(codes: Tensor) -> Tensor:
        places = along(codes)[torch.as_tensor(answer(codes)).long()]
        return places if places[0] < places[-1] else places.flip(0)

    clouds = torch.randn(3, 20, 5) * torch.tensor([3, 1, 1, 1, 1]) + 2
    cases = [(codes,) for codes in clouds]
    return disagreement(guarded(rising), lambda codes: along(codes).sort()[0], *cases)


@exercise("6.3", "It uses what neighbors tell us, and nothing that it must not see.")
def price(answer: Callable) -> str | None:
    bits = guarded(lambda *grids: float(answer(*grids, 8)))
    train, test = torch.randint(7, (3000, 7, 7)), torch.randint(8, (300, 7, 7))
    if not math.isfinite(bits(train, test)):
        return "A code that occurs in no training image must have a finite cost."
    train = torch.randint(8, (3000, 7, 7))
    if bits(train, test) < 0.99 * 49 * 3:
        return "Random codes cost less than their entropy: what does it look at?"
    striped = [grids[:, :1].expand(-1, 7, -1).contiguous() for grids in (train, test)]
    repeated = bits(*striped)
    if not repeated < 0.5 * 49 * 3:
        return "If all rows repeat the first, the code above should save more bits."
    if repeated < 0.99 * 7 * 3:
        return "That is less than the first row costs: does it look at later codes?"
    return None


@exercise("6.4", "It knows which codes are usual at which position.")
def surprise(answer: Callable) -> str | None:
    usual = torch.arange(49).view(1, 7, 7) % 8
    train, grids = usual.repeat(500, 1, 1), torch.cat([usual, usual.roll(1, 2)])
    bits_of = guarded(lambda *case: torch.as_tensor(answer(*case)).double())
    bits = bits_of(train, grids, 8)
    if bits.shape != (2,):
        return f"For 2 images it returned the shape {tuple(bits.shape)}."
    if not bits.isfinite().all():
        return "A code that never occurred at a position must have a finite cost there."
    if bits[1] < bits[0] + 49:
        return "The usual codes in unusual positions should cost many more bits."
    train = torch.randint(8, (3000, 7, 7))
    if not bits_of(train, train[:50], 8).mean() > 0.9 * 49 * 3:
        return "Random codes should cost 3 bits each. Are the logarithms to base 2?"
    return None
