"""The training loop, which knows nothing about the model's internals.

A window of steps is a transaction: after it, the weights are checked, its numbers are
recorded, and a snapshot is taken. If anything fails, the trainer goes back to the end
of the last window.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import running
from ._util import (
    all_reduce,
    as_path,
    check_int,
    eval_mode,
    require,
    seed_at,
    seed_devices,
    seeded,
)
from .checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from .config import TrainConfig, autocast_dtype, learning_rate
from .running import Batches, batches_from, length_of, on_device

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training can't continue; the message says where it stopped and what to try."""


class Trainer:
    """Trains a model with Adam.

    The model needs ``training_step(x, labels)``, which returns tensors to be averaged,
    ``total_loss`` among them, and ``summarize(means)``, which turns their means into
    numbers. If it has ``initialize(x)``, that is called with the first batch.

    Seed and step determine what the model draws and the order of the data, so that an
    interrupted run resumes bit for bit. The caller's random state is left alone.

    Args:
        model: moved to ``config.device``; may be compiled, by ``model.compile()``.
        config: lr, schedule, num_epochs, precision, device and seed are read.
        distributed: train one model with all processes of the group, each on its share
            of every batch. Default: only under ``torchrun``; else each trains its own.

    Attributes:
        history: name -> list of floats, one entry per window (per epoch in
            ``train_epoch``): means over it, and ``step`` and ``lr`` at its end.
        step: optimizer steps done.
        schedule_start, schedule_end: the steps between which the schedule runs.
    """

    def __init__(
        self, model: nn.Module, config: TrainConfig, *, distributed: bool | None = None
    ) -> None:
        self.distributed = (
            running.started_by_torchrun() if distributed is None else distributed
        )
        self.config, self.device = config, torch.device(config.device)
        self.rank, self.ranks = 0, 1
        if self.distributed:
            self.device = running.join(self.device)
            self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.model = model.to(self.device)
        self.dtype = autocast_dtype(self.device, config.precision)
        fused = self.device.type in ("cpu", "cuda")  # MPS has no fused kernel
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=fused)
        self.scaler = self._make_scaler()
        self.history: dict[str, list[float]] = {}
        self.step = self.schedule_start = self.schedule_end = 0

    def fit(
        self,
        loader: Batches,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        window: int | None = None,
        save_to: str | Path | None = None,
        callback: Callable[[Trainer], bool | None] | None = None,
    ) -> dict[str, list[float]]:
        """Train under a new schedule, with a progress bar, and return the history.

        If interrupted, use ``resume`` to continue; if killed, ``load`` and ``resume``.

        Args:
            loader: batches (x, labels), repeated as often as needed. With ``steps`` it
                needs no length.
            epochs, steps: give at most one; ``config.num_epochs`` if neither is given.
            window: steps per entry of the history; about fifty entries by default.
            save_to: file to save to after each window.
            callback: called with the trainer after each window; returning False stops.
        """
        if epochs is not None and steps is not None:
            raise ValueError(f"epochs = {epochs}, steps = {steps}: give only one.")
        if steps is None:
            epochs = self.config.num_epochs if epochs is None else epochs
            steps = check_int("epochs", epochs) * length_of(loader)
        start, end = self.step, self.step + check_int("steps", steps)
        window = check_int("window", max(1, steps // 50) if window is None else window)
        self.schedule_start, self.schedule_end = start, end
        self._run(loader, start, end, window, save_to, callback)
        return self.history

    def resume(self, loader: Batches, **options: Any) -> dict[str, list[float]]:
        """Train to the schedule's end; ``options`` are window, save_to and callback."""
        start, end = self.schedule_start, self.schedule_end
        require(end > 0, "schedule_end", end, "set by fit before resume is called")
        window = options.pop("window", None)
        window = max(1, (end - start) // 50) if window is None else window
        self._run(loader, start, end, check_int("window", window), **options)
        return self.history

    def train_epoch(self, loader: Batches) -> dict[str, float]:
        """Train for one pass over ``loader``, and return means over it.

        The schedule spans ``config.num_epochs`` passes; later ones keep its last rate,
        until ``fit`` starts a new schedule. An interrupted pass starts over.
        """
        steps = length_of(loader)
        if self.schedule_end == 0:
            self.schedule_end = steps * self.config.num_epochs
        elif self.step >= self.schedule_end:
            log.warning("the schedule has ended: training at its last learning rate")
        self._run(loader, self.step, self.step + steps, steps)
        return {name: values[-1] for name, values in self.history.items()}

    def _run(
        self,
        loader: Batches,
        start: int,
        end: int,
        window: int,
        save_to: str | Path | None = None,
        callback: Callable[[Trainer], bool | None] | None = None,
    ) -> None:
        """Train up to step ``end``, in windows and passes counted from ``start``."""
        known = {p for group in self.optimizer.param_groups for p in group["params"]}
        if not known.issuperset(self.model.parameters()):
            raise ValueError("the model has new weights: make a new Trainer for it.")
        training_step = self.model.training_step
        if self.distributed:
            training_step = running.averaged(self.model, (self.step, start, end))
        self.model.train()
        batches = batches_from(loader, start, self.step, self.config.seed)
        snapshot = copy.deepcopy(self.state_dict())
        name, quiet = type(self.model).__name__, {"disable": True} if self.rank else {}
        bar = tqdm(total=end - self.step, desc=name, leave=False, **quiet)
        try:
            with bar, seeded(self.config.seed, self.device):
                while self.step < end:
                    # Aligned, so that a resumed run records the same entries.
                    size = min(window - (self.step - start) % window, end - self.step)
                    sums: dict[str, Tensor] = {}
                    for batch in itertools.islice(batches, size):
                        _add(sums, self._step(training_step, batch))
                        bar.update()
                    self._record(sums, size)
                    snapshot = copy.deepcopy(self.state_dict())
                    bar.set_postfix(loss=f"{self.history['total_loss'][-1]:.4f}")
                    if save_to is not None:
                        self.save(save_to)
                    answer = True if callback is None else callback(self)
                    stop = answer is not None and not answer  # NumPy's False, too
                    if running.in_any(stop, self.device, self.distributed):
                        break
                    if self.step != snapshot["step"]:
                        raise ValueError("callback must not run training steps.")
        except BaseException as error:
            self.load_state_dict(snapshot)
            error.add_note(f"Back at step {self.step}; continue with resume(loader).")
            raise

    def _step(self, training_step: Callable, batch: Any) -> dict[str, Tensor]:
        """Do one step, reading nothing from the device but float16's scale."""
        start, end = self.schedule_start, self.schedule_end
        progress = (self.step - start) / (end - start)
        lr = learning_rate(progress, self.config.lr, self.config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x, labels = on_device(batch, self.device, self.rank, self.ranks)
        # Each process draws its own noise, as if its steps were numbered differently.
        seed = seed_at(self.config.seed, self.step + self.rank * 10_000_000)
        scale, scaled = self.scaler.get_scale(), self.scaler.is_enabled()
        before = copy.deepcopy(self.model.state_dict()) if scaled else {}
        try:
            # Two contexts: a cast that autocast cached in no_grad has no gradient.
            autocast = self.device.type, self.dtype, self.dtype is not None
            if self.step == 0 and hasattr(self.model, "initialize"):
                seed_devices(seed, self.device)
                with torch.autocast(*autocast):
                    self.model.initialize(x)
            seed_devices(seed, self.device)
            with torch.autocast(*autocast):
                results = training_step(x, labels)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(results["total_loss"]).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        except torch.cuda.OutOfMemoryError as error:
            raise TrainingError(
                f"{self.device} is out of memory at step {self.step + 1} with batches "
                f"of {len(x)}: set a smaller batch_size, or make the model smaller."
            ) from error
        except ValueError as error:
            if self._finite():
                raise
            raise self._not_finite() from error  # on the CPU the quantizer met it first
        if self.scaler.get_scale() < scale:  # float16 overflowed: scale less, repeat
            self.model.load_state_dict(before)
            if scale <= 1:
                raise self._not_finite()
            return self._step(training_step, batch)
        self.step += 1
        return results

    def _record(self, sums: dict[str, Tensor], steps: int) -> None:
        """End a window: check that all values are finite, and append to the history."""
        shares = steps * self.ranks
        means = {k: all_reduce(v, self.distributed) / shares for k, v in sums.items()}
        numbers = self.model.summarize(means)
        if not (math.isfinite(numbers["total_loss"]) and self._finite()):
            raise self._not_finite()
        lr = self.optimizer.param_groups[0]["lr"]
        for name, value in {**numbers, "step": float(self.step), "lr": lr}.items():
            self.history.setdefault(name, []).append(value)

    def _finite(self) -> bool:
        values = self.model.state_dict().values()
        return all(bool(v.isfinite().all()) for v in values if isinstance(v, Tensor))

    def _not_finite(self) -> TrainingError:
        return TrainingError(
            f"The loss or a weight is not finite at step {self.step}; the trainer is "
            "back at the end of the last window. "
            f"Lower lr (now {self.config.lr:g}), or train in float32."
        )

    @torch.no_grad()
    def evaluate(self, loader: Batches) -> dict[str, float]:
        """Measure the model over a pass of ``loader``, in float32 and evaluation mode.

        Each image has the same weight; random draws are the same each time.
        """
        sums, images = {}, 0
        with eval_mode(self.model), seeded(self.config.seed, self.device):
            for batch in loader:
                x, labels = on_device(batch, self.device)
                _add(sums, self.model.training_step(x, labels), len(x))
                images += len(x)
        require(images > 0, "loader", loader, "a loader with at least one batch")
        return self.model.summarize({name: v / images for name, v in sums.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes, without copying it."""
        places = ("history", "step", "schedule_start", "schedule_end")
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in places},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a copy of what ``state_dict`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.scaler = self._make_scaler()
        if state["scaler"]:  # empty if nothing was scaled, as in float32
            self.scaler.load_state_dict(state["scaler"])
        history = state["history"].items()
        self.history = {name: [float(v) for v in values] for name, values in history}
        for name in ("step", "schedule_start", "schedule_end"):
            setattr(self, name, int(state[name]))

    def save(self, path: str | Path) -> Path:
        """Write everything needed to continue, or no file at all; rank 0 writes."""
        if self.rank == 0:
            write_checkpoint(path, {"config": asdict(self.config), **self.state_dict()})
        if self.distributed:
            dist.barrier()  # now the file exists for all of them
        return as_path(path)

    def load(self, path: str | Path) -> None:
        """Load a file that ``save`` wrote; if that fails, the trainer is unchanged."""
        state = read_checkpoint(path, self.device)
        before = copy.deepcopy(self.state_dict())
        try:
            self.load_state_dict(state)
            for weight, kept in self.optimizer.state.items():
                wrong = {v.shape for v in kept.values()} - {weight.shape, torch.Size()}
                require(not wrong, "Adam's averages", wrong, f"of shape {weight.shape}")
            require(self._finite(), "weights", "NaN or infinite", "finite")
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.load_state_dict(before)
            saved, ours = state["config"], asdict(self.config)
            other = {name: v for name, v in saved.items() if v != ours.get(name)}
            what = f"{path} does not fit this model; it differs in {other}. ({error})"
            raise CheckpointError(what) from error

    def _make_scaler(self) -> torch.amp.GradScaler:
        for name in ("grad_scale", "found_inf"):  # left by an interrupted step
            self.optimizer.__dict__.pop(name, None)
        scaled = self.dtype is torch.float16
        return torch.amp.GradScaler(self.device.type, enabled=scaled)


def _add(sums: dict[str, Tensor], results: dict[str, Tensor], weight: int = 1) -> None:
    for name, value in results.items():
        value = value.detach() * weight
        sums[name] = sums[name] + value if name in sums else value
