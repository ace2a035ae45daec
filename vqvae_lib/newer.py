"""Quantizers that followed the plain codebook, and another gradient estimator.

Their interface is VectorQuantizer's; several codebooks add a last axis to the indices.
Tests compare them with vector-quantize-pytorch 1.32 (VQP below). Each class says where
it differs. In evaluation all differ: these compute the loss as in training, VQP none.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._util import (
    at_least_float32,
    can_look,
    check_codes,
    check_int,
    check_number,
    processes,
    require,
    seed_at,
    without_autocast,
)
from .config import check_levels
from .metrics import as_codes
from .quantizer import (
    QuantizerOutput,
    StraightThrough,
    VectorQuantizer,
    _Quantizer,
    rows_of,
)


class RotationTrick(torch.autograd.Function):
    """Pass gradients through the rotation and scaling that take z_e to its code.

    Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick":

        z_q = s R z_e,   s = norm(e) / norm(z_e),   R = I - 2 w w^T + 2 u v^T,

    with v, u and w the directions of z_e, e and u + v. Since s and R are held
    constant, the gradient g becomes s R^T g. Divisors are >= 1e-6: near z_e = 0 the
    gradient is very large, and for e = 0 it is zero. Forward, the codes are exact; VQP
    computes s R z_e, which differs in the last bits.
    """

    @staticmethod
    def forward(ctx: Any, z_e: Tensor, z_q: Tensor) -> Tensor:
        """Return an exact copy of the codes (B, D, ...) of vectors (B, D, ...)."""
        ctx.save_for_backward(z_e, z_q)
        return z_q.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return s R^T g for ``z_e``, and nothing for ``z_q``."""
        z, e = ctx.saved_tensors
        length = z.norm(dim=1, keepdim=True).clamp(min=1e-6)
        v, u = z / length, F.normalize(e, dim=1, eps=1e-6)
        w = F.normalize(u + v, dim=1, eps=1e-6)
        along_w, along_u = ((a * grad).sum(1, keepdim=True) for a in (w, u))
        turned = grad - 2 * along_w * w + 2 * along_u * v
        return e.norm(dim=1, keepdim=True) / length * turned, None


def _finite(z: Tensor) -> Tensor:
    ok = not can_look(z) or bool(z.isfinite().all())
    require(ok, "z_e", "NaN or infinite", "finite; if training diverged, lower lr")
    return z


class SimVQ(_Quantizer):
    """Codes E = C W^T: C, drawn from N(0, 1/D), is fixed, and W (D, D) is learned.

    Zhu et al. 2024, "Addressing Representation Collapse in Vector Quantized Models with
    One Linear Layer". The loss is that of :class:`VectorQuantizer`. Each used code
    moves W and thus all codes, so none is restarted or placed by k-means.
    """

    _loss = VectorQuantizer._loss

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"restart_threshold": 0})
        K, D = self.num_embeddings, self.embedding_dim
        generator = torch.Generator("cpu").manual_seed(seed_at(self.seed, -1))
        kind = {"generator": generator, "device": "cpu", "dtype": torch.float32}
        basis, weight = torch.randn(K, D, **kind), 2 * torch.rand(D, D, **kind) - 1
        self.register_buffer("basis", (basis / D**0.5).to(self.usage))
        self.weight = nn.Parameter((weight / D**0.5).to(self.usage))  # like nn.Linear's

    @property
    def codebook(self) -> Tensor:
        """The codes (K, D), computed from ``weight`` on each access."""
        with without_autocast(self.basis.device):
            return F.linear(self.basis, self.weight)

    def freeze(self, frozen: bool = True) -> None:
        """Keep codes and counts fixed even in training; not saved in checkpoints."""
        self._frozen = frozen
        self.weight.requires_grad_(not frozen).grad = None


