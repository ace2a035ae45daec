"""The VAE: a Gaussian in place of the codebook (Kingma and Welling 2014).

ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x). Its first term, with the
sign reversed, is the distortion: the cost of the image once the latent is known. The
second is the rate: the cost of the latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ._util import require, seeded, without_autocast
from .config import VQVAEConfig
from .metrics import code_frequency, perplexity
from .model import Decoder, Encoder, check_images
from .quantizer import EMAVectorQuantizer, VectorQuantizer

ACTIVE_NATS = 0.01  # active units (Burda et al. 2016): KL > 0.01 nats
CONDITIONINGS = ("map", "bias", "last", "none")


@dataclass(frozen=True, kw_only=True)
class VAEConfig(VQVAEConfig):
    """All settings of a VAE run: those of :class:`VQVAEConfig`, and its own."""

    bottleneck: Literal["gaussian", "vq"] = "gaussian"  # "vq": only AutoregressiveVAE
    latent: Literal["grid", "vector"] = "grid"  # one per position, or one per image
    latent_dim: int = 8  # d, the length of a latent or of a code
    grid_side: int = 7  # of the encoder's grid, if the latent is one vector
    kl_weight: float = 1.0  # beta of Higgins et al. 2017; 1 is the ELBO
    variance: float = 0.02  # s^2 of the likelihood N(x; decoder(z), s^2 I)
    # How an autoregressive decoder gets the latent: as a map upsampled to the image's
    # size, as a bias of all layers or of the last one, or not at all.
    conditioning: Literal["map", "bias", "last", "none"] = "map"
    decoder_dim: int = 32  # width and depth of the autoregressive decoder
    decoder_layers: int = 6
    lr: float = 2e-3  # a lower peak: the Gaussian's noise makes gradients noisy too

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ints(latent_dim=1, grid_side=1, decoder_dim=1, decoder_layers=1)
        self._number("kl_weight", 0)
        self._number("variance", 0, ends="()")
        self._choice("bottleneck", ("gaussian", "vq"))
        self._choice("latent", ("grid", "vector"))
        self._choice("conditioning", CONDITIONINGS)
        self._choice("quantizer", ("vq",))
        self._choice("estimator", ("straight_through",))


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute KL(N(m, v) || N(0, 1)) = (m^2 + v - ln v - 1) / 2 per number, in nats."""
    return (mean.square() + log_variance.exp() - log_variance - 1) / 2


