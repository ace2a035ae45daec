"""The training loop, which knows nothing of the model's inside, and what keeps its result."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import itertools
import json
import logging
import math
import os
import sys
import time
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .config import PRECISIONS, SCHEDULES, VQVAEConfig, require, seed_at
from .data import BatchLoader
from .model import VQVAE
from .quantizer import evaluating

__all__ = [
    "CheckpointError",
    "Trainer",
    "TrainingError",
    "VQVAETrainer",
    "autocast_dtype",
    "learning_rate",
    "load_or_train",
    "read_checkpoint",
    "write_whole",
]

log = logging.getLogger(__name__)

FORMAT = 2  # of the checkpoint files
PARTS = {"config": dict, "model": dict, "optimizer": dict, "scaler": dict, "history": dict, "step": int, "plan": tuple}
PARTS |= {"window": int, "counted": int, "sums": dict}  # what a checkpoint holds besides its format
MOMENT = 1.5  # seconds of work in a notebook that pass without a word
KEEP = 25  # steps between two copies of a sound state, to which a step that fails goes back


class TrainingError(RuntimeError):
    """Training can't go on; the message says where it stood and what to try."""


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used; the message names what differs."""


class Trainable(Protocol):
    """What the trainer asks of a model, besides being a ``Module``."""

    def training_step(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return tensors to be averaged and kept, ``total_loss`` (to be minimised) among them."""

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Turn their means over many batches into numbers."""


def learning_rate(progress: float, peak: float, schedule: str = "one_cycle") -> float:
    """Compute the learning rate at a point of the plan.

    ``"one_cycle"`` (Smith and Topin 2018): from peak / 25 up to the peak over the first three tenths of the steps,
    then down to nearly 0, each along half a cosine. ``"constant"``: the peak throughout.

    Args:
        progress: share of the planned steps that are done, in [0, 1].
        peak: the largest rate.
        schedule: ``"one_cycle"`` or ``"constant"``.
    """
    require(schedule in SCHEDULES, "schedule", schedule, f"one of {SCHEDULES}")
    if schedule == "constant":
        return peak
    warm = 0.3  # with 0.1 the decoder could be driven to a constant, and short runs ended twice as high
    if progress < warm:
        low, share = peak / 25, 1 - progress / warm
    else:
        low, share = peak / 1000, (progress - warm) / (1 - warm)
    return low + (peak - low) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def autocast_dtype(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """Choose the dtype of convolutions: what the device is good at, or what is asked for.

    Args:
        device: where the model runs.
        precision: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Returns:
        The dtype for ``torch.autocast``; None means float32 throughout. ``"auto"`` takes bfloat16 where the processor
        or GPU has instructions for it, float16 on older GPUs, float32 elsewhere.
    """
    require(precision in PRECISIONS, "precision", precision, f"one of {PRECISIONS}")
    if precision != "auto":
        return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu":
        # Private names of torch; where one is gone, float32 is the safe answer.
        has = [getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("amx_tile", "avx512_bf16")]
        return torch.bfloat16 if any(has) else None
    return None


class Trainer:
    """Trains any :class:`Trainable` model with Adam.

    Args:
        model: the model; moved to ``config.device``.
        config: ``lr``, ``schedule``, ``num_epochs``, ``precision`` and ``device`` are read.

    Attributes:
        model, config, device: as given.
        history: name -> list of floats, one entry a window of steps (an epoch in ``train_epoch``): the model's
            numbers averaged over the window, and ``step`` and ``lr`` at its end.
        step: optimiser steps done.
        plan: first and last step of what the schedule spans.

    A step is done as a whole or not at all: where one is broken off (an interrupt, an error, a loss that is not
    finite), the trainer goes back to a sound state at most ``KEEP`` steps earlier, and ``resume`` goes on from there.
    What the model draws in a step is a function of seed and step, and so is the order of a :class:`BatchLoader`: it
    goes on to the same bits. A loader without ``set_epoch`` shuffles as it likes.
    """

    def __init__(self, model: nn.Module, config: VQVAEConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.model = model.to(self.device)
        self.dtype = autocast_dtype(self.device, config.precision)
        # One fused kernel updates all weights; MPS has none.
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=fused)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.history: dict[str, list[float]] = {}
        self.step = 0
        self.plan = (0, 0)
        self.look_every = 1 if self.device.type == "cpu" else KEEP  # elsewhere a look at each loss would stall
        # The history's next entry: how many steps it spans, how many of them are done, and their sums.
        self.window, self.counted, self.sums = 1, 0, {}

    def train_epoch(self, loader: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Train for as many steps as ``loader`` has batches, and return their mean numbers.

        That is one pass, from its beginning if all training so far was whole passes. The schedule spans
        ``config.num_epochs`` of them; a pass that would lead beyond the span begins a new one.
        """
        steps = len(loader)  # type: ignore[arg-type]
        if self.step + steps > self.plan[1]:
            self.plan = (self.step, self.step + self.config.num_epochs * steps)
        self.counted, self.sums = 0, {}
        self._run(loader, self.step + steps, window=steps)
        return {name: values[-1] for name, values in self.history.items()}

    def fit(
        self,
        loader: Iterable[tuple[Tensor, Tensor]],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        window: int | None = None,
        save_to: str | Path | None = None,
        save_every: float = 60.0,
    ) -> dict[str, list[float]]:
        """Train for a number of epochs or of steps, with a progress bar, and return the history.

        A run that was interrupted goes on with ``resume``; one that was killed, after ``load(save_to)``.

        Args:
            loader: batches (x, labels); passed over as often as needed.
            epochs: passes; ``config.num_epochs`` if neither is given.
            steps: optimiser steps, instead of epochs.
            window: steps averaged into one entry of the history; about fifty entries if not given.
            save_to: file to save to: at the end, when interrupted, and on the way.
            save_every: seconds between two saves on the way.

        Raises:
            ValueError: both or an impossible number of epochs or steps.
            TrainingError: the loss is no longer finite, or the device's memory is too small.
            KeyboardInterrupt: as it came, with a message that says how to go on.
        """
        if epochs is not None and steps is not None:
            raise ValueError(f"epochs = {epochs} and steps = {steps}: give one of them.")
        if steps is None:
            steps = (self.config.num_epochs if epochs is None else epochs) * len(loader)  # type: ignore[arg-type]
        require(isinstance(steps, int) and steps >= 1, "steps", steps, "an integer of 1 or more")
        self.plan = (self.step, self.step + steps)
        self.window, self.counted, self.sums = max(1, steps // 50), 0, {}
        return self.resume(loader, window=window, save_to=save_to, save_every=save_every)

    def resume(
        self,
        loader: Iterable[tuple[Tensor, Tensor]],
        *,
        window: int | None = None,
        save_to: str | Path | None = None,
        save_every: float = 60.0,
    ) -> dict[str, list[float]]:
        """Go on with what an interrupted ``fit`` had planned, from where it stands or was saved.

        Arguments and errors are those of ``fit``; the window is the interrupted run's if not given.
        """
        require(self.plan[1] > 0, "plan", self.plan, "made by fit first: there is nothing to resume")
        last = self.plan[1]
        with Progress(last - self.step, f"training {type(self.model).__name__}") as bar:
            self._run(loader, last, window or self.window, bar, save_to, save_every)
        return self.history

    @torch.no_grad()
    def evaluate(self, loader: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Measure the model on ``loader``, in float32 and in evaluation mode.

        Returns:
            The model's numbers over the whole pass (for the VQ-VAE ``recon_loss``, ``vq_loss``, ``total_loss``,
            ``perplexity``, ``active_codes``), each image weighing the same.
        """
        sums, images = {}, 0
        with evaluating(self.model), self._own_random_numbers():
            torch.manual_seed(self.config.seed)  # a model that draws is measured with the same draws each time
            for x, labels in loader:
                results = self.model.training_step(x.to(self.device), labels.to(self.device))
                _accumulate(sums, results, len(x))
                images += len(x)
        return self.model.summarise({name: value / images for name, value in sums.items()})

    def save(self, path: str | Path) -> Path:
        """Write all that is needed to go on to ``path``, whole or not at all.

        Raises:
            OSError: the file can't be written, on a full disk for example; an older one stays as it was.
        """
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "config": asdict(self.config), **self._state()}, buffer)
        write_whole(path, buffer.getbuffer())
        return Path(path)

    def load(self, path: str | Path) -> None:
        """Take model, optimiser, history and place in the plan from a file that ``save`` wrote.

        The file can run no code: only tensors and plain values are read. After an error the trainer is as it was.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: not a whole checkpoint of this version, or of a model with other choices.
        """
        state = read_checkpoint(path, self.device)
        theirs, ours = state["config"], asdict(self.config)
        model_fields = ("in_channels", "hidden_dim", "num_embeddings", "embedding_dim", "codebook_update")
        differing = [
            f"{name} = {theirs.get(name)!r}, here {ours.get(name)!r}"
            for name in model_fields
            if theirs.get(name) != ours.get(name)
        ]
        if differing:
            raise CheckpointError(f"{path} holds another model: {'; '.join(differing)}.")
        before = _copied(self._state())
        try:
            self._take(state)
            for weight, kept in self.optimizer.state.items():
                if any(value.shape not in ((), weight.shape) for value in kept.values()):
                    raise ValueError(f"the optimizer's averages of a weight {tuple(weight.shape)} have another shape")
            if not self._finite():
                raise ValueError("it holds weights that are NaN or infinite")
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._take(before)
            raise CheckpointError(f"{path} does not fit this model: {error}") from error

    def _state(self) -> dict[str, Any]:
        """Gather all that training changes, without a copy."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler")}
        return parts | {name: getattr(self, name) for name in PARTS if name not in {"config", *parts}}

    def _take(self, state: dict[str, Any]) -> None:
        for name in ("model", "optimizer", "scaler"):
            if name != "scaler" or state[name]:  # which is empty where nothing was scaled, in float32 for example
                getattr(self, name).load_state_dict(state[name])
        self.history = {name: [float(value) for value in values] for name, values in state["history"].items()}
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        first, last = state["plan"]
        self.plan = (int(first), int(last))
        self.step, self.window, self.counted = state["step"], state["window"], state["counted"]

    def _own_random_numbers(self) -> AbstractContextManager:
        """Let what the model draws come from numbers of its own: the caller's go on undisturbed."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    def _finite(self) -> bool:
        """Whether all weights and buffers (codes, counts) are numbers still."""
        values = self.model.state_dict().values()
        return all(bool(value.isfinite().all()) for value in values if isinstance(value, Tensor))

    def _run(
        self,
        loader: Any,
        last: int,
        window: int,
        bar: Progress | None = None,
        save_to: str | Path | None = None,
        save_every: float = 60.0,
    ) -> None:
        """Train up to step ``last``. Numbers stay on the device until someone looks at them: no stall a step."""
        self.model.train()
        self.window = window
        sound, losses, midway = _copied(self._state()), [], False
        saved, shown = time.monotonic(), self.step
        try:
            with self._own_random_numbers():
                for x, labels in itertools.islice(_endless(loader, self.step), last - self.step):
                    midway = True
                    losses.append(self._step(x, labels))
                    ends = self.counted >= window or self.step == last
                    save = save_to is not None and (self.step == last or time.monotonic() - saved >= save_every)
                    keep = save or self.step == last or len(losses) >= KEEP
                    if keep or ends or len(losses) % self.look_every == 0:
                        self._check(losses, sound["step"])
                    if keep and not self._finite():
                        raise self._not_finite("a weight is not finite", self.step, sound["step"])
                    if ends:
                        numbers = self._record()
                        if bar is not None:
                            bar.advance(self.step - shown, numbers)
                        shown = self.step
                    if keep:
                        sound, losses = _copied(self._state()), []
                    midway = False
                    if save:
                        self.save(save_to)
                        saved = time.monotonic()
        except BaseException as error:
            diverged = not self._finite()
            if midway or diverged or not all(map(torch.isfinite, losses)):
                self._take(sound)
            if isinstance(error, KeyboardInterrupt):
                if save_to is not None:
                    self.save(save_to)
                raise KeyboardInterrupt(
                    f"stopped after step {self.step} of {last}. The model can be used as it is; resume(loader) goes on"
                    + ("." if last == self.plan[1] else f" to the end of the schedule, step {self.plan[1]}.")
                ) from None
            if diverged and isinstance(error, ValueError):  # the quantizer found it first
                raise self._not_finite("a weight is not finite", len(losses) + sound["step"], sound["step"]) from error
            error.add_note(f"The model is as it was after step {self.step}; resume(loader) goes on from there.")
            raise

    def _step(self, x: Tensor, labels: Tensor) -> Tensor:
        """Do one optimiser step and return its loss, still on the device."""
        first, end = self.plan
        lr = learning_rate((self.step - first) / (end - first), self.config.lr, self.config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        seed = seed_at(self.config.seed, self.step)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        try:
            x, labels = x.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                results = self.model.training_step(x, labels)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(results["total_loss"]).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        except torch.cuda.OutOfMemoryError as error:
            remedy = f"set batch_size={len(x) // 2}" if len(x) > 1 else "make the model smaller (hidden_dim)"
            raise TrainingError(
                f"{self.device} is out of memory at step {self.step + 1} with batches of {len(x)}: {remedy}."
            ) from error
        self.step += 1
        self.counted += 1
        _accumulate(self.sums, results, 1)
        return results["total_loss"].detach()

    def _check(self, losses: list[Tensor], since: int) -> None:
        for step, loss in enumerate(torch.stack(losses).tolist(), since + 1):
            if not math.isfinite(loss):
                raise self._not_finite(f"total_loss is {loss}", step, since)

    def _not_finite(self, what: str, step: int, since: int) -> TrainingError:
        kept = self.history.get("total_loss", [])
        before = f" (the last finite one in the history was {kept[-1]:.4g})" if kept else ""
        return TrainingError(
            f"{what} at step {step}; the model is back at step {since}{before}. Lower lr (now {self.config.lr:g}), or "
            "train in float32."
        )

    def _record(self) -> dict[str, float]:
        numbers = self.model.summarise({name: value / self.counted for name, value in self.sums.items()})
        lr = self.optimizer.param_groups[0]["lr"]
        for name, value in {**numbers, "step": float(self.step), "lr": lr}.items():
            self.history.setdefault(name, []).append(value)
        self.counted, self.sums = 0, {}
        return numbers


class VQVAETrainer(Trainer):
    """A :class:`Trainer` that makes its own VQ-VAE, from ``config.seed``.

    Args:
        config: every choice of the run.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        # The weights are a function of the seed, and the caller's random numbers go on undisturbed.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = VQVAE(config)
        super().__init__(model, config)
        self.history = {"recon_loss": [], "vq_loss": [], "total_loss": []}

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode images, in evaluation mode.

        Args:
            x: (B, C, H, W) in [0, 1], on any device.

        Returns:
            ``x_recon`` (B, C, H, W) and ``indices`` (B, H/4, W/4), on the CPU.
        """
        with evaluating(self.model):
            x_recon, _, indices = self.model(x.to(self.device))
        return x_recon.cpu(), indices.cpu()


def load_or_train(
    config: VQVAEConfig, loader: BatchLoader, *, steps: int, cache: str | Path | None = None
) -> VQVAETrainer:
    """Take a trained VQ-VAE from the cache, or train it and put it there; one line in the log says which.

    Args:
        config: every choice of the run.
        loader: the training batches.
        steps: optimiser steps.
        cache: folder; ``VQVAE_CACHE`` or ``~/.cache/vqvae_lib/runs`` if not given. A file's name is a digest of the
            configuration, the data, the number of steps and the library's source: change any and it is trained anew.
    """
    folder = Path(cache or os.environ.get("VQVAE_CACHE") or Path.home() / ".cache" / "vqvae_lib" / "runs")
    key = {
        "config": config.identity(),
        "data": [loader.dataset.fingerprint(), loader.batch_size, loader.shuffle, loader.drop_last, loader.seed],
        "steps": steps,
        "library": _source_digest(),
        "torch": torch.__version__,
    }
    path = folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]}.pt"
    trainer = VQVAETrainer(config)
    if not path.exists():
        log.info("no trained model for this configuration yet: training %d steps", steps)
        trainer.fit(loader, steps=steps, save_to=path)
        return trainer
    trainer.load(path)
    if trainer.step == steps:
        log.info("trained model taken from %s", path)
    else:
        log.info("going on at step %d of %d, from %s", trainer.step, steps, path)
        trainer.resume(loader, save_to=path)
    return trainer


def write_whole(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: under a name of its own, down to the disk, then renamed.

    Raises:
        OSError: the file can't be written; an older one of that name stays as it was.
    """
    path = Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}{uuid.uuid4().hex}.part")
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        for scrap in path.parent.glob("*.part"):  # of processes that were killed here; younger ones may be at work
            with contextlib.suppress(FileNotFoundError):
                if scrap.name.startswith(path.name) and time.time() - scrap.stat().st_mtime > 3600:
                    scrap.unlink()
    except OSError as error:
        what = f"could not be written ({error.strerror}); an older file of that name is as it was. Make room, or write"
        raise OSError(error.errno, f"{what} elsewhere", str(path)) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint's tensors and plain values; code in the file is refused, not run.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a whole checkpoint of this library and format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: save a trainer first, or check the path.")
    try:
        # torch compares no checksums, and believes whatever the archive's table of contents says of an entry: it is
        # handed a clean archive, made of what zipfile has read and compared.
        clean = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive, zipfile.ZipFile(clean, "w") as copy_of_it:
            for name in archive.namelist():
                copy_of_it.writestr(name, archive.read(name))
        clean.seek(0)
        state = torch.load(clean, map_location=device, weights_only=True)
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path} is no checkpoint, not whole or damaged ({error}; {path.stat().st_size:,} bytes): delete it, or "
            "take another copy."
        ) from error
    except Exception as error:  # torch raises many kinds here; each means that the file can't be used
        raise CheckpointError(f"{path} can't be read as plain tensors and values: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} has format {found!r}; this library reads format {FORMAT}.")
    if wrong := [name for name, kind in PARTS.items() if not isinstance(state.get(name), kind)]:
        raise CheckpointError(f"{path} is not whole: it lacks {', '.join(wrong)}, or has something else there.")
    return state


