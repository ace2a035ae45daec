"""Nothing lost: a run that is killed, interrupted or starved of disk goes on to the bits of one never stopped."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import differing, same_bits
from torch import Tensor, nn
from tqdm import tqdm

from vqvae_lib import BatchLoader, ImageDataset, Trainer, VQVAEConfig, VQVAETrainer, draw_glyphs, load_or_train
from vqvae_lib.stored import PICTURES, StoredRun
from vqvae_lib.training import KEEP, _copied, read_checkpoint, write_whole

KILLS = int(os.environ.get("VQVAE_KILLS", "25"))
STEPS = 60
SAVES = 40
TINY = VQVAEConfig(
    hidden_dim=4,
    num_embeddings=8,
    embedding_dim=3,
    batch_size=16,
    restart_threshold=0.5,
    precision="float32",
    device="cpu",
)
IMAGES = ImageDataset(*draw_glyphs("0123456789", 112, seed=1), "glyphs")
forks = pytest.mark.skipif(sys.platform != "linux", reason="these processes are forked, and killed by signal")


def batches() -> BatchLoader:
    """Seven shuffled batches an epoch."""
    return BatchLoader(IMAGES, 16, shuffle=True, drop_last=True, seed=3)


def train(path: Path | None = None, update: str = "ema") -> VQVAETrainer:
    """Train STEPS steps in windows of 4, from the checkpoint if there is one, with a save after each step."""
    torch.set_num_threads(1)
    trainer = VQVAETrainer(replace(TINY, codebook_update=update))
    if path is not None and path.exists():
        trainer.load(path)
        trainer.resume(batches(), save_to=path, save_every=0)
    else:
        trainer.fit(batches(), steps=STEPS, window=4, save_to=path, save_every=0)
    return trainer


def state(trainer: Trainer) -> dict:
    return _copied(trainer._state())


@pytest.fixture(scope="module")
def ends() -> dict[str, dict]:
    """The ends of two runs that nobody stopped."""
    return {update: state(train(update=update)) for update in ("ema", "gradient")}


@pytest.fixture
def ema(ends) -> dict:
    return ends["ema"]


def with_own_lock(work: Callable, *args: object) -> None:
    # tqdm's lock is shared by forked processes: one that is killed while it holds it would stop all others.
    tqdm.set_lock(threading.RLock())
    work(*args)


def forked(work: Callable, *args: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=with_own_lock, args=(work, *args))
    process.start()
    return process


# --- killed -----------------------------------------------------------------------------------------------------------


@forks
@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.no_mutants
def test_killed_at_random_moments_and_resumed_it_ends_with_the_same_bits(ends, tmp_path, update):
    """History, weights, codebook, optimiser: all of it. A run that ends before its kill is compared, then made anew."""
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


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_die_saving(path: Path, point: str) -> None:
    """Die in the save after SAVES others: with half the file written, all of it, or all of it on the disk."""
    saves, open_path = iter(range(1000)), Path.open

    class Half:
        def __init__(self, path: Path, mode: str) -> None:
            self.file = open_path(path, mode)

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str):
            return getattr(self.file, name)

        def write(self, content: memoryview) -> None:
            if next(saves) == SAVES:
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                die()
            self.file.write(content)

    def at_last(call: Callable) -> Callable:
        return lambda *args: die() if next(saves) == SAVES else call(*args)

    if point == "half written":
        Path.open = lambda path, mode: Half(path, mode)
    elif point == "not yet on the disk":
        os.fsync = at_last(os.fsync)
    else:
        Path.replace = at_last(Path.replace)
    train(path)


@forks
@pytest.mark.parametrize("point", ["half written", "not yet on the disk", "not yet renamed"])
@pytest.mark.no_mutants
def test_killed_in_the_middle_of_a_save_it_goes_on_from_the_save_before(ema, tmp_path, point):
    path = tmp_path / "run.pt"
    process = forked(train_and_die_saving, path, point)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert read_checkpoint(path)["step"] == SAVES
    (scrap,) = tmp_path.glob("*.part")
    assert same_bits(state(train(path)), ema)
    assert scrap.exists()  # it might be at work
    os.utime(scrap, (0, 0))
    write_whole(path, b"")
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


# --- interrupted ------------------------------------------------------------------------------------------------------


class Breaking(VQVAETrainer):
    """Raises at a chosen step, before or after a chosen part of it."""

    def break_at(self, step: int, owner: object, name: str, error: BaseException, *, after: bool) -> None:
        call, calls = getattr(owner, name), iter(range(1, 1000))

        def broken(*args: object, **kwargs: object) -> object:
            now = next(calls)
            if now == step and not after:
                raise error
            result = call(*args, **kwargs)
            if now == step:
                raise error
            return result

        setattr(owner, name, broken)
        self.mend = lambda: setattr(owner, name, call)


PARTS = {
    "forward": lambda trainer: (trainer.model, "training_step"),
    "decoder": lambda trainer: (trainer.model.decoder, "forward"),  # the quantizer has moved its codes already
    "optimiser": lambda trainer: (trainer.optimizer, "step"),
    "sums": lambda trainer: (trainer, "_step"),
}


@pytest.mark.parametrize(
    ("part", "step", "after"),
    [("forward", 3, False), *((part, KEEP + 6, after) for part in PARTS for after in (False, True))],
)
def test_interrupted_in_a_step_the_model_is_whole_and_goes_on_to_the_same_bits(ema, tmp_path, part, step, after):
    trainer = Breaking(TINY)
    trainer.break_at(step, *PARTS[part](trainer), KeyboardInterrupt(), after=after)
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt, match=rf"after step {step // KEEP * KEEP} of {STEPS}.*resume\(loader\)"):
        trainer.fit(batches(), steps=STEPS, window=4, save_to=path)
    assert trainer.step == step // KEEP * KEEP
    assert trainer.evaluate(batches())["recon_loss"] < 1
    saved = VQVAETrainer(TINY)
    saved.load(path)
    assert same_bits(state(saved), state(trainer))
    trainer.mend()
    trainer.resume(batches())
    assert same_bits(state(trainer), ema)


def test_interrupted_between_two_steps_nothing_at_all_is_lost(ema):
    trainer = VQVAETrainer(TINY)

    def loader():
        for number, batch in enumerate(batches()):
            if number == 5:
                raise KeyboardInterrupt
            yield batch

    class Once:
        __len__ = lambda self: len(batches())  # noqa: E731
        __iter__ = lambda self: loader()  # noqa: E731

    with pytest.raises(KeyboardInterrupt, match="after step 5 of"):
        trainer.fit(Once(), steps=STEPS, window=4)
    assert trainer.step == 5
    trainer.resume(batches())
    assert same_bits(state(trainer), ema)


@pytest.mark.skipif(sys.platform == "win32", reason="the signal is a POSIX one")
@pytest.mark.no_mutants
def test_a_real_interrupt_at_any_moment_goes_on_to_the_same_bits(ema):
    trainer, moments = VQVAETrainer(TINY), random.Random(1)
    go_on, interrupts = lambda: trainer.fit(batches(), steps=STEPS, window=4), 0
    start = time.perf_counter()
    train()
    span = time.perf_counter() - start
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C, from a clock
    try:
        while trainer.step < STEPS:
            try:
                # Well within the span, which a busy moment may have stretched; the next one begins where this one ends.
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(span / 20, span / 3) if interrupts < 4 else 0)
                go_on()
            except KeyboardInterrupt:
                interrupts += 1
                go_on = (lambda: trainer.resume(batches())) if trainer.plan[1] else go_on
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert interrupts > 0
    assert same_bits(state(trainer), ema)


def test_an_interrupted_epoch_starts_its_entry_of_the_history_anew(config, loader):
    trainer = Breaking(config)
    trainer.break_at(5, trainer.model, "training_step", KeyboardInterrupt(), after=False)
    with pytest.raises(KeyboardInterrupt):
        trainer.train_epoch(loader)
    trainer.mend()
    trainer.train_epoch(loader)
    assert len(trainer.history["total_loss"]) == 1


def test_resume_before_any_fit_says_so(trainer, loader):
    with pytest.raises(ValueError, match=r"plan = \(0, 0\).*fit first"):
        trainer.resume(loader)


# --- what a step draws ------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """A model that draws random numbers as it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 1)

    def training_step(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        noise = torch.randn(len(x), 1)
        return {"total_loss": (self.layer(nn.functional.dropout(x.flatten(1))) + noise).square().mean()}

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in means.items()}


