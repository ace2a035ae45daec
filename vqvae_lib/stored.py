"""Runs that take longer than a chapter may: trained by ``make runs``, kept as small files, drawn from by the pages.

A file holds what a page draws (curves, numbers, use of the codes, a few reconstructions) and where it comes from. It
holds no image of a dataset: originals are loaded when the page is built.
"""

from __future__ import annotations

import base64
import io
import json
import platform
import time
import zlib
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .analysis import active_codes, collect_indices, rate, usage_counts
from .config import VQVAEConfig, best_device, require
from .data import ImageDataset, create_dataloader
from .quantizer import perplexity
from .training import VQVAETrainer, write_whole

__all__ = [
    "FOLDER",
    "MEASURED",
    "STUDIES",
    "StoredRun",
    "StoredStudy",
    "measured",
    "provenance",
    "record_run",
    "stored_run",
    "stored_runs",
    "stored_studies",
    "sweep",
]

FOLDER = Path(__file__).parent / "runs"
STUDIES = Path(__file__).parent / "studies"
MEASURED = Path(__file__).parent / "measured"  # what `make bench` and `make quality` found
PICTURES = 8  # reconstructions kept, of the first test images


@dataclass(frozen=True)
class StoredRun:
    """One training run, as a page needs it.

    Attributes:
        name: the file's name without its ending.
        config: every choice of the run.
        steps: optimiser steps.
        history: name -> one number a window of steps, as ``Trainer.history``.
        evaluation: name -> number on the test set, as ``Trainer.evaluate``.
        usage: (K,) int64, how often each code was used on the test set.
        reconstructions: (8, C, H, W) float32 in [0, 1], of the first test images.
        provenance: dataset and its fingerprint, versions, device, seconds, date.
    """

    name: str
    config: VQVAEConfig
    steps: int
    history: dict[str, list[float]]
    evaluation: dict[str, float]
    usage: Tensor
    reconstructions: Tensor
    provenance: dict[str, Any]

    @property
    def positions(self) -> int:
        """Codes of an image, H/4 x W/4."""
        height, width = self.reconstructions.shape[-2:]
        return height // 4 * (width // 4)

    def numbers(self) -> dict[str, float]:
        """Return what the book compares runs by: error, rate (entropy of single codes) and use, over the test set."""
        return {
            "MSE": self.evaluation["recon_loss"],
            "bits": rate(self.usage, self.positions).entropy,
            "active codes": active_codes(self.usage),
            "perplexity": float(perplexity(self.usage)),
        }

    @classmethod
    def read(cls, path: str | Path) -> StoredRun:
        """Read one file.

        Raises:
            ValueError: the file is not a whole stored run.
        """
        path = Path(path)
        content = path.read_bytes()
        try:
            raw = json.loads(content)
            return cls(
                name=path.stem,
                config=VQVAEConfig(**raw["config"], device="cpu"),
                steps=raw["steps"],
                history=raw["history"],
                evaluation=raw["evaluation"],
                usage=_from_packed(raw["usage"]),
                reconstructions=_from_png_strip(raw["reconstructions"], raw["config"]["in_channels"]),
                provenance=raw["provenance"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, OSError, SyntaxError, zlib.error) as error:
            # Pillow calls a damaged picture an OSError or a SyntaxError.
            raise ValueError(f"{path} is not a whole stored run ({error!r}). Make it again: make runs.") from error

    def write(self, folder: str | Path = FOLDER) -> Path:
        """Write the run as ``folder/name.json``, whole or not at all.

        Raises:
            ValueError: another number of pictures than is read back.
        """
        require(len(self.reconstructions) == PICTURES, "pictures", len(self.reconstructions), f"{PICTURES} of them")
        raw = {
            "config": self.config.identity(),
            "steps": self.steps,
            "history": _short(self.history),
            "evaluation": self.evaluation,
            "usage": _to_packed(self.usage),
            "reconstructions": png_strip(self.reconstructions),
            "provenance": self.provenance,
        }
        path = Path(folder) / f"{self.name}.json"
        write_whole(path, json.dumps(raw, separators=(",", ":")).encode())
        return path


@dataclass(frozen=True)
class StoredStudy:
    """One seed of an experiment of several models, as a page needs it (chapters 6 and 7).

    Attributes:
        name: the file's name without its ending.
        settings: what was chosen, by name; two studies that differ in the seed alone are the same but for chance.
        numbers: name -> number, a list of them (one a class, say), or a dict of them (of one of several models).
        history: name -> one number a window of steps.
        pictures: name -> (n, C, H, W) float32 in [0, 1], drawn by models; no image of a dataset.
        provenance: dataset and its fingerprint, versions, device, seconds, date.
    """

    name: str
    settings: dict[str, Any]
    numbers: dict[str, Any]
    history: dict[str, list[float]]
    pictures: dict[str, Tensor]
    provenance: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> StoredStudy:
        """Read one file.

        Raises:
            ValueError: the file is not a whole stored study.
        """
        path = Path(path)
        try:
            raw = json.loads(path.read_bytes())
            pictures = {name: _from_png_strip(text, 1, count) for name, (count, text) in raw.pop("pictures").items()}
            return cls(name=path.stem, pictures=pictures, **raw)
        except (KeyError, TypeError, ValueError, AttributeError, OSError, SyntaxError) as error:
            raise ValueError(f"{path} is not a whole stored study ({error!r}). Make it again: make runs.") from error

    def write(self, folder: str | Path = STUDIES) -> Path:
        """Write the study as ``folder/name.json``, whole or not at all. Pictures are of one channel."""
        raw = {
            "settings": self.settings,
            "numbers": _short(self.numbers),
            "history": _short(self.history),
            "pictures": {name: (len(images), png_strip(images)) for name, images in self.pictures.items()},
            "provenance": self.provenance,
        }
        path = Path(folder) / f"{self.name}.json"
        write_whole(path, json.dumps(raw, separators=(",", ":")).encode())
        return path


def stored_studies(prefix: str, folder: str | Path = STUDIES) -> list[StoredStudy]:
    """Return the stored studies whose names begin with ``prefix``, in order of name."""
    return [StoredStudy.read(path) for path in sorted(Path(folder).glob(f"{prefix}*.json"))]


def stored_run(name: str, folder: str | Path = FOLDER) -> StoredRun:
    """Return one stored run by name.

    Raises:
        FileNotFoundError: there is none of that name; the message lists those there are.
    """
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        names = sorted(file.stem for file in Path(folder).glob("*.json"))
        raise FileNotFoundError(f"no stored run {name!r}; there are {names}. Make it: make runs.")
    return StoredRun.read(path)


def stored_runs(prefix: str = "", folder: str | Path = FOLDER) -> list[StoredRun]:
    """Return the stored runs whose names begin with ``prefix``, in order of name."""
    return [StoredRun.read(path) for path in sorted(Path(folder).glob(f"{prefix}*.json"))]


def sweep(folder: str | Path = FOLDER) -> dict[tuple[int, float], list[StoredRun]]:
    """Return the runs of ``make sweep`` by setting: (K, beta), in rising order -> one run a seed."""
    points: dict[tuple[int, float], list[StoredRun]] = {}
    for run in stored_runs("sweep-", folder):
        points.setdefault((run.config.num_embeddings, run.config.commitment_cost), []).append(run)
    return dict(sorted(points.items()))


def measured(suite: str, device: str = "cpu") -> dict[str, Any]:
    """Return what a benchmark found: ``machine`` (device, threads, versions, date) and ``rows`` of named numbers.

    Raises:
        FileNotFoundError: the suite has not been run on that kind of device.
    """
    path = MEASURED / f"{suite}-{device}.json"
    if not path.exists():
        raise FileNotFoundError(f"no measurements {path.name}. Make them: make bench, make quality.")
    return json.loads(path.read_text(encoding="utf-8"))


def record_run(
    name: str, config: VQVAEConfig, steps: int, data: str = "mnist", *, window: int | None = None
) -> StoredRun:
    """Train a model, measure it on the test set, and return the run; nothing is written.

    Args:
        name: the run's name.
        config: every choice of the run.
        steps: optimiser steps.
        data: dataset; the stand-in is refused.
        window: steps averaged into one entry of the history, as in ``Trainer.fit``.
    """
    config = replace(config, device=best_device())
    train = create_dataloader(config, data, train=True, stand_in=False)
    test = create_dataloader(config, data, train=False, stand_in=False)
    trainer = VQVAETrainer(config)
    start = time.perf_counter()
    trainer.fit(train, steps=steps, window=window)
    seconds = time.perf_counter() - start
    pictures, _ = trainer.reconstruct(test.dataset.floats(slice(0, PICTURES)))
    return StoredRun(
        name=name,
        config=config,
        steps=steps,
        history=trainer.history,
        evaluation=trainer.evaluate(test),
        usage=usage_counts(collect_indices(trainer.model, test), config.num_embeddings),
        reconstructions=pictures,
        provenance=provenance(
            train.dataset, test.dataset, seconds, str(trainer.dtype or torch.float32), trainer.device.type
        ),
    )


def provenance(
    train: ImageDataset, test: ImageDataset, seconds: float, precision: str, device: str = "cpu"
) -> dict[str, Any]:
    """Say where a result comes from: data and their fingerprints, versions, device, seconds of training, date."""
    return {
        "data": train.name,
        "train": train.fingerprint(),
        "test": test.fingerprint(),
        "variance": test.variance(),
        "library": _version("vqvae_lib"),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d"),
    }


def _short(values: Any) -> Any:
    """Round the floats in nested dicts and lists to six figures: more would be noise that is stored."""
    if isinstance(values, dict):
        return {name: _short(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_short(value) for value in values]
    return float(f"{values:.6g}") if isinstance(values, float) else values


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _to_packed(counts: Tensor) -> str:
    """Write counts (K,) as compressed 32-bit numbers in base64: a third of the length of their digits."""
    return base64.b64encode(zlib.compress(counts.numpy().astype("<i4").tobytes(), 9)).decode()


def _from_packed(text: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4").astype(np.int64))


def png_strip(images: Tensor) -> str:
    """Lay images (n, C, H, W) side by side in one PNG, in base64."""
    pixels = torch.cat(list(images), dim=2).mul(255).round().to(torch.uint8)  # (C, H, n W)
    array = pixels.permute(1, 2, 0).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _from_png_strip(text: str, channels: int, count: int = PICTURES) -> Tensor:
    array = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    pixels = torch.from_numpy(array.reshape(*array.shape[:2], channels).copy()).permute(2, 0, 1).float() / 255
    if pixels.shape[2] % count:
        raise ValueError(f"a strip of {pixels.shape[2]} columns does not hold {count} pictures of one width")
    return torch.stack(pixels.chunk(count, dim=2))  # (C, H, n W) -> (n, C, H, W)
