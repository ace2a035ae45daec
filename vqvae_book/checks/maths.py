"""Checks of chapter 1, the math."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..exercises import disagreement, exercise, first_wrong


@exercise("1.1", "It takes log2 K bits per position, whatever the length of a code.")
def rate_of_a_grid(answer: Tensor) -> str | None:
    if answer.flatten()[0].round() in (305, 306):
        return "These are nats; bits take the logarithm to base 2."
    return first_wrong(
        answer, {"as it stands": 441, "D doubled": 441, "K doubled": 490, "h, w": 1764}
    )


@exercise("1.2", "It is the mean of -log p(k | x).")
def gap_of_one_hot(answer: Callable) -> str | None:
    def brute_force(log_likelihood: Tensor, k: Tensor) -> float:
        gaps = []
        for row, index in zip(log_likelihood.double(), k, strict=True):
            evidence = (row.exp() / len(row)).sum().log()
            bound = row[index] - torch.tensor(len(row)).double().log()
            gaps.append(float(evidence - bound))
        return sum(gaps) / len(gaps)

    cases = [(torch.randn(n, K), torch.randint(K, (n,))) for n, K in ((6, 4), (1, 9))]
    if disagreement(answer, lambda *case: -brute_force(*case), *cases) is None:
        return "The sign is reversed: the gap is log p(x) minus the bound."
    return disagreement(answer, brute_force, *cases)


@exercise("1.3", "The decoder's gradient is copied to z_e; it does not reach the code.")
def smallest_model(answer: Tensor) -> str | None:
    if torch.isclose(answer.flatten()[0], torch.tensor(-3.0).double()):
        return "The gradient for z_e lacks a part: which other term moves the encoder?"
    return first_wrong(answer, {"z_e": -3.05, "the code": 0.2, "w": -0.5})
