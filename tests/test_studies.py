"""The experiments: each study from end to end with tiny models, and what is made, skipped and verified."""

import functools
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fake_sweep import fake_run

from vqvae_book import color, experiments, rivals, studies
from vqvae_book import sample_quality as quality
from vqvae_book.extras import draw_scenes
from vqvae_book.results import Result, stored_studies
from vqvae_book.studies import Experiment
from vqvae_lib import VQVAE, ImageDataset, VQVAEConfig, draw_glyphs


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Drawn digits, a few samples, small models, nothing kept outside the test's folder."""
    parts = tuple(ImageDataset(*draw_glyphs("0123456789", n, seed=n), "glyphs") for n in (128, 32))
    for module in (studies, experiments):
        monkeypatch.setattr(module, "data", lambda name="mnist": parts)
    for name in ("halves", "classifier"):  # without what they keep
        monkeypatch.setattr(studies, name, functools.cache(getattr(studies, name).__wrapped__))
    monkeypatch.setattr(studies, "DRAWN", 12)
    monkeypatch.setattr(studies, "VQVAEConfig", functools.partial(VQVAEConfig, hidden_dim=8, batch_size=32))
    monkeypatch.setattr(quality, "train_classifier", functools.partial(quality.train_classifier, steps=1))
    monkeypatch.setenv("VQVAE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["prior", "longer", "best", "classes", "vae", "collapse"])
def test_a_study_from_end_to_end(small, tmp_path, kind):
    name, study = next(item for item in studies.studies().items() if item[0].startswith(kind))
    choices = study.make.keywords | {"steps": dict.fromkeys(study.settings["steps"], 1)}
    for what, fields in (("prior", {"hidden_dim": 8, "layers": 1}), ("vae", {"hidden_dim": 8, "decoder_layers": 1})):
        choices |= {what: replace(choices[what], batch_size=32, **fields)} if what in choices else {}
    again = Result.read(Result(name, study.settings, provenance={}, **study.make.func(**choices)).write(tmp_path))
    assert json.dumps([again.numbers, again.history], allow_nan=False)
    assert all(0 <= images.min() <= images.max() <= 1 for images in again.pictures.values())
    [stored] = stored_studies(name)
    for part in ("numbers", "history", "pictures"):  # whether anything was mistaken depends on the training
        assert getattr(again, part).keys() | {"mistaken"} == getattr(stored, part).keys() | {"mistaken"}


@pytest.mark.parametrize("method", ["vq", "fsq", "residual"])
def test_a_rival_from_its_search_to_its_samples(small, monkeypatch, tmp_path, method):
    monkeypatch.setattr(rivals, "stored_studies", functools.partial(stored_studies, folder=tmp_path))
    monkeypatch.setattr(rivals, "DRAWN", 12)
    for name in ("VQVAEConfig", "PriorConfig", "TransformerConfig"):
        size = {"hidden_dim": 8, "batch_size": 32} | ({} if name == "VQVAEConfig" else {"layers": 1})
        monkeypatch.setattr(rivals, name, functools.partial(getattr(rivals, name), **size))
    assert not [name for name in rivals.rivals() if not name.startswith("rival-search-")]
    name = f"rival-search-{method}-b06-seed{rivals.SEARCH_SEED}"
    searched = rivals.rivals()[name]
    made = searched.make.func(**searched.make.keywords | {"steps": 1})
    errors = made["numbers"]["MSE of each"]
    assert len(errors) == 6 and made["numbers"]["MSE"] == min(errors) and 0 < max(errors) <= 1
    made["numbers"]["MSE of each"] = [3, 2, 1, 4, 0.5, 6]  # the last two are not steady
    Result(name, searched.settings, provenance={}, **made).write(tmp_path)
    assert rivals.best(method, 6) == rivals.settings(method, 6)[2] and rivals.best(method, 10) is None
    monkeypatch.setattr(rivals, "best", lambda method, bits: rivals.settings(method, 6)[0] if bits < 14 else None)
    known = rivals.rivals()
    steps = {"steps": {"model": 1, "prior": 1}}
    study = known[f"rival-{method}-b06-seed0"]
    numbers = study.make.func(**study.make.keywords | steps)["numbers"]
    assert json.dumps(numbers, allow_nan=False) and numbers["prior bits"] > 0
    assert numbers["entropy bits"] <= numbers["nominal bits"] == 49 * 6
    # The rate of each prior comes from a search on the plain codes.
    study = known["rival-rates-vq-b10-seed0"]
    made = study.make.func(**study.make.keywords | steps)
    assert [len(bits) for bits in made["numbers"]["bits of each"].values()] == [3, 3]
    made["numbers"]["bits of each"] = {"PixelCNN": [3, 1, 2], "transformer": [1, 2, 3]}
    Result("rival-rates-vq-b10-seed0", study.settings, provenance={}, **made).write(tmp_path)
    study = rivals.rivals()[f"rival-priors-{method}-b10-seed0"]
    assert study.settings["rates"] == {"PixelCNN": 4e-3, "transformer": 1e-3}
    made = study.make.func(**study.make.keywords | steps)
    assert json.dumps(made["numbers"], allow_nan=False)
    for name in rivals.PRIORS:
        assert made["numbers"][f"{name}, prior bits"] > 0 and made["pictures"][name].shape == (12, 1, 28, 28)


@pytest.mark.parametrize("kind", ["sonnet", "field", "grid4-stages", "fashion-b4", "prior", "classes"])
def test_a_color_experiment_from_end_to_end(small, monkeypatch, tmp_path, kind):
    scenes = tuple(draw_scenes(n, seed=n, size=16) for n in (128, 32))
    known, digits = color.colors(), studies.data()
    monkeypatch.setattr(studies, "data", lambda name: digits if name == "fashion_mnist" else scenes)
    monkeypatch.setattr(studies, "CLASSIFIERS", {"cifar10": {"widths": (4, 4, 4), "steps": 1}})
    monkeypatch.setattr(color, "DRAWN", 12)
    made = known[f"color-{kind}-seed1"]
    choices = made.make.keywords | {"steps": {"model": 1, "prior": 1} if "prior" in made.settings else 1}
    books = choices["config"].num_codebooks
    tiny = {"hidden_dim": 8, "num_embeddings": 4, "batch_size": 8}
    choices["config"] = replace(choices["config"], embedding_dim=2 * books, **tiny)
    if "prior" in choices:
        choices["prior"] = replace(choices["prior"], layers=1, **tiny)
    written = Result(f"color-{kind}-seed1", made.settings, provenance={}, **made.make.func(**choices)).write(tmp_path)
    again = Result.read(written)
    assert json.dumps([again.numbers, again.history], allow_nan=False) and again.settings["seed"] == 1
    assert again.settings["data"] == {"fashion-b4": "fashion_mnist"}.get(kind, "cifar10")
    if "prior" in choices:
        assert ("recognized" in again.numbers) == (kind == "classes") and again.numbers["prior bits"] > 0
        return
    positions = {"fashion-b4": 49, "grid4-stages": 4}.get(kind, 16)
    assert again.numbers["codes per image"] == positions * books == int(again.usage.sum()) / 32
    assert again.numbers["bits"] <= positions * books * 2  # of four codes each
    assert ("gap" in again.numbers) == (books == 1)
    variance = (scenes if kind != "fashion-b4" else digits)[0].variance()
    curve = [loss / variance for loss in again.history["recon_loss"]]
    assert again.history["normalized MSE"] == pytest.approx(curve, rel=1e-4)


def test_the_geometry_of_a_codebook_is_that_of_loops_over_its_parts():
    config = VQVAEConfig(in_channels=3, hidden_dim=8, num_embeddings=12, embedding_dim=5, device="cpu")
    model, x = VQVAE(config).eval(), draw_scenes(20, seed=0, size=16).floats()
    model.initialize(x)
    found = color.geometry(model, x)
    numbers, grids = model.training_step(x), model.encode(x)  # the loss is beta times the gap
    assert found["gap"] == pytest.approx(numbers["vq_loss"].item() / config.commitment_cost, rel=1e-4)
    cells: dict[int, list] = {}
    for n, i, j in torch.cartesian_prod(*(torch.arange(size) for size in grids.shape)).tolist():
        cell = model.decode(grids[n : n + 1])[0, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].double().detach()
        cells.setdefault(int(grids[n, i, j]), []).append(cell)
    parts = list(map(torch.stack, cells.values()))
    total, within = torch.cat(parts), sum((part - part.mean(0)).square().sum() for part in parts)
    between = 1 - within / (total - total.mean(0)).square().sum()
    assert found["share fixed"] == pytest.approx(float(between), abs=1e-4)
    assert found["heard"] >= 1 and -1 <= found["rank correlation"] <= 1
    # Codes on a line have one direction, and the decoder hears no other.
    model.vq.codebook.copy_(torch.arange(12.0)[:, None] * torch.ones(5))
    flat = color.geometry(model, x)
    assert (flat["directions"], flat["heard"]) == (1, 1)


def test_codes_of_two_stages_are_one_grid_for_a_prior_and_come_back():
    config = VQVAEConfig(hidden_dim=8, num_embeddings=4, quantizer="residual", num_codebooks=2, device="cpu")
    model, x = VQVAE(config).eval(), torch.rand(3, 1, 28, 28)
    one = rivals.OneBook(model, 2)
    codes, both = one.encode(x), model.encode(x)  # (3, 7, 14) and (3, 7, 7, 2)
    assert torch.equal(codes[..., ::2], both[..., 0]) and torch.equal(codes[..., 1::2], both[..., 1] + 4)
    assert torch.equal(one.decode(codes), model.decode(both))


def test_swapped_is_the_cost_under_the_latent_of_another_image():
    # The latent is the image's place; an image costs the distance from its own place to the latent's.
    model = SimpleNamespace(draw_latent=lambda x: x, distortion=lambda x, z: {"distortion": (x - z).abs()})
    # Two parts of 500, each turned by one.
    assert studies.swap(model, torch.arange(1000.0)) == pytest.approx((0, (499 * 1 + 499) / 500))


def test_a_run_is_a_model_trained_and_measured(small, monkeypatch):
    monkeypatch.setattr(experiments, "best_device", lambda: "cpu")
    run = experiments.runs()["sweep-K0004-b0.25-seed1"]
    config = VQVAEConfig(hidden_dim=8, num_embeddings=4, batch_size=32, seed=1, device="cpu")
    made = experiments.perform("tiny-seed1", run._replace(make=functools.partial(experiments.train, config, 3, None)))
    assert (made.settings, made.history["step"]) == (run.settings, [1, 2, 3])
    assert (made.provenance["data"], int(made.usage.sum())) == ("glyphs", 32 * 49)


@pytest.fixture
def three(small, monkeypatch, tmp_path) -> list[str]:
    """Three experiments with an error of 1, one seed each; the names of those that were done."""
    done = []

    def make(run: Result) -> dict:
        done.append(run.name)
        return {"numbers": {"MSE": 1.0}, "history": {}, "pictures": {}}

    runs = [fake_run(4, 0.25, seed) for seed in range(3)]
    known = {run.name: Experiment(tmp_path, run.settings, functools.partial(make, run)) for run in runs}
    monkeypatch.setattr(experiments, "experiments", lambda: known)
    return done


def test_what_is_missing_or_out_of_date_is_made_and_nothing_else(three, tmp_path, capsys):
    fake_run(4, 0.25, 1).write(tmp_path)
    replace(fake_run(4, 0.25, 2), settings={"seed": 2}).write(tmp_path)
    missing = ["sweep-K0004-b0.25-seed0", "sweep-K0004-b0.25-seed2"]
    assert experiments.main(["--list"]) == 0 and capsys.readouterr().out.split() == missing
    for asked, done in ((["other"], []), ([], missing), ([], missing)):
        assert experiments.main(asked) == 0 and three == done


# By seed, the errors that are stored.
STORED = [({}, 2), ({0: 1}, 2), ({1: 2, 2: 3}, 2), ({0: 1, 1: 2}, 0), ({0: 2, 1: 3, 2: 4}, 0), ({0: 5, 1: 6, 2: 7}, 1)]


@pytest.mark.parametrize(("errors", "status"), STORED)
def test_a_result_is_verified_where_it_and_another_seed_are_stored(three, tmp_path, errors, status):
    for seed, error in errors.items():
        replace(fake_run(4, 0.25, seed), numbers={"MSE": error}).write(tmp_path)
    assert experiments.main(["--verify", "sweep-K0004-b0.25-seed0"]) == status