def noisy() -> Trainer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Trainer(Noisy(), TINY)


def test_a_model_that_draws_random_numbers_resumes_to_the_same_bits(tmp_path):
    one, before = noisy(), torch.get_rng_state()
    one.fit(batches(), steps=30, window=1)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's numbers go on undisturbed
    assert len(set(one.history["total_loss"])) == 30
    other, resumed = noisy(), noisy()
    batch = list(batches())

    class Short(list):
        def __iter__(self):
            yield from list.__iter__(self)
            raise KeyboardInterrupt

    assert len(batch) == 7
    with pytest.raises(KeyboardInterrupt):
        other.fit(Short(batch), steps=30, window=1, save_to=tmp_path / "run.pt")
    torch.rand(11)
    resumed.load(tmp_path / "run.pt")
    assert resumed.step == 7
    resumed.resume(batches())
    assert same_bits(state(resumed), state(one))


def test_loss_scaling_resumes_to_the_same_bits(tmp_path):
    half = replace(TINY, precision="float16")
    one, other, resumed = (VQVAETrainer(half) for _ in range(3))
    one.fit(batches(), steps=8)
    other.plan = (0, 8)
    other._run(batches(), 4, 1)
    resumed.load(other.save(tmp_path / "run.pt"))
    resumed.resume(batches(), window=1)
    assert one.scaler.is_enabled()
    assert differing(state(resumed), state(one)) == []