def _source_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _endless(loader: Any, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pass over ``loader`` again and again, beginning where ``step`` steps of it would have led."""
    epoch, skip = divmod(step, len(loader))
    while True:
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        yield from itertools.islice(loader, skip, None)
        epoch, skip = epoch + 1, 0


def _copied(value: Any) -> Any:
    """Copy a nested state; ``deepcopy`` would look at each number of a long history."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return copy.copy(value)


def _accumulate(sums: dict[str, Tensor], results: dict[str, Tensor], weight: int) -> None:
    for name, value in results.items():
        value = value.detach() * weight
        sums[name] = sums[name] + value if name in sums else value


class Progress:
    """A tqdm bar that is gone when the work is done.

    In a notebook, where the work takes longer than a moment, a line with the steps stays in its place; a page that is
    built from it (``VQVAE_STATIC=1``) is spared the lines.
    """

    def __init__(self, total: int, label: str) -> None:
        shell = sys.modules.get("IPython")
        kernel = getattr(shell.get_ipython(), "kernel", None) if shell else None
        self._line = _CellLine() if kernel is not None else None
        options = {"file": sys.stderr} if self._line is None else {"file": self._line, "delay": MOMENT}
        options["disable"] = self._line is not None and os.environ.get("VQVAE_STATIC") == "1"
        self._bar = tqdm(total=total, desc=label, leave=False, mininterval=0.5, **options)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._line is not None and self._line.shown:  # an empty output would show as an empty box on the page
            self._line.write(f"{self._bar.desc}: {self._bar.n} steps")

    def advance(self, steps: int, numbers: dict[str, float] | None = None) -> None:
        if numbers:
            self._bar.set_postfix(loss=f"{numbers['total_loss']:.4f}", refresh=False)
        self._bar.update(steps)


class _CellLine:
    """A file of one line: what is written last is what the notebook's cell shows."""

    def __init__(self) -> None:
        self.shown = None

    def write(self, text: str) -> None:
        from IPython.display import display  # only there when a notebook runs

        if line := text.strip("\r\n"):
            if self.shown is None:
                self.shown = display({"text/plain": ""}, raw=True, display_id=True)
            self.shown.update({"text/plain": line.strip()}, raw=True)

    def flush(self) -> None:
        pass
