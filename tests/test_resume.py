"""Nothing lost: a run that is killed or interrupted goes on to the bits of one that nobody stopped."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import same_bits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

from vqvae_lib import BatchLoader, ImageDataset, Trainer, VQVAEConfig, VQVAETrainer, draw_glyphs, learning_rate

KILLS = int(os.environ.get("VQVAE_KILLS", "25"))
STEPS = 60
TINY = VQVAEConfig(
    hidden_dim=4, num_embeddings=8, embedding_dim=3, restart_threshold=0.5, precision="float32", device="cpu"
)
IMAGES = ImageDataset(*draw_glyphs("0123456789", 112, seed=1), "glyphs")
SHUFFLED = DataLoader(TensorDataset(IMAGES.floats(), IMAGES.labels), 16, shuffle=True)
forks = pytest.mark.skipif(sys.platform != "linux", reason="these processes are forked, and killed by signal")


def batches() -> BatchLoader:
    """Seven shuffled batches an epoch."""
    return BatchLoader(IMAGES, 16, shuffle=True, drop_last=True, seed=3)


def train(path: Path | None = None, update: str = "ema") -> VQVAETrainer:
    """Train STEPS steps in windows of 4, from the checkpoint if there is one, which each window writes."""
    torch.set_num_threads(1)
    trainer = VQVAETrainer(replace(TINY, codebook_update=update))
    if path is not None and path.exists():
        trainer.load(path)
        trainer.resume(batches(), window=4, save_to=path)
    else:
        trainer.fit(batches(), steps=STEPS, window=4, save_to=path)
    return trainer


def state(trainer: Trainer) -> dict:
    return copy.deepcopy(trainer.state_dict())


@pytest.fixture(scope="module")
def ends() -> dict[str, dict]:
    """The ends of two runs that nobody stopped."""
    return {update: state(train(update=update)) for update in ("ema", "gradient")}


def forked(work: Callable, *args: object) -> multiprocessing.Process:
    def with_own_lock() -> None:
        tqdm.set_lock(threading.RLock())  # a process that is killed holding the shared one would stop all others
        work(*args)

    process = multiprocessing.get_context("fork").Process(target=with_own_lock)
    process.start()
    return process


@forks
@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.slow
@pytest.mark.no_mutants
def test_killed_at_random_moments_and_resumed_it_ends_with_the_same_bits(ends, tmp_path, update):
    """History, weights, codebook, optimizer: all of it. A run that ends before its kill is compared, then made anew."""
    start = time.perf_counter()
    forked(train, tmp_path / "timed.pt", update).join()
    longest = (time.perf_counter() - start) / 5
    moments, path = random.Random(0), tmp_path / "run.pt"
    kills = finished = 0
    while kills < KILLS or finished == 0:
        process = forked(train, path, update)
        process.join(timeout=moments.uniform(0, longest) if kills < KILLS else None)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            resumed = VQVAETrainer(replace(TINY, codebook_update=update))
            resumed.load(path)
            assert same_bits(state(resumed), ends[update])
            path.unlink()
            finished += 1
    assert kills == KILLS


PARTS = {
    "forward": lambda trainer: (trainer.model, "training_step"),
    "decoder": lambda trainer: (trainer.model.decoder, "forward"),  # the quantizer has moved its codes already
    "optimizer": lambda trainer: (trainer.optimizer, "step"),
    "scale": lambda trainer: (torch.amp.GradScaler, "update"),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_interrupted_in_a_step_the_model_is_whole_and_goes_on_to_the_same_bits(monkeypatch, part, after, precision):
    whole, trainer = (VQVAETrainer(replace(TINY, precision=precision)) for _ in range(2))
    whole.fit(batches(), steps=9, window=3)
    (owner, name), calls = PARTS[part](trainer), itertools.count(1)
    call = getattr(owner, name)

    def broken(*args: object, **kwargs: object) -> object:
        last = next(calls) == 5
        result = None if last and not after else call(*args, **kwargs)
        if last:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(batches(), steps=9, window=3)
    assert trainer.step == 3
    assert trainer.evaluate(batches())["recon_loss"] < 1
    trainer.resume(batches(), window=3)
    assert same_bits(state(trainer), state(whole))


def test_a_resumed_run_has_the_windows_of_its_own_schedule():
    trainer = VQVAETrainer(TINY)
    trainer.fit(batches(), steps=30, window=30)
    trainer.fit(batches(), steps=50, callback=lambda trainer: False)
    trainer.resume(batches())
    assert trainer.history["step"] == [30, *range(31, 81)]


@pytest.mark.skipif(sys.platform == "win32", reason="the signal is a POSIX one")
@pytest.mark.no_mutants
def test_a_real_interrupt_at_any_moment_goes_on_to_the_same_bits(ends, tmp_path):
    trainer, moments = VQVAETrainer(TINY), random.Random(1)
    start, interrupts = time.perf_counter(), 0
    train()
    span = time.perf_counter() - start
    trainer.fit(batches(), steps=STEPS, window=4, callback=lambda trainer: False)
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C, from a clock
    while trainer.step < STEPS:
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(span / 20, span / 3) if interrupts < 6 else 0)
            trainer.resume(batches(), window=4, save_to=tmp_path / "run.pt")
        except KeyboardInterrupt:
            interrupts += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    assert interrupts > 0 and same_bits(state(trainer), ends["ema"])


def stop() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_loop_over_epochs_that_is_run_again_goes_on_with_its_schedule():
    config = replace(TINY, num_epochs=3)
    trainer, whole, ends = VQVAETrainer(config), VQVAETrainer(config), []
    whole.fit(batches())
    forward, calls = trainer.model.training_step, itertools.count(1)
    trainer.model.training_step = lambda *args: forward(*args) if next(calls) != 10 else stop()
    for _ in range(2):  # the cell is executed twice
        try:
            for _ in range(config.num_epochs):
                trainer.train_epoch(batches())
                ends.append(state(trainer))
        except KeyboardInterrupt:
            assert trainer.step == 7
    assert same_bits(ends[2]["model"], whole.model.state_dict())
    expected = [learning_rate(step / 21, config.lr) for step in (6, 13, 20)]
    assert trainer.history["lr"] == pytest.approx([*expected, config.lr / 1000])
    assert trainer.history["step"] == [7, 14, 21, 28]


@pytest.mark.parametrize("loader", [batches, lambda: SHUFFLED])
def test_a_model_that_draws_and_a_loader_that_shuffles_resume_to_the_same_bits(tmp_path, loader):
    def noisy() -> VQVAETrainer:
        trainer = VQVAETrainer(TINY)
        forward = trainer.model.training_step
        trainer.model.training_step = lambda x, labels: forward(nn.functional.dropout(x, 0.1) * 0.9, labels)
        return trainer

    whole, stopped, resumed = (noisy() for _ in range(3))
    whole.fit(loader(), steps=20, window=1)
    assert whole.history["total_loss"] != VQVAETrainer(TINY).fit(loader(), steps=20, window=1)["total_loss"]
    stopped.fit(loader(), steps=20, window=1, save_to=tmp_path / "run.pt", callback=lambda trainer: trainer.step < 10)
    torch.rand(11)
    resumed.load(tmp_path / "run.pt")
    resumed.resume(loader(), window=1)
    assert same_bits(state(resumed), state(whole))


@pytest.mark.slow
@pytest.mark.no_mutants
def test_another_process_comes_to_the_same_bits(ends, tmp_path):
    """Nothing that a process draws as it starts has a say; and a bar that is switched off shows nothing."""
    script = f"import test_resume, pathlib; test_resume.train(pathlib.Path({str(tmp_path / 'run.pt')!r}))"
    env = {**os.environ, "PYTHONHASHSEED": "7", "TQDM_DISABLE": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=env)
    assert done.stdout == done.stderr == b""
    assert same_bits(state(VQVAETrainer.from_checkpoint(tmp_path / "run.pt", "cpu")), ends["ema"])
