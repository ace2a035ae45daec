"""The learned prior: which codes follow which.

p(z) = prod_i p(z_i | z_1, ..., z_{i-1}), with positions in reading order (van den Oord
et al. 2016, "Conditional Image Generation with PixelCNN Decoders").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from tqdm.auto import tqdm

from ._util import check_codes, check_number, eval_mode, require, seeded
from .config import TrainConfig
from .data import BatchLoader, ImageDataset
from .metrics import collect_indices
from .pretrained import read_pretrained

Condition = Tensor | None
OfRow = Callable[[Tensor], Tensor]  # from a row (B, C, 1, W) to its features
Draw = Callable[[Tensor, int, int], Tensor]  # from outputs, i, j to the values there


@dataclass(frozen=True, kw_only=True)
class PriorConfig(TrainConfig):
    """All settings for training a prior: those of :class:`TrainConfig`, and its own."""

    num_embeddings: int = 512  # K, the number of codes
    num_classes: int = 0  # labels are 0 to num_classes - 1; 0: no labels
    hidden_dim: int = 64  # C, the channels of every layer
    layers: int = 8  # each sees one position further (kernel 3); 7 x 7 codes need 6
    kernel_size: int = 3  # odd
    dropout: float = 0.0  # share of a layer's channels dropped per step
    stack: Literal["gated", "masked"] = "gated"  # "masked" has a blind spot

    lr: float = 4e-3
    batch_size: int = 64
    num_epochs: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ints(num_embeddings=1, num_classes=0, hidden_dim=1, layers=1)
        self._ints(kernel_size=3)
        require(self.kernel_size % 2 == 1, "kernel_size", self.kernel_size, "odd")
        self._number("dropout", 0, 1)
        self._choice("stack", ("gated", "masked"))


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees only earlier positions, and its own if kind is "B"."""

    def __init__(
        self, channels: int, kernel_size: int, kind: Literal["A", "B"]
    ) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2)
        mask = torch.zeros(kernel_size, kernel_size)
        mask[: kernel_size // 2] = 1
        mask[kernel_size // 2, : kernel_size // 2 + (kind == "B")] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W) with the masked weights."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedStack(nn.Module):
    """The naive network: masked layers ("Pixel Recurrent Neural Networks", 2016).

    Blind spot: with kernel 3, positions farther right than up are never seen.
    """

    def __init__(self, config: PriorConfig, condition_dim: int = 0) -> None:
        super().__init__()
        C, kernel, dim = config.hidden_dim, config.kernel_size, condition_dim
        kinds = "A" + "B" * (config.layers - 1)
        self.layers = nn.ModuleList(MaskedConv2d(C, kernel, kind) for kind in kinds)
        self.condition = nn.Conv2d(dim, C, 1, bias=False) if dim else None
        self.dropout = nn.Dropout2d(config.dropout)

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        """Map x (B, C, H, W) to features, each a function of earlier positions."""
        h = self.layers[0](x)
        if self.condition is not None:
            h = h + self.condition(condition)
        for layer in self.layers[1:]:
            h = h + self.dropout(layer(F.relu(h)))
        return h

    def begin_row(self, rows: Tensor, condition: Condition = None) -> OfRow:
        """Return a function from a row to its features, given the rows above it."""
        x = rows[:, :, :-1]
        return lambda row: self(torch.cat([x, row], 2), condition)[:, :, -1:]


def gate(x: Tensor) -> Tensor:
    """Return tanh(a) * sigmoid(b) of x = (a, b): (B, 2C, H, W) -> (B, C, H, W)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One layer's weights; :class:`GatedStack` connects them."""

    def __init__(self, channels: int, kernel_size: int, condition_dim: int) -> None:
        super().__init__()
        C, half, dim = channels, kernel_size // 2 + 1, condition_dim
        self.vertical = nn.Conv2d(C, 2 * C, (half, kernel_size))
        self.link = nn.Conv2d(2 * C, 2 * C, 1)
        self.horizontal = nn.Conv2d(C, 2 * C, (1, half))
        self.out = nn.Conv2d(C, C, 1)
        self.condition = nn.Conv2d(dim, 4 * C, 1, bias=False) if dim else None


class GatedStack(nn.Module):
    """Two stacks without a blind spot: one for rows above, one for the row so far.

    No kernel is masked. The input is shifted once, down by a row for the vertical stack
    and right by a position for the horizontal one. After that, kernels reach up and to
    both sides, or to the left, and include their own position. The vertical stack feeds
    the horizontal one, never the reverse. All layers, or only the last one, get the
    condition (B, condition_dim, H or 1, W or 1).
    """

    def __init__(
        self, config: PriorConfig, condition_dim: int = 0, last_layer_only: bool = False
    ) -> None:
        super().__init__()
        C, kernel = config.hidden_dim, config.kernel_size
        dims = [0 if last_layer_only else condition_dim] * (config.layers - 1)
        layers = [GatedLayer(C, kernel, dim) for dim in (*dims, condition_dim)]
        self.reach, self.layers = kernel // 2, nn.ModuleList(layers)
        self.dropout = nn.Dropout2d(config.dropout)

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        """Map x (B, C, H, W) to features, each a function of earlier positions."""
        return self.horizontal(x, self.vertical(F.pad(x, (0, 0, 1, -1)), condition))

    def begin_row(self, rows: Tensor, condition: Condition = None) -> OfRow:
        """Return a function of a row (B, C, 1, W): its features, given the rows above.

        The last of ``rows`` (B, C, i, W) is the row itself, which is not read here.
        """
        links = self.vertical(F.pad(rows, (0, 0, 1, -1)), condition)
        last = [link[:, :, -1:] for link in links]
        return lambda row: self.horizontal(row, last)

    def vertical(self, v: Tensor, condition: Condition) -> list[Tensor]:
        """Run over rows shifted down by one; return each layer's link (B, 2C, H, W)."""
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

    def horizontal(self, x: Tensor, links: list[Tensor]) -> Tensor:
        """Run along rows (B, C, H, W), each layer with its link to the rows above."""
        h = F.pad(x, (1, -1))
        for layer, link in zip(self.layers, links, strict=True):
            a = layer.horizontal(F.pad(h, (self.reach, 0))) + link
            h = h + self.dropout(layer.out(gate(a)))
        return h


class GridPrior(nn.Module):
    """What autoregressive models of grids share: embedding, causal stack and head.

    ``embed`` makes the module that maps a grid to (B, C, H, W); the head gives each
    position ``outputs`` numbers. If ``condition_dim`` is given, a map replaces labels.
    """

    def __init__(
        self,
        config: PriorConfig,
        embed: Callable[[], nn.Module],
        outputs: int,
        condition_dim: int | None = None,
        **options: bool,
    ) -> None:
        super().__init__()
        labels, C = condition_dim is None, config.hidden_dim
        self.config, self.takes_labels = config, labels and config.num_classes > 0
        self.condition_dim = config.num_classes if labels else condition_dim
        stack = GatedStack if config.stack == "gated" else MaskedStack
        with seeded(config.seed):
            self.embed = embed()
            self.stack = stack(config, self.condition_dim, **options)
            head = [nn.ReLU(), nn.Conv2d(C, C, 1), nn.ReLU(), nn.Conv2d(C, outputs, 1)]
            self.head = nn.Sequential(*head)

    def forward(self, grid: Tensor, condition: Condition = None) -> Tensor:
        """Compute the outputs (B, O, H, W) float32, each given earlier positions.

        Codes are (B, H, W) int64 in [0, K), labels (B,) int64 in [0, num_classes).
        """
        condition = self._condition(len(grid), condition)
        return self.head(self.stack(self.embed(grid), condition)).float()

    def summarize(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn the means of ``training_step`` results into numbers for a history."""
        return {name: float(value) for name, value in means.items()}

    @torch.no_grad()
    def fill(
        self, grid: Tensor, given: Tensor, draw: Draw, condition: Condition = None
    ) -> Tensor:
        """Fill in the values not given, position by position, on the model's device.

        Each row takes a pass of the vertical stack, each position a pass of the
        horizontal stack over its row; the masked stack takes a whole pass per position.
        For the n grids that lack row i, column j (``given`` is (B, H, W) bool),
        ``draw(outputs (n, O) on the CPU, i, j)`` returns the values (n, ...).
        """
        device = self.head[1].weight.device
        grid, missing = grid.to(device, copy=True), ~given.to(device)
        condition = self._condition(len(grid), condition)
        height, width = grid.shape[-2:]
        bar = tqdm(total=height * width, desc="drawing positions", leave=False)
        with bar, eval_mode(self):
            for i in range(height):
                rows = self.embed(grid[..., : i + 1, :])
                told = None if condition is None else condition[:, :, : i + 1]
                features = self.stack.begin_row(rows, told)
                for j in range(width):
                    here = missing[:, i, j]
                    if here.any():
                        row = features(self.embed(grid[..., i : i + 1, :]))
                        outputs = self.head(row)[here, :, 0, j].float().cpu()
                        grid[here, ..., i, j] = draw(outputs, i, j).to(grid)
                    bar.update()
        return grid

    def _condition(self, count: int, condition: Condition) -> Condition:
        """Check the condition; labels become one-hot maps (B, num_classes, 1, 1)."""
        dim = self.condition_dim
        if condition is None and dim == 0:
            return None
        if condition is not None and self.takes_labels:
            condition = F.one_hot(condition, dim)[:, :, None, None]
        shape = () if condition is None else tuple(condition.shape)
        ok = dim > 0 and len(shape) == 4 and shape[:2] == (count, dim)
        kind = f"{count} labels" if self.takes_labels else f"({count}, {dim}, H, W)"
        require(ok, "condition", shape or None, kind if dim else "None")
        return condition.to(self.head[1].weight)


class CodeEmbedding(nn.Embedding):
    """A learned vector for each code: (B, H, W) -> (B, C, H, W), channels last."""

    def forward(self, codes: Tensor) -> Tensor:
        """Look up int64 codes in [0, K); others raise ``ValueError``."""
        K, shape = self.num_embeddings, tuple(codes.shape)
        ok = codes.dtype == torch.int64 and len(shape) == 3 and 0 not in shape
        require(ok, "codes", f"{codes.dtype} {shape}", "int64 (B, H, W), not empty")
        check_codes("codes", codes, K)
        return super().forward(codes).movedim(-1, 1)


class CodePrior(nn.Module):
    """What priors over codes share: costs from ``forward`` and samples from ``fill``.

    ``stacked`` holds a grid's further axes: (depth,) if a position has several codes.
    """

    takes_labels: bool
    stacked: tuple[int, ...] = ()

    def nats(self, codes: Tensor, condition: Condition = None) -> Tensor:
        """Compute -ln p of each code given earlier codes, in the shape of ``codes``."""
        return F.cross_entropy(self(codes, condition), codes, reduction="none")

    def training_step(self, x: Tensor, labels: Condition = None) -> dict[str, Tensor]:
        """Compute the mean cost of codes x: nats per code, bits per code and image."""
        nats = self.nats(x, labels if self.takes_labels else None).mean()
        bits = nats / math.log(2)
        image = bits * x[0].numel()
        return {"total_loss": nats, "bits_per_code": bits, "bits_per_image": image}

    def sample(
        self, count: int, height: int, width: int, *args: Any, **options: Any
    ) -> Tensor:
        """Draw grids (count, height, width); further arguments as in ``complete``."""
        shape = (count, height, width, *self.stacked)
        blank = torch.zeros(shape, dtype=torch.long)
        return self.complete(blank, blank.bool(), *args, **options)

    def complete(
        self,
        codes: Tensor,
        given: Tensor,
        condition: Condition = None,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Draw the codes that are not given, in reading order, on the model's device.

        A drawn code does not depend on given codes after it. So draws are exact samples
        of p(rest | given) only if all given codes come first. ``given`` is bool,
        (B, H, W) or (H, W); where it is False, the value of ``codes`` does not matter.
        """
        generator = torch.Generator().manual_seed(int(seed))

        def draw(logits: Tensor, i: int, j: int) -> Tensor:
            p = sampling_distribution(logits, temperature, top_p)
            return torch.multinomial(p, 1, generator=generator)[:, 0]

        codes = codes.where(given, 0)
        return self.fill(codes, given.expand(codes.shape), draw, condition)


class PixelCNN(CodePrior, GridPrior):
    """An autoregressive model of code grids, for any ``Trainer``; see `GridPrior`."""

    def __init__(self, config: PriorConfig, **options: Any) -> None:
        K, C = config.num_embeddings, config.hidden_dim
        super().__init__(config, lambda: CodeEmbedding(K, C), K, **options)

    @classmethod
    def from_pretrained(cls, name: str) -> Self:
        """Return a trained prior that comes with the package, ready to evaluate.

        ``name``, say ``"mnist-k32-classes"``, is in ``pretrained_names("PixelCNN")``.
        """
        config, state = read_pretrained(name, "PixelCNN")
        prior = cls(PriorConfig(**config))
        prior.load_state_dict(state)
        return prior.eval()


def sampling_distribution(
    logits: Tensor, temperature: float = 1.0, top_p: float = 1.0
) -> Tensor:
    """Turn logits (..., K) into probabilities: softmax(logits / T), cut by top-p.

    T = ``temperature`` > 0: 1 gives the model's own distribution, and near 0 the
    likeliest code takes all. Top-p keeps the fewest codes, likeliest first, that add up
    to ``top_p`` in (0, 1] or more, and rescales them. The result is float64, on CPU.
    """
    check_number("temperature", temperature, 0, ends="()")
    check_number("top_p", top_p, 0, 1, ends="(]")
    logits = logits.cpu().double()  # Apple's GPUs have no float64
    p = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = p.sort(dim=-1, descending=True, stable=True)
        likelier = ordered.cumsum(-1) - ordered  # the sum over codes before it
        p = torch.zeros_like(p).scatter(-1, order, ordered.where(likelier < top_p, 0.0))
    return p / p.sum(-1, keepdim=True)


def create_code_loader(
    config: TrainConfig, model: Any, dataset: ImageDataset, *, train: bool = True
) -> BatchLoader:
    """Make a loader to train a prior: the codes that ``model.encode`` returns."""
    codes = collect_indices(model, BatchLoader(dataset, 512))
    pairs = TensorDataset(codes, dataset.labels)
    options = {"shuffle": train, "drop_last": train, "seed": config.seed}
    return BatchLoader(pairs, config.batch_size, device=config.device, **options)
