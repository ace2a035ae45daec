"""The VAE beside the VQ-VAE: same encoder, same decoder, a Gaussian in the codebook's place (Kingma and Welling 2014).

ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x). Its two terms are called distortion (with the sign turned)
and rate: what the image costs once the latent is known, and what the latent costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.utils.data import TensorDataset

from .config import VQVAEConfig, require
from .data import ImageDataset
from .model import Decoder, Encoder, check_images
from .prior import PixelCNN, PriorConfig
from .quantizer import EMAVectorQuantizer, code_frequency, evaluating, perplexity

__all__ = ["VAE", "AutoregressiveVAE", "LatentPrior", "VAEConfig", "binarised", "fate", "gaussian_kl", "reparameterise"]

CHOICES = {
    "bottleneck": ("gaussian", "vq"),
    "latent": ("grid", "vector"),
    "feeding": ("map", "bias", "last", "none"),
}
ACTIVE = 0.01  # nats: a dimension of the latent that carries less is counted as collapsed
USED, DEAD = 1.0, 0.25  # nats an image that a swap of latents costs: above the one, below the other


@dataclass(frozen=True)
class VAEConfig(VQVAEConfig):
    """A :class:`VQVAEConfig` and what a VAE has besides. A value out of range raises ``ValueError`` naming it.

    Attributes:
        bottleneck: ``"gaussian"``, or ``"vq"`` (only :class:`AutoregressiveVAE`), whose codes have ``latent_dim``
            numbers; both follow the same encoder.
        latent: ``"grid"``, one latent for each of the encoder's positions, or ``"vector"``, one an image.
        latent_dim: d, numbers of each latent.
        grid_side: of the encoder's grid, a quarter of the image's side; read where the latent is or is fed as a vector.
        kl_weight: weight of the KL in the loss (beta of Higgins et al. 2017); 1 is the ELBO, 0 leaves it out.
        variance: s^2 of the likelihood N(x; decoder(z), s^2 I), in units of [0, 1] squared.
        feeding: how the autoregressive decoder is given the latent: as a ``"map"`` to all layers, drawn out to the
            image's size; as a ``"bias"`` of all layers; as a bias of the ``"last"`` layer; or not at all, ``"none"``.
        decoder_dim, decoder_layers: width and depth of the autoregressive decoder.
        lr: as there; the peak is lower, since the Gaussian's noise makes gradients noisy too.
    """

    bottleneck: Literal["gaussian", "vq"] = "gaussian"
    latent: Literal["grid", "vector"] = "grid"
    latent_dim: int = 8
    grid_side: int = 7
    kl_weight: float = 1.0
    variance: float = 0.02
    feeding: Literal["map", "bias", "last", "none"] = "map"
    decoder_dim: int = 32
    decoder_layers: int = 6
    lr: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent_dim", "grid_side", "decoder_dim", "decoder_layers"):
            value = getattr(self, name)
            require(type(value) is int and value >= 1, name, value, "an integer of 1 or more")
        for name in ("kl_weight", "variance"):
            value = getattr(self, name)
            ok = type(value) in (int, float) and math.isfinite(value) and value >= 0
            require(
                ok and (value > 0 or name == "kl_weight"),
                name,
                value,
                "a finite number, of 0 or more (variance: above 0)",
            )
        for name, allowed in CHOICES.items():
            require(getattr(self, name) in allowed, name, getattr(self, name), f"one of {allowed}")


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute KL(N(m, v) || N(0, 1)) = (m^2 + v - ln v - 1) / 2, number by number, in nats."""
    return (mean.square() + log_variance.exp() - log_variance - 1) / 2


