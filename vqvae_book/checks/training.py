"""Checks of chapter 5."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from vqvae_lib import VQVAE, VQVAEConfig, learning_rate

from ..exercises import disagreement, exercise


@exercise("5.1", "At half of the steps, two sevenths of the fall's steps are done.")
def rate_halfway(answer: float) -> str | None:
    right, peak = learning_rate(0.5, 0.01), 0.01
    if abs(answer - peak) < 0.02 * peak:
        return "That is the peak, which is reached after three tenths of the steps."
    if abs(answer - peak / 2) < 0.02 * peak:
        return "The fall begins after three tenths of the steps, not at the start."
    if abs(answer - right) > 0.02 * right:
        return "Put t = 1/2 into the second line of (5.2), with a peak of 0.01."
    return None


@exercise("5.2", "The mean image is the best single picture, so compare with it.")
def one_picture(answer: Callable) -> str | None:
    picture = torch.rand(1, 1, 8, 8)
    x = picture + 0.1 * torch.randn(64, 1, 8, 8)
    mean = x.mean(dim=0, keepdim=True)
    noisy = mean + 0.05 * torch.randn_like(x)
    for name, x_recon, expected in (
        ("pictures that differ, each the mean image and noise", noisy, True),
        ("the mean image, a little too bright, drawn each time", mean + 0.02, True),
        ("one gray for all pixels", x.mean(), True),
        ("nearly perfect reconstructions", x + 0.01, False),
        ("reconstructions halfway to the mean image", (x + mean) / 2, False),
    ):
        if bool(answer(x.clone(), x_recon.expand_as(x).clone())) != expected:
            return f"It is wrong about {name}."
    return None


@exercise("5.3", "What a seed does to both runs cancels in their differences only.")
def standard_errors(answer: Callable) -> str | None:
    def error(values: Tensor) -> float:
        return float(values.std() / math.sqrt(len(values)))

    def ours(a: list[float], b: list[float]) -> tuple[float, float]:
        a, b = torch.tensor(a).double(), torch.tensor(b).double()
        return error(b - a), math.hypot(error(a), error(b))

    a, b = [1.0, 2.0, 4.0], [1.5, 2.0, 5.0]
    if disagreement(answer, lambda a, b: ours(a, b)[::-1], (a, b)) is None:
        return "The two are in the wrong order: paired first."
    return disagreement(answer, ours, (a, b), ([3.0, 1.0], [1.0, 3.0]))


@exercise("5.4", "The codes move once, after all gradients are computed.")
def accumulate(answer: Callable) -> str | None:
    sizes = {"hidden_dim": 8, "num_embeddings": 8, "embedding_dim": 4}
    whole = VQVAE(VQVAEConfig(restart_threshold=0, device="cpu", **sizes)).train()
    x = torch.rand(10, 1, 8, 8)
    whole.initialize(x)
    for parts in (1, 2, 3):  # the last has parts of unequal size
        one, several = copy.deepcopy(whole), copy.deepcopy(whole)
        one.training_step(x)["total_loss"].backward()
        answer(several, x.clone(), parts)
        if not torch.allclose(one.vq.codebook, several.vq.codebook, 1e-3, 1e-6):
            return f"After {parts} parts the codes are not where one batch puts them."
        for a, b in zip(one.parameters(), several.parameters(), strict=True):
            if b.grad is None or not torch.allclose(a.grad, b.grad, 1e-3, 1e-7):
                return f"After {parts} parts the gradients are not those of one batch."
    return None


@exercise("5.5", "Four decays multiply, so the fourth root forgets as fast per image.")
def memory_per_image(answer: float) -> str | None:
    if abs(answer - 0.9**4) < 1e-3:
        return "That forgets faster: there are now four updates instead of one."
    if abs(answer - 0.975) < 1e-4:
        return "Close: each forgets a quarter as much. But four updates multiply."
    if abs(answer - 0.9**0.25) > 8e-4:
        return "What must four updates together leave of an old count?"
    return None
