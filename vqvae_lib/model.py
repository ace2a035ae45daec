"""Encoder, decoder and the VQ-VAE that joins them through a quantizer."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._util import all_reduce, at_least_float32, autocast_on, can_look, require
from .config import VQVAEConfig
from .metrics import code_frequency, perplexity
from .newer import FSQ, LFQ, GroupedVQ, ResidualVQ, RotationTrick, SimVQ
from .pretrained import read_pretrained
from .quantizer import EMAVectorQuantizer, StraightThrough, VectorQuantizer

ESTIMATORS = {"straight_through": StraightThrough, "rotation": RotationTrick}


class VQVAEOutput(NamedTuple):
    """What the model returns; unpacks as ``x_recon, vq_loss, indices``."""

    x_recon: Tensor  # (B, C, H, W) in [0, 1]
    vq_loss: Tensor  # ()
    indices: Tensor  # (B, h, w), or (B, h, w, n) with n codebooks; int64 in [0, K)


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), as in section 4.1 of the paper."""

    def __init__(self, channels: int, residual_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, residual_dim, kernel_size=3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(residual_dim, channels, kernel_size=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, channels, h, w) plus what the convolutions make of it."""
        return x + self.net(x)


def residual_blocks(config: VQVAEConfig) -> list[nn.Module]:
    """Make the residual blocks, which work on the latent grid: (h, w)."""
    sizes = config.hidden_dim, config.residual_dim
    return [ResidualBlock(*sizes) for _ in range(config.residual_layers)]


class Encoder(nn.Module):
    """Two or three convolutions of stride 2, residual blocks if any, one of stride 1.

    Images (B, C, H, W) become ``z_e`` (B, D, h, w), with h = H / s, w = W / s and
    s = ``config.downsampling``, 4 or 8.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        C, hidden, D = config.in_channels, config.hidden_dim, config.embedding_dim
        third: list[nn.Module] = []
        if config.downsampling == 8:
            down = nn.Conv2d(hidden, hidden, kernel_size=4, stride=2, padding=1)
            third = [nn.ReLU(inplace=True), down]
        self.net = nn.Sequential(
            nn.Conv2d(C, hidden // 2, kernel_size=4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden // 2, hidden, kernel_size=4, stride=2, padding=1),
            *third,
            *residual_blocks(config),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, D, kernel_size=3, stride=1, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (B, C, H, W) as ``z_e`` (B, D, h, w), unbounded."""
        # Channels last: convolutions run faster, and the D numbers of a position are
        # adjacent for the quantizer. Clone: with one channel, the layout is ambiguous.
        return self.net(x.clone(memory_format=torch.channels_last))


class Decoder(nn.Module):
    """The encoder's mirror: (B, D, h, w) -> (B, C, H, W), then a sigmoid."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        C, hidden, D = config.in_channels, config.hidden_dim, config.embedding_dim
        third: list[nn.Module] = []
        if config.downsampling == 8:
            up = nn.ConvTranspose2d(hidden, hidden, kernel_size=4, stride=2, padding=1)
            third = [up, nn.ReLU(inplace=True)]
        self.net = nn.Sequential(
            nn.Conv2d(D, hidden, kernel_size=3, stride=1, padding=1),
            *residual_blocks(config),
            nn.ReLU(inplace=True),
            *third,
            nn.ConvTranspose2d(hidden, hidden // 2, kernel_size=4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(hidden // 2, C, kernel_size=4, stride=2, padding=1),
            nn.Sigmoid(),
        )
        nn.init.zeros_(self.net[-2].bias)  # marks a decoder that is not initialized

    def forward(self, z_q: Tensor) -> Tensor:
        """Decode ``z_q`` (B, D, h, w) as images (B, C, H, W) in [0, 1]."""
        # The codebook is float32 even if the decoder is not.
        return self.net(z_q.to(self.net[0].weight.dtype))

    @torch.no_grad()
    def initialize(self, x: Tensor, *, distributed: bool = False) -> None:
        """Set the last bias, if it is still 0, so that decoding starts at x's mean.

        Without this, the first steps move all weights just to reach the mean. On dark
        images (B, C, H, W) that can switch off many ReLUs, and the decoder may stay
        constant. If ``distributed``, the mean is over the images of all processes.
        """
        bias = self.net[-2].bias
        if bias.any():
            return
        pixels = x.new_tensor([x[:, 0].numel()], dtype=torch.float32)
        totals = torch.cat([x.float().sum(dim=(0, 2, 3)), pixels])
        totals = all_reduce(totals, distributed)
        bias.copy_(torch.logit((totals[:-1] / totals[-1]).clamp(0.01, 0.99)))


def check_images(
    x: Tensor,
    channels: int,
    *,
    multiple: int = 4,
    values: bool = False,
    dtype: torch.dtype | None = None,
) -> None:
    """Raise unless ``x`` is a batch of images that a model can take.

    Args:
        x: (B, channels, H, W) in [0, 1], H and W multiples of ``multiple``.
        values: whether to check the range even on a GPU, which stalls it.
        dtype: of the weights; ``x`` must have it, or get it from autocast.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x has type {type(x).__name__}: it must be a tensor.")
    odd = any(n % multiple or n == 0 for n in x.shape[-2:])
    if x.dim() != 4 or x.shape[1] != channels or odd:
        allowed = f"(B, {channels}, H, W), H and W multiples of {multiple}"
        require(False, "shape of x", tuple(x.shape), allowed)
    allowed = "floating point in [0, 1]: use x.float() / 255"
    require(x.is_floating_point(), "dtype of x", x.dtype, allowed)
    autocast = x.dtype is not torch.float64 and autocast_on(x.device)
    fits = dtype in (None, x.dtype) or autocast
    require(fits, "dtype of x", x.dtype, f"that of the weights: use x.to({dtype})")
    if x.numel() and (can_look(x) or (values and not torch.compiler.is_compiling())):
        low, high = float(x.min()), float(x.max())
        fits = low >= -1e-4 and high <= 1 + 1e-4  # in this form, NaN fails too
        require(fits, "range of x", (low, high), "[0, 1], the decoder's range")


def make_quantizer(config: VQVAEConfig) -> nn.Module:
    """Make the quantizer that ``config`` names; each codebook has a seed of its own."""
    name, D, n = config.quantizer, config.embedding_dim, config.num_codebooks
    if name == "fsq":
        return FSQ(config.levels)
    if name == "lfq":
        costs = config.commitment_cost, config.entropy_cost
        return LFQ(D, *costs, config.entropy_temperature)
    ema = config.codebook_update == "ema"
    kind = EMAVectorQuantizer if ema else VectorQuantizer
    kind = SimVQ if name == "simvq" else kind
    dim, count = D // n if name == "grouped" else D, 1 if config.shared_codebook else n
    seeds = (config.seed + i for i in range(count))
    parts = [kind.from_config(replace(config, seed=seed), dim) for seed in seeds]
    made = parts[0]
    if name == "residual":
        made = ResidualVQ(parts * (n // count))
    elif name == "grouped":
        made = GroupedVQ(parts)
    for part in (made, *parts):
        part.estimator = ESTIMATORS[config.estimator]
    return made


class VQVAE(nn.Module):
    """The whole model, (1.5): x -> z_e -> z_q -> x_recon (van den Oord et al. 2017).

    Args:
        config: the run's settings; ``make_quantizer`` makes the quantizer they name.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.vq = make_quantizer(config)
        self.decoder = Decoder(config)
        self.in_channels, self.multiple = config.in_channels, config.downsampling

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """Return a trained model that comes with the package, ready to evaluate.

        ``name`` is ``"mnist-k512"`` or one of ``pretrained_names("VQVAE")``.
        """
        config, state = read_pretrained(name, "VQVAE")
        model = cls(VQVAEConfig(**config))
        model.load_state_dict(state)
        return model.eval()

    def forward(self, x: Tensor) -> VQVAEOutput:
        """Reconstruct images (B, C, H, W) in [0, 1], H and W multiples of 4 (or 8)."""
        z_q, vq_loss, indices = self.vq(self._encode(x))
        return VQVAEOutput(self.decoder(z_q), vq_loss, indices)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Initialize codebook and decoder from the first batch, once; trainers call it.

        What was set or loaded is kept. Images other than (B, C, H, W) in [0, 1] raise.
        """
        check_images(x, self.in_channels, multiple=self.multiple, values=True)
        self.vq.initialize(self._encode(x))
        self.decoder.initialize(x, distributed=self.vq.distributed)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Compress images (B, C, H, W) to indices (B, h, w), without side effects.

        With residual or grouped VQ, indices have one more axis: (B, h, w, n).
        """
        return self.vq.assign(self._encode(x))

    def decode(self, indices: Tensor) -> Tensor:
        """Decode what ``encode`` returns to images (B, C, H, W) in [0, 1]."""
        z_q = self.vq.lookup(indices)
        shape = tuple(indices.shape)
        require(z_q.dim() == 4, "shape of indices", shape, "(B, h, w), as encoded")
        return self.decoder(z_q)

    def training_step(
        self, x: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the terms of the objective for images (B, C, H, W) in [0, 1], (1.10).

        Returns:
            ``total_loss`` = ``recon_loss`` (mean squared error per pixel) +
            ``vq_loss``, each (); and ``code_frequency``, each code's share: (K,), or
            (n, K) with n codebooks.
        """
        x_recon, vq_loss, indices = self(x)
        dtype, K = at_least_float32(x.dtype), self.vq.num_embeddings
        books = indices.unbind(-1) if indices.dim() > 3 else [indices]
        frequency = torch.stack([code_frequency(book, K) for book in books])
        recon_loss = F.mse_loss(x_recon.to(dtype), x.to(dtype))
        return {
            "recon_loss": recon_loss,
            "vq_loss": vq_loss,
            "total_loss": recon_loss + vq_loss,
            "code_frequency": frequency.squeeze(0),
        }

    def summarize(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the mean of many ``training_step`` results into numbers for a history.

        ``code_frequency`` becomes ``perplexity`` and ``active_codes``, both over
        everything that was averaged; with several codebooks, their mean.
        """
        numbers = {k: float(v.detach()) for k, v in means.items() if v.dim() == 0}
        books = torch.atleast_2d(means["code_frequency"])
        numbers["perplexity"] = sum(float(perplexity(b)) for b in books) / len(books)
        numbers["active_codes"] = float((books > 0).sum()) / len(books)
        return numbers

    def _encode(self, x: Tensor) -> Tensor:
        dtype = self.encoder.net[0].weight.dtype
        check_images(x, self.in_channels, multiple=self.multiple, dtype=dtype)
        return self.encoder(x)
