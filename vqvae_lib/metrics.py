"""Metrics of codes: how they are used, what they cost, and what an image loses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._util import check_codes, require


class Rate(NamedTuple):
    """Cost of an image's codes in bits."""

    nominal: float  # every code equally likely: positions x log2 K
    entropy: float  # at the counted frequencies: positions x H, (6.1)


def as_codes(indices: Tensor) -> Tensor:
    """Return integers of any kind as int64, or raise ``ValueError``."""
    indices = torch.as_tensor(indices)  # NumPy arrays lack these methods
    dtype = indices.dtype
    if dtype.is_floating_point or dtype.is_complex or dtype is torch.bool:
        raise ValueError(f"indices have dtype {dtype}: they must be integers.")
    return indices.long()


def count_codes(indices: Tensor, num_embeddings: int) -> Tensor:
    """Count each code in indices (N,) int64, without a one-hot matrix: (K,) float32.

    Reads no value, and counts in integers: float32 stops at 2^24, bfloat16 at 256.
    """
    ones = torch.ones(len(indices), dtype=torch.int32, device=indices.device)
    return ones.new_zeros(num_embeddings).index_add_(0, indices, ones).float()


def code_frequency(indices: Tensor, num_embeddings: int) -> Tensor:
    """Compute each code's share of indices of any shape: (K,) float32."""
    codes = as_codes(indices).flatten()
    return count_codes(codes, num_embeddings) / len(codes)


def usage_counts(indices: Tensor, num_embeddings: int) -> Tensor:
    """Count each of K codes in integers of any shape: (K,) int64, on the CPU."""
    codes = as_codes(indices).flatten().cpu()
    check_codes("indices", codes, num_embeddings)
    return torch.bincount(codes, minlength=num_embeddings)


def active_codes(counts: Tensor) -> int:
    """Return how many codes were used at least once."""
    return int((counts > 0).sum())


def perplexity(counts: Tensor) -> Tensor:
    """Effective number of codes in use: exp of the entropy of their frequencies, (2.9).

    Takes counts or frequencies (K,); returns () float64 on the CPU, in [1, K]: 1 if one
    code takes all, K if all are used equally. It grows with the number of vectors
    counted, so count over a whole pass of the data before you compare.
    """
    p = counts.detach().cpu().double()  # Apple's GPUs have no float64
    return torch.special.entr(p / p.sum()).sum().exp()


def rate(counts: Tensor, positions: int) -> Rate:
    """Compute the bits that an image's codes cost, from counts (K,) over a pass."""
    entropy = math.log2(float(perplexity(counts)))
    return Rate(positions * math.log2(len(counts)), positions * entropy)


def mse(x: Tensor, x_recon: Tensor) -> float:
    """Return the mean squared error per pixel, for pixels in [0, 1]."""
    require(x.shape == x_recon.shape, "x_recon.shape", x_recon.shape, f"x's {x.shape}")
    x, x_recon = (part.detach().cpu().double() for part in (x, x_recon))
    return float((x - x_recon).square().mean())


def normalized_mse(error: float, variance: float) -> float:
    """Return error / pixel variance: 1 for the best constant gray, 0 for no error."""
    require(variance > 0, "variance", variance, "above 0; blank images have none")
    return error / variance


@torch.no_grad()
def collect_indices(model: Any, loader: Iterable[Any]) -> Tensor:
    """Encode all batches of a loader: images x (B, C, H, W), or pairs (x, labels).

    Returns (N, h, w), or (N, h, w, n) with n codebooks: int64 on the CPU, in order.
    """
    device = next(model.parameters()).device
    images = (b[0] if isinstance(b, tuple | list) else b for b in loader)
    codes = [model.encode(x.to(device)).cpu() for x in images]
    require(len(codes) > 0, "loader", loader, "a loader with at least one batch")
    return torch.cat(codes)
