"""Helpers for a training run: batches from a loader, and several processes."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ._util import seed_at

Batches = Iterable[tuple[Tensor, Tensor]]


def length_of(loader: Any) -> int:
    """Return the number of batches per pass; 0 or no length raises ``ValueError``."""
    try:
        length = len(loader)
    except TypeError as error:  # raised by a DataLoader over a stream, too
        name = type(loader).__name__
        raise ValueError(f"{name} has no length: pass steps to fit.") from error
    if length == 0:
        raise ValueError("no batch in the loader: use more images or a smaller batch.")
    return length


def batches_from(loader: Batches, start: int, step: int, seed: int) -> Iterator[Any]:
    """Repeat ``loader`` without end, from ``step`` of a run that began at ``start``.

    Passes are numbered across runs, by ``set_epoch`` if the loader has it. Before each
    pass torch's generator is seeded, so the order of a ``DataLoader(shuffle=True)``
    depends on seed and pass. An iterator continues where it is; a stream without a
    length is read from its beginning, and batches already used are skipped.
    """
    epoch, skip = 0, 0 if isinstance(loader, Iterator) else step - start
    with contextlib.suppress(TypeError):  # a stream has no length
        length = max(1, len(loader))
        epoch, skip = math.ceil(start / length) + skip // length, skip % length
    while True:
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        torch.default_generator.manual_seed(seed_at(seed, -2 - epoch))
        found = 0
        for found, batch in enumerate(loader, 1):
            if found > skip:
                yield batch
        if found == 0:
            raise ValueError("the loader ran out: use more batches or fewer steps.")
        skip = max(0, skip - found)
        epoch += 1


def on_device(
    batch: Any, device: torch.device, rank: int = 0, count: int = 1
) -> tuple[Tensor, Tensor]:
    """Check a batch; move it, or part ``rank`` of ``count``, to a device."""
    pair = list(batch) if isinstance(batch, tuple | list) else [batch]
    if [isinstance(part, Tensor) for part in pair] != [True, True]:
        kinds = ", ".join(type(part).__name__ for part in pair)
        raise TypeError(f"a batch is ({kinds}): expected two tensors, (x, labels).")
    if len(pair[0]) % count:
        raise ValueError(
            f"a batch of {len(pair[0])} can't be shared evenly by {count} processes: "
            f"use a batch_size that is a multiple of {count}, and drop_last=True."
        )
    if count > 1:
        pair = [part.chunk(count)[rank] for part in pair]
    # Data from NumPy is often float64, which Apple's GPUs lack.
    pair = [part.float() if part.dtype is torch.float64 else part for part in pair]
    x, labels = (part.to(device, non_blocking=True) for part in pair)
    return x, labels


def started_by_torchrun() -> bool:
    """Whether ``torchrun`` started more than one process."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def join(device: torch.device) -> torch.device:
    """Join the process group, and return the device of this process."""
    if device.type == "cuda":
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)  # NCCL gathers objects there
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def in_any(flag: bool, device: torch.device, distributed: bool) -> bool:
    """Whether ``flag`` is set here or, if ``distributed``, in any process."""
    if not distributed:
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags)
    return bool(flags)


class _TrainingStep(nn.Module):
    """A model's ``training_step`` as a ``forward``, for DDP to wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return self.model.training_step(x, labels)


def averaged(model: nn.Module, place: Any) -> DistributedDataParallel:
    """Wrap a model's step: gradients are averaged, codes counted over all processes.

    All get the weights of rank 0; ``place``, a run's progress, must be the same in all.
    """
    places = [None] * dist.get_world_size()
    dist.all_gather_object(places, place)
    if any(other != place for other in places):
        raise ValueError(f"processes are at {places}: load the same checkpoint in all.")
    for part in model.modules():
        if hasattr(part, "distributed"):  # quantizers, a VAE
            part.distributed = True
    for value in model.state_dict().values():
        if isinstance(value, Tensor):
            dist.broadcast(value, 0)
    return DistributedDataParallel(_TrainingStep(model), broadcast_buffers=False)
