"""The trainer: what it learns and records, what it takes, whom it leaves alone, and where it stands when all breaks."""

from __future__ import annotations

import copy
import math
import os
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import NoFloat64, needs_mnist, no_looks, same_bits
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import vqvae_lib as lib
from vqvae_lib import VQVAE, BatchLoader, Trainer, TrainingError, VQVAEConfig, VQVAETrainer

updates = pytest.mark.parametrize("update", ["ema", "gradient"])


def state(trainer: Trainer) -> dict:
    return copy.deepcopy(trainer.state_dict())


class Line(nn.Module):
    """No VQ-VAE at all: it learns the mean of an image's pixels. ``spoil`` may break a step's loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(28 * 28, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.spoil = lambda loss: loss

    def training_step(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.seen += self.training  # moved in the forward pass, as a codebook is
        error = (self.layer(x.flatten(1)).squeeze(1).float() - x.mean((1, 2, 3))).square().mean()
        return {"total_loss": self.spoil(error), "images": torch.ones(()) * len(x)}

    def summarize(self, means: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in means.items()}


def line(config: VQVAEConfig) -> Trainer:
    with lib.seeded(0):
        return Trainer(Line(), config)


@pytest.mark.parametrize(
    ("update", "precision"), [("ema", "float32"), ("gradient", "float32"), ("gradient", "bfloat16"), ("ema", "float16")]
)
def test_training_lowers_the_loss_and_keeps_a_history(config, loader, update, precision):
    trainer, seen = VQVAETrainer(replace(config, codebook_update=update, precision=precision)), []
    before = trainer.evaluate(loader)["recon_loss"]
    trainer.model.eval()  # training goes on in training mode all the same
    hook = trainer.model.encoder.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    history = trainer.fit(loader, epochs=2)
    hook.remove()
    assert history is trainer.history
    assert {"recon_loss", "vq_loss", "total_loss", "perplexity", "active_codes", "step", "lr"} == history.keys()
    assert {len(values) for values in history.values()} == {24}
    assert history["step"][-1] == trainer.step == trainer.model.vq.updates == 2 * len(loader)
    assert set(seen) == {getattr(torch, precision)} and {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert trainer.evaluate(loader)["recon_loss"] < 0.7 * before


def test_epochs_steps_and_passes_are_three_ways_to_say_the_same(config, loader):
    trainers = [VQVAETrainer(config) for _ in range(4)]
    trainers[0].fit(loader, epochs=2)
    trainers[1].fit(loader)
    trainers[2].fit(loader, steps=np.int64(2 * len(loader)), window=np.int32(1))
    for _ in range(config.num_epochs):
        trainers[3].train_epoch(loader)
    assert all(same_bits(state(trainers[0])["model"], state(other)["model"]) for other in trainers)
    assert trainers[2].history["step"] == list(range(1, 25))
    single = trainers[2].history["recon_loss"]  # a window's entry is the mean of its steps
    assert trainers[3].history["recon_loss"] == pytest.approx([sum(single[:12]) / 12, sum(single[12:]) / 12], rel=1e-5)
    other = VQVAETrainer(replace(config, seed=config.seed + 1))
    assert not same_bits(state(other)["model"], state(VQVAETrainer(config))["model"])


@pytest.mark.parametrize("how", ["train_epoch", "fit"])
def test_an_epoch_is_one_pass_from_its_beginning_whatever_came_before(config, loader, how):
    trainer, seen = line(config), []
    trainer.fit(loader, steps=5, window=5)
    trainer.model.layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    few = list(loader)[:3]
    for entry, batches in enumerate((few, DataLoader(TensorDataset(*few[0]), 10)), 2):
        if how == "fit":
            trainer.fit(batches, epochs=1, window=len(batches))
        else:
            assert trainer.train_epoch(batches) == {name: values[-1] for name, values in trainer.history.items()}
        assert len(trainer.history["step"]) == entry and trainer.history["step"][-1] == trainer.step
        assert same_bits(seen, [x.flatten(1) for x, _ in batches])
        seen.clear()


@pytest.mark.parametrize(
    "arguments", [{"epochs": 1, "steps": 5}, {"steps": 2.5}, {"epochs": 0}, {"steps": 5, "window": 0}]
)
def test_impossible_lengths_raise_before_anything_moves(trainer, loader, arguments):
    before = state(trainer)
    with pytest.raises(ValueError):
        trainer.fit(loader, **arguments)
    with pytest.raises(ValueError):
        trainer.resume(loader)  # nothing was begun
    assert same_bits(state(trainer), before)


def test_a_step_that_float16_skips_moves_nothing_and_is_done_again(config, loader):
    trainer, seen = line(replace(config, precision="float16")), []

    def overflow(loss: Tensor) -> Tensor:
        seen.append((float(trainer.model.seen), float(loss.detach())))
        return loss * 50_000  # times 65,536, the scale at first, its gradient is infinite in float16

    trainer.model.spoil = overflow
    trainer.fit(loader, steps=3, window=1)
    assert len(seen) > 3 and len(set(seen)) == 3  # the first one was tried again, on the same model
    assert trainer.step == trainer.model.seen == 3
    assert all(kept["step"] == 3 for kept in trainer.optimizer.state.values())
    trainer.model.spoil = lambda loss: loss * math.inf
    with pytest.raises(TrainingError):
        trainer.fit(loader, steps=1)
    assert trainer.step == trainer.model.seen == 3


@pytest.mark.skipif("TQDM_DISABLE" in os.environ, reason="bars are switched off here")
def test_progress_goes_to_stderr(trainer, loader, capfd):
    trainer.fit(loader, steps=3)
    trainer.train_epoch(loader)
    out, err = capfd.readouterr()
    assert out == "" and "/3 [" in err and f"/{len(loader)} [" in err


def test_a_trainer_says_when_its_model_is_another(trainer, loader, config):
    trainer.model.vq = VQVAE(replace(config, codebook_update="gradient")).vq  # no optimizer would move its codes
    with pytest.raises(ValueError):
        trainer.fit(loader, steps=1)
    assert trainer.step == 0


@pytest.mark.parametrize("no", [False, np.False_])
def test_a_callback_is_called_after_each_window_and_may_stop_the_run(config, loader, no):
    trainer, whole, steps = VQVAETrainer(config), VQVAETrainer(config), []

    def watch(given: Trainer) -> bool | None:
        assert given is trainer and given.history["step"][-1] == given.step
        steps.append(given.step)
        given.evaluate(loader)
        torch.rand(3)
        return no if given.step == 6 else None

    trainer.fit(loader, steps=9, window=2, callback=watch)
    assert steps == [2, 4, 6] and trainer.step == 6
    trainer.resume(loader, window=2)
    whole.fit(loader, steps=9, window=2)
    assert same_bits(state(trainer), state(whole))


@pytest.mark.parametrize("fault", ["interrupt", "error", "training inside"])
def test_a_callback_that_fails_leaves_the_trainer_at_that_windows_end(config, loader, fault):
    trainer, whole = VQVAETrainer(config), VQVAETrainer(config)

    def fail(given: Trainer) -> None:
        if given.step == 4:
            given.model.vq.codebook.zero_()
            if fault == "training inside":
                given.fit(loader, steps=2)  # the run around it can't go on from there
            else:
                raise KeyboardInterrupt if fault == "interrupt" else ZeroDivisionError

    with pytest.raises((KeyboardInterrupt, ZeroDivisionError, ValueError)):
        trainer.fit(loader, steps=9, window=2, callback=fail)
    assert trainer.step == 4 and trainer.history["step"] == [2, 4]
    trainer.resume(loader, window=2)
    whole.fit(loader, steps=9, window=2)
    assert same_bits(state(trainer), state(whole))


class Stream(IterableDataset):
    """Batches without a length, as often as they are asked for."""

    def __init__(self, batches: list) -> None:
        self.batches = batches

    __iter__ = lambda self: iter(self.batches)  # noqa: E731


def test_streams_without_length_train_when_steps_are_given(config, loader):
    batches, whole = list(loader)[:4], VQVAETrainer(config)
    whole.fit(batches, steps=10, window=1)
    for stream in (Stream(batches), DataLoader(Stream(batches), batch_size=None), (b for b in batches * 3)):
        trainer = VQVAETrainer(config)
        for call in (trainer.train_epoch, trainer.fit):
            with pytest.raises(ValueError):
                call(stream)
        trainer.fit(stream, steps=10, window=1, callback=lambda given: given.step != 6)
        trainer.resume(stream, window=1)
        assert same_bits(state(trainer), state(whole))
    with pytest.raises(ValueError):
        trainer.fit(iter(batches), steps=9, window=3)
    assert trainer.step == 13  # the window's end before the stream's


@pytest.mark.parametrize("empty", [[], Stream([]), iter(()), DataLoader(range(3), 8, drop_last=True)])
def test_a_loader_without_batches_is_an_error_everywhere(trainer, loader, empty):
    trainer.fit(loader, steps=4, window=1, callback=lambda given: given.step < 2)
    before = state(trainer)
    calls = [trainer.resume, trainer.train_epoch, trainer.evaluate, trainer.fit, lambda e: trainer.fit(e, steps=3)]
    for call in calls:
        with pytest.raises(ValueError):
            call(empty)
        assert same_bits(state(trainer)["model"], before["model"]) and trainer.history == before["history"]


X, LABELS = torch.full((4, 1, 28, 28), 0.5), torch.zeros(4, dtype=torch.long)
ODD_BATCHES = {
    TypeError: [X, {"x": X, "labels": LABELS}, (X, None), (X.numpy(), LABELS.numpy()), (X, LABELS, LABELS)],
    ValueError: [(x, LABELS) for x in (X.mul(255).byte(), X[:, :, :27], X * 2 - 2, X * 255, X * math.nan)],
}


@pytest.mark.parametrize(("error", "batch"), [(e, batch) for e, batches in ODD_BATCHES.items() for batch in batches])
def test_a_first_batch_of_another_kind_is_an_error_and_moves_nothing(trainer, batch, error):
    before = state(trainer)
    with pytest.raises(error):
        trainer.fit([batch], steps=2)
    if error is ValueError:
        with pytest.raises(error):
            trainer.reconstruct(batch[0])
    assert same_bits(state(trainer)["model"], before["model"]) and trainer.step == 0


def test_evaluation_weighs_images_alike(trainer, digits, loader):
    trainer.fit(loader, steps=5)
    few = digits.subset(slice(0, 75))
    whole = trainer.evaluate([(few.floats(), few.labels)])
    assert trainer.evaluate(BatchLoader(few, 32)) == pytest.approx(whole, rel=1e-5)  # 32, 32 and 11 images
    assert whole["active_codes"] == len(trainer.reconstruct(few.floats())[1].unique())


def test_a_model_that_draws_is_measured_with_the_same_draws(config, loader):
    batches, trainer, other = list(loader), line(config), line(replace(config, seed=config.seed + 1))
    for drawing in (trainer, other):
        drawing.model.spoil = lambda loss: loss + torch.rand(())
    assert trainer.evaluate(batches) == trainer.evaluate(batches) != other.evaluate(batches)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_and_reconstruction_move_nothing(trainer, loader, digits, training):
    trainer.fit(loader, steps=3)
    trainer.model.train(training)
    trainer.model.encoder.train(not training)
    before, random = state(trainer), torch.get_rng_state()
    trainer.evaluate(loader)
    x_recon, indices = trainer.reconstruct(digits.floats(slice(0, 5)))
    assert (x_recon.shape, indices.shape) == ((5, 1, 28, 28), (5, 7, 7)) and not x_recon.requires_grad
    with pytest.raises(ValueError):
        trainer.evaluate([(torch.zeros(1, 3, 28, 28), torch.zeros(1))])
    assert same_bits(state(trainer), before) and torch.equal(torch.get_rng_state(), random)
    assert (trainer.model.training, trainer.model.encoder.training) == (training, not training)


def test_one_cycle_is_two_halves_of_a_cosine():
    """From peak / 25 to the peak over three tenths, then to peak / 1000; halfway each stands in the middle."""
    at = {0: 1 / 25, 0.15: (1 / 25 + 1) / 2, 0.3: 1, 0.65: (1 + 1 / 1000) / 2, 1: 1 / 1000, 1.5: 1 / 1000}
    assert [lib.learning_rate(p, 0.02) / 0.02 for p in at] == pytest.approx(list(at.values()), rel=1e-9)
    with pytest.raises(ValueError):
        lib.learning_rate(0.5, 1.0, "linear")


def test_the_schedule_spans_what_fit_was_asked_for(config, loader):
    trainer = VQVAETrainer(config)
    expected = [lib.learning_rate(step / 9, config.lr, config.schedule) for step in range(9)]
    assert trainer.fit(loader, steps=9, window=1)["lr"] == pytest.approx(expected)
    assert trainer.fit(loader, steps=9, window=1)["lr"][9:] == pytest.approx(expected)  # a second fit plans anew
    constant = VQVAETrainer(replace(config, schedule="constant", lr=2e-3))
    assert set(constant.fit(loader, steps=5)["lr"]) == {2e-3}


@pytest.mark.parametrize("has", [{"amx_tile"}, {"avx512_bf16"}, set()])
def test_automatic_precision_follows_the_hardware(monkeypatch, has):
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in has, raising=False)
    assert lib.autocast_dtype(torch.device("cpu")) is (torch.bfloat16 if has else None)
    assert lib.autocast_dtype(torch.device("mps")) is None
    for capability, dtype in {(7, 5): torch.float16, (8, 0): torch.bfloat16}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        assert lib.autocast_dtype(torch.device("cuda")) is dtype


def test_the_generators_of_the_caller_and_of_other_devices_are_left_alone(config, loader, monkeypatch):
    calls, before = [], torch.get_rng_state()
    for name in ("cuda.manual_seed", "cuda.manual_seed_all", "mps.manual_seed", "xpu.manual_seed_all"):
        monkeypatch.setattr(f"torch.{name}", lambda seed, name=name: calls.append(name))
    trainer = VQVAETrainer(config)
    trainer.fit(loader, steps=3)
    trainer.train_epoch(loader)
    trainer.evaluate(loader)
    assert torch.equal(torch.get_rng_state(), before) and calls == []


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_the_generator_of_the_own_device_is_seeded_and_given_back(monkeypatch, device):
    calls, kept, kind = [], torch.arange(3), device.split(":")[0]
    monkeypatch.setattr(f"torch.{kind}.manual_seed", calls.append)
    monkeypatch.setattr("torch.cuda.device", lambda given: calls.append(str(given)) or nullcontext())
    monkeypatch.setattr("torch.random.fork_rng", lambda devices: calls.append(list(map(str, devices))) or nullcontext())
    monkeypatch.setattr("torch.mps.get_rng_state", lambda: kept)
    monkeypatch.setattr("torch.mps.set_rng_state", calls.append)
    with lib.seeded(5, device):
        calls.append("work")
    assert calls == ([["cuda:1"], "cuda:1", 5, "work"] if kind == "cuda" else [[], 5, "work", kept])


def test_a_device_without_float64_trains_and_measures(config, loader):
    trainer, batches = VQVAETrainer(config), [(x.double(), labels) for x, labels in loader]
    with NoFloat64():
        trainer.fit(batches, steps=3)
        trainer.train_epoch(loader)
        numbers = trainer.evaluate(batches)
        trainer.reconstruct(next(iter(loader))[0])
    assert trainer.step == 3 + len(loader) and math.isfinite(numbers["perplexity"])


@updates
def test_between_the_ends_of_windows_nothing_is_read_from_the_device(config, loader, monkeypatch, update):
    """On a GPU each look waits for all work that was queued."""
    for module in ("_util", "lookup", "model", "quantizer"):
        monkeypatch.setattr(f"vqvae_lib.{module}.can_look", lambda tensor: False)
    batches = list(loader)

    def watched():
        yield batches[0]
        with no_looks():
            yield from batches[1:]
        yield batches[0]

    trainer = VQVAETrainer(replace(config, codebook_update=update))
    trainer.fit(watched(), steps=13, window=13)
    assert trainer.step == 13


@pytest.mark.parametrize("how", ["copied", "loaded"])
@updates
def test_a_codebook_that_was_set_is_kept_when_training_starts(config, loader, update, how):
    model = VQVAE(replace(config, codebook_update=update, restart_threshold=0.0))
    mine = torch.randn(model.vq.codebook.shape, generator=torch.Generator().manual_seed(0))
    if how == "copied":
        model.vq.codebook.data.copy_(mine)
    else:
        model.load_state_dict({"vq.codebook": mine}, strict=False)
    Trainer(model, replace(config, lr=1e-6)).fit(loader, steps=1)
    assert (model.vq.codebook - mine).norm() < 0.2 * mine.norm()


@updates
def test_a_frozen_codebook_stands_still_under_the_trainer(config, loader, update):
    trainer = VQVAETrainer(replace(config, codebook_update=update, restart_threshold=0.5))
    trainer.fit(loader, steps=3)
    trainer.model.vq.freeze()
    before = state(trainer)["model"]
    trainer.fit(loader, steps=3)
    after = state(trainer)["model"]
    assert {name for name in before if same_bits(before[name], after[name])} == {n for n in before if n[:3] == "vq."}


@pytest.mark.parametrize("fault", ["nan", "-inf", "gradient", "memory"])
@pytest.mark.parametrize("at", [1, 2, 7, 8])
def test_a_step_that_fails_leads_back_to_the_last_windows_end(config, loader, tmp_path, fault, at):
    trainer, whole, calls = line(config), line(config), iter(range(1, 100))

    def spoil(loss: Tensor) -> Tensor:
        if next(calls) != at:
            return loss
        if fault == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        if fault == "gradient":  # sqrt(0) is 0, and has no gradient
            return loss + (0 * trainer.model.layer.weight).sqrt().sum()
        return loss * float(fault)

    trainer.model.spoil = spoil
    with pytest.raises(TrainingError):
        trainer.fit(loader, steps=12, window=4, save_to=tmp_path / "run.pt")
    assert trainer.step == (at - 1) // 4 * 4
    assert (tmp_path / "run.pt").exists() == (at > 4)
    trainer.resume(loader, window=4)  # the fault does not come again
    whole.fit(loader, steps=12, window=4)
    assert same_bits(state(trainer), state(whole))


def test_a_run_that_diverges_stops_with_a_model_that_can_be_used(config, loader):
    trainer = VQVAETrainer(config)
    trainer.model.encoder.net[0].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainingError):  # although the quantizer meets it first
        trainer.fit(loader, steps=30, window=10)
    assert trainer.evaluate(loader)["total_loss"] < 10


@needs_mnist
@pytest.mark.slow
@pytest.mark.no_mutants
def test_the_default_model_reaches_the_books_quality():
    """156 steps of 128 real digits, a third of an epoch."""
    config = VQVAEConfig(device="cpu")
    trainer, test = VQVAETrainer(config), lib.create_dataloader(config, train=False)
    trainer.fit(lib.create_dataloader(config), steps=156)
    numbers = trainer.evaluate(test)
    assert lib.normalized_mse(numbers["recon_loss"], test.dataset.variance()) <= 0.045
    assert numbers["active_codes"] >= 500
