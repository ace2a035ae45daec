"""Checkpoints are whole or refused, hold no code that runs, and go on in another process, precision or machine."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import same_bits

from vqvae_lib import CheckpointError, Trainer, VQVAETrainer


def state(trainer: Trainer) -> dict:
    return copy.deepcopy(trainer.state_dict())


class Hostile:
    """Unpickled without care, it would make a folder."""

    __reduce__ = lambda self: (os.mkdir, ("marker",))  # noqa: E731


def parts(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Return what changes the parts of a checkpoint."""

    def spoil(path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        change(saved)
        torch.save(saved, path)

    return spoil


def flip(path: Path, at: int, bits: int = 255) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :])


def weight(path: Path) -> int:
    """The place of a byte of the largest tensor: between tensors there is padding, which says nothing."""
    with zipfile.ZipFile(path) as archive:
        largest = archive.read(max(archive.infolist(), key=lambda part: part.file_size))
    return path.read_bytes().index(largest) + len(largest) // 2


other = VQVAETrainer.from_checkpoint
LIES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a byte of a weight": lambda path: flip(path, weight(path)),
    "code": lambda path: path.write_bytes(pickle.dumps(Hostile())),
    "code of torch": parts(lambda saved: saved["history"].update(loss=Hostile())),
    "another format": parts(lambda saved: saved.update(format=2)),
    "no model": parts(lambda saved: saved.pop("model")),
    "a weight less": parts(lambda saved: saved["model"].pop("decoder.net.0.bias")),
    "a weight that is NaN": parts(lambda saved: saved["model"]["decoder.net.0.bias"].fill_(float("nan"))),
    "averages of another shape": parts(lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(1))),
    "another model": lambda path: Trainer(torch.nn.Linear(2, 2), other(path).config).save(path),
    "another rule": lambda path: VQVAETrainer(replace(other(path).config, codebook_update="gradient")).save(path),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_checkpoint_that_lies_is_refused_and_moves_nothing(config, loader, tmp_path, monkeypatch, lie):
    monkeypatch.chdir(tmp_path)
    trainer, path = VQVAETrainer(config), tmp_path / "run.pt"
    VQVAETrainer(replace(config, seed=1)).fit(loader, steps=3, save_to=path)
    LIES[lie](path)
    trainer.fit(loader, steps=2)
    before = state(trainer)
    with pytest.raises(CheckpointError):
        trainer.load(path)
    assert not (tmp_path / "marker").exists()
    assert same_bits(state(trainer), before)


def test_any_bit_may_be_wrong(config, tmp_path):
    """Refused or read right: some bits mean nothing. One calls an entry a folder, and torch would read no numbers."""
    trainer, drawn = VQVAETrainer(replace(config, hidden_dim=2, num_embeddings=2, embedding_dim=1)), random.Random(0)
    path, refused = trainer.save(tmp_path / "run.pt"), 0
    content, before = path.read_bytes(), state(trainer)
    flips = [(match.start() + 38, 16) for match in re.finditer(b"PK\x01\x02", content)]
    flips += [(drawn.randrange(len(content)), 1 << drawn.randrange(8)) for _ in range(60)]
    for place in flips:
        path.write_bytes(content)
        flip(path, *place)
        try:
            trainer.load(path)
        except CheckpointError:
            refused += 1
        assert same_bits(state(trainer), before), place
    assert refused > len(flips) / 2


def test_a_checkpoint_makes_a_trainer_on_another_device(config, loader, tmp_path, monkeypatch):
    trainer = VQVAETrainer(config)
    trainer.fit(loader, steps=3)
    path = trainer.save(tmp_path / "run.pt")
    parts(lambda saved: saved["config"].update(device="cuda:7"))(path)
    monkeypatch.setattr("vqvae_lib.vqvae_trainer.best_device", lambda: "cpu")
    for device in ("cpu", torch.device("cpu"), None):
        found = VQVAETrainer.from_checkpoint(path, device)
        assert same_bits(state(found), state(trainer)) and found.config == config
    Trainer(torch.nn.Linear(2, 2), config).save(path)
    for wrong, error in ((path, CheckpointError), (tmp_path / "nowhere.pt", FileNotFoundError)):
        with pytest.raises(error):
            VQVAETrainer.from_checkpoint(wrong)


def test_a_path_may_begin_with_the_home_folder(config, loader, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    trainer = VQVAETrainer(config)
    trainer.fit(loader, steps=2, save_to="~/deep/run.pt")
    assert trainer.save(Path("~/other.pt")) == tmp_path / "other.pt"
    assert VQVAETrainer.from_checkpoint("~/deep/run.pt", "cpu").step == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "other.pt", "run.pt"]


@pytest.mark.parametrize("precisions", [("float32", "float16"), ("float16", "float32")])
def test_a_checkpoint_goes_on_in_another_precision(config, loader, tmp_path, precisions):
    """Saved on a processor or a newer GPU, loaded on one that needs its loss scaled; and back."""
    one, other = (VQVAETrainer(replace(config, precision=precision)) for precision in precisions)
    one.fit(loader, steps=4, save_to=tmp_path / "run.pt")
    other.load(tmp_path / "run.pt")
    assert same_bits(state(other)["model"], state(one)["model"])
    assert other.fit(loader, steps=2)["step"][-1] == 6


def test_a_state_that_was_taken_is_a_copy(config, loader):
    one, other = VQVAETrainer(config), VQVAETrainer(config)
    one.fit(loader, steps=3)
    other.load_state_dict(one.state_dict())
    before = state(one)
    other.fit(loader, steps=3)
    assert same_bits(state(one), before)


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.open", "pathlib.Path.replace"])
def test_on_a_full_disk_the_older_file_survives_and_no_step_is_lost(config, loader, tmp_path, monkeypatch, call):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, trainer = tmp_path / "run.pt", VQVAETrainer(config)
    trainer.fit(loader, steps=3, save_to=path)
    older = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        with pytest.raises(OSError) as raised:
            trainer.fit(loader, steps=3, window=2, save_to=path)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == older and [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    assert trainer.step == 5 and len(trainer.history["step"]) == 4
    with pytest.raises(OSError) as raised:
        trainer.resume(loader, save_to=path / "deeper.pt")  # a folder that is a file
    assert raised.value.filename == str(path / "deeper.pt") and trainer.step == 6


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(config, tmp_path):
    left, written, foreign = (tmp_path / f".{part}.part" for part in ("run[1].pt.7", "run[1].pt.8", "run1.pt.7"))
    for path, age in ((left, 2 * 3600), (written, 600), (foreign, 2 * 3600)):
        path.write_bytes(b"half")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert {VQVAETrainer(config).save(tmp_path / "run[1].pt"), written, foreign} == {*tmp_path.iterdir()}
