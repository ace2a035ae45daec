"""Stored runs: written whole, read back as they were, and all of them the ones that `make runs` would make."""

from __future__ import annotations

import itertools
import json
import math
import platform
from dataclasses import replace

import pytest
import runs
import studies
import torch

from vqvae_lib import VQVAEConfig
from vqvae_lib.stored import (
    FOLDER,
    PICTURES,
    StoredRun,
    StoredStudy,
    png_strip,
    provenance,
    stored_run,
    stored_runs,
    stored_studies,
    sweep,
)


@pytest.fixture
def run() -> StoredRun:
    generator = torch.Generator().manual_seed(0)
    return StoredRun(
        name="tiny-seed0",
        config=VQVAEConfig(hidden_dim=8, num_embeddings=4, device="cpu"),
        steps=3,
        history={"recon_loss": [0.1, 0.05], "step": [1.0, 3.0]},
        evaluation={"recon_loss": 0.05, "perplexity": 3.5},
        usage=torch.tensor([5, 0, 2, 42]),
        reconstructions=torch.randint(256, (PICTURES, 1, 8, 8), generator=generator) / 255,
        provenance={"data": "mnist", "seconds": 1.0},
    )


def test_what_is_written_is_read_back(run, tmp_path):
    path = run.write(tmp_path)
    again = StoredRun.read(path)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny-seed0.json"]
    assert again.config == run.config
    assert (again.name, again.steps, again.history) == (run.name, run.steps, run.history)
    assert (again.evaluation, again.provenance) == (run.evaluation, run.provenance)
    assert torch.equal(again.usage, run.usage)
    assert torch.allclose(again.reconstructions, run.reconstructions, atol=1e-6)


def test_colour_pictures_survive(run, tmp_path):
    colour = replace(
        run,
        config=replace(run.config, in_channels=3),
        reconstructions=torch.rand(PICTURES, 3, 8, 8).mul(255).round() / 255,
    )
    again = StoredRun.read(colour.write(tmp_path))
    assert torch.allclose(again.reconstructions, colour.reconstructions, atol=1e-6)


@pytest.mark.parametrize("count", [4, 9])
def test_another_number_of_pictures_is_refused_when_written_and_when_read(run, tmp_path, count):
    other = replace(run, reconstructions=torch.zeros(count, 1, 8, 8))
    with pytest.raises(ValueError, match=f"pictures = {count} .*{PICTURES} of them"):
        other.write(tmp_path)
    path = run.write(tmp_path)
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "reconstructions": png_strip(torch.zeros(count, 1, 8, 9))}))
    with pytest.raises(ValueError, match=r"does not hold 8 pictures.*make runs"):
        StoredRun.read(path)


