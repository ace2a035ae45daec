"""The trainer: numbers, schedule, same seed same bits, and checkpoints that are whole or refused."""

from __future__ import annotations

import logging
import math
import os
import pickle
import re
import sys
import time
import zipfile
from dataclasses import asdict, replace
from inspect import signature
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import same_bits
from torch import Tensor, nn

from vqvae_lib import (
    BatchLoader,
    CheckpointError,
    Trainer,
    TrainingError,
    VQVAEConfig,
    VQVAETrainer,
    autocast_dtype,
    learning_rate,
    load_or_train,
)
from vqvae_lib.training import Progress, _source_digest, write_whole

updates = pytest.mark.parametrize("update", ["ema", "gradient"])


def state(trainer: Trainer) -> dict:
    """All that training changes, copied."""
    parts = {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "history": trainer.history,
        "place": [trainer.step, *trainer.plan],
    }
    return pickle.loads(pickle.dumps(parts))  # noqa: S301  our own, a deep copy


class Interrupted:
    """A loader that breaks off after so many batches, as a power cut would."""

    def __init__(self, loader: BatchLoader, batches: int) -> None:
        self.loader, self.left = loader, batches
        self.set_epoch = loader.set_epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


class Line(nn.Module):
    """No VQ-VAE at all: it learns one number an image, the mean of its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(28 * 28, 1)

    def training_step(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        error = (self.layer(x.flatten(1)).squeeze(1).float() - x.mean((1, 2, 3))).square().mean()
        return {"total_loss": error, "labels": labels.float().mean()}

    def summarise(self, means: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in means.items()}


# --- fit, train_epoch, history ----------------------------------------------------------------------------------------


@updates
def test_training_lowers_the_loss_and_keeps_a_history(config, loader, update):
    trainer = VQVAETrainer(replace(config, codebook_update=update))
    assert {"recon_loss", "vq_loss", "total_loss"} <= trainer.history.keys()
    before = trainer.evaluate(loader)["recon_loss"]
    history = trainer.fit(loader, epochs=3)
    assert history is trainer.history
    assert {"recon_loss", "vq_loss", "total_loss", "perplexity", "active_codes", "step", "lr"} == history.keys()
    assert len({len(values) for values in history.values()}) == 1
    assert history["step"][-1] == trainer.step == 3 * len(loader)
    assert trainer.evaluate(loader)["recon_loss"] < 0.7 * before


def test_steps_and_epochs_are_two_ways_to_say_the_same(config, loader):
    one, other = VQVAETrainer(config), VQVAETrainer(config)
    one.fit(loader, epochs=2)
    other.fit(loader, steps=2 * len(loader))
    assert same_bits(state(one), state(other))
    default = VQVAETrainer(config)
    default.fit(loader)
    assert default.step == config.num_epochs * len(loader)


def test_a_window_is_the_mean_of_its_steps(config, loader):
    single, windows = VQVAETrainer(config), VQVAETrainer(config)
    single.fit(loader, steps=7, window=1)
    windows.fit(loader, steps=7, window=3)
    assert windows.history["step"] == [3, 6, 7]
    for name in ("recon_loss", "vq_loss", "total_loss"):
        values = single.history[name]
        means = [sum(values[0:3]) / 3, sum(values[3:6]) / 3, values[6]]
        assert windows.history[name] == pytest.approx(means, rel=1e-5)


def test_an_epoch_returns_its_means_and_adds_one_entry(trainer, loader):
    for epoch in (1, 2, 3):
        numbers = trainer.train_epoch(loader)
        assert {name: values[-1] for name, values in trainer.history.items()} == numbers
        assert len(trainer.history["total_loss"]) == epoch
        assert numbers["step"] == trainer.step == epoch * len(loader)
        assert numbers["total_loss"] == pytest.approx(numbers["recon_loss"] + numbers["vq_loss"], rel=1e-5)


def test_epoch_by_epoch_is_the_same_training_as_fit(config, loader):
    one, other = VQVAETrainer(config), VQVAETrainer(config)
    one.fit(loader)
    for _ in range(config.num_epochs):
        other.train_epoch(loader)
    assert same_bits(state(one)["model"], state(other)["model"])


def test_a_plain_list_of_batches_is_loader_enough(trainer, loader):
    batches = list(loader)[:3]
    trainer.fit(batches, steps=5)
    assert trainer.step == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 1, "steps": 5}, "epochs = 1 and steps = 5"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": -4}, "steps = -4"),
        ({"epochs": 0}, "steps = 0"),
        ({"steps": 2.5}, r"steps = 2\.5"),
    ],
)
def test_impossible_lengths_raise_before_anything_moves(trainer, loader, arguments, message):
    before = state(trainer)
    with pytest.raises(ValueError, match=message):
        trainer.fit(loader, **arguments)
    assert same_bits(state(trainer), before)


def test_a_loss_that_is_not_finite_stops_training_and_says_where(config, loader):
    model = Line()
    trainer = Trainer(model, replace(config, lr=0.0125))
    trainer.fit(loader, steps=2)
    last = trainer.history["total_loss"][-1]
    nn.init.constant_(model.layer.bias, math.nan)
    with pytest.raises(TrainingError, match=f"total_loss is nan at step 3; .*{last:.4g}.*Lower lr .*0.0125"):
        trainer.fit(loader, steps=2)
    assert trainer.history["total_loss"][-1] == last


def test_the_trainer_knows_nothing_of_the_model(config, loader):
    torch.manual_seed(0)
    trainer = Trainer(Line(), config)
    before = trainer.evaluate(loader)["total_loss"]
    history = trainer.fit(loader, epochs=3)
    assert history.keys() == {"total_loss", "labels", "step", "lr"}
    assert trainer.evaluate(loader)["total_loss"] < before / 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_in_every_precision_keeps_weights_in_float32(config, loader, precision):
    trainer = VQVAETrainer(replace(config, precision=precision))
    seen = []
    trainer.model.encoder.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    history = trainer.fit(loader, steps=4)
    assert seen[0] == getattr(torch, precision)
    assert all(math.isfinite(loss) for loss in history["total_loss"])
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_training_shows_its_progress_and_leaves_nothing_behind(trainer, loader, capsys):
    trainer.fit(loader, steps=3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "training VQVAE" in shown.err
    assert shown.err.split("\r")[-1].strip() == ""  # the line is wiped at the end


def test_progress_counts_every_step_and_what_is_left_after_an_interrupt(config, loader, progress):
    trainer = VQVAETrainer(config)
    trainer.fit(loader, steps=10, window=4)
    trainer.plan = (0, 15)  # as after an interrupt: ten of fifteen steps are done
    trainer.resume(loader, window=4)
    assert progress.steps == [[10, 4, 4, 2], [5, 4, 1]]
    assert [numbers["total_loss"] for numbers in progress.numbers] == trainer.history["total_loss"]


@pytest.fixture
def cell(monkeypatch) -> list[str]:
    """As in a notebook's cell: what its one line showed, in turn."""
    shown = []

    class Handle:
        def update(self, data, raw):
            assert raw
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        assert raw and display_id is True
        shown.append(data["text/plain"])
        return Handle()

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.delenv("VQVAE_STATIC", raising=False)
    monkeypatch.setattr("vqvae_lib.training.MOMENT", 0)
    return shown


