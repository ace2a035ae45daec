"""What the library is measured against, each written plainly from its formulas or wrapped as its users call it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from vqvae_lib import VQVAE, QuantizerOutput, VQVAEConfig, VQVAETrainer


def textbook_lookup(z: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest code (N,) by the three-term formula over the whole N x K matrix."""
    distances = z.pow(2).sum(1, keepdim=True) - 2 * z @ codebook.t() + codebook.pow(2).sum(1)
    return distances.argmin(1)


class Textbook(nn.Module):
    """Gradient-codebook quantizer as tutorials write it; ``swapped`` gives the two terms each other's weight.

    Args:
        num_embeddings, embedding_dim, commitment_cost: K, D, beta.
        swapped: weight the terms as the description's code does: beta on the codebook's, 1 on the encoder's.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, commitment_cost: float, swapped: bool = False) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.commitment_cost = commitment_cost
        self.swapped = swapped
        self.updates = 0  # batches seen in training; at the first the model sets where its decoder starts
        self.embedding = nn.Embedding(num_embeddings, embedding_dim)
        nn.init.uniform_(self.embedding.weight, -1 / num_embeddings, 1 / num_embeddings)

    @property
    def codebook(self) -> Tensor:
        """The codes (K, D)."""
        return self.embedding.weight

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantize (B, D, H, W)."""
        self.updates += self.training
        z = z_e.float().permute(0, 2, 3, 1).contiguous()  # (B, D, H, W) -> (B, H, W, D)
        with torch.autocast(z_e.device.type, enabled=False):  # its precision is not what is compared
            return self._quantize(z)

    def _quantize(self, z: Tensor) -> QuantizerOutput:
        indices = textbook_lookup(z.view(-1, z.shape[-1]), self.embedding.weight).view(z.shape[:-1])
        z_q = self.embedding(indices)
        to_codes, to_encoder = F.mse_loss(z_q, z.detach()), F.mse_loss(z, z_q.detach())
        if self.swapped:
            loss = self.commitment_cost * to_codes + to_encoder
        else:
            loss = to_codes + self.commitment_cost * to_encoder
        z_q = z + (z_q - z).detach()
        return QuantizerOutput(z_q.permute(0, 3, 1, 2).contiguous(), loss, indices)


class Peer(nn.Module):
    """``vector-quantize-pytorch`` behind our interface.

    Args:
        num_embeddings, embedding_dim, commitment_cost: K, D, beta.
        options: passed on to its ``VectorQuantize``.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, commitment_cost: float, **options: object) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.updates = 0
        self.inner = VectorQuantize(
            dim=embedding_dim,
            codebook_size=num_embeddings,
            commitment_weight=commitment_cost,
            accept_image_fmap=True,
            **options,
        )

    @property
    def codebook(self) -> Tensor:
        """The codes (K, D)."""
        return self.inner.codebook

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantize (B, D, H, W), in float32 as its documentation asks under mixed precision."""
        self.updates += self.training
        with torch.autocast(z_e.device.type, enabled=False):
            z_q, indices, loss = self.inner(z_e.float())
        return QuantizerOutput(z_q, loss.sum(), indices)


PEER_OPTIONS = {"decay": 0.99, "kmeans_init": True, "threshold_ema_dead_code": 2}


def quantizer(name: str, config: VQVAEConfig) -> nn.Module:
    """Make a contender's quantizer: ``textbook``, ``description`` or ``vqp`` (vector-quantize-pytorch)."""
    sizes = (config.num_embeddings, config.embedding_dim, config.commitment_cost)
    if name == "vqp":
        return Peer(*sizes, **PEER_OPTIONS)
    return Textbook(*sizes, swapped=name == "description")


def trainer(name: str, config: VQVAEConfig) -> VQVAETrainer:
    """Make a trainer for a contender: our encoder, decoder, start, schedule and loop; ``ours`` is the library's own.

    ``description`` starts with a picture of half grey, as its code does.
    """
    trainer = VQVAETrainer(config)
    if name == "ours":
        return trainer
    torch.manual_seed(config.seed)
    model = VQVAE(config)
    model.load_state_dict(trainer.model.state_dict())
    model.vq = quantizer(name, config)
    model.vq.updates = int(name == "description")  # at 0 the model sets its decoder to the mean image first
    trainer.model = model.to(trainer.device)
    trainer.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=name != "description")
    return trainer