def test_provenance_names_the_device_that_trained_and_not_the_best_one(digits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert provenance(digits, digits, 1.0, "float32")["device"] == platform.machine()
    assert provenance(digits, digits, 1.0, "float32", "cuda")["device"] == "a GPU"


@pytest.mark.parametrize("damage", ["", "{", '{"config": {}}', "[1]"])
def test_a_damaged_file_is_named_with_its_remedy(run, tmp_path, damage):
    path = run.write(tmp_path)
    path.write_text(damage or path.read_text()[:100])
    with pytest.raises(ValueError, match=r"tiny-seed0\.json.*make runs"):
        StoredRun.read(path)


def test_an_unknown_name_lists_those_there_are(run, tmp_path):
    run.write(tmp_path)
    with pytest.raises(FileNotFoundError, match="tiny-seed0"):
        stored_run("other", tmp_path)
    assert [r.name for r in stored_runs("tiny-", tmp_path)] == ["tiny-seed0"]


@pytest.fixture
def study() -> StoredStudy:
    return StoredStudy(
        name="tiny-seed0",
        settings={"K": 4, "steps": {"model": 3}},
        numbers={"MSE": 1 / 3, "by class": [0.5, 1.0], "one model": {"right": 2.0}},
        history={"step": [1.0, 3.0]},
        pictures={"two": torch.randint(256, (2, 1, 8, 8)) / 255, "three": torch.randint(256, (3, 1, 8, 8)) / 255},
        provenance={"data": "mnist"},
    )


def test_a_study_is_read_back_with_six_figures(study, tmp_path):
    study.write(tmp_path)
    [again] = stored_studies("tiny-", tmp_path)
    assert again.numbers.pop("MSE") == 0.333333
    assert study.numbers.pop("MSE") == 1 / 3
    for part in ("name", "settings", "numbers", "history", "provenance"):
        assert getattr(again, part) == getattr(study, part), part
    assert again.pictures.keys() == study.pictures.keys()
    for name, images in study.pictures.items():
        torch.testing.assert_close(again.pictures[name], images)


@pytest.mark.parametrize("damage", ["", "{", '{"settings": {}}', "[1]", '{"pictures": {"two": [2, "AAAA"]}}'])
def test_a_damaged_study_is_named_with_its_remedy(study, tmp_path, damage):
    path = study.write(tmp_path)
    path.write_text(damage or path.read_text()[:100])
    with pytest.raises(ValueError, match=r"tiny-seed0\.json.*make runs"):
        StoredStudy.read(path)


def test_each_study_has_a_name_that_ends_in_its_seed():
    names = list(studies.studies())
    assert all(name.rsplit("-seed", 1)[1] in map(str, studies.SEEDS) for name in names)
    kinds = {name.rsplit("-seed", 1)[0] for name in names}
    assert len(names) == len(kinds) * len(studies.SEEDS)


def test_swapped_is_the_cost_under_the_latent_of_another_image():
    class Cost:
        """Its latent is the image's place; an image costs the distance from its own place to the latent's."""

        def latent(self, x):
            return x

        def distortion(self, x, z):
            return {"distortion": (x - z).abs()}

    right, swapped = studies.swap(Cost(), torch.arange(1000.0))  # two parts of 500, each turned by one
    assert right == 0
    assert swapped == pytest.approx((499 * 1 + 499) / 500)


def test_large_counts_survive_and_cost_little(run, tmp_path):
    usage = torch.arange(4096) ** 2
    again = StoredRun.read(replace(run, usage=usage).write(tmp_path))
    assert torch.equal(again.usage, usage)
    assert again.usage.dtype == torch.int64


def test_a_runs_numbers_follow_from_its_counts(run):
    alike = replace(run, usage=torch.tensor([7, 7, 0, 7])).numbers()  # images of 8 x 8 have 2 x 2 positions
    assert alike == pytest.approx({"MSE": 0.05, "bits": 4 * math.log2(3), "active codes": 3, "perplexity": 3})


def test_a_sweep_is_grouped_by_setting_in_rising_order(run, tmp_path):
    for size, beta, seed in ((16, 0.25, 0), (4, 2.0, 0), (4, 0.1, 1), (4, 0.1, 0)):
        config = replace(run.config, num_embeddings=size, commitment_cost=beta, seed=seed)
        replace(run, name=f"sweep-K{size:04d}-b{beta:g}-seed{seed}", config=config).write(tmp_path)
    run.write(tmp_path)  # no part of the sweep
    assert [(key, len(seeds)) for key, seeds in sweep(tmp_path).items()] == [
        ((4, 0.1), 2),
        ((4, 2.0), 1),
        ((16, 0.25), 1),
    ]
    assert [r.config.seed for r in sweep(tmp_path)[4, 0.1]] == [0, 1]


def test_the_sweep_is_a_whole_grid_with_one_budget():
    points = [spec for name, spec in runs.specifications().items() if name.startswith(runs.SWEEP)]
    settings = {(config.num_embeddings, config.commitment_cost, config.seed) for config, _ in points}
    assert len(points) == len(settings) == 6 * 6 * 3
    assert {steps for _, steps in points} == {runs.SWEEP_STEPS}


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (7, 2), (108, 2), (5, 3)])
def test_processes_share_the_runs_and_none_is_left_out(count, parts):
    names = [str(i) for i in range(count)]
    orders = [runs.in_turn(names, part, parts) for part in range(1, parts + 1)]
    assert all(sorted(order) == sorted(names) for order in orders)
    shares = [order[: len(names[part::parts])] for part, order in enumerate(orders)]
    assert sorted(itertools.chain(*shares)) == sorted(names)  # as long as all go on, no run is trained twice


def test_training_goes_on_where_it_was_stopped(run, tmp_path, monkeypatch):
    """A run that another process has made meanwhile, or an earlier call, is not trained again."""
    names = [f"sweep-{i}" for i in range(4)]
    trained = []

    def record(name, config, steps, window):
        trained.append(name)
        if name == "sweep-0":  # meanwhile elsewhere
            replace(run, name="sweep-2").write(tmp_path)
        return replace(run, name=name)

    replace(run, name="sweep-1").write(tmp_path)
    replace(run, name="sweep-3", steps=1).write(tmp_path)  # out of date
    monkeypatch.setattr(runs, "specifications", lambda: dict.fromkeys(names, (run.config, run.steps)))
    monkeypatch.setattr(runs, "record_run", record)
    runs.train_missing("sweep-", folder=tmp_path)
    assert trained == ["sweep-0", "sweep-3"]
    assert all(runs.up_to_date(name, run.config, run.steps, tmp_path) for name in names)


def test_the_committed_runs_are_those_of_the_specification():
    specifications = runs.specifications()
    found = stored_runs()
    assert found, f"no stored run in {FOLDER}"
    for run in found:
        config, steps = specifications[run.name]
        assert run.config.identity() == config.identity(), run.name
        assert run.steps == steps, run.name
        assert int(run.usage.sum()) == 10_000 * 49, run.name
        assert all(math.isfinite(value) for value in run.evaluation.values()), run.name
        assert run.provenance["data"] == "mnist", run.name


def test_the_committed_studies_are_those_of_the_specification():
    found = stored_studies("")
    assert {study.name for study in found} == studies.studies().keys()
    for study in found:
        kind = study.name.partition("-")[0]
        assert study.settings["steps"] == {what: studies.STEPS[what] for what in studies.USED[kind]}, study.name
        assert study.settings["seed"] == int(study.name[-1]), study.name
        assert study.provenance["data"] == "mnist", study.name
        if study.pictures:  # else nothing was judged
            assert study.numbers["judge accuracy"] >= 0.99, study.name
