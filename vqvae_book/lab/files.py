"""What the site serves for the lab: scripts, weights, a sheet of digits, a list."""

from __future__ import annotations

import colorsys
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vqvae_lib.data import ImageDataset, load_images
from vqvae_lib.metrics import rate
from vqvae_lib.model import VQVAE
from vqvae_lib.pretrained import about_pretrained, pretrained_names
from vqvae_lib.prior import PixelCNN

from .train_sheet import write_sheet

MOST_BYTES = 900_000  # of a file
DIGITS = 100  # test images that a reader can choose from


def pack(model: nn.Module, bits: int) -> tuple[bytes, list[dict[str, Any]]]:
    """Pack a model's tensors: in half precision, or larger ones in 8 bits by rows.

    Returns the bytes and, of each tensor, its name, shape, kind and place in them.
    """
    content, layout = bytearray(), []
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or name.endswith("usage"):
            continue
        content += bytes(-len(content) % 4)  # as arrays of float32 need it
        values, kind = tensor.float().numpy(), "half"
        place = {"name": name, "shape": list(values.shape), "at": len(content)}
        if bits == 8 and values.ndim > 1:
            kind, rows = "bytes", values.reshape(len(values), -1)
            scales = np.abs(rows).max(axis=1).astype("<f4") / 127
            whole = np.rint(rows / np.maximum(scales, 1e-12)[:, None])
            content += scales.tobytes() + whole.astype("i1").tobytes()
        else:
            content += values.astype("<f2").tobytes()
        layout.append(place | {"kind": kind})
    return bytes(content), layout


def colors(codebook: Tensor) -> list[str]:
    """Give codes (K, D) colors "#rrggbb", the more alike the nearer the codes.

    Hue, strength and lightness are the place on the three main axes of the codebook.
    """
    centered = codebook.double() - codebook.double().mean(0)
    axes = torch.linalg.svd(centered, full_matrices=False)[2][:3]
    x, y, z = (centered @ axes.T / (centered @ axes.T).std(0)).T.clamp(-2, 2)
    found = []
    for hue, far, up in zip(torch.atan2(y, x), torch.hypot(x, y), z, strict=True):
        share = float(hue) / (2 * torch.pi) % 1
        light, strength = 0.55 + 0.12 * float(up), min(0.85, 0.25 + 0.3 * float(far))
        parts = colorsys.hls_to_rgb(share, light, strength)
        found.append("#" + "".join(f"{round(255 * part):02x}" for part in parts))
    return found


def described(name: str) -> tuple[bytes, dict[str, Any]]:
    """Return a model's file, and what the page has to know of it."""
    about = about_pretrained(name)
    told = {"file": f"{name}.bin", "class": about["class"]}
    if about["class"] == "PixelCNN":
        content, layout = pack(PixelCNN.from_pretrained(name), bits=8)
        return content, told | {"layout": layout, "of": about["of"]}
    model = VQVAE.from_pretrained(name)
    content, layout = pack(model, bits=16)
    usage = torch.tensor(about["usage"])
    prices = -torch.log2(
        (usage + 0.5) / (usage + 0.5).sum()
    )  # of codes never used, too
    return content, told | {
        "layout": layout,
        "K": len(usage),
        "MSE": about["MSE"],
        "entropy": rate(usage, 49).entropy,  # bits per test image
        "prices": [round(float(price), 3) for price in prices],
        "colors": colors(model.vq.codebook),
    }


def write_files(folder: Path, test: ImageDataset | None = None) -> None:
    """Write all files of the lab, with digits to choose from: MNIST's, or glyphs."""
    test = load_images(train=False) if test is None else test
    folder.mkdir(parents=True, exist_ok=True)
    models = {}
    for name in pretrained_names():
        content, models[name] = described(name)
        if len(content) > MOST_BYTES:
            raise ValueError(
                f"{name}.bin has {len(content):,} bytes: at most {MOST_BYTES:,}"
            )
        (folder / f"{name}.bin").write_bytes(content)
    few = test.subset(slice(DIGITS))
    (folder / "digits.bin").write_bytes(few.images.numpy().tobytes())
    digits = {"source": few.name, "labels": few.labels.tolist()}
    listed = json.dumps({"models": models, "digits": digits}, separators=(",", ":"))
    (folder / "lab.json").write_text(listed, encoding="utf-8")
    write_sheet(folder)
    for script in Path(__file__).parent.glob("*.js"):
        shutil.copyfile(script, folder / script.name)
