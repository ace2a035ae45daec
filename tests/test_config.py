"""The configuration: frozen, no value out of range, numbers of any kind; and draws that disturb no one else's."""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from vqvae_lib import VQVAEConfig, best_device, seeded
from vqvae_lib.config import LATER

BAD = {
    **{name: (0, -1, 2.0, "8", None, True) for name in ("in_channels", "hidden_dim", "num_embeddings", "batch_size")},
    "downsampling": (0, 2, 6, 16, "4", 4.5),
    "residual_layers": (-1, 1.5, None),
    "residual_dim": (0, "32"),
    **{name: (-0.1, 1, 1.5, math.nan, "0.9") for name in ("decay", "restart_threshold")},
    "commitment_cost": (-0.1, math.nan, math.inf, "0.25", None, True),
    "lr": (0, -1e-3, math.nan, math.inf, "1e-3"),
    "seed": (-1, 0.5, "42", None),
    **{name: ("other", []) for name in ("codebook_update", "init", "schedule", "precision")},
    "device": ("abacus", 1.5, None),
}
LIMITS = {"commitment_cost": 0, "decay": 0, "restart_threshold": 0, "hidden_dim": 2, "num_embeddings": 1, "seed": 0}


@pytest.mark.parametrize(("name", "value"), [("hidden_dim", 7), *((n, v) for n in BAD for v in BAD[n])], ids=str)
def test_a_bad_value_raises_naming_the_field(name, value):
    with pytest.raises(ValueError, match=f"^{name} = "):
        VQVAEConfig(**{name: value})


def test_the_limits_themselves_are_allowed_and_the_config_is_frozen():
    config = VQVAEConfig(**LIMITS)
    assert {name: getattr(config, name) for name in LIMITS} == LIMITS
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.num_embeddings = 8


def test_numpys_values_are_kept_as_pythons_so_that_a_file_takes_them():
    """As in a sweep over ``np.logspace(...)`` or an array of words; a device may be one of torch's."""
    ours = {"num_embeddings": 64, "lr": 0.5, "decay": 0.25, "init": "uniform", "device": "cpu"}
    theirs = {name: np.array([value])[0] for name, value in ours.items()} | {"device": torch.device("cpu")}
    ours, theirs = VQVAEConfig(**ours), VQVAEConfig(**theirs)
    torch.save(dataclasses.asdict(theirs), file := io.BytesIO())
    file.seek(0)
    assert VQVAEConfig(**torch.load(file, weights_only=True)) == pickle.loads(pickle.dumps(theirs)) == ours  # noqa: S301
    assert [type(value) for value in vars(theirs).values()] == [type(value) for value in vars(ours).values()]
    plain = {name: value for name, value in dataclasses.asdict(ours).items() if name not in LATER}
    assert theirs.identity() | {"device": "cpu"} == plain != theirs.identity()


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_best_device_is_taken(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == VQVAEConfig().device == best


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", []),
        ("cuda:1", ["get_rng_state cuda:1", "device cuda:1", "manual_seed 5", "set_rng_state state cuda:1"]),
        ("mps", ["get_rng_state", "manual_seed 5", "set_rng_state state"]),
    ],
)
def test_one_device_is_seeded_and_no_other(monkeypatch, device, expected):
    calls: dict[str, list[str]] = {"cuda": [], "mps": []}
    names = ["manual_seed", "manual_seed_all", "get_rng_state", "set_rng_state", "device"]
    for kind, name in [(kind, name) for kind in calls for name in names]:

        def called(*args, kind=kind, name=name):
            calls[kind].append(" ".join(map(str, [name, *args])))
            return {"device": nullcontext(), "get_rng_state": "state"}.get(name)

        monkeypatch.setattr(getattr(torch, kind), name, called, raising=False)
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(np.int64(5), device):
        first = torch.rand(3)
        raise KeyError
    assert calls == {"cuda": [], "mps": []} | ({device[:4].strip(":"): expected} if expected else {})
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)
    with seeded(10**30):  # any whole number is a seed
        assert not torch.equal(torch.rand(3), first)