@pytest.mark.parametrize(("before", "after"), [("float32", "float16"), ("float16", "float32")])
def test_a_checkpoint_goes_on_in_another_precision(tmp_path, before, after):
    """Saved on a processor or a newer GPU, loaded on one that needs its loss scaled; and back."""
    one, other = (VQVAETrainer(replace(TINY, precision=precision)) for precision in (before, after))
    one.fit(batches(), steps=4, save_to=tmp_path / "run.pt")
    other.load(tmp_path / "run.pt")
    assert same_bits(other.model.state_dict(), one.model.state_dict())
    other.fit(batches(), steps=2)
    assert other.step == 6
    assert other.scaler.is_enabled() == (after == "float16")


def test_an_interrupted_pass_says_where_its_schedule_ends():
    trainer = VQVAETrainer(replace(TINY, num_epochs=3))
    passes = len(batches())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    trainer._check = interrupt
    with pytest.raises(
        KeyboardInterrupt, match=rf"after step 0 of {passes}.* to the end of the schedule, step {3 * passes}\."
    ):
        trainer.train_epoch(batches())
    del trainer._check
    trainer.resume(batches())
    assert trainer.step == 3 * passes


def test_a_pass_that_leads_beyond_the_plan_begins_a_plan_of_its_own():
    trainer = VQVAETrainer(replace(TINY, num_epochs=2))
    trainer.fit(batches(), steps=2)
    trainer.plan = (0, 5)  # as after an interrupt at step 2 of 5
    trainer.train_epoch(batches())
    passes = len(batches())
    assert passes > 3
    assert (trainer.step, trainer.plan) == (2 + passes, (2, 2 + 2 * passes))
    trainer.resume(batches())
    assert trainer.step == 2 + 2 * passes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_written_file_can_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_the_order_of_the_data_is_a_function_of_seed_and_step_alone():
    from vqvae_lib.training import _endless

    def first(step: int, count: int) -> list[Tensor]:
        return [x for (x, _), _ in zip(_endless(batches(), step), range(count), strict=False)]

    stream = first(0, 30)
    for step in (0, 1, 6, 7, 8, 20):
        assert same_bits(first(step, 30 - step), stream[step:])


