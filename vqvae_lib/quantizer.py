"""The quantizer: nearest code, straight-through gradient, and two ways to move the codebook.

Vectors are rows: ``z`` is (N, D) and the codebook E is (K, D). Equation numbers are those of chapters 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .config import VQVAEConfig, check_codebook, check_quantizer, seed_at

__all__ = [
    "EMAVectorQuantizer",
    "QuantizerOutput",
    "StraightThrough",
    "VectorQuantizer",
    "add_over_processes",
    "code_frequency",
    "code_sums",
    "evaluating",
    "kmeans",
    "nearest_code",
    "perplexity",
]

# Scores held at a time, about: 2^20 float32 numbers are 4 MiB, what two cores keep in their caches. A GPU wants more
# work at a time, and has the memory for 32 MiB.
TILE = {"cpu": 1 << 20, "cuda": 1 << 23}
TILE_CODES = 4096  # codes of a tile, at most
GROUPS = 16  # codes that are compared by value alone, before one asks which of them it was


class QuantizerOutput(NamedTuple):
    """What a quantizer returns; unpacks as ``z_q, loss, indices``."""

    z_q: Tensor  # (B, D, *spatial), the nearest codes; its gradient goes straight to z_e
    loss: Tensor  # (), the quantizer's own terms of the objective
    indices: Tensor  # (B, *spatial), int64 in [0, K)


def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest code of each vector, equation (2.2), without holding an N x K matrix.

    ||z - e||^2 = ||z||^2 - 2 z.e + ||e||^2, and ||z||^2 is the same for every code: the nearest code is the one with
    the largest z.e - ||e||^2 / 2. Rows are taken in chunks, so memory does not grow with N x K.

    Args:
        z: (N, D) vectors.
        codebook: (K, D) codes, same dtype and device.

    Returns:
        (N,) int64 indices in [0, K); of equally near codes, the first.

    Raises:
        ValueError: a vector or code is NaN or infinite, or a code's square or a vector's best score is (not checked on
            CUDA, where looking at a value would stall the device).
    """
    indices = torch.zeros(len(z), dtype=torch.long, device=z.device)
    best = z.new_full((len(z),), -torch.inf)  # where there is no code it stays so, and is refused below
    norms = z.new_zeros(())  # the largest squared norm of a code
    for first in range(0, len(codebook), TILE_CODES):
        codes = codebook[first : first + TILE_CODES]
        padding = -len(codes) % GROUPS  # up to whole groups, with codes that can't win
        per_group = (len(codes) + padding) // GROUPS
        squares = codes.square().sum(1)
        norms = torch.maximum(norms, squares.max())
        half_norms = F.pad(squares.div(-2), (0, padding), value=-torch.inf)
        # Code j * GROUPS + g goes to place (g, j): the codes that share a j are neighbours in the codebook.
        half_norms = half_norms.view(per_group, GROUPS).T.reshape(-1)
        codes = F.pad(codes, (0, 0, 0, padding)).view(per_group, GROUPS, -1).transpose(0, 1).flatten(0, 1)
        chunks = max(1, round(len(z) * len(codes) / TILE.get(z.device.type, TILE["cuda"])))
        rows = max(1, math.ceil(len(z) / chunks))
        buffer = z.new_empty(rows, len(codes))
        every = torch.arange(rows, device=z.device)
        for z_part, best_part, indices_part in zip(z.split(rows), best.split(rows), indices.split(rows), strict=True):
            n = len(z_part)
            # (n, D) x (D, codes) -> (n, codes) -> (n, GROUPS, codes / GROUPS)
            scores = torch.addmm(half_norms, z_part, codes.T, out=buffer[:n]).unflatten(1, (GROUPS, per_group))
            # Looking for the place of a maximum takes several times as long as for its value: find the value over
            # each j's codes first, then the best j, then the place among its GROUPS codes alone.
            score, j = scores.amax(1).max(1)
            g = scores[every[:n], :, j].max(1).indices  # (n, GROUPS) -> (n,); argmax takes twice as long
            code = j.mul_(GROUPS).add_(g).add_(first)
            if first > 0:  # strictly better than the tiles before: of equal scores the first code's stays
                code = torch.where(score > best_part, code, indices_part)
                score = torch.maximum(score, best_part)
            indices_part.copy_(code)
            best_part.copy_(score)
    # A code whose square is infinite scores -inf: it never wins, not even where it is the nearest.
    if z.device.type != "cuda" and not (best.isfinite().all() and norms.isfinite()):
        raise ValueError(
            "nearest_code met a vector or code that is NaN or infinite, or too large to be squared: "
            "check the encoder's output; if training diverged, lower lr."
        )
    return indices


