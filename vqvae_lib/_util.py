"""Small helpers for all modules: checks, seeds, modes, processes, files."""

from __future__ import annotations

import functools
import glob
import math
import numbers
import operator
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise ``ValueError`` naming the value and what is allowed, unless ``ok``."""
    if not ok:
        raise ValueError(f"{name} = {value!r} is invalid: it must be {allowed}.")


def check_int(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as an int; raise unless it is an integer >= ``least``."""
    try:
        ok = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        ok = False
    require(ok, name, value, f"an integer >= {least}")
    return operator.index(value)


def check_number(
    name: str, value: Any, low: float, high: float = math.inf, ends: str = "[)"
) -> float:
    """Return a finite number in [low, high), or raise; ``ends`` sets the brackets."""
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool)
    ok = ok and math.isfinite(value) and low <= value <= high
    ok = ok and (value > low or ends[0] == "[") and (value < high or ends[1] == "]")
    require(ok, name, value, f"a finite number in {ends[0]}{low:g}, {high:g}{ends[1]}")
    return value if type(value) in (int, float) else float(value)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    require(value in choices, name, value, f"one of {tuple(choices)}")


def can_look(tensor: Tensor) -> bool:
    """Whether values may be read: reading stalls a GPU and breaks a traced graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def is_exporting() -> bool:
    """Whether ``torch.export`` is tracing; before torch 2.7, whether anything is."""
    compiler = torch.compiler
    return getattr(compiler, "is_exporting", compiler.is_compiling)()


def autocast_on(device: torch.device) -> bool:
    """Whether autocast is on for a device; some, such as "meta", have none."""
    known = torch.amp.is_autocast_available(device.type)
    return known and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context in which autocast is off."""
    on = autocast_on(device)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


def at_least_float32(*dtypes: torch.dtype) -> torch.dtype:
    """Return the smallest dtype that holds all of ``dtypes``, but at least float32."""
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def check_codes(name: str, codes: Tensor, num_embeddings: int) -> None:
    """Raise if a code is outside [0, K); not checked where values can't be read."""
    if can_look(codes) and codes.numel():
        low, high, what = int(codes.min()), int(codes.max()), f"range of {name}"
        allowed = f"in [0, {num_embeddings}), since num_embeddings = {num_embeddings}"
        require(0 <= low <= high < num_embeddings, what, (low, high), allowed)


def seed_at(seed: int, step: int) -> int:
    """Derive a step's seed from the run's, so a resumed run draws the same numbers."""
    return (seed * 1_000_003 + step) % 2**63  # a range that torch's generators accept


def seed_devices(seed: int, device: str | torch.device = "cpu") -> None:
    """Seed the generators of the CPU and of one device, and no others."""
    device, seed = torch.device(device), int(seed) % 2**64  # what generators take
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed the CPU and ``device`` inside a ``with``; then restore their generators."""
    device = torch.device(device)
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_devices(seed, device)
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Use evaluation mode inside a ``with``; then restore each submodule's mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def processes() -> int:
    """Return the number of processes in the group; 1 without a group."""
    ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if ready else 1


def all_reduce(values: Tensor, distributed: bool) -> Tensor:
    """Sum ``values`` in place over all processes, if ``distributed``; return them."""
    if distributed and processes() > 1:
        dist.all_reduce(values)
    return values


def as_path(path: str | Path) -> Path:
    """Return a path, with ``~`` expanded to the home folder."""
    return Path(path).expanduser()


def atomic_write(path: str | Path, content: bytes | memoryview) -> None:
    """Write a whole file or nothing; on an ``OSError`` an existing one is unchanged."""
    path = as_path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"can't be written ({error.strerror}); an existing file is unchanged. "
            "Free some space, or choose another path",
            str(path),
        ) from error
    finally:
        with suppress(OSError):  # no such folder: the error above says so
            part.unlink(missing_ok=True)
            for other in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
                if time.time() - other.stat().st_mtime > 3600:  # its process was killed
                    other.unlink()
