"""Stored runs: written whole, read back as they were, and all of them the ones that `make runs` would make."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import runs
import torch

from vqvae_lib import VQVAEConfig
from vqvae_lib.stored import FOLDER, PICTURES, StoredRun, stored_run, stored_runs


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