def code_sums(z: Tensor, indices: Tensor, num_embeddings: int) -> tuple[Tensor, Tensor]:
    """Count the vectors of each code and add them up, without a one-hot matrix.

    Args:
        z: (N, D) vectors.
        indices: (N,) int64 code of each vector.
        num_embeddings: K.

    Returns:
        counts (K,) and sums (K, D), both of ``z``'s dtype, which counts to 2^24 in float32. Over all processes, if
        there are several.
    """
    counts = z.new_zeros(num_embeddings).index_add_(0, indices, z.new_ones(len(z)))
    sums = z.new_zeros(num_embeddings, z.shape[1]).index_add_(0, indices, z)
    return add_over_processes(counts), add_over_processes(sums)


def code_frequency(indices: Tensor, num_embeddings: int) -> Tensor:
    """Compute the share of the indices (any shape, int64) that each code has: (K,) float32, adding up to 1."""
    counts = indices.new_zeros(num_embeddings).index_add_(0, indices.flatten(), torch.ones_like(indices).flatten())
    return counts.float() / indices.numel()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for the length of a ``with``; then each part is back in its own mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def kmeans(z: Tensor, centres: Tensor, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means from given centres: assign each vector, then move each centre to the mean of its own.

    A centre that no vector chose stays where it is.

    Args:
        z: (N, D) vectors.
        centres: (K, D) starting points.
        iterations: how often to repeat the two steps.

    Returns:
        centres (K, D) and counts (K,), the vectors of each centre at the last assignment.
    """
    counts = z.new_zeros(len(centres))
    for _ in range(iterations):
        counts, sums = code_sums(z, nearest_code(z, centres), len(centres))
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres, counts


def perplexity(counts: Tensor) -> Tensor:
    """Effective number of codes in use, exp of the entropy of their frequencies (in nats), equation (2.9).

    Args:
        counts: (K,) non-negative counts or frequencies, not all zero.

    Returns:
        () float64 in [1, K]: 1 if one code takes all, K if all are used alike. It depends on how many vectors were
        counted: count over a whole pass of the data, not over a batch, before comparing.
    """
    p = counts.double() / counts.double().sum()
    return torch.special.entr(p).sum().exp()


class StraightThrough(torch.autograd.Function):
    """Forward: the codes. Backward: the gradient of the codes, handed to the encoder unchanged, equation (1.10)."""

    @staticmethod
    def forward(ctx: Any, z_e: Tensor, z_q: Tensor) -> Tensor:
        """Return ``z_q``, to the bit."""
        return z_q.view_as(z_q)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradient for ``z_e`` (as it came) and for ``z_q`` (none)."""
        return grad, None


class _Quantizer(nn.Module):
    """What the two quantizers share; they differ only in how the codebook moves.

    Args:
        num_embeddings: K.
        embedding_dim: D.
        commitment_cost: beta.
        decay: gamma, of the codes' running use (and of the codes themselves in the EMA quantizer).
        restart_threshold: codes used less than this fraction of the mean use are moved onto vectors of the batch.
        init: ``"data"`` or ``"uniform"``.
        seed: of the draws for initialisation and restarts.

    Attributes:
        codebook: (K, D), parameter or buffer.
        usage: (K,) running mean of how many vectors of a batch each code takes.
        updates: number of training batches seen; travels in the state dict.

    Raises:
        ValueError: an argument is out of range.
    """

    codebook: Tensor
    usage: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        *,
        decay: float = 0.9,
        restart_threshold: float = 0.04,
        init: str = "data",
        seed: int = 42,
    ) -> None:
        super().__init__()
        check_quantizer(num_embeddings, embedding_dim, commitment_cost)
        check_codebook(decay, restart_threshold, init)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.commitment_cost = commitment_cost
        self.decay = decay
        self.restart_threshold = restart_threshold
        self.init = init
        self.seed = seed
        self.updates = 0
        self.register_buffer("usage", torch.ones(num_embeddings))

    @classmethod
    def from_config(cls, config: VQVAEConfig, embedding_dim: int) -> Self:
        """Make a quantizer for vectors of ``embedding_dim`` numbers, all else as ``config`` says."""
        return cls(
            config.num_embeddings,
            embedding_dim,
            config.commitment_cost,
            decay=config.decay,
            restart_threshold=config.restart_threshold,
            init=config.init,
            seed=config.seed,
        )

    def _uniform_codebook(self) -> Tensor:
        # Before the first batch there is nothing better than the description's U(-1/K, 1/K).
        # Not the seed itself: that one begins the stream that the encoder's weights come from.
        generator = torch.Generator().manual_seed(seed_at(self.seed, -1))
        return (torch.rand(self.num_embeddings, self.embedding_dim, generator=generator) * 2 - 1) / self.num_embeddings

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Replace each vector by its nearest code; in training, also move the codebook.

        Args:
            z_e: (B, D, *spatial) floating point, any number of spatial dimensions.

        Returns:
            ``z_q`` (B, D, *spatial) in the codebook's dtype, ``loss`` () and ``indices`` (B, *spatial).

        Raises:
            ValueError: no vectors, a channel count other than D, or values that are not finite.
        """
        self._check(z_e)
        # Autocast off: distances in bfloat16 would pick wrong codes among near ones.
        with torch.autocast(z_e.device.type, enabled=False):
            # (B, D, *spatial) -> (B, *spatial, D) -> (N, D); no copy if z_e is channels-last
            grid = z_e.to(self.codebook.dtype).movedim(1, -1)
            z = grid.reshape(-1, self.embedding_dim)
            if self.training and self.updates == 0 and self.init == "data":
                self._initialise(z.detach())
            indices = nearest_code(z.detach(), self.codebook.detach())
            codes = F.embedding(indices, self.codebook)
            loss = self._loss(z, codes)
            z_q = StraightThrough.apply(z, codes.detach())
            if self.training:
                self._update(z.detach(), indices)
                self.updates += 1
            # (N, D) -> (B, *spatial, D) -> (B, D, *spatial)
            return QuantizerOutput(z_q.view(grid.shape).movedim(-1, 1), loss, indices.view(grid.shape[:-1]))

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the codes of given indices.

        Args:
            indices: (B, *spatial) integers in [0, K).

        Returns:
            (B, D, *spatial) codes, laid out as ``forward`` lays out ``z_q``.

        Raises:
            ValueError: indices that are not integers, or out of range.
        """
        if indices.is_floating_point() or indices.dtype in (torch.bool, torch.complex64, torch.complex128):
            raise ValueError(f"indices are {indices.dtype}: codes are looked up by integers.")
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < self.num_embeddings:
            raise ValueError(
                f"indices span {int(indices.min())} to {int(indices.max())}: this codebook has codes 0 to "
                f"{self.num_embeddings - 1}."
            )
        return F.embedding(indices.long(), self.codebook).movedim(-1, 1)

    def extra_repr(self) -> str:
        """Show K, D and beta when the module is printed."""
        return f"K={self.num_embeddings}, D={self.embedding_dim}, commitment_cost={self.commitment_cost}"

    def get_extra_state(self) -> Tensor:
        """Return ``updates`` for the state dict."""
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Take ``updates`` from a state dict."""
        self.updates = int(state)

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        raise NotImplementedError

    def _move(self, counts: Tensor, sums: Tensor, decay: float) -> None:
        raise NotImplementedError

    def _check(self, z_e: Tensor) -> None:
        if z_e.dim() < 2 or z_e.shape[1] != self.embedding_dim:
            raise ValueError(
                f"z_e has shape {tuple(z_e.shape)}: expected (B, {self.embedding_dim}, ...), since embedding_dim = "
                f"{self.embedding_dim} channels come second."
            )
        if z_e.numel() == 0:
            raise ValueError(f"z_e has shape {tuple(z_e.shape)}: an empty batch holds nothing to quantize.")
        if not z_e.is_floating_point():
            raise ValueError(f"z_e is {z_e.dtype}: the quantizer takes floating-point vectors.")

    @torch.no_grad()
    def _initialise(self, z: Tensor) -> None:
        """Put the codes where the first batch's vectors are: k-means from randomly drawn ones."""
        centres, counts = kmeans(z, self._draw(z))
        self.codebook.copy_(centres)
        self.usage.copy_(counts)

    @torch.no_grad()
    def _update(self, z: Tensor, indices: Tensor) -> None:
        counts, sums = code_sums(z, indices, self.num_embeddings)
        # The first averages are short, so that the codes keep up while the encoder moves fastest.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.usage.mul_(decay).add_(counts, alpha=1 - decay)
        self._move(counts, sums, decay)
        if self.restart_threshold > 0:
            mean = self.usage.mean()
            dead = self.usage < self.restart_threshold * mean
            if z.device.type == "cpu" and not dead.any():  # elsewhere a look would stall the device
                return
            self.codebook.copy_(torch.where(dead[:, None], self._draw(z), self.codebook))
            # A moved code starts with the mean use: it has time to win vectors before it is judged again.
            self.usage.copy_(torch.where(dead, mean, self.usage))

    def _draw(self, z: Tensor) -> Tensor:
        """Draw K of the batch's vectors at random, over all processes the same ones. (N, D) -> (K, D)."""
        offset, total = _place_among_processes(len(z))
        generator = torch.Generator().manual_seed(seed_at(self.seed, self.updates))
        if total >= self.num_embeddings:
            chosen = torch.randperm(total, generator=generator)[: self.num_embeddings]
        else:
            chosen = torch.randint(total, (self.num_embeddings,), generator=generator)
        if total == len(z):
            return z[chosen.to(z.device)]
        # Each process fills in the rows it holds; the sum over processes has them all.
        mine = ((chosen >= offset) & (chosen < offset + len(z))).to(z.device)
        rows = z[(chosen - offset).clamp(0, len(z) - 1).to(z.device)]
        return add_over_processes(torch.where(mine[:, None], rows, torch.zeros_like(rows)))