def work() -> Progress:
    with Progress(10, "work") as bar:
        bar.advance(4, {"total_loss": 0.25})
        bar.advance(6)
    return bar


def test_in_a_cell_one_line_follows_the_work_and_the_number_of_steps_stays(cell, capsys):
    work()
    assert cell[0] == "" and cell[1].startswith("work:   0%") and cell[-1] == "work: 10 steps"
    assert capsys.readouterr().err == ""


def test_work_of_a_moment_and_a_built_page_are_spared_the_line(cell, monkeypatch):
    monkeypatch.setattr("vqvae_lib.training.MOMENT", 60)
    work()
    monkeypatch.setattr("vqvae_lib.training.MOMENT", 0)
    monkeypatch.setenv("VQVAE_STATIC", "1")
    work()
    assert cell == []


@pytest.mark.parametrize("static", ["0", "1"])
def test_in_a_terminal_there_is_always_a_bar(static, monkeypatch, capsys):
    monkeypatch.setenv("VQVAE_STATIC", static)
    bar = work()._bar
    assert (bar.n, bar.total, bar.postfix) == (10, 10, "loss=0.2500")
    assert bar.disable  # closed
    assert "work:   0%" in capsys.readouterr().err


def test_the_history_holds_what_the_model_says(config, loader):
    class Known(torch.nn.Linear):
        def training_step(self, x, labels):
            return {"total_loss": 3 + 0 * self.weight.sum(), "images": torch.tensor(float(len(x)))}

        def summarise(self, means):
            return {name: float(value) for name, value in means.items()}

    history = Trainer(Known(1, 1), config).fit(loader, steps=6, window=3)
    assert history["total_loss"] == [3, 3] and history["images"] == [32, 32] and history["step"] == [3, 6]


