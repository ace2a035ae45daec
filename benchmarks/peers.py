"""What the library is measured against, each written plainly from its formulas or wrapped as its users call it.

The contenders share our encoder, decoder, start of the decoder, schedule and training loop; only the quantizer differs:

- ``ours``: moving averages, k-means start, restarts (``EMAVectorQuantizer``).
- ``textbook``: a gradient codebook as tutorials write it: U(-1/K, 1/K), no restarts.
- ``textbook+``: the same rule with k-means start and restarts, which is our ``VectorQuantizer``.
- ``vqp``: ``VectorQuantize`` of vector-quantize-pytorch: moving averages, k-means start, restarts, straight-through.
- ``vqp rotation``: the same with its default estimator, the rotation trick.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from vqvae_lib import QuantizerOutput, VQVAEConfig, VQVAETrainer, eval_mode, seeded

CONTENDERS = ("ours", "textbook", "textbook+", "vqp", "vqp rotation")


def textbook_lookup(z: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest code (N,) by the three-term formula over the whole N x K matrix."""
    distances = z.pow(2).sum(1, keepdim=True) - 2 * z @ codebook.t() + codebook.pow(2).sum(1)
    return distances.argmin(1)


class Textbook(nn.Module):
    """Gradient-codebook quantizer for K codes of D numbers, as tutorials write it."""

    def __init__(self, num_embeddings: int, embedding_dim: int, commitment_cost: float) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.commitment_cost = commitment_cost
        self.distributed = False
        self.embedding = nn.Embedding(num_embeddings, embedding_dim)
        nn.init.uniform_(self.embedding.weight, -1 / num_embeddings, 1 / num_embeddings)

    def initialize(self, z_e: Tensor) -> None:
        """Do nothing: tutorials start with U(-1/K, 1/K)."""

    def assign(self, z_e: Tensor) -> Tensor:
        """Return the indices alone."""
        with eval_mode(self):
            return self(z_e).indices

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantize (B, D, H, W)."""
        z = z_e.float().permute(0, 2, 3, 1).contiguous()  # (B, D, H, W) -> (B, H, W, D)
        with torch.autocast(z_e.device.type, enabled=False):  # its precision is not what is compared
            indices = textbook_lookup(z.view(-1, z.shape[-1]), self.embedding.weight).view(z.shape[:-1])
            z_q = self.embedding(indices)
            loss = F.mse_loss(z_q, z.detach()) + self.commitment_cost * F.mse_loss(z, z_q.detach())
            z_q = z + (z_q - z).detach()
        return QuantizerOutput(z_q.permute(0, 3, 1, 2).contiguous(), loss, indices)


class Peer(nn.Module):
    """``vector-quantize-pytorch`` behind our interface; ``options`` go on to its ``VectorQuantize``."""

    def __init__(self, num_embeddings: int, embedding_dim: int, commitment_cost: float, **options: object) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.distributed = False
        sizes = {"dim": embedding_dim, "codebook_size": num_embeddings, "commitment_weight": commitment_cost}
        self.inner = VectorQuantize(**sizes, accept_image_fmap=True, **options)

    def initialize(self, z_e: Tensor) -> None:
        """Do nothing: it runs k-means on its first batch."""

    def assign(self, z_e: Tensor) -> Tensor:
        """Return the indices alone."""
        with eval_mode(self):
            return self(z_e).indices

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantize (B, D, H, W), in float32 as its documentation asks under mixed precision."""
        with torch.autocast(z_e.device.type, enabled=False):
            z_q, indices, loss = self.inner(z_e.float())
        return QuantizerOutput(z_q, loss.sum(), indices)


def quantizer(name: str, config: VQVAEConfig, positions: int = 49) -> nn.Module:
    """Make the quantizer of ``textbook``, ``vqp`` or ``vqp rotation``.

    vqp's threshold is a number of vectors per batch: of the config's share ``positions``, the codes per image, make it.
    """
    sizes = (config.num_embeddings, config.embedding_dim, config.commitment_cost)
    if name == "textbook":
        return Textbook(*sizes)
    threshold = config.restart_threshold * config.batch_size * positions / config.num_embeddings
    options = {"decay": config.decay, "threshold_ema_dead_code": threshold, "kmeans_init": True}
    return Peer(*sizes, rotation_trick=name == "vqp rotation", **options)


def trainer(name: str, config: VQVAEConfig, positions: int = 49) -> VQVAETrainer:
    """Make a trainer for a contender. Equal seeds give equal weights of encoder and decoder, whatever the quantizer."""
    if name == "textbook+":
        config = replace(config, codebook_update="gradient")
    trainer = VQVAETrainer(config)
    if name not in ("ours", "textbook+"):
        with seeded(config.seed):
            trainer.model.vq = quantizer(name, config, positions).to(trainer.device)
        trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), lr=config.lr, fused=True)
    return trainer