class VectorQuantizer(_Quantizer):
    """Quantizer whose codebook is a parameter, moved by the gradient of the codebook term.

    loss = mean (sg[z_e] - e)^2 + beta * mean (z_e - sg[e])^2, the second and third terms of equation (1.8b): the first
    moves the codes towards the vectors, the second the vectors towards the codes. See :class:`_Quantizer` for
    arguments, shapes and errors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.codebook = nn.Parameter(self._uniform_codebook())

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        codebook_loss = F.mse_loss(codes, z.detach())
        commitment_loss = F.mse_loss(z, codes.detach())
        return codebook_loss + self.commitment_cost * commitment_loss

    def _move(self, counts: Tensor, sums: Tensor, decay: float) -> None:
        """Do nothing: the optimiser moves this codebook."""


class EMAVectorQuantizer(_Quantizer):
    """Quantizer whose codes are exponential moving averages of the vectors they take.

    loss = beta * mean (z_e - sg[e])^2 alone. The codes follow equation (2.7) (van den Oord et al. 2017, appendix A.1),
    online k-means with a memory of about 1 / (1 - gamma) batches. See :class:`_Quantizer` for arguments, shapes and
    errors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("codebook", self._uniform_codebook())

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        return self.commitment_cost * F.mse_loss(z, codes)

    def _move(self, counts: Tensor, sums: Tensor, decay: float) -> None:
        # With usage N <- g N + (1 - g) n and sum m <- g m + (1 - g) s, the code e = m / N moves by
        # (1 - g) (s - n e) / N. Kept this way a code without vectors (n = 0, s = 0) stands exactly still.
        step = (1 - decay) / self.usage.clamp(min=torch.finfo(self.usage.dtype).tiny)
        self.codebook.addcmul_(sums - counts[:, None] * self.codebook, step[:, None])


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def add_over_processes(values: Tensor) -> Tensor:
    """Replace ``values`` by their sum over all processes of ``torch.distributed``; alone, return them as they are."""
    if _processes() > 1:
        dist.all_reduce(values)
    return values


def _place_among_processes(length: int) -> tuple[int, int]:
    """Return where this process's vectors begin among all, and how many there are in all."""
    if _processes() == 1:
        return 0, length
    lengths: list[Any] = [None] * _processes()
    dist.all_gather_object(lengths, length)
    return sum(lengths[: dist.get_rank()]), sum(lengths)
