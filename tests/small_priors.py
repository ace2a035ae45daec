"""Small priors of every kind, for tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vqvae_lib import PixelCNN, PriorConfig, TransformerConfig, TransformerPrior

COMMON = {"num_embeddings": 3, "hidden_dim": 8, "batch_size": 32, "num_epochs": 2, "device": "cpu"}
PIXELCNN = PriorConfig(layers=3, **COMMON)
TRANSFORMER = TransformerConfig(layers=2, heads=2, rows=4, columns=5, **COMMON)
KINDS = {
    "gated": PIXELCNN,
    "masked": replace(PIXELCNN, stack="masked"),
    "transformer": TRANSFORMER,
    "two codes per position": replace(TRANSFORMER, depth=2),
}


def prior(kind: str, scale: float = 10.0, **changes: object) -> PixelCNN | TransformerPrior:
    """A prior; a transformer gets weights so large that codes matter."""
    config = replace(KINDS[kind], **changes)
    if isinstance(config, PriorConfig):
        return PixelCNN(config).eval()
    model = TransformerPrior(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale if weight.dim() > 1 else 1)
    return model


def codes_for(model: PixelCNN | TransformerPrior, count: int = 2, height: int = 3, width: int = 4) -> Tensor:
    return torch.randint(model.config.num_embeddings, (count, height, width, *model.stacked))
