"""Images in memory: MNIST and its kin from disk, a stand-in where there is no MNIST, and batches of both."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision import datasets

from .config import VQVAEConfig, seed_at

__all__ = [
    "BatchLoader",
    "DataError",
    "ImageDataset",
    "create_dataloader",
    "data_root",
    "draw_glyphs",
    "draw_scenes",
    "load_images",
]

log = logging.getLogger(__name__)

NAMES = ("mnist", "fashion_mnist", "cifar10", "glyphs")
_CLASSES = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}
_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "cifar-10-batches-py"}
# file -> (magic number, shape) of the idx format; sha-256 where we could compute it from the real files
_IDX = {
    "train-images-idx3-ubyte": (2051, (60000, 28, 28)),
    "train-labels-idx1-ubyte": (2049, (60000,)),
    "t10k-images-idx3-ubyte": (2051, (10000, 28, 28)),
    "t10k-labels-idx1-ubyte": (2049, (10000,)),
}
_SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
}


class DataError(RuntimeError):
    """A dataset that is not there, or not whole. The message names the file and the remedy."""


class ImageDataset(Dataset):
    """Images and labels held in memory, as bytes.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        name: which data these are, for pictures and records.

    ``dataset[i]`` is the pair (image (C, H, W) float32 in [0, 1], label int).
    """

    def __init__(self, images: Tensor, labels: Tensor, name: str) -> None:
        if images.dim() != 4 or images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}: expected uint8 (N, C, H, W).")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels have shape {tuple(labels.shape)}: expected ({len(images)},), one an image.")
        self.images = images
        self.labels = labels.long()
        self.name = name

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index].float().div(255), int(self.labels[index])

    def subset(self, indices: Tensor | slice) -> ImageDataset:
        """Return the images at ``indices`` as a dataset of the same name."""
        return ImageDataset(self.images[indices], self.labels[indices], self.name)

    def floats(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """Return images at ``indices`` as float32 (n, C, H, W) in [0, 1]."""
        return self.images[indices].float().div(255)

    def variance(self) -> float:
        """Return the variance of all pixels, in units of [0, 1] squared."""
        return float(self.images.double().div(255).var(correction=0))

    def fingerprint(self) -> str:
        """Return 16 hex digits that change when any pixel or label does."""
        digest = hashlib.sha256(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:16]


class BatchLoader:
    """Iterate batches (x (B, C, H, W) float32 in [0, 1], labels (B,) int64) of an :class:`ImageDataset`.

    The bytes are moved to the device once; a batch is one indexing and one scaling there. The order of an epoch is a
    function of ``seed`` and the epoch's number alone, so that a run can be taken up in the middle of one.

    The values of a ``TensorDataset(values, labels)`` that are no bytes, such as codes, go out as they are.

    Args:
        dataset: what to iterate.
        batch_size: images a batch, 1 or more.
        shuffle: draw a new order each epoch.
        drop_last: leave out a last batch that is not full.
        seed: of the orders.
        device: where batches lie.
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
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} is not possible: it must be 1 or more.")
        if len(dataset) == 0 or (drop_last and len(dataset) < batch_size):
            raise ValueError(
                f"{len(dataset)} images make no batch of {batch_size}: take more images or a smaller batch."
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.device = torch.device(device)
        self.epoch = 0
        tensors = dataset.tensors if isinstance(dataset, TensorDataset) else (dataset.images, dataset.labels)
        self._values, self._labels = (tensor.to(self.device) for tensor in tensors)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass the ``epoch``-th (from 0)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(self.epoch)
        self.epoch += 1
        return self._batches(order)

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.dataset), device=self.device)
        generator = torch.Generator().manual_seed(seed_at(self.seed, epoch))
        return torch.randperm(len(self.dataset), generator=generator).to(self.device)

    def _batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in order[: len(self) * self.batch_size].split(self.batch_size):
            values = self._values[chosen]
            yield values.float().div_(255) if values.dtype == torch.uint8 else values, self._labels[chosen]


def data_root() -> Path:
    """Return where datasets lie: ``VQVAE_DATA`` if set, else ``~/.cache/vqvae_lib/data``."""
    return Path(os.environ.get("VQVAE_DATA") or Path.home() / ".cache" / "vqvae_lib" / "data")


