"""A VAE whose decoder can ignore its latent, and a learned prior for latents."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ._util import can_look, require, seeded
from .model import Encoder
from .prior import Condition, GridPrior, PixelCNN, PriorConfig
from .vae import GaussianLatent, LatentModel, VAEConfig, VQLatent, reparameterize


class AutoregressiveVAE(LatentModel):
    """Encoder, Gaussian or VQ latent, and a :class:`PixelCNN` over binary pixels.

    p(x|z) = prod_i p(x_i | x_1, ..., x_{i-1}, z). The decoder can ignore z, so a
    Gaussian latent may collapse onto its prior. Both kinds of latent are passed to the
    decoder in the same way, as ``config.conditioning`` says.
    """

    def __init__(self, config: VAEConfig) -> None:
        channels, how = config.in_channels, config.conditioning
        require(channels == 1, "in_channels", channels, "1, for black or white pixels")
        super().__init__(config)
        self.multiple = 1
        latent = GaussianLatent if config.bottleneck == "gaussian" else VQLatent
        with seeded(config.seed):
            self.encoder = Encoder(config)
            self.latent = latent(config)
        side = config.grid_side if config.latent == "grid" and how != "map" else 1
        self.decoder = PixelCNN(
            PriorConfig(
                num_embeddings=2,
                hidden_dim=config.decoder_dim,
                layers=config.decoder_layers,
                seed=config.seed,
            ),
            condition_dim=0 if how == "none" else config.latent_dim * side**2,
            last_layer_only=how == "last",
        )

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Check the pixels of images x, and initialize a codebook from them."""
        features = self.features(x)
        check_binary(x)
        self.latent.initialize(features)

    def features(self, x: Tensor) -> Tensor:
        """Run the encoder on images (B, 1, H, W); on the CPU a gray pixel raises."""
        features = super().features(x)
        if can_look(x):
            check_binary(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Compute pixel logits (B, 2, H, W), given earlier pixels and one draw of z."""
        return self.decoder(x[:, 0].long(), self._condition(self.draw_latent(x), x))

    def distortion(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Compute ``distortion``, -ln p(x|z) in nats (B,), for z drawn from q(z|x)."""
        nats = self.decoder.nats(x[:, 0].long(), self._condition(z, x))
        return {"distortion": nats.flatten(1).sum(1)}

    def sample(self, z: Tensor, height: int, width: int, seed: int = 0) -> Tensor:
        """Draw images (B, 1, height, width) of 0 and 1 from latents (B, d, h, w)."""
        blank = z.new_zeros(len(z), height, width, dtype=torch.long)
        condition = self._condition(z, blank)
        pixels = self.decoder.complete(blank, blank.bool(), condition, seed=seed)
        return pixels[:, None].float()

    def _condition(self, z: Tensor, x: Tensor) -> Condition:
        """Turn z (B, d, h, w) into the decoder's condition, for images of x's size."""
        how, side = self.config.conditioning, self.config.grid_side
        if how == "none":
            return None
        if how == "map":
            return F.interpolate(z, size=x.shape[-2:])
        numbers = z.flatten(1)[:, :, None, None]
        fits = numbers.shape[1] == self.decoder.condition_dim
        require(fits, "grid_side", side, f"the side of the latents, {tuple(z.shape)}")
        return numbers


def check_binary(x: Tensor) -> None:
    """Raise ``ValueError`` unless each pixel is 0 or 1."""
    if not ((x == 0) | (x == 1)).all():
        span = f"{float(x.min()):.4g} to {float(x.max()):.4g}"
        raise ValueError(f"x has gray pixels ({span}): use (x > 0.5).float().")


class LatentPrior(GridPrior):
    """An autoregressive prior for Gaussian latents, with a mixture per position.

    It is trained on the moments that ``VAE.encode`` returns, with a new z ~ q(z|x) each
    step. An image's latent then costs KL(q(z|x) || p(z)) = E_q[ln q(z|x) - ln p(z)]
    nats. K is the number of Gaussians in a mixture.
    """

    def __init__(self, config: PriorConfig, latent_dim: int) -> None:
        K, C, d = config.num_embeddings, config.hidden_dim, latent_dim

        def embed() -> nn.Module:
            torch.randn(K, C)  # so that stack and head start like a PixelCNN's
            with seeded(config.seed):
                return nn.Conv2d(d, C, 1)

        super().__init__(config, embed, K * (1 + 2 * d))
        self.latent_dim = d

    def nats(self, z: Tensor, condition: Condition = None) -> Tensor:
        """Compute -ln p of z (B, d, H, W) by position given earlier ones: (B, H, W)."""
        return -self.mixture(self(z, condition)).log_prob(z.movedim(1, -1))

    def training_step(self, x: Tensor, labels: Condition = None) -> dict[str, Tensor]:
        """Compute the cost of one draw of each latent, given moments x (B, 2d, H, W).

        ``total_loss`` is -ln p(z) in nats per number, ``bits_per_image`` the rate.
        """
        channels = 2 * self.latent_dim
        require(x.shape[1] == channels, "x", tuple(x.shape), f"(B, {channels}, H, W)")
        mean, log_variance = x.chunk(2, dim=1)
        z = reparameterize(mean, log_variance)
        nats = self.nats(z, labels if self.takes_labels else None)
        cost = nats.flatten(1).sum(1).mean()
        log_e = log_variance + math.log(2 * math.pi * math.e)
        entropy = log_e.flatten(1).sum(1).mean() / 2  # -E_q[ln q(z|x)]
        bits = (cost - entropy) / math.log(2)
        return {"total_loss": cost / z[0].numel(), "bits_per_image": bits}

    def sample(
        self,
        count: int,
        height: int,
        width: int,
        condition: Condition = None,
        seed: int = 0,
    ) -> Tensor:
        """Draw latents (count, d, height, width), one position at a time."""
        grid = self.embed.weight.new_zeros(count, height, width, self.latent_dim)
        grid, given = grid.movedim(-1, 1), torch.zeros(grid.shape[:3], dtype=torch.bool)
        with seeded(seed):
            return self.fill(grid, given, self._draw, condition)

    def mixture(self, outputs: Tensor) -> MixtureSameFamily:
        """Make mixtures over d numbers from their parameters (B, K (1 + 2d), ...)."""
        K, d = self.config.num_embeddings, self.latent_dim
        parts = outputs.movedim(1, -1).unflatten(-1, (K, -1))  # (B, ..., K, 1 + 2d)
        weights, mean, log_std = parts.split([1, d, d], dim=-1)
        fast = {"validate_args": False}  # otherwise each step reads values
        gaussians = Normal(mean, log_std.clamp(min=-7).exp(), **fast)
        mixing = Categorical(logits=weights.squeeze(-1), **fast)
        return MixtureSameFamily(mixing, Independent(gaussians, 1, **fast), **fast)

    def _draw(self, outputs: Tensor, i: int, j: int) -> Tensor:
        return self.mixture(outputs).sample()