def test_a_history_has_about_fifty_entries_unless_told_otherwise(config, loader):
    trainer = VQVAETrainer(config)
    assert len(trainer.fit(loader, steps=100)["step"]) == 50
    assert trainer.history["step"] == list(range(2, 101, 2))


def test_training_goes_on_in_training_mode_whatever_mode_the_model_was_in(trainer, loader):
    trainer.model.eval()
    trainer.fit(loader, steps=2)
    assert trainer.model.training and trainer.model.vq.updates == 2


def test_a_run_is_saved_once_a_minute_however_it_began():
    assert [signature(f).parameters["save_every"].default for f in (Trainer.fit, Trainer.resume)] == [60, 60]


# --- evaluate, reconstruct --------------------------------------------------------------------------------------------


def test_evaluation_weighs_images_alike(config, trainer, digits, loader):
    trainer.fit(loader, steps=5)
    uneven = BatchLoader(digits.subset(slice(0, 75)), 32)  # 32, 32 and 11 images
    numbers = trainer.evaluate(uneven)
    with torch.no_grad():
        x = uneven.dataset.floats()
        x_recon, _, indices = trainer.model.eval()(x)
        z_e = trainer.model.encoder(x)
    recon_loss = float((x_recon.double() - x.double()).square().mean())
    distance = float((z_e.double() - trainer.model.vq.lookup(indices).double()).square().mean())
    share = torch.bincount(indices.flatten(), minlength=16).double() / indices.numel()
    assert numbers["recon_loss"] == pytest.approx(recon_loss, rel=1e-5)
    assert numbers["vq_loss"] == pytest.approx(config.commitment_cost * distance, rel=1e-5)
    assert numbers["total_loss"] == pytest.approx(recon_loss + config.commitment_cost * distance, rel=1e-5)
    assert numbers["perplexity"] == pytest.approx(float(torch.special.entr(share).sum().exp()), rel=1e-5)
    assert numbers["active_codes"] == (share > 0).sum()


def test_a_model_that_draws_is_measured_with_the_same_draws(config, loader):
    class Drawing(torch.nn.Linear):
        def training_step(self, x, labels):
            return {"total_loss": self.weight.sum() + torch.rand(())}

        def summarise(self, means):
            return {name: float(value) for name, value in means.items()}

    trainer = Trainer(Drawing(1, 1), config)
    assert trainer.evaluate(loader) == trainer.evaluate(loader)
    other = Trainer(trainer.model, replace(config, seed=config.seed + 1))
    assert other.evaluate(loader) != trainer.evaluate(loader)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_and_reconstruction_move_nothing(trainer, loader, digits, training):
    trainer.fit(loader, steps=3)
    trainer.model.train(training)
    before = state(trainer)
    trainer.evaluate(loader)
    x_recon, indices = trainer.reconstruct(digits.floats(slice(0, 5)))
    assert x_recon.shape == (5, 1, 28, 28)
    assert indices.shape == (5, 7, 7)
    assert not x_recon.requires_grad
    assert same_bits(state(trainer), before)
    assert trainer.model.training == training


def test_after_an_error_in_evaluation_the_model_is_in_its_old_mode(trainer):
    trainer.model.train()
    with pytest.raises(ValueError, match=r"\(1, 3, 28, 28\)"):
        trainer.evaluate([(torch.zeros(1, 3, 28, 28), torch.zeros(1))])
    with pytest.raises(ValueError, match=r"\(1, 3, 28, 28\)"):
        trainer.reconstruct(torch.zeros(1, 3, 28, 28))
    assert trainer.model.training


# --- schedule and precision -------------------------------------------------------------------------------------------