def load_images(
    name: str = "mnist", *, train: bool = True, root: str | Path | None = None, stand_in: bool | None = None
) -> ImageDataset:
    """Load a dataset into memory: from disk if it is there, else by downloading it once.

    Args:
        name: ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"`` or ``"glyphs"``.
        train: the training set; else the test set.
        root: folder of datasets; :func:`data_root` if not given.
        stand_in: whether ``"glyphs"`` may take the place of an MNIST that is neither on disk nor to be downloaded.
            Yes if not given, unless the environment says ``VQVAE_STAND_IN=forbid``. One line in the log says so.

    Returns:
        60,000 or 10,000 images of 1 x 28 x 28 (50,000 or 10,000 of 3 x 32 x 32 for CIFAR-10).

    Raises:
        ValueError: unknown name.
        DataError: the data can't be had and no stand-in is allowed, or a file on disk is damaged.
    """
    if name not in NAMES:
        raise ValueError(f"name = {name!r} is not possible: it must be one of {NAMES}.")
    if name == "glyphs":
        return _glyph_digits(train)
    root = Path(root) if root is not None else data_root()
    if stand_in is None:
        stand_in = os.environ.get("VQVAE_STAND_IN") != "forbid"
    try:
        if not (root / _FOLDERS[name]).exists():
            _download(name, root)
    except DataError as error:
        if name != "mnist" or not stand_in:
            raise
        _say_once(f"MNIST wanted; {error} Using the stand-in instead: digits of matplotlib's typefaces (glyphs).")
        return _glyph_digits(train)
    if name == "cifar10":
        return _read_cifar(root, train)
    _check_idx(name, root)
    data = _CLASSES[name](root, train=train)
    return ImageDataset(data.data[:, None], data.targets, name)  # (N, H, W) -> (N, 1, H, W)


def create_dataloader(
    config: VQVAEConfig,
    name: str = "mnist",
    *,
    train: bool = True,
    dataset: ImageDataset | None = None,
    stand_in: bool | None = None,
) -> BatchLoader:
    """Make the loader that a run needs: shuffled, whole batches for training; all images in order for testing.

    Args:
        config: ``batch_size``, ``in_channels``, ``seed`` and ``device`` are read.
        name: as in :func:`load_images`.
        train: training set or test set.
        dataset: iterate these images instead of loading by name.
        stand_in: as in :func:`load_images`.

    Raises:
        ValueError: the images' channels are not ``config.in_channels``.
    """
    dataset = dataset if dataset is not None else load_images(name, train=train, stand_in=stand_in)
    if dataset.images.shape[1] != config.in_channels:
        raise ValueError(
            f"in_channels = {config.in_channels}, but the images of {dataset.name} have {dataset.images.shape[1]}: "
            f"set in_channels={dataset.images.shape[1]}."
        )
    return BatchLoader(
        dataset, config.batch_size, shuffle=train, drop_last=train, seed=config.seed, device=config.device
    )


def draw_glyphs(characters: str, count: int, *, seed: int, size: int = 28) -> tuple[Tensor, Tensor]:
    """Draw characters in the typefaces that ship with matplotlib, each image under its own random affine map.

    Args:
        characters: what to draw; image i shows a character drawn at random from these.
        count: how many images.
        seed: fixes characters, typefaces and maps.
        size: height and width in pixels.

    Returns:
        images (count, 1, size, size) uint8, white on black, and labels (count,) int64, places in ``characters``.
    """
    masters = _masters(characters)  # (characters, typefaces, 64, 64)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(characters), (count,), generator=generator)
    faces = torch.randint(masters.shape[1], (count,), generator=generator)
    u = torch.rand(count, 6, generator=generator) * 2 - 1  # one draw in [-1, 1] for each number of the map
    angle, shear = 0.26 * u[:, 0], 0.25 * u[:, 1]  # radians; up to 15 degrees
    width, height = 1.15 + 0.25 * u[:, 2], 1.15 + 0.15 * u[:, 3]  # of the output in units of the glyph's box
    cos, sin = angle.cos(), angle.sin()
    across = [width * cos, width * (shear * cos - sin), 0.12 * u[:, 4]]
    down = [height * sin, height * (shear * sin + cos), 0.12 * u[:, 5]]
    maps = torch.stack(across + down, dim=1).view(-1, 2, 3)  # (count, 6) -> (count, 2, 3)
    images = torch.empty(count, 1, size, size, dtype=torch.uint8)
    for start in range(0, count, 2048):
        part = slice(start, start + 2048)
        grid = F.affine_grid(maps[part], [len(maps[part]), 1, 2 * size, 2 * size], align_corners=False)
        warped = F.grid_sample(masters[labels[part], faces[part]][:, None], grid, align_corners=False)
        images[part] = F.avg_pool2d(warped, 2).mul(255).round().to(torch.uint8)  # two samples a pixel: smooth edges
    return images, labels