def reparameterize(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Draw z = m + sqrt(v) * noise, noise ~ N(0, I); the gradient reaches m and v."""
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


class LatentOutput(NamedTuple):
    """What a latent passes to decoder and loss."""

    z: Tensor  # (B, d, h, w)
    loss: Tensor  # (), its own term of the loss
    rate: Tensor  # (), nats per image
    usage: dict[str, Tensor]  # how its numbers or codes are used


class Projection(nn.Conv2d):
    """From the encoder's grid (B, D, H/4, W/4), or /8, to (B, channels, h, w)."""

    def __init__(self, config: VAEConfig, channels: int) -> None:
        side = config.grid_side if config.latent == "vector" else None
        super().__init__(config.embedding_dim, channels, side or 1)
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        """Project ``features`` to (B, channels, h, w), outside autocast."""
        sides = tuple(features.shape[2:])
        fits = self.side is None or sides == (self.side, self.side)
        require(fits, "grid_side", self.side, f"the side of the images' grid, {sides}")
        # A narrow posterior needs more than bfloat16's three digits.
        with without_autocast(features.device):
            return super().forward(features.to(self.weight.dtype))


class GaussianLatent(nn.Module):
    """A Gaussian for each number; its rate is the KL from N(0, 1)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.project = Projection(config, 2 * config.latent_dim)
        self.kl_weight = config.kl_weight

    def encode(self, features: Tensor) -> Tensor:
        """Return moments (B, 2d, h, w): means, then log variances."""
        return self.project(features)

    def forward(self, features: Tensor, pixels: int) -> LatentOutput:
        """Draw z; the loss is the weighted KL per pixel of the image."""
        mean, log_variance = self.encode(features).chunk(2, dim=1)
        z = reparameterize(mean, log_variance)
        kl = gaussian_kl(mean, log_variance).flatten(1)  # (B, d h w)
        rate = kl.sum(1).mean()
        loss = self.kl_weight * rate / pixels
        return LatentOutput(z, loss, rate, {"kl_per_number": kl.mean(0)})

    def initialize(self, features: Tensor) -> None:
        """Do nothing: a Gaussian needs no initialization."""

    def summarize(self, means: dict[str, Tensor]) -> dict[str, float]:
        return {"active": float((means["kl_per_number"] > ACTIVE_NATS).sum())}


class VQLatent(nn.Module):
    """A code for each position; its rate is ln K."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.project = Projection(config, config.latent_dim)
        ema = config.codebook_update == "ema"
        quantizer = EMAVectorQuantizer if ema else VectorQuantizer
        self.vq = quantizer.from_config(config, config.latent_dim)

    def encode(self, features: Tensor) -> Tensor:
        """Return codes (B, h, w) int64, without side effects."""
        return self.vq.assign(self.project(features))

    def forward(self, features: Tensor, pixels: int) -> LatentOutput:
        """Replace vectors by their nearest codes; the loss is the quantizer's."""
        z, loss, codes = self.vq(self.project(features))
        K = self.vq.num_embeddings
        rate = loss.new_full((), codes[0].numel() * math.log(K))
        return LatentOutput(z, loss, rate, {"code_frequency": code_frequency(codes, K)})

    def initialize(self, features: Tensor) -> None:
        """Initialize the codebook, once."""
        self.vq.initialize(self.project(features))

    def summarize(self, means: dict[str, Tensor]) -> dict[str, float]:
        return {"perplexity": float(perplexity(means["code_frequency"]))}


class LatentModel(nn.Module):
    """Encoder, latent and decoder, with the ELBO as loss."""

    encoder: Encoder
    latent: GaussianLatent | VQLatent

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.multiple = config.downsampling  # image sides must be multiples of it

    def features(self, x: Tensor) -> Tensor:
        """Check images (B, C, H, W) and run the encoder: (B, D, H/4, W/4), or /8."""
        channels, dtype = self.config.in_channels, next(self.parameters()).dtype
        check_images(x, channels, multiple=self.multiple, dtype=dtype)
        return self.encoder(x)

    def encode(self, x: Tensor) -> Tensor:
        """Return what a prior is fit to: moments (B, 2d, h, w) or codes (B, h, w)."""
        return self.latent.encode(self.features(x))

    def draw_latent(self, x: Tensor) -> Tensor:
        """Draw z ~ q(z|x) (B, d, h, w), or look up codes; training moves these."""
        return self.latent(self.features(x), x[0].numel()).z

    def distortion(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Compute ``distortion``, -ln p(x|z) in nats, (B,); the decoder decides how."""
        raise NotImplementedError

    def training_step(self, x: Tensor, labels: Any = None) -> dict[str, Tensor]:
        """Compute the loss of images x (B, C, H, W), for one draw of the latent.

        ``total_loss`` is (distortion + kl_weight * KL) / pixels (with codes: distortion
        / pixels + the quantizer's loss); ``distortion`` and ``elbo`` are in nats per
        image, ``rate`` in bits per image (with codes: positions x log2 K).
        """
        features, pixels = self.features(x), x[0].numel()
        latent = self.latent(features, pixels)
        terms = {name: v.mean() for name, v in self.distortion(x, latent.z).items()}
        return {
            **terms,
            "total_loss": terms["distortion"] / pixels + latent.loss,
            "elbo": -terms["distortion"] - latent.rate,
            "rate": latent.rate / math.log(2),
            **latent.usage,
        }

    def summarize(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the means of ``training_step`` results into numbers for a history."""
        numbers = {name: float(v) for name, v in means.items() if v.dim() == 0}
        numbers["elbo_bits"] = numbers["elbo"] / math.log(2)
        return numbers | self.latent.summarize(means)


class VAE(LatentModel):
    """Encoder, Gaussian latent, and the VQ-VAE's decoder as the mean of a Gaussian.

    p(x|z) = N(x; decoder(z), s^2 I), so that -ln p(x|z) =
    ||x - decoder(z)||^2 / (2 s^2) + (pixels / 2) ln (2 pi s^2).
    """

    def __init__(self, config: VAEConfig) -> None:
        kind, allowed = config.bottleneck, '"gaussian"; for codes use VQVAE'
        require(kind == "gaussian", "bottleneck", kind, allowed)
        super().__init__(config)
        self.distributed = False  # a distributed trainer sets it
        with seeded(config.seed):
            self.encoder = Encoder(config)
            self.latent = GaussianLatent(config)
            d, D = config.latent_dim, config.embedding_dim
            self.from_latent = nn.ConvTranspose2d(d, D, self.latent.project.kernel_size)
            self.decoder = Decoder(config)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Start the decoder at the mean of images x, as in the VQ-VAE."""
        channels = self.config.in_channels
        check_images(x, channels, multiple=self.multiple, values=True)
        self.decoder.initialize(x, distributed=self.distributed)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images (B, C, H, W) in [0, 1] through one draw of the latent."""
        return self.decode(self.draw_latent(x))

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (B, d, h, w) to mean images (B, C, H, W) in [0, 1]."""
        return self.decoder(self.from_latent(z))

    def distortion(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Compute -ln p(x|z) in nats, and the mean squared error ``mse``: each (B,)."""
        mse = (self.decode(z).float() - x).square().flatten(1).mean(1)
        s2 = self.config.variance
        nats = x[0].numel() / 2 * (mse / s2 + math.log(2 * math.pi * s2))
        return {"distortion": nats, "mse": mse}

    def kl(self, x: Tensor) -> Tensor:
        """Compute the KL of q(z|x) from N(0, I) per number: (B, d, h, w), in nats."""
        return gaussian_kl(*self.encode(x).chunk(2, dim=1))

    @torch.no_grad()
    def bound(self, x: Tensor, samples: int = 1) -> Tensor:
        """Estimate the importance-weighted bound on ln p(x) (Burda et al. 2016), (B,).

        ln (1/S) sum_s p(x|z_s) p(z_s) / q(z_s|x) in nats, for S = ``samples``.
        """
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        q, p = Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)
        weights = []
        for _ in range(samples):
            z = q.sample()
            log_ratio = (p.log_prob(z) - q.log_prob(z)).flatten(1).sum(1)
            weights.append(log_ratio - self.distortion(x, z)["distortion"])
        return torch.stack(weights).logsumexp(0) - math.log(samples)
