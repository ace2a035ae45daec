"""The quantizer: straight-through gradient, and two ways to move the codebook.

Equation numbers are those of chapters 1 and 2.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ._util import (
    all_reduce,
    at_least_float32,
    can_look,
    check_choice,
    check_codes,
    check_int,
    check_number,
    processes,
    require,
    seed_at,
    without_autocast,
)
from .config import INITS, VQVAEConfig
from .lookup import kmeans, nearest_code
from .metrics import as_codes, count_codes

TRAINED = 1000  # updates assumed for a codebook set by hand or saved without a count


class QuantizerOutput(NamedTuple):
    """What a quantizer returns; unpacks as ``z_q, loss, indices``."""

    z_q: Tensor  # (B, D, *spatial), the nearest codes; z_e receives its gradient
    loss: Tensor  # (), the quantizer's own terms of the objective
    indices: Tensor  # (B, *spatial), int64 in [0, K)


class StraightThrough(torch.autograd.Function):
    """Forward: the codes. Backward: z_e gets their gradient unchanged, (1.9)."""

    @staticmethod
    def forward(ctx: Any, z_e: Tensor, z_q: Tensor) -> Tensor:
        """Return an exact copy of ``z_q``; the copy may be changed in place."""
        return z_q.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the gradients for ``z_e`` (unchanged) and for ``z_q`` (none)."""
        return grad, None


def rows_of(z_e: Tensor, embedding_dim: int, dtype: torch.dtype) -> Tensor:
    """Check ``z_e``, cast it, and move D last: (B, D, ...) -> (B, ..., D)."""
    D, shape = embedding_dim, tuple(z_e.shape)
    fits = len(shape) > 1 and shape[1] == D and 0 not in shape
    require(fits, "shape of z_e", shape, f"(B, {D}, ...), and not empty")
    require(z_e.is_floating_point(), "dtype of z_e", z_e.dtype, "floating point")
    return z_e.to(dtype).movedim(1, -1)  # a view, if z_e is channels-last