class _Rounded(nn.Module):
    """What FSQ and LFQ share: channels are rounded to fixed ``levels``.

    There is nothing to start, count or freeze. ``_level`` maps vectors to integers in
    [0, L), and ``_value`` maps these to codes. A trainer sets ``distributed``.
    """

    frozen = True

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.distributed = levels, False
        self.num_embeddings, self.embedding_dim = math.prod(levels), len(levels)
        self.register_buffer("sizes", torch.tensor(levels))
        self.register_buffer("steps", self.sizes.cumprod(0) // self.sizes)

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantize z_e (B, D, ...): z_q (B, D, ...), loss () and indices (B, ...)."""
        z = self._rows_of(z_e)
        level = self._level(z.detach())
        codes = self._value(level, z.dtype)
        z_q = StraightThrough.apply(self._unrounded(z), codes).movedim(-1, 1)
        return QuantizerOutput(z_q, self._loss(z, codes), (level * self.steps).sum(-1))

    @torch.no_grad()
    def assign(self, z_e: Tensor) -> Tensor:
        """Return the indices (B, ...) of ``z_e``, without side effects."""
        return (self._level(self._rows_of(z_e)) * self.steps).sum(-1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the codes (B, D, ...) float32 of integers (B, ...) in [0, K)."""
        indices = as_codes(indices)
        check_codes("indices", indices, self.num_embeddings)
        level = indices[..., None] // self.steps % self.sizes
        return self._value(level, torch.float32).movedim(-1, 1)

    def initialize(self, z_e: Tensor) -> None:
        """Check ``z_e`` (B, D, ...) and do nothing else: no code depends on data."""
        self._rows_of(z_e)

    def freeze(self, frozen: bool = True) -> None:
        """Do nothing: these codes never move."""

    def _rows_of(self, z_e: Tensor) -> Tensor:
        return _finite(rows_of(z_e, self.embedding_dim, at_least_float32(z_e.dtype)))

    def _unrounded(self, z: Tensor) -> Tensor:
        """Return the values before rounding, which get the codes' gradient."""
        return z

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        return z.new_zeros(())

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        saved = state_dict.get(prefix + "sizes", torch.tensor(self.levels)).tolist()
        require(saved == [*self.levels], "saved levels", saved, f"{self.levels}")
        super()._load_from_state_dict(state_dict, prefix, *args)


class FSQ(_Rounded):
    """Finite scalar quantization: channel i is rounded to one of L_i levels.

    Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple". With
    h = (L - 1) (1 + 0.001) / 2, and o = 0 for odd L, 1/2 for even L:

        b = h tanh(z_e + artanh(o / h)) - o,      z_q = round(b) / floor(L / 2),

    and rounding has derivative 1. The first channel is the lowest digit of the index.
    There is no codebook, and the loss is 0. This is VQP's version: the paper's listing
    has tan in place of artanh, so 0 is not mapped to 0, and 1 - 0.001, not 1 + 0.001.
    ``levels`` are from 3 to 1000; D is their number and K their product.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__(check_levels(levels))
        require(len(levels) > 0, "levels", levels, "one or more integers")

    def _level(self, z: Tensor) -> Tensor:
        return self._bounded(z).round().long() + self.sizes // 2

    def _value(self, level: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.sizes // 2
        return (level - half).to(dtype) / half

    def _unrounded(self, z: Tensor) -> Tensor:
        return self._bounded(z) / (self.sizes // 2)

    def _bounded(self, z: Tensor) -> Tensor:
        h = (self.sizes - 1).to(z.dtype) * (1 + 1e-3) / 2
        o = (1 - self.sizes % 2).to(z.dtype) / 2
        return h * (z + (o / h).atanh()).tanh() - o


class LFQ(_Rounded):
    """Lookup-free quantization: the sign of each channel, K = 2^D.

    Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is Key to Visual
    Generation". z_q = sign(z_e), with -1 at 0, index = sum_i 2^i [z_i > 0], and

        loss = beta mean (z_e - sg[z_q])^2 + lambda (E[H(p)] - H(E[p])),
        p(k | z_e) = softmax_k(-||z_e - e_k||^2 / tau),

    with E over a batch's vectors and H in nats. A low first entropy means certain
    choices, a high second one use of all codes. p is a product over channels, with
    sigmoid(4 z_i / tau) for +1, so H(p) is a sum, and E[p] is the matrix product of two
    halves of the channels: exact, without an N x K matrix. In VQP the first channel is
    the highest bit, and H has log max(p, 1e-5). Arguments: D <= 24, beta, lambda, tau.
    """

    def __init__(
        self,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        entropy_cost: float = 0.1,
        temperature: float = 0.01,
    ) -> None:
        D = check_int("embedding_dim", embedding_dim)
        require(D <= 24, "embedding_dim", D, "at most 24, since K = 2^embedding_dim")
        super().__init__((2,) * D)
        self.commitment_cost = check_number("commitment_cost", commitment_cost, 0)
        self.entropy_cost = check_number("entropy_cost", entropy_cost, 0)
        self.temperature = check_number("temperature", temperature, 0, ends="()")

    def entropies(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[H(p)] and H(E[p]) of vectors z (..., D), each () in nats."""
        logits = 4 * z.reshape(-1, self.embedding_dim) / self.temperature
        size, p = logits.abs(), logits.sigmoid()
        each = (F.softplus(-size) + size * (-size).sigmoid()).sum(1).mean()
        low, high = (_joint(half) for half in p.tensor_split(2, dim=1))
        with without_autocast(z.device):
            mean = (high.T @ low).flatten() / p.shape[0]  # (2^|high|, 2^|low|) -> (K,)
        if self.distributed and self.training and processes() > 1:
            from torch.distributed.nn.functional import all_reduce  # with a gradient

            mean = all_reduce(mean) / processes()
        tiny = torch.finfo(mean.dtype).tiny  # 0 log 0 would be NaN
        return each, -(mean * mean.clamp(min=tiny).log()).sum()

    def _level(self, z: Tensor) -> Tensor:
        return (z > 0).long()

    def _value(self, level: Tensor, dtype: torch.dtype) -> Tensor:
        return (2 * level - 1).to(dtype)

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        each, mean = self.entropies(z)
        entropy = self.entropy_cost * (each - mean)
        return self.commitment_cost * F.mse_loss(z, codes) + entropy


def _joint(p: Tensor) -> Tensor:
    """Multiply bit probabilities (N, d) into those of d-bit numbers (N, 2^d)."""
    table = p.new_ones(p.shape[0], 1)
    for one in p[..., None].unbind(1):  # a later bit is a higher one
        table = torch.cat([table * (1 - one), table * one], 1)
    return table


class _Several(nn.Module):
    """What quantizers made of quantizers share: one index from each, on a last axis.

    ``parts`` are the n quantizers; ``num_embeddings`` is the K of each.
    """

    def __init__(self, parts: Sequence[_Quantizer]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        sizes = {(part.num_embeddings, part.embedding_dim) for part in parts}
        require(len(sizes) == 1, "K and D of the parts", sizes, "the same for all")
        [(self.num_embeddings, self.embedding_dim)] = sizes
        self.distributed = False

    @property
    def frozen(self) -> bool:
        """Whether all codebooks and counts stay fixed even in training."""
        return all(part.frozen for part in self.parts)

    def freeze(self, frozen: bool = True) -> None:
        """Fix all codebooks and counts even in training; not saved in checkpoints."""
        for part in self.parts:
            part.freeze(frozen)

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the vectors (B, D, ...) for integers (B, ..., n) in [0, K)."""
        indices, n = as_codes(indices), len(self.parts)
        shape, ok = tuple(indices.shape), indices.dim() > 1 and indices.shape[-1] == n
        require(ok, "shape of indices", shape, f"(B, ..., {n})")
        columns = zip(self.parts, indices.unbind(-1), strict=True)
        return self._joined([part.lookup(column) for part, column in columns])

    def _vectors(self, z_e: Tensor) -> Tensor:
        dtype = self.parts[0].codebook.dtype
        return _finite(rows_of(z_e, self.embedding_dim, dtype)).movedim(-1, 1)


class ResidualVQ(_Several):
    """Residual VQ: each stage quantizes what the stages before it leave.

    Lee et al. 2022, "Autoregressive Image Generation using Residual Quantization". With
    r_0 = z_e, e_d is the code nearest to r_{d-1}, and r_d = r_{d-1} - e_d. z_q is the
    sum of all e_d, and the loss is the sum of the stages' losses.
    One estimator takes the gradient from the sum to z_e; in VQP each stage has its own,
    so z_e gets it once per stage. Stages may share a quantizer; its codebook then moves
    once per batch, by the vectors of all these stages.
    """

    estimator: type[torch.autograd.Function] = StraightThrough

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantize z_e (B, D, ...); indices are (B, ..., n)."""
        z = self._vectors(z_e)
        rests, indices, codes = self._stages(z)
        stages = zip(self.parts, rests, codes, strict=True)
        loss = torch.stack([part._loss(rest, e) for part, rest, e in stages]).sum()
        z_q = self.estimator.apply(z, self._joined(codes).detach())
        for part, own in self._distinct().items():
            if self.training and not part.frozen:
                rows = [rests[i].detach().movedim(1, -1).flatten(0, -2) for i in own]
                chosen = [indices[i].flatten() for i in own]
                part._update(torch.cat(rows), torch.cat(chosen))
        return QuantizerOutput(z_q, loss, torch.stack(indices, -1))

    @torch.no_grad()
    def assign(self, z_e: Tensor) -> Tensor:
        """Return the indices (B, ..., n) of ``z_e``, without side effects."""
        return torch.stack(self._stages(self._vectors(z_e))[1], -1)

    @torch.no_grad()
    def initialize(self, z_e: Tensor) -> None:
        """Initialize stages in turn; a shared codebook from what they all quantize."""
        shared = len(self._distinct()) < len(self.parts)
        stages = [copy.deepcopy(part) if shared else part for part in self.parts]
        rests = [self._vectors(z_e)]
        for stage in stages:
            stage.initialize(rests[-1])
            rests.append(rests[-1] - stage.lookup(stage.assign(rests[-1])))
        for part, own in self._distinct().items() if shared else ():
            part.initialize(torch.cat([rests[i] for i in own]))

    def _distinct(self) -> dict[_Quantizer, list[int]]:
        """Map each quantizer to the positions of its stages."""
        parts = list(self.parts)
        return {one: [i for i, p in enumerate(parts) if p is one] for one in parts}

    def _stages(self, rest: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return each stage's inputs, indices and codes."""
        rests, indices, codes = [], [], []
        for part in self.parts:
            rests.append(rest)
            indices.append(part.assign(rest))
            codes.append(part.lookup(indices[-1]))
            rest = rest - codes[-1].detach()
        return rests, indices, codes

    def _joined(self, codes: Sequence[Tensor]) -> Tensor:
        return sum(codes[1:], start=codes[0])


class GroupedVQ(_Several):
    """Grouped (product) VQ: the channels in equal groups, a quantizer for each.

    Jegou et al. 2011, "Product Quantization for Nearest Neighbor Search": G quantizers
    of equal K and D / G have G K codes for K^G vectors. z_q joins the groups' codes,
    and the loss is the mean of the groups' losses. In VQP: one codebook per head.
    """

    def __init__(self, groups: Sequence[_Quantizer]) -> None:
        super().__init__(groups)
        self.embedding_dim *= len(groups)

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Quantize z_e (B, D, ...); indices are (B, ..., G)."""
        groups = [part(z) for part, z in self._groups(z_e)]
        z_q, losses, indices = zip(*groups, strict=True)
        loss, indices = torch.stack(losses).mean(), torch.stack(indices, -1)
        return QuantizerOutput(self._joined(z_q), loss, indices)

    def assign(self, z_e: Tensor) -> Tensor:
        """Return the indices (B, ..., G) of ``z_e``, without side effects."""
        return torch.stack([part.assign(z) for part, z in self._groups(z_e)], -1)

    def initialize(self, z_e: Tensor) -> None:
        """Initialize each group's codebook from its channels of the first batch."""
        for part, z in self._groups(z_e):
            part.initialize(z)

    def _groups(self, z_e: Tensor) -> list[tuple[_Quantizer, Tensor]]:
        z = self._vectors(z_e).chunk(len(self.parts), 1)
        return list(zip(self.parts, z, strict=True))

    def _joined(self, codes: Sequence[Tensor]) -> Tensor:
        return torch.cat(codes, 1)
