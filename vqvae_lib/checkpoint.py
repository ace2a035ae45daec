"""Checkpoints: one file that holds no code, written whole or not at all."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from ._util import as_path, atomic_write

FORMAT = 3
PARTS = dict.fromkeys(("config", "model", "optimizer", "scaler", "history"), dict)
PARTS |= dict.fromkeys(("step", "schedule_start", "schedule_end"), int)


class CheckpointError(RuntimeError):
    """A checkpoint that can't be used; the message says what is wrong."""


def write_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    atomic_write(path, buffer.getbuffer())


def read_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict:
    """Read a checkpoint; a damaged file, or code in it, raises ``CheckpointError``."""
    path = as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: check it, or save first.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch checks neither of these
            folders = [i.filename for i in archive.infolist() if i.external_attr & 16]
            if damaged := archive.testzip() or folders:
                raise zipfile.BadZipFile(f"bad checksum, or a folder inside: {damaged}")
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zipfile and torch raise many kinds
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged, or holds more than "
            f"plain tensors and values. Delete it, or use another copy. ({error})"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{path} has format {found}, not {FORMAT}: train again.")
    if lost := [k for k, kind in PARTS.items() if not isinstance(state.get(k), kind)]:
        raise CheckpointError(f"{path} lacks {', '.join(lost)}: use another copy.")
    return state