# --- the disk ---------------------------------------------------------------------------------------------------------


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.open", "pathlib.Path.replace"])
def test_on_a_full_disk_the_earlier_checkpoint_survives_and_the_error_is_plain(tmp_path, monkeypatch, call):
    path, trainer = tmp_path / "run.pt", VQVAETrainer(TINY)
    trainer.fit(batches(), steps=3, save_to=path)
    older = path.read_bytes()
    monkeypatch.setattr(call, refuse)
    with pytest.raises(OSError, match=r"No space left.*older file of that name is as it was.*run\.pt") as raised:
        trainer.fit(batches(), steps=3, save_to=path)
    assert raised.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert path.read_bytes() == older
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert trainer.step == 6  # what was trained is not lost either
    trainer.save(path)
    assert read_checkpoint(path)["step"] == 6


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    size = "size=64k"
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a file system can't be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.no_mutants
def test_on_a_disk_that_is_really_full_the_earlier_checkpoint_survives(small_disk):
    path, trainer = small_disk / "run.pt", VQVAETrainer(TINY)
    trainer.fit(batches(), steps=3, save_to=path)
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
    older = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        trainer.fit(batches(), steps=3, save_to=path)
    assert path.read_bytes() == older
    assert sorted(file.name for file in small_disk.iterdir()) == ["other", "run.pt"]
    trainer.load(path)
    assert trainer.step == 3


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file" / "run.pt"))):
        VQVAETrainer(TINY).save(tmp_path / "file" / "run.pt")


# --- shared by processes ----------------------------------------------------------------------------------------------


def cached(cache: Path, wait: float = 0.0) -> VQVAETrainer:
    torch.set_num_threads(1)
    time.sleep(wait)
    return load_or_train(TINY, batches(), steps=STEPS, cache=cache)


@forks
@pytest.mark.no_mutants
def test_two_processes_share_the_cache(tmp_path):
    expected = VQVAETrainer(TINY)
    expected.fit(batches(), steps=STEPS)
    workers = [forked(cached, tmp_path, wait) for wait in (0.0, 0.0, 0.1)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    (path,) = tmp_path.iterdir()
    assert read_checkpoint(path)["step"] == STEPS
    assert same_bits(state(cached(tmp_path)), state(expected))


def test_an_unfinished_run_in_the_cache_goes_on(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "vqvae_lib")
    expected = state(cached(tmp_path / "other"))
    with monkeypatch.context() as patch:
        broken = Breaking(TINY)
        broken.break_at(KEEP + 2, broken.model, "training_step", KeyboardInterrupt(), after=False)
        patch.setattr("vqvae_lib.training.VQVAETrainer", lambda config: broken)
        with pytest.raises(KeyboardInterrupt):
            cached(tmp_path)
    caplog.clear()
    assert same_bits(state(cached(tmp_path)), expected)
    assert f"going on at step {KEEP} of {STEPS}" in caplog.text


def stored(folder: Path, number: int, times: int = 1) -> None:
    for _ in range(times):
        pictures = torch.zeros(PICTURES, 1, 8, 8)
        usage = torch.full((8,), number)
        StoredRun("run", TINY, 1, {"step": [1.0]}, {"recon_loss": 0.1}, usage, pictures, {"by": number}).write(folder)


@forks
@pytest.mark.no_mutants
def test_a_stored_run_is_whole_whoever_writes_it_and_whoever_is_killed(tmp_path):
    stored(tmp_path, 1)
    for _ in range(10):
        writers = [forked(stored, tmp_path, number, 500) for number in (2, 3)]
        time.sleep(0.05)
        writers[0].kill()
        seen = {StoredRun.read(tmp_path / "run.json").provenance["by"] for _ in range(20)}
        writers[1].kill()
        for writer in writers:
            writer.join()
        assert seen <= {1, 2, 3}
    again = StoredRun.read(tmp_path / "run.json")
    assert again.usage.tolist() == [again.provenance["by"]] * 8


def test_on_a_full_disk_an_earlier_stored_run_survives(tmp_path, monkeypatch):
    stored(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        stored(tmp_path, 2)
    assert StoredRun.read(tmp_path / "run.json").provenance == {"by": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


# --- the same bits again ----------------------------------------------------------------------------------------------


@pytest.mark.no_mutants
def test_another_process_comes_to_the_same_bits(ema, tmp_path):
    """Neither the interpreter's hash seed nor anything else that a process draws as it starts has a say."""
    script = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_resume
        test_resume.train().save({str(tmp_path / "run.pt")!r})
    """
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, env=env)
    other = VQVAETrainer(TINY)
    other.load(tmp_path / "run.pt")
    assert same_bits(state(other), ema)
