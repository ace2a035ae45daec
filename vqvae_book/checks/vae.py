"""Checks of chapter 9."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..exercises import disagreement, exercise


@exercise("9.1", "A factor on the whole loss changes the ELBO, but not Adam's steps.")
def exchange(answer: float) -> str | None:
    if abs(answer - 0.02 / 3) < 1e-4:
        return "With this variance a nat of rate would weigh less, not more."
    near = abs(answer - 0.06) < 1e-4
    return None if near else "Divide the loss by the weight, and compare with (9.4)."


@exercise("9.2", "For center 0 and identity covariance: the KL (1.3), in bits.")
def gaussian_rate(answer: Callable) -> str | None:
    def ours(mean: Tensor, variance: Tensor, center: Tensor, cov: Tensor) -> Tensor:
        prior = torch.distributions.MultivariateNormal(center, cov)
        posterior = torch.distributions.MultivariateNormal(mean, variance.diag_embed())
        return torch.distributions.kl_divergence(posterior, prior).mean() / math.log(2)

    mean, variance = torch.randn(6, 3).double(), torch.rand(6, 3).double() + 0.1
    zero, eye = torch.zeros(3).double(), torch.eye(3).double()
    root = torch.randn(3, 3).double()
    cases = [
        (mean, variance, zero, eye),
        (mean, variance, zero + 1, 2 * eye),
        (mean, variance, mean.mean(0), root @ root.T + eye),
    ]
    return disagreement(answer, ours, *cases)


@exercise("9.3", "Directions die in order of their variance, the smallest first.")
def alive(answer: Callable) -> str | None:
    def ours(images: Tensor, weight: float, variance: float) -> int:
        principal = torch.linalg.eigvalsh(images.T.cov())
        return int((principal > weight * variance).sum())

    images = torch.randn(4000, 4).double() * torch.tensor([0.1, 0.3, 1.0, 2.0])
    images = images @ torch.linalg.qr(torch.randn(4, 4).double()).Q + 3
    return disagreement(answer, ours, *((images, w, 0.02) for w in (0.1, 2, 20, 500)))


@exercise("9.4", "It counts noise, and also detail in the wrong place.")
def high_error(answer: Callable) -> str | None:
    def ours(x: Tensor, x_recon: Tensor) -> Tensor:
        rows, columns = (torch.fft.fftfreq(n) for n in x.shape[-2:])
        high = torch.hypot(rows[:, None], columns[None]) > 0.25
        power = torch.fft.fft2(x_recon - x).abs().square()
        return power[..., high].sum() / x.numel() / high.numel()

    x, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 1, 8, 8)
    return disagreement(answer, ours, (x, x + 0.2), (x, x + noise), (x, x * 0.5))


@exercise("9.5", "Where the map is near zero, the bits spent there are wasted.")
def swap_costs(answer: Callable) -> str | None:
    weights = torch.tensor([[1.0, 0.5, 0.0], [2.0, 1.0, 0.1]])

    def decode(z: Tensor) -> Tensor:  # (n, d, 2, 3) -> (n, 1, 2, 3)
        return (z * weights).sum(dim=1, keepdim=True)

    def ours(z: Tensor, x: Tensor) -> Tensor:
        def error(latents: Tensor) -> Tensor:
            return (decode(latents) - x).square().flatten(1).sum(1).mean()

        costs = torch.zeros(z.shape[-2:])
        for i, j in torch.cartesian_prod(*map(torch.arange, costs.shape)).tolist():
            swapped = z.clone()
            swapped[..., i, j] = z[..., i, j].roll(1, dims=0)
            costs[i, j] = error(swapped) - error(z)
        return costs

    z = torch.randn(5, 2, 2, 3)
    cases = [(z, decode(z)), (z, decode(z) + 0.1 * torch.randn(5, 1, 2, 3))]
    return disagreement(lambda z, x: answer(z, decode, x), ours, *cases)
