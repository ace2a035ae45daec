"""A small sweep over K and beta with pictures that can be told apart, for tests."""

import torch

from vqvae_book.results import PICTURES, Result
from vqvae_lib import VQVAEConfig

SIZES, BETAS = (4, 16), (0.0, 0.25, 4.0)


def grey(size: int, beta: float, seed: int = 0) -> int:  # of all reconstructions of a run
    return 20 + 10 * SIZES.index(size) + 50 * BETAS.index(beta) + 5 * seed


def fake_run(size: int, beta: float, seed: int, **origin: object) -> Result:  # one code is unused
    config = VQVAEConfig(num_embeddings=size, commitment_cost=beta, seed=seed, device="cpu")
    return Result(
        name=f"sweep-K{size:04d}-b{beta:g}-seed{seed}",
        settings={**config.identity(), "steps": 30},
        numbers={"MSE": (1 + seed) / (100 * size), "bits": 40.0, "active codes": size - 1.0, "perplexity": size / 2},
        history={"recon_loss": [0.1, 0.05 + 0.01 * seed], "step": [10.0, 30.0]},
        pictures={"reconstructions": torch.full((PICTURES, 1, 8, 8), grey(size, beta, seed) / 255)},
        provenance={"variance": 0.1, **origin},
        usage=torch.arange(size) * (seed + 1),
    )


def write(folder, data: str, fingerprint: str) -> None:  # two seeds of each setting
    for size, beta, seed in ((size, beta, seed) for size in SIZES for beta in BETAS for seed in (0, 1)):
        fake_run(size, beta, seed, data=data, test=fingerprint).write(folder)
