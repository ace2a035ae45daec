"""What a trained model's codes do: how they are used, what they cost, what they lose."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .model import VQVAE
from .quantizer import perplexity

__all__ = [
    "Rate",
    "active_codes",
    "collect_indices",
    "compression_ratio",
    "mse",
    "normalised_mse",
    "psnr",
    "rate",
    "usage_counts",
]


class Rate(NamedTuple):
    """Bits that an image's codes cost."""

    nominal: float  # every code as likely as any other: positions x log2 K
    entropy: float  # codes as likely as they were counted, at all positions alike: positions x H, R_single of (5.1)


@torch.no_grad()
def collect_indices(model: VQVAE, loader: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Encode a whole pass of ``loader``.

    Returns:
        (N, H/4, W/4) int64 on the CPU, in the loader's order.
    """
    device = next(model.parameters()).device
    return torch.cat([model.encode(x.to(device)).cpu() for x, _ in loader])


def usage_counts(indices: Tensor, num_embeddings: int) -> Tensor:
    """Count each code of the codebook, those never used included.

    Args:
        indices: int64 of any shape, in [0, K).
        num_embeddings: K.

    Returns:
        (K,) int64.
    """
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < num_embeddings:
        span = f"{int(indices.min())} to {int(indices.max())}"
        raise ValueError(
            f"indices span {span}: with num_embeddings = {num_embeddings} they lie in [0, {num_embeddings})."
        )
    return torch.bincount(indices.flatten(), minlength=num_embeddings)


def active_codes(counts: Tensor) -> int:
    """Return how many codes were used at least once."""
    return int((counts > 0).sum())


def mse(x: Tensor, x_recon: Tensor) -> float:
    """Return the mean squared error a pixel, in units of [0, 1] squared."""
    if x.shape != x_recon.shape:
        raise ValueError(f"x is {tuple(x.shape)} and x_recon {tuple(x_recon.shape)}: compare images of one shape.")
    return float((x.double() - x_recon.double()).square().mean())


def normalised_mse(error: float, variance: float) -> float:
    """Return ``error`` over the variance of the pixels: 1 is what one grey for all of them reaches, 0 is perfect."""
    if variance <= 0:
        raise ValueError(f"variance = {variance}: images without any contrast have no normalised error.")
    return error / variance


def psnr(error: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error of pixels in [0, 1]; inf for no error."""
    return math.inf if error == 0 else -10 * math.log10(error)


def rate(counts: Tensor, positions: int) -> Rate:
    """Compute the bits an image costs, equation (3.3) and, from counts, R_single of equation (5.1).

    Args:
        counts: (K,) use of each code over a whole pass.
        positions: codes an image has, H/4 x W/4.
    """
    return Rate(positions * math.log2(len(counts)), positions * math.log2(float(perplexity(counts))))


def compression_ratio(image_shape: tuple[int, int, int], bits: float) -> float:
    """Return how many times fewer bits than 8 a pixel and channel an image (C, H, W) costs."""
    if bits <= 0:
        raise ValueError(f"bits = {bits}: codes that cost nothing compress without bound, which no ratio says.")
    return 8 * math.prod(image_shape) / bits
