"""Stored results: written whole, read back as they were, and all of them those that ``make runs`` would make."""

import platform
from dataclasses import replace

import pytest
import torch
from fake_sweep import BETAS, SIZES, write
from helpers import same_bits

from vqvae_book.experiments import experiments
from vqvae_book.results import (
    Result,
    describe,
    failed,
    measured,
    provenance,
    searches,
    stored_runs,
    stored_studies,
    sweep,
)
from vqvae_lib import BatchLoader, VQVAETrainer, perplexity


@pytest.fixture
def result() -> Result:
    shapes = {"a": (2, 1, 8, 8), "b": (3, 1, 8, 8), "color": (4, 3, 8, 12)}
    return Result(
        name="tiny-seed0",
        settings={"K": 4, "seed": 0, "lr": 1 / 3, "steps": {"model": 3}},
        numbers={"MSE": 0.25, "by class": [0.5, 1.0], "one model": {"right": 2.0}, "pairs": [[1, 2]]},
        history={"step": [1.0, 3.0]},
        pictures={name: torch.randint(256, shape) / 255 for name, shape in shapes.items()},
        provenance={"data": "mnist", "variance": 1 / 3},
        usage=torch.arange(9) ** 9,
    )


def test_what_is_written_is_read_back(result, tmp_path):
    for usage in (None, result.usage):
        again = Result.read(replace(result, usage=usage).write(tmp_path))
        assert same_bits(vars(again), vars(result) | {"usage": usage})
    [again] = stored_studies("tiny-", replace(result, numbers={"MSE": 1 / 3}).write(tmp_path).parent)
    assert again.numbers == {"MSE": 0.333333}  # of numbers six figures are kept


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"pictures": {}}', '{"pictures": {"a": [2, "AAAA"]}}', "[3,"])
def test_a_damaged_file_is_named(result, tmp_path, damage):
    path = result.write(tmp_path)
    text = path.read_text()  # sixteen columns don't hold three pictures
    path.write_text(text.replace('"a":[2,', '"a":[3,') if damage == "[3," else damage or text[:100])
    with pytest.raises(ValueError, match=r"tiny-seed0\.json"):
        Result.read(path)


def test_a_trained_model_is_described_by_its_test_images_and_the_device_that_trained(
    trainer, loader, digits, monkeypatch
):
    trainer.fit(loader, steps=2)
    parts = describe(trainer, BatchLoader(digits, 100))
    numbers, usage = parts["numbers"], parts["usage"]
    assert numbers["MSE"] == trainer.evaluate(BatchLoader(digits, 100))["recon_loss"]
    assert (int(usage.sum()), int((usage > 0).sum())) == (400 * 49, numbers["active codes"])
    assert numbers["bits"] == pytest.approx(49 * float(perplexity(usage).log2()))
    assert torch.equal(parts["pictures"]["reconstructions"], trainer.reconstruct(digits.floats(slice(8)))[0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    assert provenance(digits, digits, 1.0)["device"] == platform.machine()
    found = provenance(digits, digits, 1.0, "cuda", "float16")
    assert (found["device"], found["precision"], found["train"]) == ("a GPU", "torch.float16", digits.fingerprint())


def test_of_several_codebooks_each_has_a_table(digits, config, loader):
    trainer = VQVAETrainer(replace(config, quantizer="grouped", num_codebooks=2))
    trainer.fit(loader, steps=1)
    parts, codes = describe(trainer, BatchLoader(digits, 100)), trainer.model.encode(digits.floats())
    tables = [codes[..., book].flatten().bincount(minlength=16) for book in (0, 1)]
    assert torch.equal(parts["usage"], torch.stack(tables))
    assert parts["numbers"]["bits"] == pytest.approx(49 * sum(float(perplexity(t).log2()) for t in tables))


def test_a_sweep_is_grouped_by_setting_in_rising_order(result, tmp_path):
    write(tmp_path, "tiny", "none")
    result.write(tmp_path)  # no part of the sweep
    points = sweep(tmp_path)
    assert list(points) == [(size, beta) for size in SIZES for beta in BETAS]
    assert all([run.settings["seed"] for run in runs] == [0, 1] for runs in points.values())
    run = points[4, 0.25][0]  # of images with a variance of .1; a run that loses more than half of it has failed
    assert [failed(replace(run, numbers={"MSE": error})) for error in (0.049, 0.051)] == [False, True]


def test_the_best_setting_of_a_search_comes_first_and_one_that_failed_last():
    report = [{"suite": "report", "contender": "a", "mse": 0.0}]  # no setting of a search
    rows = [{"suite": "search", "contender": "ab"[i % 2], "mse": e} for i, e in enumerate((3.0, 9.0, 1.0, 5.0))]
    found = searches([{"suite": "search", "contender": "a"}, *report, *rows])
    errors = {name: [row.get("mse") for row in tried] for name, tried in found.items()}
    assert errors == {"a": [1, 3, None], "b": [5, 9]}


def test_the_stored_results_are_those_of_the_specification():
    assert any("normalized" in row for row in measured("fair", "cpu")["rows"])
    stored, known = [*stored_runs(), *stored_studies()], experiments()
    missing = known.keys() - {run.name for run in stored}
    assert {run.name for run in stored} <= known.keys()
    made_now = ("rival-", "color-")  # those of chapters 10 and 11
    assert not [name for name in missing if not name.startswith(made_now)]
    for run in stored:
        assert run.settings == known[run.name].settings, run.name
        data, codes = run.settings.get("data", "mnist"), run.numbers.get("codes per image", 49)
        assert run.provenance["data"] == data and run.provenance["variance"] > 0, run.name
        assert run.usage is None or int(run.usage.sum()) == 10_000 * codes, run.name
        assert run.numbers.get("classifier accuracy", 1) >= (0.65 if data == "cifar10" else 0.99), run.name
