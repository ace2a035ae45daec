"""The trainer of the VQ-VAE: it creates its own model, or loads one from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from ._util import eval_mode, seeded
from .checkpoint import CheckpointError, read_checkpoint
from .config import VQVAEConfig, best_device
from .model import VQVAE, check_images
from .trainer import Trainer


class VQVAETrainer(Trainer):
    """A :class:`Trainer` that creates its own VQ-VAE, seeded by ``config.seed``."""

    def __init__(self, config: VQVAEConfig, *, distributed: bool | None = None) -> None:
        with seeded(config.seed):
            model = VQVAE(config)
        super().__init__(model, config, distributed=distributed)
        self.history = {"recon_loss": [], "vq_loss": [], "total_loss": []}

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device | None = None
    ) -> Self:
        """Make a trainer from a saved file, by default on the best device available."""
        device = str(device or best_device())
        config = read_checkpoint(path)["config"] | {"device": device}
        try:
            trainer = cls(VQVAEConfig(**config))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not hold a VQ-VAE: {error}") from error
        trainer.load(path)
        return trainer

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode images (B, C, H, W) in [0, 1], in evaluation mode.

        Returns ``x_recon`` (B, C, H, W) and ``indices`` (B, h, w, ...), on the CPU.
        """
        check_images(x, self.model.in_channels, values=True)
        with eval_mode(self.model):
            x_recon, _, indices = self.model(x.float().to(self.device))
        return x_recon.cpu(), indices.cpu()
