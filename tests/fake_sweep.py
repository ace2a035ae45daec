"""A small sweep over K and beta with pictures that can be told apart, for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from vqvae_lib import VQVAEConfig
from vqvae_lib.stored import PICTURES, StoredRun

SIZES, BETAS = (4, 16), (0.0, 0.25, 4.0)


def grey(size: int, beta: float) -> int:
    """The brightness, 0 to 255, of all reconstructions with a setting."""
    return 20 + 10 * SIZES.index(size) + 50 * BETAS.index(beta)


def write(folder: Path, data: str, fingerprint: str) -> None:
    """Write two seeds of each setting, with invented numbers; one code of each is unused."""
    for size in SIZES:
        for beta in BETAS:
            for seed in (0, 1):
                StoredRun(
                    name=f"sweep-K{size:04d}-b{beta:g}-seed{seed}",
                    config=VQVAEConfig(num_embeddings=size, commitment_cost=beta, seed=seed, device="cpu"),
                    steps=30,
                    history={"recon_loss": [0.1, 0.05 + 0.01 * seed], "step": [10.0, 30.0]},
                    evaluation={"recon_loss": (1 + seed) / (100 * size)},
                    usage=torch.arange(size) * (seed + 1),
                    reconstructions=torch.full((PICTURES, 1, 8, 8), grey(size, beta) / 255),
                    provenance={"data": data, "test": fingerprint, "variance": 0.1},
                ).write(folder)
