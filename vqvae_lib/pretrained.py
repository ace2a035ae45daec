"""Trained models that come with the package: safetensors files in half precision.

A file holds a model's state and, as JSON, what is known about it: the fields of its
config, steps, error on the test set, data, versions and date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ._util import require

WEIGHTS = Path(__file__).parent / "weights"  # made by vqvae_book.pretrained


def pretrained_names(kind: str = "") -> list[str]:
    """Return the names of all models, or of those of one class, such as ``"VQVAE"``."""
    return [name for name in _names() if kind in ("", about_pretrained(name)["class"])]


def about_pretrained(name: str) -> dict[str, Any]:
    """Return what is known about a model: class, config, steps, error, provenance."""
    from safetensors import safe_open  # needed only to load weights

    require(name in _names(), "name", name, f"one of {_names()}")
    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["about"])


def read_pretrained(name: str, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config's fields and the state of a model of class ``kind``."""
    from safetensors.torch import load_file

    names = pretrained_names(kind)
    require(name in names, "name", name, f"one of {names} for a {kind}")
    state = load_file(WEIGHTS / f"{name}.safetensors")
    return about_pretrained(name)["config"] | {"device": "cpu"}, state


def _names() -> list[str]:
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
