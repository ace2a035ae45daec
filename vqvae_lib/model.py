"""Encoder, decoder and the VQ-VAE that joins them through a quantizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import VQVAEConfig
from .quantizer import (
    EMAVectorQuantizer,
    VectorQuantizer,
    add_over_processes,
    code_frequency,
    evaluating,
    perplexity,
)

__all__ = ["VQVAE", "Decoder", "Encoder", "ResizeDecoder", "VQVAEOutput", "receptive_field"]


class VQVAEOutput(NamedTuple):
    """What the model returns; unpacks as ``x_recon, vq_loss, indices``."""

    x_recon: Tensor  # (B, C, H, W) in [0, 1]
    vq_loss: Tensor  # ()
    indices: Tensor  # (B, H/4, W/4), int64 in [0, K)


class Encoder(nn.Module):
    """Two stride-2 convolutions and one of stride 1: (B, C, H, W) -> (B, D, H/4, W/4).

    Args:
        config: ``in_channels``, ``hidden_dim`` and ``embedding_dim`` are read.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(config.in_channels, config.hidden_dim // 2, kernel_size=4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(config.hidden_dim // 2, config.hidden_dim, kernel_size=4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(config.hidden_dim, config.embedding_dim, kernel_size=3, stride=1, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (B, C, H, W) in [0, 1] as ``z_e`` (B, D, H/4, W/4), unbounded."""
        return self.net(x)


class Decoder(nn.Module):
    """The encoder's mirror: (B, D, H/4, W/4) -> (B, C, H, W), with a sigmoid at the end.

    Args:
        config: ``in_channels``, ``hidden_dim`` and ``embedding_dim`` are read.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(config.embedding_dim, config.hidden_dim, kernel_size=3, stride=1, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(config.hidden_dim, config.hidden_dim // 2, kernel_size=4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(config.hidden_dim // 2, config.in_channels, kernel_size=4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, z_q: Tensor) -> Tensor:
        """Decode ``z_q`` (B, D, H/4, W/4) as images (B, C, H, W) in [0, 1]."""
        return self.net(z_q)

    @torch.no_grad()
    def start_at_mean(self, x: Tensor) -> None:
        """Set the last bias so that an input of zeros is drawn as the mean colour of ``x`` (B, C, H, W) in [0, 1].

        But for what the biases of the layers before add, which is little. With several processes it is the mean over
        all of them. Channels darker than 0.01 or brighter than 0.99 are taken for these.

        Without it the first steps push every weight towards the mean at once; on dark images that can switch off many
        ReLUs, and the decoder may stay a constant (chapter 3 shows it).
        """
        pixels = x.new_tensor([x[:, 0].numel()], dtype=torch.float32)
        sums = add_over_processes(torch.cat([x.float().sum(dim=(0, 2, 3)), pixels]))
        self.net[-2].bias.copy_(torch.logit((sums[:-1] / sums[-1]).clamp(0.01, 0.99)))


class ResizeDecoder(Decoder):
    """Enlarging and a convolution of stride 1 in place of each transposed one: every pixel has the same weights.

    Chapter 3 compares the two; arguments and shapes are the :class:`Decoder`'s.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        for layer in self.net:
            if isinstance(layer, nn.ConvTranspose2d):
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1)]
            else:
                layers.append(layer)
        self.net = nn.Sequential(*layers)


def check_images(x: Tensor, channels: int, *, whole: bool = True) -> None:
    """Raise ``ValueError`` unless ``x`` is (B, channels, H, W); if ``whole``, with sides that can be halved twice."""
    if x.dim() != 4 or x.shape[1] != channels or (whole and (x.shape[2] % 4 or x.shape[3] % 4)):
        sides = " with H and W multiples of 4, since the encoder halves each twice" if whole else ""
        raise ValueError(f"x has shape {tuple(x.shape)}: expected (B, {channels}, H, W){sides}.")


def receptive_field(layers: Iterable[nn.Conv2d]) -> tuple[int, int, int]:
    """Compute what one output of a stack of convolutions sees, equation (3.5).

    Args:
        layers: square convolutions without dilation, in their order.

    Returns:
        side, step and overhang in pixels: output i sees ``side`` of them, from i * step - overhang on.
    """
    side, step, overhang = 1, 1, 0
    for layer in layers:
        side += (layer.kernel_size[0] - 1) * step
        overhang += layer.padding[0] * step
        step *= layer.stride[0]
    return side, step, overhang


class VQVAE(nn.Module):
    """The whole model, equation (1.5): x -> z_e -> z_q -> x_recon (van den Oord et al. 2017).

    Args:
        config: the run's choices; ``codebook_update`` picks the quantizer.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        quantizer = EMAVectorQuantizer if config.codebook_update == "ema" else VectorQuantizer
        self.encoder = Encoder(config)
        self.vq = quantizer.from_config(config, config.embedding_dim)
        self.decoder = Decoder(config)
        self.in_channels = config.in_channels
        # Channels last: convolutions run faster, and a pixel's D numbers lie together, as the quantizer wants them.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> VQVAEOutput:
        """Reconstruct images (B, C, H, W) in [0, 1], H and W multiples of 4.

        In training the first batch also sets where the decoder starts, and the codebook if ``config.init`` is "data".

        Raises:
            ValueError: wrong shape, or values that lead to codes that are not finite.
        """
        first = self.training and self.vq.updates == 0
        z_q, vq_loss, indices = self.vq(self._encode(x))
        if first:
            self.decoder.start_at_mean(x)
        return VQVAEOutput(self.decoder(z_q), vq_loss, indices)

    def encode(self, x: Tensor) -> Tensor:
        """Compress images (B, C, H, W) in [0, 1] to indices (B, H/4, W/4). Never moves the codebook."""
        with evaluating(self.vq):
            return self.vq(self._encode(x)).indices

    def decode(self, indices: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) that indices (B, H/4, W/4) stand for.

        Raises:
            ValueError: indices that are not integers in [0, K).
        """
        return self.decoder(self.vq.lookup(indices))

    def training_step(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the terms of the objective for one batch, equation (1.8b).

        Args:
            x: (B, C, H, W) images in [0, 1].
            labels: not used; the trainer passes them to every model.

        Returns:
            ``total_loss`` = ``recon_loss`` (mean squared error a pixel) + ``vq_loss``, each (); and ``code_frequency``
            (K,), the share of the batch's vectors that each code took.
        """
        x_recon, vq_loss, indices = self(x)
        recon_loss = F.mse_loss(x_recon.float(), x)
        return {
            "recon_loss": recon_loss,
            "vq_loss": vq_loss,
            "total_loss": recon_loss + vq_loss,
            "code_frequency": code_frequency(indices, self.vq.num_embeddings),
        }

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the mean of many ``training_step`` results into numbers for a history.

        ``code_frequency`` becomes ``perplexity`` and ``active_codes``, both over everything averaged.
        """
        numbers = {name: float(value) for name, value in means.items() if value.dim() == 0}
        numbers["perplexity"] = float(perplexity(means["code_frequency"]))
        numbers["active_codes"] = float((means["code_frequency"] > 0).sum())
        return numbers

    def _encode(self, x: Tensor) -> Tensor:
        check_images(x, self.in_channels)
        return self.encoder(x)