def test_one_cycle_rises_once_to_its_peak_and_falls_to_nearly_nothing():
    rates = [learning_rate(i / 1000, 0.01) for i in range(1001)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    assert 0 < top < 500
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < rates[0] < 0.01 / 2
    assert rates[-1] < 0.01 / 100
    assert max(abs(a - b) for a, b in pairwise(rates)) < 0.01 / 20  # without a jump
    assert learning_rate(1.5, 0.01) == learning_rate(1.0, 0.01)


def test_one_cycle_is_two_halves_of_a_cosine():
    """From peak / 25 to the peak over three tenths, then to peak / 1000; halfway each stands in the middle."""
    at = {0: 1 / 25, 0.15: (1 / 25 + 1) / 2, 0.3: 1, 0.65: (1 + 1 / 1000) / 2, 1: 1 / 1000}
    assert [learning_rate(p, 0.02) / 0.02 for p in at] == pytest.approx(list(at.values()), rel=1e-9)


def test_a_constant_rate_is_constant():
    assert {learning_rate(i / 10, 0.01, "constant") for i in range(11)} == {0.01}


def test_the_schedule_spans_what_fit_was_asked_for(config, loader):
    trainer = VQVAETrainer(config)
    expected = [learning_rate(step / 9, config.lr, config.schedule) for step in range(9)]
    assert trainer.fit(loader, steps=9, window=1)["lr"] == pytest.approx(expected)
    assert trainer.fit(loader, steps=9, window=1)["lr"][9:] == pytest.approx(expected)  # a second fit plans anew
    constant = VQVAETrainer(replace(config, schedule="constant", lr=2e-3))
    assert set(constant.fit(loader, steps=5)["lr"]) == {2e-3}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learning_rate(0.5, 1.0, "linear"), "schedule = 'linear'"),
        (lambda: autocast_dtype(torch.device("cpu"), "bf16"), "precision = 'bf16'"),
    ],
)
def test_unknown_names_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_precision_is_what_is_asked_for(precision, dtype):
    assert autocast_dtype(torch.device("cpu"), precision) is dtype


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_automatic_precision_follows_the_gpu(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert autocast_dtype(torch.device("cuda")) is dtype


@pytest.mark.parametrize(
    ("has", "dtype"),
    [
        ({"amx_tile"}, torch.bfloat16),
        ({"avx512_bf16"}, torch.bfloat16),
        (set(), None),
        (None, None),  # a torch that no longer has these names
    ],
)
def test_automatic_precision_follows_the_cpu(monkeypatch, has, dtype):
    for name in ("amx_tile", "avx512_bf16"):
        if has is None:
            monkeypatch.delattr(torch.cpu, f"_is_{name}_supported", raising=False)
        else:
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in has, raising=False)
    assert autocast_dtype(torch.device("cpu")) is dtype
    assert autocast_dtype(torch.device("mps")) is None


# --- seeds ------------------------------------------------------------------------------------------------------------


@updates
def test_same_seed_same_bits_and_other_seed_other_weights(config, digits, update):
    config = replace(config, codebook_update=update, restart_threshold=0.5)

    def run(seed: int) -> dict:
        trainer = VQVAETrainer(replace(config, seed=seed))
        trainer.fit(BatchLoader(digits, 32, shuffle=True, drop_last=True, seed=seed), steps=15)
        return state(trainer)

    first = run(0)
    torch.rand(5)
    assert same_bits(first, run(0))
    assert not torch.equal(first["model"]["encoder.net.0.weight"], run(1)["model"]["encoder.net.0.weight"])


def test_the_callers_random_numbers_go_on_undisturbed(config, loader):
    before = torch.get_rng_state()
    VQVAETrainer(config).fit(loader, steps=3)
    assert torch.equal(torch.get_rng_state(), before)


# --- save, load, resume -----------------------------------------------------------------------------------------------