def reparameterise(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Draw z = m + sqrt(v) * noise, noise ~ N(0, I), so that the gradient reaches m and v."""
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


class _LatentModel(nn.Module):
    """What the two VAEs share: encoder, bottleneck and loss. They differ in how an image follows from the latent.

    Args:
        config: the run's choices.
    """

    draws_whole = False  # whether the decoder makes the image's sides out of the grid's, four times as long

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.gaussian = config.bottleneck == "gaussian"
        self.kernel = 1 if config.latent == "grid" else config.grid_side  # from the encoder's grid to the latent's
        self.needs_side = config.latent == "vector" or config.feeding in ("bias", "last")
        with torch.random.fork_rng(devices=[]):  # the weights are a function of the seed
            torch.manual_seed(config.seed)
            self.encoder = Encoder(config)
            channels = 2 * config.latent_dim if self.gaussian else config.latent_dim
            self.to_latent = nn.Conv2d(config.embedding_dim, channels, self.kernel)
            self.decoder = self._decoder()
        if not self.gaussian:
            self.vq = EMAVectorQuantizer.from_config(config, config.latent_dim)
        self.to(memory_format=torch.channels_last)

    def encode(self, x: Tensor) -> Tensor:
        """Return what a prior is fitted to: moments (B, 2d, h, w), mean and log variance; or codes (B, h, w) int64.

        Args:
            x: (B, C, H, W) in [0, 1]. Never moves a codebook.

        Raises:
            ValueError: wrong shape.
        """
        latent = self._project(x)
        if self.gaussian:
            return latent
        with evaluating(self.vq):
            return self.vq(latent).indices

    def kl(self, x: Tensor) -> Tensor:
        """Compute the KL of q(z|x) from N(0, I) for each number of a Gaussian latent: (B, d, h, w), in nats."""
        return gaussian_kl(*self._moments(x))

    def latent(self, x: Tensor) -> Tensor:
        """Draw z ~ q(z|x), or take the nearest codes: (B, d, h, w). In training mode a codebook moves."""
        return reparameterise(*self._moments(x)) if self.gaussian else self.vq(self._project(x)).z_q

    def distortion(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Compute ``distortion``, -ln p(x|z) in nats (B,), and what else is measured of each image."""
        raise NotImplementedError

    def training_step(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one batch, for one draw of the latent.

        Args:
            x: (B, C, H, W) in [0, 1].
            labels: not used; the trainer passes them to every model.

        Returns:
            ``total_loss``, (distortion + kl_weight * KL) / pixels (with codes: distortion / pixels + the quantizer's
            loss); ``distortion`` and ``elbo`` in nats an image, ``rate`` in bits an image (with codes: positions
            x log2 K); ``kl_per_number`` (d h w,) in nats, or ``code_frequency`` (K,).
        """
        if self.gaussian:
            mean, log_variance = self._moments(x)
            z, kl = reparameterise(mean, log_variance), gaussian_kl(mean, log_variance).flatten(1)
            rate, loss, use = kl.sum(1).mean(), self.config.kl_weight * kl.sum(1).mean() / x[0].numel(), kl.mean(0)
        else:
            K = self.config.num_embeddings
            z, loss, codes = self.vq(self._project(x))
            rate = loss.new_tensor(codes[0].numel() * math.log(K))
            use = code_frequency(codes, K)
        terms = {name: value.mean() for name, value in self.distortion(x, z).items()}
        return {
            **terms,
            "total_loss": terms["distortion"] / x[0].numel() + loss,
            "elbo": -terms["distortion"] - rate,
            "rate": rate / math.log(2),
            "kl_per_number" if self.gaussian else "code_frequency": use,
        }

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the means of many ``training_step`` results into numbers for a history.

        ``kl_per_number`` becomes ``active``, the numbers that carry more than 0.01 nats; ``code_frequency`` becomes
        ``perplexity``; ``elbo_bits`` is the ELBO in bits an image.
        """
        numbers = {name: float(value) for name, value in means.items() if value.dim() == 0}
        numbers["elbo_bits"] = numbers["elbo"] / math.log(2)
        if self.gaussian:
            numbers["active"] = float((means["kl_per_number"] > ACTIVE).sum())
        else:
            numbers["perplexity"] = float(perplexity(means["code_frequency"]))
        return numbers

    @torch.no_grad()
    def bound(self, x: Tensor, samples: int = 1) -> Tensor:
        """Estimate the importance-weighted bound of ln p(x) (Burda et al. 2016), in nats an image, (B,).

        ln (1/S) sum_s p(x|z_s) p(z_s) / q(z_s|x). On average one sample gives the ELBO; more come closer to ln p(x).

        Args:
            x: (B, C, H, W) in [0, 1].
            samples: S.
        """
        weights = []
        with evaluating(self):  # an estimate moves nothing
            mean, log_variance = self._moments(x)
            q, p = Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)
            for _ in range(samples):
                z = q.sample()
                log_ratio = (p.log_prob(z) - q.log_prob(z)).flatten(1).sum(1)
                weights.append(log_ratio - self.distortion(x, z)["distortion"])
        return torch.stack(weights).logsumexp(0) - math.log(samples)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.gaussian:
            raise ValueError(f"bottleneck = {self.config.bottleneck!r}: only a Gaussian latent has moments and a KL.")
        mean, log_variance = self._project(x).chunk(2, dim=1)
        return mean, log_variance

    def _project(self, x: Tensor) -> Tensor:
        check_images(x, self.config.in_channels, whole=self.draws_whole)
        features = self.encoder(x)
        side = self.config.grid_side
        if self.needs_side and features.shape[2:] != (side, side):
            raise ValueError(f"grid_side = {side}: the encoder's grid of these images is {tuple(features.shape[2:])}.")
        with torch.autocast(x.device.type, enabled=False):  # a narrow posterior needs more than bfloat16's three digits
            return self.to_latent(features.float())


class VAE(_LatentModel):
    """Encoder, Gaussian latent, and the VQ-VAE's decoder as the mean of a Gaussian: p(x|z) = N(x; decoder(z), s^2 I).

    -ln p(x|z) = ||x - decoder(z)||^2 / (2 s^2) + (pixels / 2) ln (2 pi s^2). See :class:`_LatentModel` for the rest.
    """

    draws_whole = True

    def __init__(self, config: VAEConfig) -> None:
        require(config.bottleneck == "gaussian", "bottleneck", config.bottleneck, '"gaussian"; with codes take VQVAE')
        super().__init__(config)
        self.started = False

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images (B, C, H, W) in [0, 1] through one draw of the latent."""
        return self.decode(self.latent(x))

    def decode(self, z: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [0, 1] that latents (B, d, h, w) stand for."""
        return self.decoder[1](self.decoder[0](z))

    def distortion(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Compute -ln p(x|z) in nats, (B,), and the mean squared error ``mse``, (B,)."""
        if self.training and not self.started:
            self.decoder[1].start_at_mean(x)  # as the VQ-VAE's decoder starts
            self.started = True
        mse = (self.decode(z).float() - x).square().flatten(1).mean(1)
        s2 = self.config.variance
        return {"distortion": x[0].numel() / 2 * (mse / s2 + math.log(2 * math.pi * s2)), "mse": mse}

    def get_extra_state(self) -> Tensor:
        """Return whether the decoder has had its start, for the state dict."""
        return torch.tensor(self.started)

    def set_extra_state(self, state: Tensor) -> None:
        """Take it from a state dict."""
        self.started = bool(state)

    def _decoder(self) -> nn.Module:
        from_latent = nn.ConvTranspose2d(self.config.latent_dim, self.config.embedding_dim, self.kernel)
        return nn.Sequential(from_latent, Decoder(self.config))


class AutoregressiveVAE(_LatentModel):
    """Encoder, Gaussian or VQ latent, and a :class:`PixelCNN` over black and white pixels that is given the latent.

    p(x|z) = prod_i p(x_i | x_1, ..., x_{i-1}, z). The decoder can do without z, so a Gaussian latent may collapse onto
    its prior. Both latents are fed in the same way, ``config.feeding``. Weights trained with ``"none"`` give the others
    a head start: ``load_state_dict(..., strict=False)``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, 2, H, W) of each pixel, given those before it and one draw of the latent."""
        return self.decoder(x[:, 0].long(), self._condition(self.latent(x), x.shape[2:]))

    def distortion(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Compute -ln p(x|z) in nats, (B,).

        Raises:
            ValueError: pixels that are neither 0 nor 1 (not checked on CUDA).
        """
        if x.device.type != "cuda" and not ((x == 0) | (x == 1)).all():
            raise ValueError("x has pixels that are neither 0 nor 1: take binarised(dataset).")
        nats = self.decoder.nats(x[:, 0].long(), self._condition(z, x.shape[2:]))
        return {"distortion": nats.flatten(1).sum(1)}

    def draw(self, z: Tensor, height: int, width: int, seed: int = 0) -> Tensor:
        """Draw images (B, 1, height, width) of 0 and 1, pixel by pixel, from latents (B, d, h, w)."""
        pixels = self.decoder.sample(len(z), height, width, self._condition(z, (height, width)), seed=seed)
        return pixels[:, None].float()

    def _condition(self, z: Tensor, size: tuple[int, int]) -> Tensor | None:
        if self.config.feeding == "none":
            return None
        if self.config.feeding == "map":
            return F.interpolate(z, size=tuple(size))
        return z.flatten(1)[:, :, None, None]

    def _decoder(self) -> nn.Module:
        config = self.config
        require(config.in_channels == 1, "in_channels", config.in_channels, "1: pixels are black or white")
        numbers = config.latent_dim * (config.grid_side if config.latent == "grid" else 1) ** 2
        wide = {"map": config.latent_dim, "bias": numbers, "last": numbers, "none": 0}
        prior = PriorConfig(
            num_embeddings=2, hidden_dim=config.decoder_dim, layers=config.decoder_layers, seed=config.seed
        )
        return PixelCNN(prior, wide[config.feeding], fed="last" if config.feeding == "last" else "all")


class LatentPrior(PixelCNN):
    """The same autoregressive prior for Gaussian latents: at each position a mixture of K Gaussians over its d numbers.

    It is trained on the moments that ``VAE.encode`` makes (``create_code_loader``), with a fresh draw z ~ q(z|x) each
    step. Under it the latent of an image costs KL(q(z|x) || p(z)) = E_q[ln q(z|x) - ln p(z)]. It draws whole grids
    (``sample``); ``complete`` and temperatures are for codes.

    Args:
        config: the run's choices; K is ``num_embeddings``.
        latent_dim: d.
    """

    def __init__(self, config: PriorConfig, latent_dim: int) -> None:
        super().__init__(config, outputs=config.num_embeddings * (1 + 2 * latent_dim))
        self.latent_dim = latent_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.embed = nn.Conv2d(latent_dim, config.hidden_dim, 1)

    def nats(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Compute -ln p of each position's d numbers given those before it: (B, d, H, W) -> (B, H, W)."""
        return -self._mixture(self(codes, condition)).log_prob(codes.movedim(1, -1))

    def training_step(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the cost of one draw of each latent of a batch.

        Args:
            x: moments (B, 2d, H, W), mean and log variance.
            labels: (B,) int64, used if the prior takes labels.

        Returns:
            ``total_loss``, -ln p(z) in nats a number, and ``bits_per_image``, the rate under this prior.
        """
        mean, log_variance = x.chunk(2, dim=1)
        z = reparameterise(mean, log_variance)
        cost = self.nats(z, labels if self.takes_labels else None).flatten(1).sum(1).mean()
        entropy = (log_variance + math.log(2 * math.pi * math.e)).flatten(1).sum(1).mean() / 2  # -E_q[ln q(z|x)]
        return {"total_loss": cost / z[0].numel(), "bits_per_image": (cost - entropy) / math.log(2)}

    def sample(self, count: int, height: int, width: int, condition: Tensor | None = None, seed: int = 0) -> Tensor:
        """Draw latents (count, d, height, width), one position after the other."""
        grid = torch.zeros(count, self.latent_dim, height, width)
        given = torch.zeros(count, height, width, dtype=torch.bool)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._fill(grid, given, condition, lambda outputs, i, j: self._mixture(outputs).sample())

    def _mixture(self, outputs: Tensor) -> MixtureSameFamily:
        parts = outputs.movedim(1, -1).unflatten(-1, (self.config.num_embeddings, -1))  # (B, ..., K, 1 + 2d)
        weights, mean, log_std = parts.split([1, self.latent_dim, self.latent_dim], dim=-1)
        gaussians = Independent(Normal(mean, log_std.clamp(min=-7).exp()), 1)
        return MixtureSameFamily(Categorical(logits=weights.squeeze(-1)), gaussians)

    def _embed(self, grid: Tensor) -> Tensor:
        return self.embed(grid)

    def _check(self, grid: Tensor) -> None:
        if grid.dim() != 4 or grid.shape[1] != self.latent_dim or not grid.is_floating_point():
            raise ValueError(
                f"latents are {grid.dtype} {tuple(grid.shape)}: expected floats (B, {self.latent_dim}, H, W); the "
                f"trainer's batches are moments of {2 * self.latent_dim} channels."
            )


def fate(swap_costs: Sequence[float]) -> str:
    """Say what became of a latent under an autoregressive decoder, by what it costs to swap latents between images.

    Args:
        swap_costs: for each seed, the nats an image that are lost when each image is given another one's latent.

    Returns:
        ``"used"`` if every seed loses more than 1 nat, ``"dead"`` if each loses less than a quarter, ``"hardly used"``
        if all lie between, else ``"not the same in all seeds"``.

    Raises:
        ValueError: no costs, or one that is not finite.
    """
    if not swap_costs or not all(map(math.isfinite, swap_costs)):
        raise ValueError(f"swap_costs = {list(swap_costs)} say nothing of a latent: give one finite number a seed.")
    words = {"used" if cost > USED else "dead" if cost < DEAD else "hardly used" for cost in swap_costs}
    return words.pop() if len(words) == 1 else "not the same in all seeds"


def binarised(dataset: ImageDataset, side: int = 14) -> TensorDataset:
    """Make images of 0 and 1: shrink to side x side by averaging, and cut at a half.

    Returns:
        (N, C, side, side) float32 and the labels, for ``BatchLoader``.
    """
    small = torch.cat([F.adaptive_avg_pool2d(part.float() / 255, side) for part in dataset.images.split(4096)])
    return TensorDataset((small > 0.5).float(), dataset.labels)
