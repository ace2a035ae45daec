"""Checks of chapter 3, the swapped loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..exercises import disagreement, exercise, first_wrong


@exercise("3.1", "z + beta e stays constant; with the swapped loss, beta z + e.")
def meeting_places(answer: Callable) -> str | None:
    def brute_force(beta: float) -> tuple[float, float]:
        return 1 / (1 + beta), beta / (1 + beta)

    return disagreement(answer, brute_force, (0.25,), (1.0,), (3.0,))


@exercise("3.2", "What is outside detach moves, in either order of arguments.")
def four_losses(answer: Tensor) -> str | None:
    parts = ("on encoder outputs", "on codes")
    names = [f"{loss}, {part}" for loss in "abcd" for part in parts]
    right = (1.25, 1.25, 0.25, 1, 1, 0.25, 0, 1)
    if torch.equal(answer.flatten()[:2], torch.ones(2).double()):
        return "Look again at a: both terms move both parts, and their pulls add up."
    return first_wrong(answer.flatten(), dict(zip(names, right, strict=True)))


@exercise("3.3", "SGD's step shrinks with the gradient; Adam divides the factor out.")
def first_steps(answer: Tensor) -> str | None:
    if torch.equal(answer, torch.tensor([4.0, 1.0]).double()):
        return "Swapped, the codes' gradient is beta times the right one, not 1 / beta."
    return first_wrong(answer, {"SGD": 0.25, "Adam": 1})