class _Quantizer(nn.Module):
    """What quantizers with a codebook share; they differ only in how it moves.

    Args:
        num_embeddings: K.
        embedding_dim: D.
        commitment_cost: beta.
        decay: gamma, of the running counts (and of the codes in the EMA quantizer).
        restart_threshold: codes used less than this fraction of the mean use are moved
            onto vectors of the batch; 0 turns this off.
        init: ``"data"`` or ``"uniform"``.
        seed: for the uniform codebook. Restarts and k-means use torch's generator.

    Attributes:
        codebook: (K, D), parameter or buffer; float32 or float64, whatever the casts.
        estimator: what passes the gradient to z_e: ``StraightThrough``, or another
            ``autograd.Function`` of z_e and z_q, such as ``newer.RotationTrick``.
        usage: (K,) running mean of how many vectors of a batch choose each code.
        updates: () int64, training batches seen.
        distributed: whether to count over all processes, each with an equal share of a
            batch; a distributed trainer sets it.
    """

    codebook: Tensor
    usage: Tensor
    updates: Tensor
    estimator: type[torch.autograd.Function] = StraightThrough

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
        self.num_embeddings = check_int("num_embeddings", num_embeddings)
        self.embedding_dim = check_int("embedding_dim", embedding_dim)
        self.commitment_cost = check_number("commitment_cost", commitment_cost, 0)
        self.decay = check_number("decay", decay, 0, 1)
        threshold = check_number("restart_threshold", restart_threshold, 0, 1)
        self.restart_threshold, self.init = threshold, init
        check_choice("init", init, INITS)
        self.seed = check_int("seed", seed, 0)
        self.distributed = self._frozen = self._warned = False
        dtype = at_least_float32(torch.get_default_dtype())
        self.register_buffer("usage", torch.ones(self.num_embeddings, dtype=dtype))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @classmethod
    def from_config(cls, config: VQVAEConfig, embedding_dim: int | None = None) -> Self:
        """Make the quantizer that ``config`` describes, with another D if given."""
        return cls(
            config.num_embeddings,
            config.embedding_dim if embedding_dim is None else embedding_dim,
            config.commitment_cost,
            decay=config.decay,
            restart_threshold=config.restart_threshold,
            init=config.init,
            seed=config.seed,
        )

    def forward(self, z_e: Tensor) -> QuantizerOutput:
        """Replace each vector by its nearest code; in training, also move the codebook.

        Each call in training mode is an update: with accumulated gradients, each
        part of a batch causes one.

        Args:
            z_e: (B, D, ...) floating point, any number of spatial dimensions. Empty or
                (on the CPU) non-finite input raises and leaves the codebook unchanged.

        Returns:
            ``z_q`` (B, D, ...), float32 or float64, ``loss`` (), ``indices`` (B, ...).
        """
        grid = self._rows_of(z_e)  # (B, *spatial, D)
        # Autocast off: distances in bfloat16 would pick wrong codes among close ones.
        with without_autocast(z_e.device):
            z = grid.reshape(-1, self.embedding_dim)  # (B, *spatial, D) -> (N, D)
            indices = nearest_code(z, self.codebook)
            codes = F.embedding(indices, self.codebook)
            loss = self._loss(z, codes)
            z_q = self.estimator.apply(z, codes.detach())
            if self.training and not self.frozen:
                self._update(z.detach(), indices)
        # (N, D) -> (B, *spatial, D) -> (B, D, *spatial)
        z_q = z_q.view(grid.shape).movedim(-1, 1)
        return QuantizerOutput(z_q, loss, indices.view(grid.shape[:-1]))

    def assign(self, z_e: Tensor) -> Tensor:
        """Return indices (B, ...) of ``z_e``'s nearest codes, without side effects."""
        grid = self._rows_of(z_e)
        with without_autocast(z_e.device):
            indices = nearest_code(grid.reshape(-1, self.embedding_dim), self.codebook)
        return indices.view(grid.shape[:-1])

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the codes (B, D, ...) of integers (B, ...) in [0, K)."""
        indices = as_codes(indices)
        check_codes("indices", indices, self.num_embeddings)
        return F.embedding(indices, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def initialize(self, z_e: Tensor) -> None:
        """Run k-means on the first batch ``z_e`` (B, D, ...), if ``init`` is "data".

        A codebook that was set, loaded or trained is kept; one that was set by hand
        gets its counts from the batch.
        """
        self._warned = True
        started = self.updates > 0 or (self.usage != 1).any()
        uniform = self.init == "uniform" and self._unstarted()
        if started or uniform or self.frozen:
            return
        z = self._rows_of(z_e).reshape(-1, self.embedding_dim)
        if self._unstarted():
            centers, counts = kmeans(z, self._draw(z), distributed=self.distributed)
            self.codebook.copy_(centers)
        else:  # set by hand: no short first averages, which would soon replace it
            indices = nearest_code(z, self.codebook)
            counts = count_codes(indices, self.num_embeddings)
            counts = all_reduce(counts, self.distributed)
            self.updates.fill_(TRAINED)
        self.usage.copy_(counts)

    @property
    def frozen(self) -> bool:
        """Whether codebook and counts stay fixed even in training; see ``freeze``."""
        parameter = isinstance(self.codebook, nn.Parameter)
        return self._frozen or (parameter and not self.codebook.requires_grad)

    def freeze(self, frozen: bool = True) -> None:
        """Keep codebook and counts fixed even in training; not saved in checkpoints."""
        self._frozen = frozen
        if isinstance(self.codebook, nn.Parameter):
            self.codebook.requires_grad_(not frozen)
            self.codebook.grad = None  # not 0: momentum would still move it

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        raise NotImplementedError

    def _move(self, counts: Tensor, z: Tensor, indices: Tensor, weight: Tensor) -> None:
        """Move the codes directly, if no optimizer does."""

    def _rows_of(self, z_e: Tensor) -> Tensor:
        return rows_of(z_e, self.embedding_dim, self.codebook.dtype)

    def _uniform_codebook(self) -> Tensor:
        # Not the seed itself, from which the encoder's weights are drawn.
        generator = torch.Generator("cpu").manual_seed(seed_at(self.seed, -1))
        K, D = self.num_embeddings, self.embedding_dim
        uniform = torch.empty(K, D, dtype=torch.float32, device="cpu")
        uniform.uniform_(generator=generator)
        return ((uniform * 2 - 1) / K).to(self.usage)

    def _unstarted(self) -> bool:
        return torch.equal(self.codebook, self._uniform_codebook().to(self.codebook))

    @torch.compiler.disable  # it draws and reads values: not traceable
    @torch.no_grad()
    def _update(self, z: Tensor, indices: Tensor) -> None:
        """Move counts and codes after a training batch, and restart dead codes."""
        if z.is_meta:  # only shapes: there is nothing to count
            return
        if not self._warned:
            self._warned = True
            if self.init == "data" and self.updates == 0 and self._unstarted():
                warnings.warn(
                    'This quantizer has init="data" but was not initialized. Before '
                    "training, call initialize(first_batch) on the model or quantizer.",
                    stacklevel=2,
                )
        counts = all_reduce(count_codes(indices, self.num_embeddings), self.distributed)
        counts = counts.to(self.usage.dtype)
        # The first averages are short, so codes soon forget where they started.
        weight = 9 / (10 + self.updates.to(self.usage.dtype))
        weight = weight.clamp(min=1 - self.decay)
        self.usage.lerp_(counts, weight)  # N <- gamma N + (1 - gamma) n
        self._move(counts, z, indices, weight)
        self.updates += 1
        if self.restart_threshold == 0:
            return
        mean = self.usage.mean()
        dead = self.usage < self.restart_threshold * mean
        if can_look(dead) and not dead.any():
            return
        self.codebook.copy_(torch.where(dead[:, None], self._draw(z), self.codebook))
        # A moved code starts with the mean use, which gives it time to win vectors.
        self.usage.copy_(torch.where(dead, mean, self.usage))

    def _draw(self, z: Tensor) -> Tensor:
        """Draw K of the batch's vectors, the same in all processes: (K, D)."""
        N, K = len(z), self.num_embeddings
        # Shares are equal by contract: asking for their lengths would stall a GPU.
        total = N * (processes() if self.distributed else 1)
        if total >= K:
            chosen = torch.randperm(total, device=z.device)[:K]
        else:
            chosen = torch.randint(total, (K,), device=z.device)
        if total == N:
            return z[chosen]
        # All use rank 0's draw, and each process fills in the rows it holds, some of
        # them twice if its share is smaller than rank 0's.
        places = torch.stack([chosen // N, chosen % N])
        dist.broadcast(places, 0)
        mine = (places[0] == dist.get_rank())[:, None]
        return all_reduce(z[places[1] % N].where(mine, 0), True)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Half precision can't hold the state: bfloat16 counts only to 256.
        def kept(state: Tensor) -> Tensor:
            new = fn(state)
            half = new.dtype in (torch.float16, torch.bfloat16)
            return state.to(new.device, torch.float32) if half else new

        return super()._apply(kept, recurse)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        names = {name for name in state_dict if name.startswith(prefix)}
        if prefix + "usage" in names and prefix + "updates" not in names:
            self.updates.fill_(TRAINED)  # only weights, but trained
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._apply(lambda state: state)  # with assign=True it may be half precision


class VectorQuantizer(_Quantizer):
    """Quantizer whose codebook is a parameter, moved by the codebook term's gradient.

    loss = mean (sg[z_e] - e)^2 + beta * mean (z_e - sg[e])^2, the second and third
    terms of (1.10): one moves the codes toward the vectors, the other moves the vectors
    toward the codes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.codebook = nn.Parameter(self._uniform_codebook())

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        codebook_loss = F.mse_loss(codes, z.detach())
        commitment_loss = F.mse_loss(z, codes.detach())
        return codebook_loss + self.commitment_cost * commitment_loss


class EMAVectorQuantizer(_Quantizer):
    """Quantizer whose codes are exponential moving averages of the vectors they take.

    loss = beta * mean (z_e - sg[e])^2 alone. The codes follow (2.7) (van den Oord et
    al. 2017, appendix A.1), k-means with a memory of about 1 / (1 - gamma) batches.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("codebook", self._uniform_codebook())

    def _loss(self, z: Tensor, codes: Tensor) -> Tensor:
        return self.commitment_cost * F.mse_loss(z, codes)

    def _move(self, counts: Tensor, z: Tensor, indices: Tensor, weight: Tensor) -> None:
        # With N <- g N + (1 - g) n and m <- g m + (1 - g) s, the code e = m / N moves
        # by (1 - g) (s - n e) / N. In this form a code without vectors does not move.
        sums = self.codebook.new_zeros(self.codebook.shape).index_add_(0, indices, z)
        all_reduce(sums, self.distributed)
        step = weight / self.usage.clamp(min=torch.finfo(self.usage.dtype).tiny)
        self.codebook.addcmul_(sums - counts[:, None] * self.codebook, step[:, None])
