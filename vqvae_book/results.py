"""What experiments found, kept as small files that the pages draw from.

A file holds numbers, curves and pictures that models drew, and where they come from. It
holds no image of a dataset: pages load the originals when they are built.
"""

from __future__ import annotations

import base64
import io
import json
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqvae_lib import BatchLoader, ImageDataset, VQVAETrainer
from vqvae_lib._util import atomic_write
from vqvae_lib.config import autocast_dtype
from vqvae_lib.metrics import collect_indices, normalized_mse, rate, usage_counts

RUNS = Path(__file__).parent / "runs"  # of one VQ-VAE each
STUDIES = Path(__file__).parent / "studies"  # of several models each
MEASURED = Path(__file__).parent / "measured"  # by benchmarks
PICTURES = 8  # reconstructions kept of a run, of the first test images
FAILED = 0.5  # of the variance; the mean image alone loses .7 of MNIST's


@dataclass(frozen=True)
class Result:
    """What one experiment found with one seed; repetitions differ in ``seed`` only.

    Attributes:
        name: the file's name without its ending.
        settings: all that decides the result, as plain values; for a run, the fields of
            its :class:`VQVAEConfig`, and ``steps``.
        numbers: name -> number, a list of them or a dict of them.
        history: name -> one number per window of steps.
        pictures: name -> (n, C, H, W) float32 in [0, 1], drawn by models.
        provenance: data and their fingerprints, torch, device, seconds, date.
        usage: (K,) int64, how often a run uses each code on the test set; of n
            codebooks (n, K).
    """

    name: str
    settings: dict[str, Any]
    numbers: dict[str, Any]
    history: dict[str, list[float]]
    pictures: dict[str, Tensor]
    provenance: dict[str, Any]
    usage: Tensor | None = None

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Read one file; a damaged one raises ``ValueError``, which names it."""
        path = Path(path)
        content = path.read_bytes()
        try:
            raw = json.loads(content)
            packed = raw.pop("pictures")
            pictures = {name: _unpacked(*images) for name, images in packed.items()}
            usage = torch.tensor(raw.pop("usage")) if "usage" in raw else None
            return cls(name=path.stem, pictures=pictures, usage=usage, **raw)
        except Exception as error:  # json and Pillow raise many kinds
            remedy = "Delete it, then run `make runs`."
            raise ValueError(f"{path} is damaged ({error!r}). {remedy}") from error

    def write(self, folder: str | Path) -> Path:
        """Write the result as ``folder/name.json``, whole or not at all."""
        raw = {
            "settings": self.settings,
            "numbers": _short(self.numbers),
            "history": _short(self.history),
            "pictures": {k: (len(v), png_strip(v)) for k, v in self.pictures.items()},
            "provenance": self.provenance,
        }
        if self.usage is not None:
            raw["usage"] = self.usage.tolist()
        path = Path(folder) / f"{self.name}.json"
        atomic_write(path, json.dumps(raw, separators=(",", ":")).encode())
        return path


def stored_runs(prefix: str = "", folder: str | Path = RUNS) -> list[Result]:
    """Return the results whose names begin with ``prefix``, in order of name."""
    return [Result.read(path) for path in sorted(Path(folder).glob(f"{prefix}*.json"))]


def stored_studies(prefix: str = "", folder: str | Path = STUDIES) -> list[Result]:
    """Return the studies whose names begin with ``prefix``, in order of name."""
    return stored_runs(prefix, folder)


def sweep(folder: str | Path = RUNS) -> dict[tuple[int, float], list[Result]]:
    """Return the sweep's runs: (K, beta), in ascending order -> one run per seed."""
    points: dict[tuple[int, float], list[Result]] = {}
    for run in stored_runs("sweep-", folder):
        K, beta = run.settings["num_embeddings"], run.settings["commitment_cost"]
        points.setdefault((K, beta), []).append(run)
    return dict(sorted(points.items()))


def failed(run: Result) -> bool:
    """Whether a run lost more than half of the variance of the test set's pixels."""
    return normalized_mse(run.numbers["MSE"], run.provenance["variance"]) > FAILED


def measured(suite: str, device: str = "cpu") -> dict[str, Any]:
    """Return what a benchmark found: its ``machine``, and ``rows`` of named numbers."""
    path = MEASURED / f"{suite}-{device}.json"  # of `make bench` or `make quality`
    return json.loads(path.read_text(encoding="utf-8"))


def searches(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return contender -> what its search tried, the best first, failed runs last."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row.get("mse", math.inf)):
        if row["suite"] == "search":
            found.setdefault(row["contender"], []).append(row)
    return found


def describe(trainer: VQVAETrainer, test: BatchLoader) -> dict[str, Any]:
    """Measure a trained VQ-VAE on test images, for a :class:`Result`."""
    found, config = trainer.evaluate(test), trainer.config
    codes = collect_indices(trainer.model, test)
    books = codes.unbind(-1) if codes.dim() > 3 else [codes]
    usages = [usage_counts(book, config.num_embeddings) for book in books]
    pictures, _ = trainer.reconstruct(test.dataset.floats(slice(PICTURES)))
    kept = ("step", "recon_loss", "vq_loss", "perplexity")
    return {
        "numbers": {
            "MSE": found["recon_loss"],
            # Per image; of several codebooks each has a table.
            "bits": sum(rate(usage, books[0][0].numel()).entropy for usage in usages),
            "active codes": found["active_codes"],
            "perplexity": found["perplexity"],
        },
        "history": {name: trainer.history[name] for name in kept},
        "pictures": {"reconstructions": pictures},
        "usage": torch.stack(usages).squeeze(0),
    }


def provenance(
    train: ImageDataset,
    test: ImageDataset,
    seconds: float,
    device: str = "cpu",
    precision: str = "auto",
) -> dict[str, Any]:
    """Say where a result comes from: data, versions, machine, seconds and date."""
    place = torch.device(device)
    gpu = place.type == "cuda"
    return {
        "data": train.name,
        "train": train.fingerprint(),
        "test": test.fingerprint(),
        "variance": test.variance(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(place) if gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": str(autocast_dtype(place, precision) or torch.float32),
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d"),
    }


def png_strip(images: Tensor) -> str:
    """Lay images (n, C, H, W) in [0, 1] side by side in one PNG, in base64."""
    pixels = torch.cat(list(images), dim=2).mul(255).round().byte()  # (C, H, n W)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy())
    image.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _unpacked(count: int, strip: str) -> Tensor:
    """Read what ``png_strip`` made of ``count`` images."""
    array = np.asarray(Image.open(io.BytesIO(base64.b64decode(strip))))
    array = array.reshape(*array.shape[:2], -1)  # (H, n W, C)
    if array.shape[1] % count:
        raise ValueError(f"{array.shape[1]} columns don't hold {count} pictures")
    pixels = torch.tensor(array).permute(2, 0, 1).float() / 255
    return torch.stack(pixels.chunk(count, dim=2))  # (C, H, n W) -> (n, C, H, W)


def _short(values: Any) -> Any:
    """Round all floats to six significant digits: more would be noise."""
    text = json.dumps(values)
    return json.loads(text, parse_float=lambda digits: float(f"{float(digits):.6g}"))
