"""Nearest codes, their counts and sums, and k-means: the basis of every codebook.

Vectors are rows: ``z`` is (N, D) and the codebook E is (K, D). Equation numbers are
those of chapter 2.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from ._util import all_reduce, at_least_float32, can_look, is_exporting, require
from .metrics import count_codes

# Vectors and codes per tile. Its scores take 4 MiB, which fits in a core's cache.
TILE = (2048, 512)


@torch.no_grad()
def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest code of each vector, (2.2), without an N x K matrix.

    ||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2, and ||z||^2 is the same for every code: the
    nearest code has the largest z.e - ||e||^2 / 2. Scores are computed tile by tile.

    Args:
        z: (N, D) vectors. On the CPU, non-finite vectors or codes raise ``ValueError``.
        codebook: (K, D) codes on the same device, K >= 1.

    Returns:
        (N,) int64 indices in [0, K); ties go to the lowest index.
    """
    require(len(codebook) > 0, "K", 0, "1 or more, but codebook has no codes")
    dtype = at_least_float32(z.dtype, codebook.dtype)
    z, codebook = z.to(dtype), codebook.to(dtype)
    half_norms = codebook.square().sum(1) / 2
    if is_exporting():  # a loop would fix the batch size
        return torch.addmm(half_norms, z, codebook.T, beta=-1).max(1).indices
    best = z.new_full((len(z),), -math.inf)
    indices = torch.zeros(len(z), dtype=torch.long, device=z.device)
    n, k = TILE
    buffer = z.new_empty(min(n, len(z)) * min(k, len(codebook)))  # one for all tiles
    for start, first in product(range(0, len(z), n), range(0, len(codebook), k)):
        rows, codes = slice(start, start + n), slice(first, first + k)
        part, E = z[rows], codebook[codes]
        # (n, D) x (D, k) -> (n, k) -> (n,)
        scores = buffer[: len(part) * len(E)].view(len(part), len(E))
        torch.addmm(half_norms[codes], part, E.T, beta=-1, out=scores)
        value, place = max_of_rows(scores)
        nearer = value > best[rows]  # on a tie the lower index stays
        best[rows] = torch.where(nearer, value, best[rows])
        indices[rows] = torch.where(nearer, first + place, indices[rows])
    # A code whose square overflows scores -inf, so it would never win.
    if can_look(z) and not (best.isfinite().all() and half_norms.isfinite().all()):
        raise ValueError(
            "nearest_code found a vector or code that is NaN, infinite or too large to "
            "be squared: check the encoder's output; if it diverged, lower lr."
        )
    return indices


def max_of_rows(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``scores.max(1)``: (n, K) -> values (n,) and positions (n,).

    On the CPU, ``max`` looks for the position one number at a time. Comparing, adding
    and ``amin`` are vectorized and take a third of the time, but overwrite ``scores``.
    """
    if scores.device.type != "cpu":
        return scores.max(1)
    K = scores.shape[1]
    best = scores.amax(1, keepdim=True)
    scores.lt_(best)  # 0 at the best, 1 elsewhere
    numbers = torch.arange(K, dtype=scores.dtype)
    return best[:, 0], torch.add(numbers, scores, alpha=K, out=scores).amin(1).long()


@torch.no_grad()
def code_sums(
    z: Tensor, indices: Tensor, num_embeddings: int, *, distributed: bool = False
) -> tuple[Tensor, Tensor]:
    """Count the vectors of each code and add them up, without a one-hot matrix.

    Takes vectors (N, D) and their codes (N,); returns counts (K,) and sums (K, D) in
    float32 (float64 for float64 vectors); if ``distributed``, over all processes.
    """
    z = z.to(at_least_float32(z.dtype))
    counts = count_codes(indices, num_embeddings).to(z.dtype)
    sums = z.new_zeros(num_embeddings, z.shape[1]).index_add_(0, indices, z)
    return all_reduce(counts, distributed), all_reduce(sums, distributed)


@torch.no_grad()
def kmeans(
    z: Tensor, centers: Tensor, iterations: int = 10, *, distributed: bool = False
) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means: assign each vector, move each center to its vectors' mean.

    A center (K, D) that no vector (N, D) chooses stays where it is.

    Returns:
        centers (K, D) and counts (K,), the vectors of each center at the last
        assignment, in float32 (float64 for vectors in float64).
    """
    z, centers = (part.to(at_least_float32(z.dtype)) for part in (z, centers))
    counts = z.new_zeros(len(centers))
    for _ in range(iterations):
        indices = nearest_code(z, centers)
        counts, sums = code_sums(z, indices, len(centers), distributed=distributed)
        means = sums / counts.clamp(min=1)[:, None]
        centers = torch.where(counts[:, None] > 0, means, centers)
    return centers, counts