@updates
@pytest.mark.parametrize("stop", [12, 17], ids=["between epochs", "in the middle of one"])
def test_an_interrupted_run_goes_on_to_the_same_bits(config, loader, tmp_path, update, stop):
    config = replace(config, codebook_update=update, restart_threshold=0.5)
    whole = VQVAETrainer(config)
    whole.fit(loader, steps=30)

    broken = VQVAETrainer(config)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(Interrupted(loader, stop), steps=30)
    assert broken.step == stop
    path = broken.save(tmp_path / "deep" / "run.pt")

    resumed = VQVAETrainer(replace(config, seed=config.seed))
    resumed.load(path)
    assert same_bits(state(resumed), state(broken))
    resumed.resume(BatchLoader(loader.dataset, 32, shuffle=True, drop_last=True, seed=config.seed))
    assert same_bits(state(resumed), state(whole))
    assert [p.name for p in path.parent.iterdir()] == ["run.pt"]


def test_any_model_can_be_saved_and_loaded(config, loader, tmp_path):
    trainer, other = Trainer(Line(), config), Trainer(Line(), config)
    trainer.fit(loader, steps=3)
    other.load(trainer.save(tmp_path / "line.pt"))
    assert same_bits(state(trainer), state(other))


def test_a_failed_save_leaves_the_older_file_and_no_scraps(trainer, loader, tmp_path, monkeypatch):
    path = trainer.save(tmp_path / "run.pt")
    older = path.read_bytes()
    trainer.fit(loader, steps=1)

    def full_disk(state: dict, file) -> None:
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        trainer.save(path)
    assert path.read_bytes() == older
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


class Hostile:
    """Unpickled without care, it would write a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.write_text, (self.marker, "ran")


@pytest.mark.parametrize("wrap", ["torch", "pickle", "old torch", "inside the history"])
def test_code_in_a_file_is_refused_and_not_run(trainer, tmp_path, wrap):
    path, marker = tmp_path / "run.pt", tmp_path / "marker"
    hostile = Hostile(marker)
    if wrap == "torch":
        torch.save(hostile, path)
    elif wrap == "pickle":
        path.write_bytes(pickle.dumps(hostile))
    elif wrap == "old torch":
        torch.save(hostile, path, _use_new_zipfile_serialization=False)
    else:
        good = torch.load(trainer.save(path), weights_only=True)
        torch.save({**good, "history": {"total_loss": hostile}}, path)
    before = state(trainer)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        trainer.load(path)
    assert not marker.exists()
    assert same_bits(state(trainer), before)
    if wrap == "torch":  # the file is hostile indeed
        torch.load(path, weights_only=False)
        assert marker.read_text() == "ran"


def damage_empty(content: bytes) -> bytes:
    return b""


def damage_cut(content: bytes) -> bytes:
    return content[:-1]


def damage_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def damage_text(content: bytes) -> bytes:
    return b"<html>404</html>"


def damage_weight(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def damage_zip(content: bytes) -> bytes:
    return b"PK\x05\x06" + bytes(18)  # an archive with nothing in it


@pytest.mark.parametrize(
    "damage", [damage_empty, damage_cut, damage_half, damage_text, damage_weight, damage_zip], ids=lambda f: f.__name__
)
def test_a_damaged_checkpoint_is_refused_and_moves_nothing(trainer, loader, tmp_path, damage):
    path = trainer.save(tmp_path / "run.pt")
    path.write_bytes(damage(path.read_bytes()))
    trainer.fit(loader, steps=2)
    before = state(trainer)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        trainer.load(path)
    assert same_bits(state(trainer), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"format": None}, "format None"),
        ({"model": {}}, r"run\.pt does not fit"),
        ({"optimizer": {}}, r"run\.pt does not fit"),
    ],
    ids=str,
)
def test_a_checkpoint_with_other_contents_is_refused_and_moves_nothing(
    config, trainer, loader, tmp_path, change, message
):
    other = VQVAETrainer(replace(config, seed=1))
    path = other.save(tmp_path / "run.pt")
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    trainer.fit(loader, steps=2)
    before = state(trainer)
    with pytest.raises(CheckpointError, match=message):
        trainer.load(path)
    assert same_bits(state(trainer), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_embeddings", 32), ("embedding_dim", 5), ("hidden_dim", 10), ("codebook_update", "gradient")],
)
def test_another_models_checkpoint_is_refused_naming_the_choice(config, trainer, loader, tmp_path, field, value):
    path = VQVAETrainer(replace(config, **{field: value})).save(tmp_path / "run.pt")
    trainer.fit(loader, steps=2)
    before = state(trainer)
    with pytest.raises(CheckpointError, match=f"{field} = {value!r}, here {getattr(config, field)!r}"):
        trainer.load(path)
    assert same_bits(state(trainer), before)


def test_a_checkpoint_of_another_kind_of_model_is_refused_and_moves_nothing(config, loader, tmp_path):
    """The configuration is the same, the module is not: here nothing but the weights' names can tell."""
    path = Trainer(Line(), config).save(tmp_path / "line.pt")
    trainer = VQVAETrainer(config)
    trainer.fit(loader, steps=2)
    before = state(trainer)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        trainer.load(path)
    assert same_bits(state(trainer), before)


