"""Images in memory, read from disk or downloaded once, and batches of them."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import logging
import os
import socket
import tempfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST
from torchvision.datasets.utils import check_integrity

from ._util import as_path, check_choice, check_int, require, seed_at
from .config import VQVAEConfig
from .standin import glyph_digits

_SOURCES = {"mnist": MNIST, "fashion_mnist": FashionMNIST, "cifar10": CIFAR10}
_announce = functools.cache(logging.getLogger(__name__).warning)  # each message once


class DataError(RuntimeError):
    """Missing data or a damaged file; the message names the file and the remedy."""


class ImageDataset(TensorDataset):
    """Images and labels in memory; an item is (image in [0, 1], label).

    Args:
        images: (N, C, H, W) uint8, a tensor or array; else ``ValueError``.
        labels: (N,) integers, kept as int64; all 0 if not given.
        name: the dataset's name in figures and in stored results.
    """

    def __init__(
        self, images: ArrayLike, labels: ArrayLike | None = None, name: str = "images"
    ) -> None:
        images = torch.as_tensor(images)
        ok = images.dim() == 4 and images.dtype == torch.uint8
        allowed = "uint8 (N, C, H, W); for floats in [0, 1]: x.mul(255).round().byte()"
        require(ok, "images", f"{images.dtype} {tuple(images.shape)}", allowed)
        labels = torch.as_tensor([0] * len(images) if labels is None else labels)
        ok = labels.shape == images.shape[:1] and not labels.is_floating_point()
        allowed = f"({len(images)},) integers, one per image"
        require(ok, "labels", f"{labels.dtype} {tuple(labels.shape)}", allowed)
        self.images, self.labels, self.name = images, labels.long(), name
        super().__init__(self.images, self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.floats(index), int(self.labels[index])

    def subset(self, indices: Tensor | slice) -> ImageDataset:
        """Return the images at ``indices`` as a dataset of the same name."""
        return ImageDataset(self.images[indices], self.labels[indices], self.name)

    def floats(self, indices: Tensor | slice | int = slice(None)) -> Tensor:
        """Return images at ``indices`` as float32 (n, C, H, W) in [0, 1]."""
        return self.images[indices].float().div(255)

    def variance(self) -> float:
        """Return the variance over all pixels, with pixels in [0, 1]."""
        return float((self.images.cpu().numpy() / 255).var())

    def fingerprint(self) -> str:
        """Return 16 hex digits that change when any pixel or label does."""
        content = b"".join(t.cpu().numpy().tobytes() for t in self.tensors)
        return hashlib.sha256(content).hexdigest()[:16]


class BatchLoader:
    """Iterate over batches (x (B, C, H, W) float32 in [0, 1], labels (B,) int64).

    The bytes are moved to the device once. An epoch's order depends only on ``seed``
    and the epoch's number, so a run can be resumed mid-epoch.

    Args:
        dataset: an :class:`ImageDataset`; or ``TensorDataset(values, labels)``, whose
            values, such as codes, are returned unchanged; uint8 is divided by 255.
        shuffle: draw a new order each epoch, from ``seed``.
        drop_last: leave out the last batch if it is not full.
    """

    def __init__(
        self,
        dataset: ImageDataset | TensorDataset,
        batch_size: int = 128,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 42,
        device: str | torch.device = "cpu",
    ) -> None:
        ok = isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2
        require(ok, "dataset", type(dataset), "an ImageDataset or TensorDataset(x, y)")
        self.dataset, self.shuffle, self.drop_last = dataset, shuffle, drop_last
        self.batch_size = check_int("batch_size", batch_size)
        self.seed, self.epoch = check_int("seed", seed, 0), 0
        allowed = f"small enough for {len(dataset)} images, or there are no batches"
        require(len(self) > 0, "batch_size", batch_size, allowed)
        self.device = torch.device(device)
        self._values, self._labels = (t.to(self.device) for t in dataset.tensors)

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next pass, counted from 0."""
        self.epoch = check_int("epoch", epoch, 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.dataset))
        if self.shuffle:
            generator = torch.Generator().manual_seed(seed_at(self.seed, self.epoch))
            order = torch.randperm(len(order), generator=generator)
        self.epoch += 1
        cuda = self.device.type == "cuda"  # there the copy need not wait for the device
        order = order[: len(self) * self.batch_size].to(self.device, non_blocking=cuda)
        return map(self._batch, order.split(self.batch_size))

    def _batch(self, at: Tensor) -> tuple[Tensor, Tensor]:
        x, labels = self._values[at], self._labels[at]
        return x.float().div_(255) if x.dtype == torch.uint8 else x, labels


