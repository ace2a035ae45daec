"""Frozen dataclasses for all settings of a run: model, codebook, training, machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ._util import check_choice, check_int, check_number, require

CODEBOOK_UPDATES = ("ema", "gradient")
INITS = ("data", "uniform")
SCHEDULES = ("one_cycle", "constant")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
QUANTIZERS = ("vq", "fsq", "lfq", "residual", "grouped", "simvq")
# Fields of VQVAEConfig for newer quantizers, and which quantizers take each one.
TAKEN_BY = {
    "estimator": ("vq", "residual", "grouped", "simvq"),
    "levels": ("fsq",),
    "entropy_cost": ("lfq",),
    "entropy_temperature": ("lfq",),
    "num_codebooks": ("residual", "grouped"),
    "shared_codebook": ("residual",),
}
LATER = ("downsampling", "residual_layers", "residual_dim", "quantizer", *TAKEN_BY)


def check_levels(levels: Any) -> tuple[int, ...]:
    """Return FSQ's levels as a tuple of integers from 3 to 1000, or raise."""
    allowed = "a tuple of integers from 3 to 1000; for two levels use LFQ"
    require(isinstance(levels, tuple | list), "levels", levels, allowed)
    whole = tuple(check_int("levels", level, 3) for level in levels)
    require(max(whole, default=3) <= 1000, "levels", levels, allowed)
    return whole


