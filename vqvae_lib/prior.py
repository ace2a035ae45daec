"""The learned prior: which codes follow which. A PixelCNN over the grids that a trained model makes of images.

p(z) = prod_i p(z_i | z_1, ..., z_{i-1}), the positions in reading order (van den Oord et al. 2016, "Conditional Image
Generation with PixelCNN Decoders").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from .analysis import collect_indices
from .config import VQVAEConfig, best_device, require
from .data import BatchLoader, ImageDataset
from .model import VQVAE
from .quantizer import evaluating
from .training import Progress

__all__ = [
    "GatedStack",
    "MaskedConv2d",
    "MaskedStack",
    "PixelCNN",
    "PriorConfig",
    "choose_codes",
    "create_code_loader",
    "sampling_distribution",
]

STACKS = ("gated", "masked")


@dataclass(frozen=True)
class PriorConfig:
    """Every choice of a prior's run. A value out of range raises ``ValueError`` naming field, value and range.

    Attributes:
        num_embeddings: K, the number of codes (of a ``LatentPrior``: of the Gaussians in its mixture).
        num_classes: labels are 0 to ``num_classes`` - 1 and given to every layer; 0 for a prior without labels.
        hidden_dim: channels of every layer, even.
        layers: with kernel 3 each reaches one position further; a 7 x 7 grid needs 6.
        kernel_size: odd.
        dropout: share of a layer's channels that a training step leaves out.
        stack: ``"gated"``, or ``"masked"`` for the naive stack with its blind spot.
        lr, schedule, batch_size, num_epochs, precision, device, seed: as in :class:`VQVAEConfig`.
    """

    num_embeddings: int = 512
    num_classes: int = 0
    hidden_dim: int = 64
    layers: int = 8
    kernel_size: int = 3
    dropout: float = 0.0
    stack: Literal["gated", "masked"] = "gated"

    lr: float = 4e-3
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    batch_size: int = 64
    num_epochs: int = 10
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = field(default_factory=best_device)
    seed: int = 42

    def __post_init__(self) -> None:
        # What both runs have is checked where it is at home.
        VQVAEConfig(**{name: value for name, value in vars(self).items() if name in VQVAEConfig.__dataclass_fields__})
        for name, least in (("num_classes", 0), ("layers", 1), ("kernel_size", 3)):
            value = getattr(self, name)
            require(type(value) is int and value >= least, name, value, f"an integer of {least} or more")
        require(self.kernel_size % 2 == 1, "kernel_size", self.kernel_size, "odd, so that it has a middle")
        ok = type(self.dropout) in (int, float) and 0 <= self.dropout < 1
        require(ok, "dropout", self.dropout, "a number in [0, 1)")
        require(self.stack in STACKS, "stack", self.stack, f"one of {STACKS}")


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees only positions before its own in reading order, and its own if ``kind`` is "B".

    Args:
        channels: of input and output.
        kernel_size: odd; the grid keeps its size.
        kind: ``"A"`` for the first layer, whose input at a position is what is to be predicted there, else ``"B"``.
    """

    def __init__(self, channels: int, kernel_size: int, kind: Literal["A", "B"]) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2)
        mask = torch.zeros(kernel_size, kernel_size)
        mask[: kernel_size // 2] = 1
        mask[kernel_size // 2, : kernel_size // 2 + (kind == "B")] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W) with the weights that the mask leaves."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedStack(nn.Module):
    """The naive causal network: one masked convolution on the other (van den Oord et al. 2016, "Pixel Recurrent NNs").

    It has a blind spot: of the rows above, what stands further right than they lie up (with kernel 3) never arrives.
    Arguments and methods are those of :class:`GatedStack`; the first layer alone is given the condition.
    """

    def __init__(self, config: PriorConfig, condition_dim: int = 0, fed: str = "all") -> None:
        super().__init__()
        kinds = "A" + "B" * (config.layers - 1)
        self.layers = nn.ModuleList(MaskedConv2d(config.hidden_dim, config.kernel_size, kind) for kind in kinds)
        self.condition = nn.Conv2d(condition_dim, config.hidden_dim, 1, bias=False) if condition_dim else None
        self.dropout = nn.Dropout2d(config.dropout)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map x (B, C, H, W) to features (B, C, H, W), each a function of the positions before its own."""
        h = self.layers[0](x)
        if self.condition is not None:
            h = h + self.condition(condition)
        for layer in self.layers[1:]:
            h = h + self.dropout(layer(F.relu(h)))
        return h

    def begin_row(self, above: Tensor, condition: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return a function row (B, C, 1, W) -> features (B, C, 1, W), given the rows above it (B, C, i, W)."""
        return lambda row: self(torch.cat([above, row], dim=2), condition)[:, :, -1:]


class GatedLayer(nn.Module):
    """One layer's weights; :class:`GatedStack` says how they are joined."""

    def __init__(self, channels: int, kernel_size: int, condition_dim: int) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(channels, 2 * channels, (kernel_size // 2 + 1, kernel_size))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, kernel_size // 2 + 1))
        self.out = nn.Conv2d(channels, channels, 1)
        self.condition = nn.Conv2d(condition_dim, 4 * channels, 1, bias=False) if condition_dim else None


def gate(x: Tensor) -> Tensor:
    """Return tanh(a) * sigmoid(b) of x = (a, b): (B, 2C, H, W) -> (B, C, H, W)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class GatedStack(nn.Module):
    """Two stacks without a blind spot: one sees all rows above; the other the row so far, and what the first has seen.

    No kernel is masked. The input is moved once, down by a row for the vertical stack and right by a position for the
    horizontal one; from there on each kernel reaches up and to both sides, or to the left, its own position included.

    Args:
        config: ``hidden_dim`` (C), ``layers``, ``kernel_size`` and ``dropout`` are read.
        condition_dim: channels of the condition; 0 for none.
        fed: ``"all"`` layers are given the condition, or only the ``"last"``.
    """

    def __init__(self, config: PriorConfig, condition_dim: int = 0, fed: str = "all") -> None:
        super().__init__()
        self.reach = config.kernel_size // 2
        dims = [condition_dim if fed == "all" else 0] * (config.layers - 1) + [condition_dim]
        self.layers = nn.ModuleList(GatedLayer(config.hidden_dim, config.kernel_size, dim) for dim in dims)
        self.dropout = nn.Dropout2d(config.dropout)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map x (B, C, H, W) to features (B, C, H, W), each a function of the positions before its own.

        Args:
            x: embedded codes.
            condition: (B, condition_dim, H or 1, W or 1), if the stack takes one.
        """
        return self._horizontal(x, self._vertical(F.pad(x, (0, 0, 1, -1)), condition))

    def begin_row(self, above: Tensor, condition: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """Return a function row (B, C, 1, W) -> features (B, C, 1, W), given the rows above it (B, C, i, W).

        The vertical stack knows nothing of the row itself: it runs once a row, the horizontal one once a position. A
        condition that differs from row to row has i + 1 of them.
        """
        links = [link[:, :, -1:] for link in self._vertical(F.pad(above, (0, 0, 1, 0)), condition)]
        return lambda row: self._horizontal(row, links)

    def _vertical(self, v: Tensor, condition: Tensor | None) -> list[Tensor]:
        """Run over rows moved down by one; return what each layer of the horizontal stack is given, (B, 2C, H, W)."""
        links = []
        for layer in self.layers:
            a = layer.vertical(F.pad(v, (self.reach, self.reach, self.reach, 0)))
            link = layer.link(a)
            if layer.condition is not None:
                for_v, for_h = layer.condition(condition).chunk(2, dim=1)
                a, link = a + for_v, link + for_h
            links.append(link)
            v = self.dropout(gate(a))
        return links

    def _horizontal(self, x: Tensor, links: list[Tensor]) -> Tensor:
        h = F.pad(x, (1, -1))
        for layer, link in zip(self.layers, links, strict=True):
            a = layer.horizontal(F.pad(h, (self.reach, 0))) + link
            h = h + self.dropout(layer.out(gate(a)))
        return h


class PixelCNN(nn.Module):
    """An autoregressive model of code grids, for any :class:`Trainer`.

    Args:
        config: the run's choices.
        condition_dim: channels of a condition given as a map, in place of ``config.num_classes`` labels.
        fed: which layers are given the condition, ``"all"`` or the ``"last"``.
        outputs: numbers that the network gives a position; K if not given.
    """

    def __init__(
        self, config: PriorConfig, condition_dim: int | None = None, fed: str = "all", outputs: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.takes_labels = condition_dim is None and config.num_classes > 0
        self.condition_dim = config.num_classes if condition_dim is None else condition_dim
        C, outputs = config.hidden_dim, outputs or config.num_embeddings
        stack = GatedStack if config.stack == "gated" else MaskedStack
        with torch.random.fork_rng(devices=[]):  # the weights are a function of the seed
            torch.manual_seed(config.seed)
            self.embed = nn.Embedding(config.num_embeddings, C)
            self.stack = stack(config, self.condition_dim, fed)
            self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(C, C, 1), nn.ReLU(), nn.Conv2d(C, outputs, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Compute logits (B, K, H, W) float32: at each position of its own code, given those before it.

        Args:
            codes: (B, H, W) int64 in [0, K).
            condition: labels (B,) int64 in [0, num_classes), or the map (B, condition_dim, H or 1, W or 1).

        Raises:
            ValueError: wrong shape or dtype, a code or label out of range (not checked on CUDA, where looking at a
                value would stall the device), a condition missing or too many.
        """
        self._check(codes)
        condition = self._condition(len(codes), condition)
        return self.head(self.stack(self._embed(codes), condition)).float()

    def nats(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Compute -ln p of each code given those before it, (B, H, W); over ln 2 it is what the code costs in bits.

        Arguments and errors are those of ``forward``. The sum over an image is -ln of the image's probability.
        """
        return F.cross_entropy(self(codes, condition), codes, reduction="none")

    def training_step(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the mean of ``nats`` for one batch.

        Args:
            x: codes (B, H, W) int64 in [0, K).
            labels: (B,) int64, used if the prior takes labels.

        Returns:
            ``total_loss``, in nats a code, ``bits_per_code`` and ``bits_per_image``, each ().
        """
        nats = self.nats(x, labels if self.takes_labels else None).mean()
        bits = nats / math.log(2)
        return {"total_loss": nats, "bits_per_code": bits, "bits_per_image": bits * x[0].numel()}

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the means of many ``training_step`` results into numbers for a history."""
        return {name: float(value) for name, value in means.items()}

    def sample(self, count: int, height: int, width: int, condition: Tensor | None = None, **options: float) -> Tensor:
        """Draw code grids from the prior. Arguments, cost and errors are those of ``complete``.

        Returns:
            (count, height, width) int64 in [0, K), on the model's device.
        """
        blank = torch.zeros(count, height, width, dtype=torch.long)
        return self.complete(blank, blank.bool(), condition, **options)

    def complete(
        self,
        codes: Tensor,
        given: Tensor,
        condition: Tensor | None = None,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Draw the codes that are not given, one position after the other in reading order, a batch at once.

        A drawn code follows the codes before it, given or drawn. It knows nothing of given codes after it: only where
        all that is given comes first are the drawn ones an exact sample of p(rest | given).

        Cost: for each position a pass of the horizontal stack over one row, for each row a pass of the vertical stack
        over the rows above. The naive stack needs a pass over all rows so far for each position.

        Args:
            codes: (B, H, W) int64; in [0, K) where given, anything elsewhere.
            given: (B, H, W) or (H, W) bool.
            condition: as in ``forward``.
            temperature, top_p: as in :func:`sampling_distribution`.
            seed: of the draws.

        Returns:
            (B, H, W) int64 in [0, K), on the model's device.

        Raises:
            ValueError: as in ``forward`` and :func:`sampling_distribution`; ``given`` of another shape or dtype.
        """
        _check_options(temperature, top_p)
        if given.dtype != torch.bool or given.shape not in (codes.shape, codes.shape[1:]):
            raise ValueError(
                f"given is {given.dtype} {tuple(given.shape)}: expected bool {tuple(codes.shape)}, or (H, W)."
            )
        codes = codes.where(given, 0)
        self._check(codes)
        generator = torch.Generator().manual_seed(seed)

        def draw(logits: Tensor, i: int, j: int) -> Tensor:
            return torch.multinomial(sampling_distribution(logits, temperature, top_p), 1, generator=generator)[:, 0]

        return self._fill(codes, given.expand(codes.shape), condition, draw)

    @torch.no_grad()
    def _fill(
        self, grid: Tensor, given: Tensor, condition: Tensor | None, draw: Callable[[Tensor, int, int], Tensor]
    ) -> Tensor:
        """Put draw(outputs (n, O), i, j) -> (n, ...) where nothing is given into a copy of grid (B, ..., H, W)."""
        device = self.head[1].weight.device
        grid, missing = grid.to(device, copy=True), ~given.to(device)
        condition = self._condition(len(grid), None if condition is None else condition.to(device))
        height, width = grid.shape[-2:]
        with evaluating(self), Progress(height * width, "drawing positions") as bar:
            for i in range(height):
                # A condition that differs from row to row is needed as far as this one.
                rows = condition if condition is None or condition.shape[2] == 1 else condition[:, :, : i + 1]
                features = self.stack.begin_row(self._embed(grid[..., : i + 1, :])[:, :, :i], rows)
                for j in range(width):
                    here = missing[:, i, j]
                    if here.any():
                        outputs = self.head(features(self._embed(grid[..., i : i + 1, :])))[:, :, 0, j]
                        grid[here, ..., i, j] = draw(outputs[here].float().cpu(), i, j).to(grid)
                    bar.advance(1)
        return grid

    def _embed(self, grid: Tensor) -> Tensor:
        return self.embed(grid).movedim(-1, 1)  # (B, H, W) -> (B, H, W, C) -> (B, C, H, W)

    def _check(self, codes: Tensor) -> None:
        if codes.dim() != 3 or codes.dtype != torch.int64 or codes.numel() == 0:
            raise ValueError(
                f"codes are {codes.dtype} {tuple(codes.shape)}: expected int64 (B, H, W), and none of these 0."
            )
        _check_range("codes", codes, self.config.num_embeddings, "num_embeddings is K of the model that made the codes")

    def _condition(self, count: int, condition: Tensor | None) -> Tensor | None:
        """Check the condition; labels become one-hot maps (count, num_classes, 1, 1)."""
        if (condition is None) != (self.condition_dim == 0):
            what = "labels" if self.takes_labels else "a condition"
            has = f"needs {what}" if condition is None else "takes no labels: make it with num_classes"
            raise ValueError(f"this prior has num_classes = {self.config.num_classes} and {has}.")
        if condition is None:
            return None
        if not self.takes_labels:
            if condition.dim() != 4 or condition.shape[:2] != (count, self.condition_dim):
                shape = tuple(condition.shape)
                raise ValueError(f"condition is {shape}: expected ({count}, {self.condition_dim}, H, W), or 1 x 1.")
            return condition
        if condition.dtype != torch.int64 or condition.shape != (count,):
            shape = tuple(condition.shape)
            raise ValueError(f"labels are {condition.dtype} {shape}: expected int64 ({count},), one a grid.")
        _check_range("labels", condition, self.condition_dim, "num_classes is their number")
        return F.one_hot(condition, self.condition_dim).float()[:, :, None, None]


@torch.no_grad()
def choose_codes(model: VQVAE, prior: PixelCNN, x: Tensor, price: float, condition: Tensor | None = None) -> Tensor:
    """Encode images with codes that are near and cheap, equation (6.8), one position after the other.

    k_i = argmin_k ||z_e - e_k||^2 + price * (-ln p(k | k_<i)). Greedy: what a choice does to the price of later codes
    is not looked at. Costs what drawing costs, and holds the distances to all K codes.

    Args:
        model: a trained VQ-VAE.
        prior: a prior over its codes.
        x: images (B, C, H, W) in [0, 1].
        price: the squared distance that a nat may cost, 0 or more; 0 takes the nearest codes, as ``model.encode`` does.
        condition: as in ``PixelCNN.forward``.

    Returns:
        (B, H/4, W/4) int64 in [0, K), on the prior's device.

    Raises:
        ValueError: a price out of range, a prior for another number of codes, or what the model or the prior refuses.
    """
    require(price >= 0 and math.isfinite(price), "price", price, "a finite number of 0 or more")
    codebook = model.vq.codebook
    K = prior.config.num_embeddings
    require(len(codebook) == K, "num_embeddings", K, f"the model's number of codes, {len(codebook)}")
    with evaluating(model):
        # (B, D, h, w) -> (B, h, w, D), and to each code of (K, D): (B, h, w, K)
        z_e = model._encode(x).to(codebook.dtype).movedim(1, -1)
        distances = torch.cdist(z_e.flatten(1, 2), codebook).square().unflatten(1, z_e.shape[1:3]).cpu()

    def choose(logits: Tensor, i: int, j: int) -> Tensor:
        return (distances[:, i, j] - price * logits.log_softmax(-1)).argmin(-1)

    blank = torch.zeros(distances.shape[:3], dtype=torch.long)
    return prior._fill(blank, blank.bool(), condition, choose)


def _check_range(name: str, values: Tensor, end: int, remedy: str) -> None:
    if values.device.type != "cuda" and not 0 <= int(values.min()) <= int(values.max()) < end:
        span = f"{int(values.min())} to {int(values.max())}"
        raise ValueError(f"{name} span {span}: they must lie in [0, {end}); {remedy}.")


def _check_options(temperature: float, top_p: float) -> None:
    require(temperature > 0 and math.isfinite(temperature), "temperature", temperature, "a finite number above 0")
    require(0 < top_p <= 1, "top_p", top_p, "a number in (0, 1]")


def sampling_distribution(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Turn logits into the probabilities to draw from: p_k = softmax(logits / T)_k, cut to the likeliest codes.

    Args:
        logits: (..., K).
        temperature: T > 0; 1 is the model's own distribution, towards 0 the likeliest code takes all.
        top_p: in (0, 1]; kept are the fewest codes, likeliest first, whose probabilities add up to this much.

    Returns:
        (..., K) float64, adding up to 1.

    Raises:
        ValueError: temperature or top_p out of range.
    """
    _check_options(temperature, top_p)
    logits = logits.double()
    p = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = p.sort(dim=-1, descending=True, stable=True)
        likelier = ordered.cumsum(-1) - ordered  # what the codes before each one add up to
        p = torch.zeros_like(p).scatter(-1, order, ordered.where(likelier < top_p, 0.0))
    return p / p.sum(-1, keepdim=True)


def create_code_loader(config: PriorConfig, model: VQVAE, dataset: ImageDataset, *, train: bool = True) -> BatchLoader:
    """Encode a dataset with a trained model, and make the loader that a prior's run needs.

    Args:
        config: ``batch_size``, ``seed`` and ``device`` are read.
        model: a trained VQ-VAE, or another model whose ``encode`` makes what the prior takes.
        dataset: images.
        train: shuffled, whole batches; else all in order.

    Returns:
        Batches (codes (B, H/4, W/4) int64, labels (B,) int64).
    """
    codes = TensorDataset(collect_indices(model, BatchLoader(dataset, 512)), dataset.labels)
    options = {"shuffle": train, "drop_last": train, "seed": config.seed, "device": config.device}
    return BatchLoader(codes, config.batch_size, **options)
