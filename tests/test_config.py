"""The configuration: the description's fields, frozen, and no value out of range."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch

from vqvae_lib import VQVAEConfig, best_device, quick

WHOLE = ("in_channels", "hidden_dim", "num_embeddings", "embedding_dim", "batch_size", "num_epochs")
BAD = [
    *((name, value) for name in WHOLE for value in (0, -1, 2.0, 1.5, "8", None, True)),
    ("hidden_dim", 7),
    *(("commitment_cost", value) for value in (-0.1, math.nan, math.inf, "0.25", None)),
    *(("decay", value) for value in (-0.1, 1, 1.5, math.nan, "0.9")),
    *(("restart_threshold", value) for value in (-0.1, 1, math.nan, None)),
    *(("lr", value) for value in (0, -1e-3, math.nan, math.inf, "1e-3")),
    *(("seed", value) for value in (-1, 0.5, "42", None)),
    ("codebook_update", "EMA"),
    ("codebook_update", []),
    ("init", "kmeans"),
    ("schedule", "linear"),
    ("precision", "bf16"),
    ("device", "abacus"),
    ("device", 1.5),
]


def test_the_descriptions_fields_keep_their_names_and_defaults():
    config = VQVAEConfig(device="cpu")
    kept = {"in_channels": 1, "hidden_dim": 128, "num_embeddings": 512, "embedding_dim": 64, "commitment_cost": 0.25}
    kept |= {"batch_size": 128, "num_epochs": 20, "seed": 42}
    assert {name: getattr(config, name) for name in kept} == kept
    assert config.codebook_update == "ema"
    assert {"lr", "device"} <= {field.name for field in dataclasses.fields(VQVAEConfig)}


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: str(value))
def test_a_bad_value_raises_naming_field_and_value(name, value):
    with pytest.raises(ValueError, match=f"^{name} = {re.escape(repr(value))} .*(must be|take) "):
        VQVAEConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("commitment_cost", 0),
        ("decay", 0),
        ("restart_threshold", 0),
        ("hidden_dim", 2),
        ("num_embeddings", 1),
        ("seed", 0),
    ],
)
def test_the_limits_themselves_are_allowed(name, value):
    assert getattr(VQVAEConfig(**{name: value}), name) == value


def test_the_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        VQVAEConfig().num_embeddings = 8


def test_every_field_is_documented():
    missing = [f.name for f in dataclasses.fields(VQVAEConfig) if f"\n        {f.name}: " not in VQVAEConfig.__doc__]
    assert missing == []


def test_identity_is_all_but_the_device():
    config = VQVAEConfig(device="cpu")
    assert config.identity() == {k: v for k, v in dataclasses.asdict(config).items() if k != "device"}


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_best_device_is_taken(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == VQVAEConfig().device == best


@pytest.mark.parametrize(("setting", "steps"), [(None, 500), ("0", 500), ("1", 20)])
def test_quick_mode_shortens_only_when_asked(monkeypatch, setting, steps):
    monkeypatch.delenv("VQVAE_QUICK", raising=False)
    if setting is not None:
        monkeypatch.setenv("VQVAE_QUICK", setting)
    assert quick(500, fewer=20) == steps
    assert quick(5, fewer=20) == 5