def best_device() -> str:
    """Return the best device: ``"cuda"``, else ``"mps"`` (Apple), else ``"cpu"``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings that every training run has, whatever it trains.

    A value out of range raises ``ValueError``. NumPy values become Python values.
    """

    # In short runs, 2e-2 has a slightly lower held-out error (benchmarks/quality.py).
    lr: float = 1e-2  # learning rate; its peak if the schedule is "one_cycle"
    schedule: Literal["one_cycle", "constant"] = "one_cycle"  # up and down once
    batch_size: int = 128  # images per step
    num_epochs: int = 20  # passes over the data, unless fit is told otherwise
    # "auto": what suits the device. The quantizer always computes in float32.
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = field(default_factory=best_device)  # "cuda", "cuda:1", "mps", "cpu"
    seed: int = 42  # for the weights, the order of the data and all random draws

    def __post_init__(self) -> None:
        self._ints(batch_size=1, num_epochs=1, seed=0)
        self._number("lr", 0, ends="()")
        self._choice("schedule", SCHEDULES)
        self._choice("precision", PRECISIONS)
        try:
            object.__setattr__(self, "device", str(torch.device(self.device)))
        except (RuntimeError, TypeError) as error:
            allowed = '"cuda", "cuda:1", "mps" or "cpu"'
            raise ValueError(f"device = {self.device!r}: use {allowed}.") from error

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide a run's result: all but the device."""
        return {name: value for name, value in vars(self).items() if name != "device"}

    def _ints(self, **least: int) -> None:
        """Check integer fields against minimums, and convert them to Python ints."""
        for name, low in least.items():
            value = check_int(name, getattr(self, name), low)
            object.__setattr__(self, name, value)

    def _number(self, name: str, *limits: float, ends: str = "[)") -> None:
        """Check a numeric field, and convert it to a Python float or int."""
        value = check_number(name, getattr(self, name), *limits, ends=ends)
        object.__setattr__(self, name, value)

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        """Check a field with a fixed set of choices, and convert it to a Python str."""
        check_choice(name, getattr(self, name), choices)
        object.__setattr__(self, name, str(getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(TrainConfig):
    """All settings of a VQ-VAE run: those of :class:`TrainConfig`, and its own."""

    in_channels: int = 1  # image channels: 1 for MNIST, 3 for color
    hidden_dim: int = 128  # width of the convolutions, even; outer layers have half
    num_embeddings: int = 512  # K, the number of codes
    embedding_dim: int = 64  # D, the length of a code
    commitment_cost: float = 0.25  # beta, the weight of ||z_e - sg[e]||^2
    downsampling: int = 4  # image pixels per code along each side: 4 or 8
    residual_layers: int = 0  # blocks in encoder and in decoder; the paper has 2
    residual_dim: int = 32  # channels inside a block

    # Moving averages (van den Oord et al. 2017, appendix A.1), or optimizer steps.
    codebook_update: Literal["ema", "gradient"] = "ema"
    # Of the values tried, this decay, threshold and commitment cost gave the lowest
    # error on held-out training images (benchmarks/quality.py); no test image was used.
    decay: float = 0.9  # gamma of the moving averages; the paper uses 0.99
    restart_threshold: float = 0.04  # restart below this share of mean use; 0: never
    init: Literal["data", "uniform"] = "data"  # k-means on a batch, or U(-1/K, 1/K)

    # What came after the plain codebook; vqvae_lib.newer has equations and papers.
    quantizer: Literal["vq", "fsq", "lfq", "residual", "grouped", "simvq"] = "vq"
    estimator: Literal["straight_through", "rotation"] = "straight_through"
    levels: tuple[int, ...] = ()  # FSQ: levels of each channel; K is their product
    entropy_cost: float = 0.1  # LFQ: weight of its entropy term
    entropy_temperature: float = 0.01  # LFQ: tau of the softmax in that term
    num_codebooks: int = 1  # stages of residual VQ, or groups of grouped VQ
    shared_codebook: bool = False  # one codebook for all stages of residual VQ

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ints(in_channels=1, hidden_dim=2, num_embeddings=1, embedding_dim=1)
        self._ints(downsampling=1, residual_layers=0, residual_dim=1)
        require(
            self.downsampling in (4, 8), "downsampling", self.downsampling, "4 or 8"
        )
        require(self.hidden_dim % 2 == 0, "hidden_dim", self.hidden_dim, "even")
        self._number("commitment_cost", 0)
        self._number("decay", 0, 1)
        self._number("restart_threshold", 0, 1)
        self._choice("init", INITS)
        self._choice("codebook_update", CODEBOOK_UPDATES)
        self._check_quantizer()

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide a run's result, as plain values.

        Newer fields are left out if they have their default values, so a run stored
        before they existed keeps its identity.
        """
        fields = super().identity() | {"levels": list(self.levels)}
        later = [
            name for name in LATER if getattr(self, name) == getattr(VQVAEConfig, name)
        ]
        return {name: value for name, value in fields.items() if name not in later}

    def _check_quantizer(self) -> None:
        self._choice("quantizer", QUANTIZERS)
        self._choice("estimator", ("straight_through", "rotation"))
        levels = check_levels(self.levels)
        object.__setattr__(self, "levels", levels)
        self._ints(num_codebooks=1)
        self._number("entropy_cost", 0)
        self._number("entropy_temperature", 0, ends="()")
        shared = self.shared_codebook
        require(shared in (False, True), "shared_codebook", shared, "False or True")
        object.__setattr__(self, "shared_codebook", bool(shared))
        K, D, n = self.num_embeddings, self.embedding_dim, self.num_codebooks
        kind = self.quantizer
        for name, kinds in TAKEN_BY.items():
            value, default = getattr(self, name), getattr(VQVAEConfig, name)
            fits = kind in kinds or value == default
            require(fits, name, value, f"{default!r}, since quantizer = {kind!r}")
        if kind == "fsq":
            allowed = f"{D} levels (embedding_dim) with product {K} (num_embeddings)"
            fits = len(levels) == D and math.prod(levels) == K
            require(fits, "levels", levels, allowed)
        elif kind == "lfq":
            require(K == 2**D, "num_embeddings", K, f"2^embedding_dim = 2^{D}")
        elif kind == "grouped":
            require(D % n == 0, "num_codebooks", n, f"a divisor of embedding_dim = {D}")
        elif kind == "simvq":
            update, allowed = self.codebook_update, "'gradient' for SimVQ"
            require(update == "gradient", "codebook_update", update, allowed)


def learning_rate(progress: float, peak: float, schedule: str = "one_cycle") -> float:
    """Compute the learning rate at a point of the schedule.

    ``"one_cycle"`` (Smith and Topin 2018): from peak / 25 up to the peak over the first
    three tenths of the steps, then down to peak / 1000, each along half a cosine.
    ``"constant"``: the peak throughout. ``progress`` is the share of steps done.
    """
    check_choice("schedule", schedule, SCHEDULES)
    if schedule == "constant":
        return peak
    warm = 0.3  # with 0.1 the decoder could collapse to a constant
    if progress < warm:
        low, share = peak / 25, 1 - progress / warm
    else:
        low, share = peak / 1000, (progress - warm) / (1 - warm)
    return low + (peak - low) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def autocast_dtype(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """Choose the dtype of convolutions; None means float32 throughout.

    ``"auto"``: bfloat16 where the device has instructions for it, float16 on older
    GPUs, float32 elsewhere.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return None if precision == "float32" else getattr(torch, precision)
    if device.type == "cuda":
        new = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if new else torch.float16
    if device.type == "cpu":
        # Private names in torch; if one is gone, float32 is the safe choice.
        names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        has = [getattr(torch.cpu, name, lambda: False)() for name in names]
        return torch.bfloat16 if any(has) else None
    return None
