"""Checks of chapter 2."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..exercises import disagreement, exercise


@exercise(
    "2.1", "It agrees with a direct count, and a code that is never used adds nothing."
)
def effective_codes(answer: Callable) -> str | None:
    def by_counting(indices, K):
        shares = [float((indices == k).double().mean()) for k in range(K)]
        return math.prod(p**-p for p in shares if p > 0)

    cases = [(torch.randint(K // 2, (5, 7, 7)), K) for K in (4, 16, 64)]
    return disagreement(answer, by_counting, *cases)


@exercise("2.2", "It tells channels-last from two other layouts of the same shape.")
def layouts(answer: Callable) -> str | None:
    wrong = {
        "of a bare reshape": lambda z: z.reshape(-1, z.shape[1]),
        "that puts images last": lambda z: z.movedim(0, -1).reshape(-1, z.shape[1]),
    }
    if not answer(lambda z: z.movedim(1, -1).reshape(-1, z.shape[1])):
        return "It rejects the right layout, channels-last."
    accepted = [name for name, flatten in wrong.items() if answer(flatten)]
    return f"It accepts the layout {accepted[0]}." if accepted else None


@exercise(
    "2.3",
    "Shorter memories wobble with each batch, longer ones lag. The squares of the two "
    "errors add up, and for a faster cluster the best decay is lower.",
)
def best_decay(answer: float) -> str | None:
    if not 0 <= answer < 1:
        return "A decay has to be in [0, 1)."
    if answer > 0.85:
        return "With so long a memory the code lags behind: try shorter ones."
    if answer < 0.65:
        return "With so short a memory the code wobbles: try longer ones."
    return None


@exercise(
    "2.5",
    "If all codes have length 1, half the squared length is the same in every score. "
    "The length of a vector scales all its scores by the same factor.",
)
def nearest_angle(answer: Callable) -> str | None:
    def by_angles(z, codes):
        return F.cosine_similarity(z[:, None], codes[None], dim=2).argmax(1)

    cases = [(3 * torch.randn(50, 4), torch.randn(K, 4)) for K in (1, 7, 32)]
    return disagreement(answer, by_angles, *cases)