def test_a_checkpoint_that_is_not_there_is_named(trainer, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt is not there"):
        trainer.load(tmp_path / "nowhere.pt")


def test_a_checkpoint_holds_what_it_says(trainer, loader, tmp_path):
    trainer.fit(loader, steps=2)
    path = trainer.save(tmp_path / "run.pt")
    saved = torch.load(path, weights_only=True)
    assert zipfile.is_zipfile(path)
    assert saved["config"] == asdict(trainer.config)
    assert saved["step"] == 2
    assert saved["format"] == 2  # a new format needs a new number, and a reader for this one
    assert VQVAEConfig(**saved["config"]) == trainer.config


# --- load_or_train ----------------------------------------------------------------------------------------------------


def test_load_or_train_trains_once_then_loads_and_says_which(config, loader, tmp_path, caplog):
    caplog.set_level(logging.INFO, "vqvae_lib")
    first = load_or_train(config, loader, steps=4, cache=tmp_path)
    assert "training 4 steps" in caplog.text
    (path,) = tmp_path.iterdir()
    caplog.clear()
    second = load_or_train(config, loader, steps=4, cache=tmp_path)
    assert [record.getMessage() for record in caplog.records] == [f"trained model taken from {path}"]
    assert same_bits(state(first), state(second))
    assert second.step == 4


@pytest.mark.parametrize("change", ["lr", "steps", "data", "loader's seed", "library"])
def test_load_or_train_trains_anew_when_anything_that_matters_changes(
    config, loader, digits, tmp_path, monkeypatch, change
):
    load_or_train(config, loader, steps=2, cache=tmp_path)
    steps = 2
    if change == "lr":
        config = replace(config, lr=config.lr / 2)
    elif change == "steps":
        steps = 3
    elif change == "data":
        loader = BatchLoader(digits.subset(slice(0, 399)), 32, shuffle=True, drop_last=True, seed=config.seed)
    elif change == "loader's seed":
        loader = BatchLoader(digits, 32, shuffle=True, drop_last=True, seed=config.seed + 1)
    else:
        monkeypatch.setattr("vqvae_lib.training._source_digest", lambda: "another library")
    load_or_train(config, loader, steps=steps, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_order_of_the_batches_matters_to_the_cache(config, digits, tmp_path):
    for shuffle in (True, False):
        load_or_train(config, BatchLoader(digits, 32, shuffle=shuffle, drop_last=True), steps=2, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_cache_is_where_the_environment_says(config, loader, tmp_path, monkeypatch):
    monkeypatch.setenv("VQVAE_CACHE", str(tmp_path / "runs"))
    load_or_train(config, loader, steps=2)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    monkeypatch.delenv("VQVAE_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    load_or_train(config, loader, steps=2)
    assert len(list((tmp_path / "home" / ".cache" / "vqvae_lib" / "runs").iterdir())) == 1


def test_the_cache_knows_the_librarys_source(tmp_path, monkeypatch):
    monkeypatch.setattr("vqvae_lib.training.__file__", str(tmp_path / "training.py"))
    digests = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "model.py").write_text(text)
        digests.add(_source_digest())
    assert len(digests) == 2 and {len(digest) for digest in digests} == {64}


def test_a_file_is_whole_when_it_is_asked_down_to_the_disk(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    for _ in range(2):  # into a folder that is not there, and over an older file
        write_whole(tmp_path / "a" / "b" / "file", b"content")
    assert sizes == [7, 7]
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_scraps_are_cleared_an_hour_later(tmp_path):
    for name, age in (("file-old.part", 3700), ("file-young.part", 3500), ("other.part", 3700)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    write_whole(tmp_path / "file", b"content")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "file-young.part", "other.part"}
