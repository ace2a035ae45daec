"""Checks of chapter 8."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from vqvae_lib import GatedStack, MaskedConv2d, MaskedStack, PriorConfig

from ..exercises import disagreement, exercise


@exercise(
    "8.1",
    "A uniform coder always takes 5 bits. A prior that is sure of one code takes many "
    "more whenever a different one comes.",
)
def price_of_chance(answer: float) -> str | None:
    if abs(answer - 5) < 0.05:
        return "That is the cost with a uniform coder. This prior is not uniform."
    if abs(answer - (31 * math.log(310) - math.log(0.9)) / 32) < 0.01:
        return "That looks like nats: take logarithms to base 2."
    right = abs(answer - (31 * math.log2(310) - math.log2(0.9)) / 32) < 0.01
    hint = "On average, one random code in 32 costs little. What do the others cost?"
    return None if right else hint


@exercise("8.2", "It accepts causal stacks, and finds leaks from all sides.")
def leaks(answer: Callable) -> str | None:
    config = PriorConfig(num_embeddings=4, hidden_dim=8, layers=3, device="cpu")
    honest = {"a masked stack": MaskedStack(config), "two stacks": GatedStack(config)}
    for name, stack in honest.items():
        if answer(stack, 8):
            return f"It finds a leak in {name}, where there is none."
    copying = MaskedStack(config)
    copying.layers[0] = MaskedConv2d(8, 3, "B")
    leaky = {"its own position": copying}
    for name, place in {"the next position": (1, 2), "the next row": (2, 0)}.items():
        layer = nn.Conv2d(8, 8, 3, padding=1)
        mask = torch.zeros(3, 3)
        mask[place] = 1
        layer.weight.data *= mask
        leaky[name] = layer
    missed = [name for name, stack in leaky.items() if not answer(stack, 8)]
    return f"It misses a stack that looks at {missed[0]}." if missed else None


@exercise(
    "8.3", "The messages are in the last interval, and none is longer than needed."
)
def encoded(answer: Callable) -> str | None:
    for _ in range(20):
        p = (3 * torch.randn(12, 5)).softmax(dim=1)
        weights = 1 + (p * (2**16 - 5)).long()
        weights[:, 0] += 2**16 - weights.sum(dim=1)
        codes = p.multinomial(1)[:, 0].tolist()
        low, width = 0, 1
        for row, k in zip(weights.tolist(), codes, strict=True):
            low, width = (low << 16) + width * sum(row[:k]), width * row[k]
        message = answer(weights.tolist(), codes)
        if not isinstance(message, str) or not set(message) <= {"0", "1"}:
            return "The message must be a string of the digits 0 and 1."
        if len(message) > 12 * 16:
            return "A message is longer than all its probabilities together require."
        value = int("0" + message, 2) << (12 * 16 - len(message))
        if not low <= value < low + width:
            return "A message is outside the last interval: its codes are lost."
        cuts = range(12 * 16, -1, -1)  # last places that a fraction can do without
        cut = next(cut for cut in cuts if -(-low >> cut) << cut < low + width)
        if len(message) > 12 * 16 - cut:
            return "There is a shorter binary fraction in the last interval."
    return None


@exercise(
    "8.4",
    "One row up, it misses what is over two columns to the right; two up, over four.",
)
def pairs_missed(answer: float) -> str | None:
    missed = sum(
        max(0, 7 - 1 - (j + 2 * a))
        for i in range(7)
        for j in range(7)
        for a in range(1, i + 1)
    )
    if answer == missed:
        return None
    return "Each row up reaches two columns further right: which ones are missed?"


@exercise("8.6", "At λ = 0 it is the nearest code; the cost is in nats.")
def choose(answer: Callable) -> str | None:
    def ours(distances, logits, rate):
        return (distances - rate * logits.log_softmax(dim=1)).argmin(dim=1)

    cases = [
        (4 * torch.rand(50, 8), 2 * torch.randn(50, 8), rate)
        for rate in (0.0, 0.3, 1.0, 4.0)
    ]
    return disagreement(answer, ours, *cases)
