"""A prior over codes that attends to all earlier codes: a small transformer.

As in :mod:`vqvae_lib.prior`, p(z) = prod_t p(z_t | z_1, ..., z_{t-1}) in reading order.
Here the codes are a sequence (Esser et al. 2021, "Taming Transformers for High-
Resolution Image Synthesis"), and each block is that of GPT-2 (Radford et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ._util import check_codes, eval_mode, require, seeded
from .config import TrainConfig
from .prior import CodePrior, Condition, Draw, GridPrior


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(TrainConfig):
    """All settings of a transformer run: those of TrainConfig, and its own."""

    num_embeddings: int = 512  # K, the number of codes
    num_classes: int = 0  # labels are 0 to num_classes - 1; 0: no labels
    rows: int = 7  # the largest grid
    columns: int = 7
    depth: int = 1  # codes per position: stages of residual VQ, groups of grouped VQ
    hidden_dim: int = 128  # C, numbers per token
    layers: int = 4
    heads: int = 4  # a divisor of C
    dropout: float = 0.0  # share of a layer's output dropped per step

    lr: float = 2e-3
    batch_size: int = 64
    num_epochs: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ints(num_embeddings=1, num_classes=0, rows=1, columns=1, depth=1)
        self._ints(hidden_dim=1, layers=1, heads=1)
        C, heads = self.hidden_dim, self.heads
        require(C % heads == 0, "heads", heads, f"a divisor of hidden_dim = {C}")
        self._number("dropout", 0, 1)


class Block(nn.Module):
    """Attention to earlier tokens and its own, then two layers; both add to x."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        C, self.heads = config.hidden_dim, config.heads
        self.before_attention, self.before_mlp = nn.LayerNorm(C), nn.LayerNorm(C)
        self.queries_keys_values, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """Map tokens (B, T, C); with a ``past``, x is the one token that comes next.

        ``past`` holds keys and values of earlier tokens; those of x are added to it.
        """
        x = x + self.dropout(self.attention(self.before_attention(x), past))
        return x + self.dropout(self.mlp(self.before_mlp(x)))

    def attention(self, x: Tensor, past: list[Tensor] | None) -> Tensor:
        """Compute softmax(q k^T / sqrt(C / heads)) v over tokens up to each one."""
        B, T, C = x.shape
        # (B, T, 3 C) -> q, k and v, each (B, heads, T, C / heads)
        parts = self.queries_keys_values(x).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if past is not None:
            if past:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            past[:] = k, v
        y = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class TransformerPrior(CodePrior):
    """An autoregressive model of codes as a sequence, for any ``Trainer``.

    Codes are (B, H, W) int64 in [0, K), or (B, H, W, depth), where all codes of a
    position come before those of the next. Token t is the code before t (at t = 0 the
    label or a start token), plus the row, column and depth of the code it predicts.
    """

    summarize = GridPrior.summarize

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        K, C, depth = config.num_embeddings, config.hidden_dim, config.depth
        self.config, self.takes_labels = config, config.num_classes > 0
        self.stacked = (depth,) if depth > 1 else ()
        with seeded(config.seed):
            self.start = nn.Embedding(max(1, config.num_classes), C)
            self.embed = nn.Embedding(depth * K, C)  # K codes of each depth
            sizes = (config.rows, config.columns, depth)
            self.places = nn.ModuleList(nn.Embedding(size, C) for size in sizes)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
            self.norm = nn.LayerNorm(C)
            self.heads = nn.ModuleList(nn.Linear(C, K) for _ in range(depth))
            for weight in self.parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, std=0.02)

    def forward(self, codes: Tensor, condition: Condition = None) -> Tensor:
        """Compute logits (B, K, H, W) or (B, K, H, W, depth) float32 of codes."""
        self._check(codes)
        flat, K = codes.flatten(1), self.config.num_embeddings  # (B, T)
        depths = torch.arange(flat.shape[1], device=flat.device) % self.config.depth
        tokens = self.embed(flat + K * depths)[:, :-1]  # (B, T - 1, C)
        h = torch.cat([self._first(len(codes), condition), tokens], 1)
        h = h + self._places(*codes.shape[1:3])
        for block in self.blocks:
            h = block(h)
        h = self.norm(h).unflatten(1, (-1, self.config.depth)).unbind(2)
        logits = [head(one) for head, one in zip(self.heads, h, strict=True)]
        logits = torch.stack(logits, 2).flatten(1, 2)  # (B, T, K)
        return logits.movedim(-1, 1).unflatten(2, codes.shape[1:]).float()

    @torch.no_grad()
    def fill(
        self, grid: Tensor, given: Tensor, draw: Draw, condition: Condition = None
    ) -> Tensor:
        """Fill in the values not given, token by token, on the model's device.

        Keys and values of earlier tokens are kept, so each pass handles one token. For
        the rest, see ``GridPrior.fill``.
        """
        self._check(grid)
        device, (height, width) = self.norm.weight.device, grid.shape[1:3]
        flat, missing = (x.to(device).flatten(1) for x in (grid, ~given))
        flat = flat.clone()
        places, pasts = self._places(height, width), [[] for _ in self.blocks]
        h = self._first(len(grid), condition)
        with eval_mode(self):
            for t in tqdm(range(flat.shape[1]), "drawing codes", leave=False):
                h = h + places[t]
                for block, past in zip(self.blocks, pasts, strict=True):
                    h = block(h, past)
                position, d = divmod(t, self.config.depth)
                here = missing[:, t]
                if here.any():
                    outputs = self.heads[d](self.norm(h[here, 0])).float().cpu()
                    flat[here, t] = draw(outputs, *divmod(position, width)).to(flat)
                h = self.embed(flat[:, t, None] + self.config.num_embeddings * d)
        return flat.view(grid.shape)

    def _first(self, count: int, condition: Condition) -> Tensor:
        """Return the first tokens (count, 1, C): of labels, or the start token."""
        classes = self.config.num_classes
        told = None if condition is None else (condition.dtype, *condition.shape)
        allowed = f"{count} labels, int64" if classes else "None"
        ok = told == ((torch.int64, count) if classes else None)
        require(ok, "condition", told, allowed)
        if condition is None:
            condition = torch.zeros(count, dtype=torch.long)
        check_codes("condition", condition, max(1, classes))
        return self.start(condition.to(self.start.weight.device))[:, None]

    def _places(self, height: int, width: int) -> Tensor:
        """Return row + column + depth of each token of a grid: (T, C)."""
        rows, columns, depths = (place.weight for place in self.places)
        rows, columns = rows[:height, None, None], columns[:width, None]
        return (rows + columns + depths).flatten(0, 2)

    def _check(self, codes: Tensor) -> None:
        shape, most = tuple(codes.shape), (self.config.rows, self.config.columns)
        ok = codes.dtype == torch.int64 and len(shape) == 3 + len(self.stacked)
        ok = ok and 0 not in shape and shape[3:] == self.stacked
        ok = ok and all(n <= limit for n, limit in zip(shape[1:3], most, strict=True))
        ends = ", ".join(["(B, H, W", *map(str, self.stacked)]) + ")"
        allowed = f"int64 {ends}, not empty, (H, W) at most {most}"
        require(ok, "codes", f"{codes.dtype} {shape}", allowed)
        check_codes("codes", codes, self.config.num_embeddings)