def data_root() -> Path:
    """Return the data folder: ``VQVAE_DATA``, else ``~/.cache/vqvae_lib/data``."""
    try:
        return as_path(os.environ.get("VQVAE_DATA") or "~/.cache/vqvae_lib/data")
    except RuntimeError as error:  # no home folder is known
        raise DataError(f"{error} Set VQVAE_DATA to a folder for datasets.") from error


def load_images(
    name: str = "mnist",
    *,
    train: bool = True,
    root: str | Path | None = None,
    stand_in: bool | None = None,
) -> ImageDataset:
    """Load a dataset into memory: from disk if it is there, else download it once.

    Args:
        name: ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"`` or ``"glyphs"``.
        train: whether to load the training set or the test set.
        root: folder of datasets; :func:`data_root` if not given.
        stand_in: whether ``"glyphs"`` may replace an MNIST that can't be downloaded,
            with a log message; by default, yes unless ``VQVAE_STAND_IN=forbid`` is set.

    Raises:
        DataError: there is no data and no stand-in is allowed, or a file is damaged.
    """
    check_choice("name", name, (*_SOURCES, "glyphs"))
    if name == "glyphs":
        return ImageDataset(*glyph_digits(train), name)
    if stand_in is None:
        stand_in = os.environ.get("VQVAE_STAND_IN") != "forbid"
    root, source = data_root() if root is None else as_path(root), _SOURCES[name]
    place = Path(getattr(source, "base_folder", f"{source.__name__}/raw"))
    if root.name == place.parts[0] and (root.parent / place).is_dir():
        root = root.parent  # root is MNIST/ itself, not the folder above it
    try:
        if not (root / place).exists():
            _download(source, root, place)
    except DataError as error:
        if name != "mnist" or not stand_in:
            raise
        _announce(f"{error} Using the stand-in instead: drawn digits (glyphs).")
        return load_images("glyphs", train=train)
    return _read(name, root / place, train)


def create_dataloader(
    config: VQVAEConfig,
    name: str = "mnist",
    *,
    train: bool = True,
    dataset: ImageDataset | None = None,
    stand_in: bool | None = None,
) -> BatchLoader:
    """Make a loader: full, shuffled batches, or (for testing) all images in order.

    If ``dataset`` is given, nothing is loaded. Images whose number of channels is not
    ``config.in_channels`` raise ``ValueError``.
    """
    if dataset is None:
        dataset = load_images(name, train=train, stand_in=stand_in)
    shape = tuple(dataset.images.shape[1:])
    allowed = f"{shape[0]} for images {shape} of {dataset.name}"
    require(config.in_channels == shape[0], "in_channels", config.in_channels, allowed)
    options = {"shuffle": train, "drop_last": train, "seed": config.seed}
    return BatchLoader(dataset, config.batch_size, device=config.device, **options)


def _download(source: type, root: Path, place: Path) -> None:
    timeout = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as scratch:
            socket.setdefaulttimeout(30)  # torchvision itself would wait forever
            source(scratch, download=True)  # compares each archive with its MD5
            (root / place).parent.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # another process was faster
                Path(scratch, place).rename(root / place)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split("\n")[:3])  # the first of several mirrors
        file = "data_batch_1" if source is CIFAR10 else "train-images-idx3-ubyte[.gz]"
        raise DataError(
            f"{source.__name__} can't be downloaded ({reason}). Put {place / file} and "
            f"the other files into {root}, or set VQVAE_DATA to a folder that has them."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _read(name: str, folder: Path, train: bool) -> ImageDataset:
    path, values = folder, []
    try:
        if name == "cifar10":
            known = [*CIFAR10.train_list, *CIFAR10.test_list]  # with their MD5
            wrong = [f for f, md5 in known if not check_integrity(folder / f, md5)]
            path = folder.joinpath(*wrong[:1])
            data = CIFAR10(folder.parent, train)
            images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
            return ImageDataset(images, data.targets, name)
        for kind in ("images-idx3", "labels-idx1"):
            file = f"{'train' if train else 't10k'}-{kind}-ubyte"
            found = folder.glob(file.replace("-", "[-.]") + "*")  # or .gz, or Kaggle's
            path, start = min(found, default=folder / file), 4 + 4 * int(kind[-1])
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            magic, *shape = np.frombuffer(content[:start], ">u4").tolist()
            require(magic == 2048 + len(shape), "magic number", magic, "2051 or 2049")
            values.append(np.frombuffer(content, np.uint8)[start:].reshape(shape))
        return ImageDataset(values[0][:, None].copy(), values[1].copy(), name)
    except (OSError, EOFError, RuntimeError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} is missing or damaged ({error}). Put an intact copy there, or "
            f"delete {folder} to download it again."
        ) from error
