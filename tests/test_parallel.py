"""Two processes under torchrun's variables train as one: same losses, same weights, also after a stop."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import same_bits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vqvae_lib import BatchLoader, ImageDataset, Trainer, VQVAEConfig, VQVAETrainer, draw_glyphs

STEPS = 20
TINY = VQVAEConfig(
    hidden_dim=4, num_embeddings=8, embedding_dim=3, restart_threshold=0.5, precision="float32", device="cpu"
)
CONSTANT = replace(TINY, schedule="constant", lr=3e-3)
IMAGES = ImageDataset(*draw_glyphs("0123456789", 112, seed=1), "glyphs")
pytestmark = pytest.mark.no_mutants


def batches() -> BatchLoader:
    """Seven shuffled batches an epoch."""
    return BatchLoader(IMAGES, 16, shuffle=True, drop_last=True, seed=3)


def run_rank(rank: int, port: int, work: Callable, folder: Path, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save(work(folder, *args), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def together(folder: Path, work: Callable, *args: object) -> list:
    """What ``work(folder, *args)`` returns in each of two processes; one that hangs is a failure."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "fork" if sys.platform == "linux" else "spawn"  # a fork need not import everything again
    context = mp.start_processes(run_rank, (port, work, folder, args), 2, join=False, start_method=start)
    end = time.monotonic() + 60
    try:
        while not context.join(timeout=1):  # which raises what a process raises
            assert time.monotonic() < end, "the processes wait for one another"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_follow(states: list[dict], alone: Trainer) -> None:
    """Both processes are equal to the bit, and near to the run of one."""
    assert same_bits(*states)
    history = states[0]["history"]
    assert history["step"] == alone.history["step"]
    for name in ("recon_loss", "vq_loss", "total_loss"):
        assert history[name] == pytest.approx(alone.history[name], rel=0, abs=1e-5), name


def train_stop_and_resume(folder: Path, update: str) -> dict:
    first, second = (VQVAETrainer(replace(TINY, codebook_update=update)) for _ in range(2))
    stop = None if first.rank == 0 else lambda trainer: trainer.step < STEPS // 2  # one process hears the wish to stop
    first.fit(batches(), steps=STEPS, window=1, save_to=folder / "run.pt", callback=stop)
    second.load(folder / "run.pt")
    assert second.step == first.step == STEPS // 2
    second.resume(batches(), window=1)
    return second.state_dict()


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_two_processes_follow_one_also_after_a_stop(tmp_path, update):
    alone = VQVAETrainer(replace(TINY, codebook_update=update))
    alone.fit(batches(), steps=STEPS, window=1)
    quiet = VQVAETrainer(replace(TINY, codebook_update=update, restart_threshold=0.0))
    quiet.fit(batches(), steps=STEPS, window=1)
    assert quiet.history != alone.history, "no code was restarted: nothing is shown of it"
    assert_follow(together(tmp_path, train_stop_and_resume, update), alone)


def images() -> DataLoader:
    return DataLoader(TensorDataset(IMAGES.floats(), IMAGES.labels), 16, shuffle=True)


def train_epochs(folder: Path) -> dict:
    """Four passes, wrapped three times; one breaks off between a forward and its backward pass."""
    trainer = VQVAETrainer(CONSTANT)
    trainer.fit(images(), epochs=2, window=7)
    forward, calls = trainer.model.training_step, iter(range(100))

    def broken(*args: Tensor) -> dict[str, Tensor]:
        numbers = forward(*args)
        if next(calls) == 4:
            numbers["total_loss"].register_hook(lambda gradient: 1 / 0)
        return numbers

    trainer.model.training_step = broken
    try:
        trainer.train_epoch(images())
    except ZeroDivisionError:
        assert trainer.step == 14
    del trainer.model.training_step
    trainer.train_epoch(images())
    trainer.train_epoch(images())
    return trainer.state_dict()


def test_pass_after_pass_two_processes_follow_one(tmp_path):
    """Also with a DataLoader that shuffles: both processes must draw the same order."""
    alone = VQVAETrainer(CONSTANT)
    alone.fit(images(), epochs=4, window=7)
    assert_follow(together(tmp_path, train_epochs), alone)


def train_apart(folder: Path) -> list[dict]:
    """A trainer for all, and between its runs one for each process alone."""
    rank = VQVAETrainer(TINY).rank
    trainer = VQVAETrainer(replace(TINY, seed=rank), distributed=False)
    trainer.fit(batches(), steps=8 + rank)
    return trainer.state_dict()


def test_trainers_in_one_group_do_not_mix(tmp_path):
    for rank, found in enumerate(together(tmp_path, train_apart)):
        alone = VQVAETrainer(replace(TINY, seed=rank))
        alone.fit(batches(), steps=8 + rank)
        assert same_bits(found, alone.state_dict())


def draw(folder: Path) -> dict:
    trainer = VQVAETrainer(TINY)
    trainer.model.decoder.net[0].bias.data.fill_(trainer.rank)  # weights that differ at first
    trainer.model.vq.codebook.copy_(torch.randn(8, 3) + trainer.rank)
    forward, drawn = trainer.model.training_step, []
    trainer.model.training_step = lambda *args: drawn.append(torch.rand(1)) or forward(*args)
    trainer.fit(batches(), steps=3)
    return {"drawn": drawn, "state": trainer.state_dict()}


def test_each_process_draws_noise_of_its_own_and_all_have_the_weights_of_one(tmp_path):
    one, other = together(tmp_path, draw)
    assert len(one["drawn"]) == len(other["drawn"]) == 3 == len({*map(float, one["drawn"] + other["drawn"])}) / 2
    assert same_bits(one["state"], other["state"])


def err(folder: Path) -> list[int]:
    """Where runs stand that can't go on: in one process alone a checkpoint was loaded, or a batch has no halves."""
    steps = []
    for go_on in ("fit", "resume", "train_epoch"):
        trainer = VQVAETrainer(TINY)
        trainer.schedule_end = 10
        if trainer.rank == 0:
            trainer.load(folder / "run.pt")
        with pytest.raises(ValueError):
            getattr(trainer, go_on)(batches())
        steps.append(trainer.step)
    x, labels = next(iter(batches()))
    trainer = VQVAETrainer(TINY)
    with pytest.raises(ValueError):
        trainer.fit([(x, labels), (x[:5], labels[:5])], steps=2)
    return [*steps, trainer.step]


def test_what_processes_cannot_share_is_an_error_and_no_hang(tmp_path):
    VQVAETrainer(TINY).fit(batches(), steps=4, save_to=tmp_path / "run.pt")
    assert together(tmp_path, err) == [[4, 4, 4, 1], [0, 0, 0, 1]]
