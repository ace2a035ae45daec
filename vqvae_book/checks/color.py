"""Checks of chapter 11."""

from collections.abc import Callable
from statistics import fmean

import torch
from torch import Tensor

from ..evidence import lost
from ..exercises import disagreement, exercise
from ..likelihood import pixel_bits
from ..results import stored_studies

LEVELS = torch.arange(256)


@exercise("11.1", "A factor on the whole loss moves no minimum, and r = 48 / 64.")
def betas(answer: Tensor) -> str | None:
    if answer.shape != (2,):
        return "Give two numbers: β of (1.10), then β of (1.8)."
    first, r = float(answer[0]), float(answer[1] / answer[0])
    if abs(first / (0.25 * 0.0633) - 1) > 0.02:  # two digits are enough
        divided = "You divided by v. " if abs(first * 0.0633 / 0.25 - 1) < 0.02 else ""
        return f"{divided}Multiply Sonnet's loss by v: what becomes of its β?"
    wrong = {1.0: "it lacks r.", 0.25: "that is r with C = 1.", 1.33: "does r divide?"}
    said = [of for x, of in wrong.items() if abs(r / x - 1) < 0.02] or ["is r right?"]
    return None if abs(r / 0.75 - 1) < 0.02 else f"Look at the second: {said[0]}"


@exercise("11.2", "Every level has its share, and no tail is lost.")
def logistic_bits(answer: Callable) -> str | None:
    means = [torch.full((256,), mean).double() for mean in (0.0, 0.5, 1.0)]
    cases = [(LEVELS, m, scale) for scale in (0.1, 0.5, 0.002, 0.02) for m in means]
    if (hint := disagreement(answer, pixel_bits, *cases)) and "values" in hint:
        if not all(_sum_to_one(answer(*case)) for case in cases):
            return "The shares 2^-bits don't sum to one: what is beyond the last level?"
        far = "Far from the mean, differences of F near 1 lose digits. Is F symmetric?"
        return disagreement(answer, pixel_bits, *cases[:6]) or far
    return hint


@exercise("11.3", "A row without counts leaves all levels equally likely: 8 bits.")
def table_bits(answer: Callable) -> str | None:
    def ours(k: Tensor, m: Tensor, k2: Tensor, m2: Tensor, up: float = 0.5) -> Tensor:
        rows, rows2 = ((255 * x + up).long() for x in (m, m2))
        counts = torch.ones(256, 256).double()
        counts.index_put_((rows, k), torch.ones(1).double(), accumulate=True)
        return -(counts / counts.sum(dim=1, keepdim=True))[rows2, k2].log2()

    k, mean, same = torch.randint(200, (2000,)), torch.rand(2000) / 16, torch.zeros(256)
    exact, drawn = (k, k / 255, LEVELS, LEVELS / 255), (k, mean, k[:500], mean[-500:])
    if (hint := disagreement(answer, ours, drawn, exact)) and "values" in hint:
        if not torch.as_tensor(answer(k, mean, LEVELS, same)).isfinite().all():
            return "A level that never occurred must have a finite cost."
        if not _sum_to_one(answer(k, mean, LEVELS, same)):
            return "Under one prediction, the shares of the 256 levels must sum to one."
        if not disagreement(answer, lambda *of: ours(*of, up=0.0), drawn):
            return "Round 255 · mean: you cut off what follows the point."
    return hint


@exercise("11.4", "Four times as many codes lose less on Fashion-MNIST too.")
def fashion(answer: Tensor) -> str | None:
    if answer.shape != (2,) or not (answer.min() > 0 and answer.max() < 1):
        return "Give two shares, from 0 to 1. Are your pixels in [0, 1], not [0, 255]?"
    if answer[1] >= answer[0]:
        return "The second should be lower: is it that of K = 64, after 468 steps?"
    names = "fashion-K0016", "fashion-K0064", "mnist-K0256"
    *runs, digits = (stored_studies(f"color-{name}-") for name in names)
    spread, other = (of[0].provenance["variance"] for of in (runs[0], digits))
    ratio = answer / torch.tensor([fmean(lost(of)) for of in runs])
    if ((ratio * other / spread - 1).abs() < 0.12).all():
        return "Did you divide by MNIST's variance? Fashion-MNIST has its own."
    close = ((ratio - 1).abs() < 0.3).all()
    return None if close else "Far from ours: 468 steps, and divided by the variance?"


def _sum_to_one(bits: Tensor) -> bool:
    return abs(float(torch.exp2(-torch.as_tensor(bits)).sum()) - 1) < 1e-3
