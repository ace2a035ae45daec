"""The studies of chapters 6 and 7 from end to end, with a few steps and a few images: all that is stored comes out."""

from __future__ import annotations

import functools
import json
import math

import pytest
import studies

from vqvae_lib import ImageDataset, draw_glyphs
from vqvae_lib.stored import stored_studies

KINDS = ("prior", "longer", "best", "classes", "vae", "collapse")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two steps of each training, drawn digits, twenty-four samples; nothing kept outside the test's folder."""
    train, test = (ImageDataset(*draw_glyphs("0123456789", n, seed=seed), "glyphs") for n, seed in ((256, 0), (64, 1)))
    monkeypatch.setattr(studies, "data", lambda: (train, test))
    monkeypatch.setattr(studies, "DRAWN", 24)
    monkeypatch.setattr(studies, "STEPS", dict.fromkeys(studies.STEPS, 2))
    monkeypatch.setattr(studies, "train_classifier", functools.partial(studies.train_classifier, steps=2))
    monkeypatch.setenv("VQVAE_CACHE", str(tmp_path / "cache"))
    for kept in (studies.halves, studies.judge):
        kept.cache_clear()
    yield
    for kept in (studies.halves, studies.judge):
        kept.cache_clear()


def finite(value: object) -> bool:
    """Whether a number, or all numbers of a list or a dictionary, are finite."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return math.isfinite(value) if parts is None else all(map(finite, parts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_from_end_to_end(small, tmp_path, kind):
    name = next(name for name in studies.studies() if name.startswith(kind))
    study = studies.studies()[name]()
    assert study.name == name
    assert finite(study.numbers) and finite(study.history)
    assert all(images.isfinite().all() and 0 <= images.min() <= images.max() <= 1 for images in study.pictures.values())
    study.write(tmp_path)
    [again] = stored_studies(name, tmp_path)
    [committed] = stored_studies(name)
    assert again.numbers.keys() == committed.numbers.keys()
    assert again.history.keys() == committed.history.keys()
    # Whether anything was mistaken, and so is shown, depends on the training.
    assert again.pictures.keys() | {"mistaken"} == committed.pictures.keys() | {"mistaken"}
    assert json.dumps(again.settings | {"steps": 0}) == json.dumps(committed.settings | {"steps": 0})