def draw_scenes(count: int, *, seed: int, size: int = 32) -> ImageDataset:
    """Draw simple scenes in colour: a disc and a bar on a blend of two colours, all at random.

    Args:
        count: how many.
        seed: of the draws; equal seeds draw equal scenes.
        size: side of the image in pixels.

    Returns:
        ``count`` images (3, size, size) of the CIFAR-10 kind; every label is 0.
    """
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(count, 6, 1, 1, 1, generator=g)
    colours = torch.rand(count, 4, 3, 1, 1, generator=g)
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    blend = (x * u[:, 0] + y * (1 - u[:, 0])).clamp(0, 1)
    image = colours[:, 0] * blend + colours[:, 1] * (1 - blend)
    disc = (x - u[:, 1]) ** 2 + (y - u[:, 2]) ** 2 < (0.1 + 0.2 * u[:, 3]) ** 2
    bar = ((x - u[:, 4]).abs() < 0.08) & ((y - u[:, 5]).abs() < 0.35)
    image = torch.where(bar, colours[:, 2], torch.where(disc, colours[:, 3], image))
    return ImageDataset(image.mul(255).to(torch.uint8), torch.zeros(count, dtype=torch.long), "scenes")


def _masters(characters: str) -> Tensor:
    """Set each character in each typeface, its longer side 40 of 64 pixels. -> (characters, typefaces, 64, 64)."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    # Display and symbol faces draw no ordinary digits.
    families = ("DejaVu", "STIXGeneral", "cmr", "cmb", "cmtt", "cmss")
    files = sorted(f for f in folder.glob("*.ttf") if f.name.startswith(families) and "Display" not in f.name)
    masters = np.zeros((len(characters), len(files), 64, 64), dtype=np.float32)
    for j, file in enumerate(files):
        font = ImageFont.truetype(str(file), 56)
        for i, character in enumerate(characters):
            left, top, right, bottom = font.getbbox(character)
            glyph = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(glyph).text((-left, -top), character, fill=255, font=font)
            scale = 40 / max(glyph.size)
            glyph = glyph.resize([max(1, round(side * scale)) for side in glyph.size], Image.Resampling.LANCZOS)
            box = Image.new("L", (64, 64))
            box.paste(glyph, ((64 - glyph.width) // 2, (64 - glyph.height) // 2))
            masters[i, j] = np.asarray(box, dtype=np.float32) / 255
    return torch.from_numpy(masters)


def _glyph_digits(train: bool) -> ImageDataset:
    images, labels = draw_glyphs("0123456789", 60_000 if train else 10_000, seed=0 if train else 1)
    return ImageDataset(images, labels, "glyphs")


@functools.cache
def _say_once(line: str) -> None:
    log.warning(line)


def _download(name: str, root: Path) -> None:
    """Fetch into a folder of its own, checked by torchvision, and move it into place when it is whole."""
    folder = _FOLDERS[name]
    log.info("downloading %s to %s", name, root)
    timeout = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as scratch:
            socket.setdefaulttimeout(30)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                _CLASSES[name](scratch, download=True)
            if name != "cifar10":
                _check_idx(name, Path(scratch))
            if not (root / folder).exists():  # another process may have been faster
                (Path(scratch) / folder).replace(root / folder)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = str(error).partition("\n")[0].removesuffix(":")  # what torchvision says of each mirror follows
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({reason}). Put its files there, or set VQVAE_DATA "
            "to a folder that holds them."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _check_idx(name: str, root: Path) -> None:
    """Raise ``DataError`` unless the four idx files are whole."""
    raw = root / _FOLDERS[name] / "raw"
    remedy = f"Delete {root / _FOLDERS[name]} and load again, or put a whole copy there."
    for file, (magic, shape) in _IDX.items():
        path = raw / file
        if not path.is_file():
            raise DataError(f"{path} is missing. {remedy}")
        content = path.read_bytes()
        header = struct.pack(f">{1 + len(shape)}I", magic, *shape)
        expected = len(header) + int(np.prod(shape))
        if len(content) != expected:
            raise DataError(f"{path} has {len(content):,} bytes, expected {expected:,}: it is not whole. {remedy}")
        wanted = _SHA256.get(name, {}).get(file)
        if content[: len(header)] != header or (wanted and hashlib.sha256(content).hexdigest() != wanted):
            raise DataError(f"{path} is damaged: its content is not what {name} should hold. {remedy}")


def _read_cifar(root: Path, train: bool) -> ImageDataset:
    # torchvision compares each file with its known MD5 before it reads it.
    try:
        data = datasets.CIFAR10(root, train=train)
    except RuntimeError as error:
        folder = root / _FOLDERS["cifar10"]
        raise DataError(
            f"{folder} is damaged or not whole. Delete it and load again, or put a whole copy there."
        ) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()  # (N, H, W, C) -> (N, C, H, W)
    return ImageDataset(images, torch.tensor(data.targets), "cifar10")
