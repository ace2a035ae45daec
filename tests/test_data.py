"""Data: reading whole files and damaged ones, downloads, the stand-in, datasets in memory, and batches."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import pickle
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import needs_mnist
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST
from torchvision.transforms import ToTensor

from vqvae_book.extras import draw_scenes
from vqvae_lib.data import BatchLoader, DataError, ImageDataset, create_dataloader, data_root, load_images
from vqvae_lib.standin import draw_glyphs

SIZES = {"train-images-idx3-ubyte": (30, 28, 28), "train-labels-idx1-ubyte": (30,)}
SIZES |= {"t10k-images-idx3-ubyte": (20, 28, 28), "t10k-labels-idx1-ubyte": (20,)}
SOURCES = {"mnist": (MNIST, "MNIST"), "fashion_mnist": (FashionMNIST, "FashionMNIST")}
SOURCES |= {"cifar10": (CIFAR10, CIFAR10.base_folder)}


def write_idx(folder: str | Path) -> None:
    """Write four whole idx files with few random images into ``folder``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for file, shape in SIZES.items():
        header = struct.pack(f">{1 + len(shape)}I", 2048 + len(shape), *shape)
        content = rng.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8)
        Path(folder, file).write_bytes(header + content.tobytes())


@pytest.fixture
def few(monkeypatch, tmp_path) -> Path:
    """A root with small datasets of all three kinds, whose checksums torchvision takes for the true ones."""
    write_idx(tmp_path / "root" / "MNIST" / "raw")
    write_idx(tmp_path / "root" / "FashionMNIST" / "raw")
    folder, rng, sums = tmp_path / "root" / CIFAR10.base_folder, np.random.default_rng(0), []
    folder.mkdir()
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]):
        batch = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [i] * 4, "label_names": ["a"]}
        (folder / name).write_bytes(pickle.dumps(batch))
        sums.append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])  # noqa: S324
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:6])
    monkeypatch.setitem(CIFAR10.meta, "md5", sums[6][1])
    return tmp_path / "root"


@pytest.fixture
def small_stand_in(monkeypatch):
    """The stand-in in a hundredth of its size, allowed unless a test says otherwise."""
    monkeypatch.delenv("VQVAE_STAND_IN", raising=False)
    monkeypatch.setattr("vqvae_lib.standin.draw_glyphs", lambda c, n, seed: draw_glyphs(c, n // 100, seed=seed))


@needs_mnist
@pytest.mark.parametrize(("train", "size"), [(True, 60_000), (False, 10_000)])
def test_real_mnist_is_what_torchvision_reads(train, size):
    ours, theirs = load_images("mnist", train=train), MNIST(data_root(), train=train)
    assert ours.images.shape == (size, 1, 28, 28)
    assert torch.equal(ours.images[:, 0], theirs.data) and torch.equal(ours.labels, theirs.targets)


def repack(folder: Path, how: str) -> None:
    for path in list(folder.glob("raw/*")):
        content = path.read_bytes()
        path.unlink()
        name = {"plain": path.name, "gz": f"{path.name}.gz", "kaggle": path.name.replace("-idx", ".idx")}[how]
        path.with_name(name).write_bytes(gzip.compress(content) if how == "gz" else content)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("how", ["plain", "gz", "kaggle"])
@pytest.mark.parametrize("name", SOURCES)
def test_files_on_disk_are_read_as_torchvision_reads_them(few, name, how, train):
    source, folder = SOURCES[name]
    theirs = source(few, train=train, transform=ToTensor())
    repack(few / folder, how)
    for root in (few, str(few), few / folder):  # the last is the dataset's own folder
        ours = load_images(name, train=train, root=root)
        assert ours.name == name
        assert torch.equal(ours.floats(), torch.stack([image for image, _ in theirs]))
        assert ours.labels.tolist() == [label for _, label in theirs]


def test_the_root_is_an_argument_else_the_environments_else_in_the_home_folder(few, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):  # the latter on Windows
        monkeypatch.setenv(variable, str(few.parent))
    monkeypatch.setenv("VQVAE_DATA", "~/root")
    assert data_root() == few
    assert len({load_images(root=root).fingerprint() for root in (None, few, "~/root")}) == 1
    monkeypatch.delenv("VQVAE_DATA")
    assert data_root() == few.parent / ".cache" / "vqvae_lib" / "data"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where no home is known
    with pytest.raises(DataError, match="VQVAE_DATA"):
        load_images("mnist", stand_in=True)


FAULTS = {
    "missing": None,
    "empty": lambda content: b"",
    "header cut short": lambda content: content[:7],
    "cut short": lambda content: content[:-1],
    "too long": lambda content: content + b"\0",
    "magic number": lambda content: b"\0\0\x0d" + content[3:],
    "count": lambda content: content[:7] + b"\x01" + content[8:],
    "gz cut short": lambda content: gzip.compress(content)[:-5],
    "gz in name alone": lambda content: content[1:],
    "gz with another sum": lambda content: gzip.compress(content)[:-6] + b"\1" + gzip.compress(content)[-5:],
}
PLACES = [("mnist", f"MNIST/raw/train-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
PLACES += [("cifar10", f"{CIFAR10.base_folder}/{file}") for file in ("data_batch_3", "test_batch")]
STOPS = [URLError("no route"), TimeoutError("slow"), RuntimeError("bad"), IncompleteRead(b"12"), KeyboardInterrupt()]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_a_damaged_file_is_named_and_is_no_reason_for_the_stand_in(few, name, place, fault):
    path = few / place
    content = path.read_bytes()
    path.unlink()
    path = path.with_name(f"{path.name}.gz") if name == "mnist" and fault.startswith("gz") else path
    if FAULTS[fault]:
        path.write_bytes(FAULTS[fault](content))
    with pytest.raises(DataError) as error:
        load_images(name, root=few, stand_in=True)
    assert str(path) in str(error.value) and f"delete {path.parent}" in str(error.value)


def test_each_set_needs_its_own_files_and_they_belong_together(few):
    raw = few / "MNIST" / "raw"
    (raw / "train-images-idx3-ubyte").unlink()
    assert len(load_images("mnist", root=few, train=False)) == 20
    (raw / "t10k-labels-idx1-ubyte").write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(DataError):
        load_images("mnist", root=few, train=False)


@pytest.mark.parametrize("stop", STOPS, ids=lambda error: type(error).__name__)
def test_an_interrupted_download_says_why_and_where_files_go_and_leaves_nothing(monkeypatch, tmp_path, stop):
    def fetch(self) -> None:
        write_idx(self.raw_folder)
        raise stop

    monkeypatch.setattr(MNIST, "download", fetch)
    with pytest.raises(KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else DataError) as error:
        load_images("mnist", root=tmp_path, stand_in=False)
    if error.type is DataError:
        for part in (str(stop), str(Path("MNIST", "raw", "train-images-idx3-ubyte")), str(tmp_path), "VQVAE_DATA"):
            assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_two_that_download_at_once_do_not_spoil_each_other_and_no_one_downloads_again(few, monkeypatch, tmp_path):
    barrier = threading.Barrier(2)

    def fetch(self) -> None:
        barrier.wait(20)  # both have found nothing
        write_idx(self.raw_folder)
        barrier.wait(20)  # both have it all, and will move it into place

    monkeypatch.setattr(MNIST, "download", fetch)
    root = tmp_path / "new"
    with ThreadPoolExecutor(2) as pool:
        loaded = list(pool.map(lambda _: load_images("mnist", root=root, stand_in=False), range(2)))
    socket.setdefaulttimeout(None)  # one thread may have taken the other's for the caller's
    loaded += [load_images("mnist", root=root), load_images("mnist", root=few)]
    assert len({images.fingerprint() for images in loaded}) == 1
    assert [path.name for path in root.iterdir()] == ["MNIST"]


ALLOWED = [("", None, "mnist"), ("forbid", True, "mnist")]
FORBIDDEN = [("forbid", None, "mnist"), ("", False, "mnist"), ("", True, "fashion_mnist"), ("", True, "cifar10")]
GLYPHS = (1, lambda seed, size: draw_glyphs("AB7", 50, seed=seed, size=size))
SCENES = (3, lambda seed, size: draw_scenes(50, seed=seed, size=size).tensors)


@pytest.mark.usefixtures("small_stand_in")
def test_the_stand_in_takes_mnists_place_and_one_line_says_so(tmp_path, caplog):
    train, test = (load_images("mnist", train=train, root=tmp_path) for train in (True, False))
    assert (train.name, len(train), test.name, len(test)) == ("glyphs", 600, "glyphs", 100)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "\n" not in line and str(tmp_path) in line and "glyphs" in line
    assert not (train.images[:, None] == test.images).flatten(2).all(2).any()  # no image is in both


@pytest.mark.usefixtures("small_stand_in")
@pytest.mark.parametrize(("setting", "argument", "name"), ALLOWED + FORBIDDEN)
def test_the_stand_in_can_be_forbidden_and_is_for_mnist_alone(monkeypatch, tmp_path, setting, argument, name):
    monkeypatch.setenv("VQVAE_STAND_IN", setting)
    with nullcontext() if (setting, argument, name) in ALLOWED else pytest.raises(DataError):
        assert load_images(name, root=tmp_path, stand_in=argument).name == "glyphs"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [8, 28])
@pytest.mark.parametrize(("channels", "draw"), [GLYPHS, SCENES], ids=["glyphs", "scenes"])
def test_drawn_images_are_a_function_of_the_seed_and_no_one_elses_numbers(channels, draw, size):
    before = torch.get_rng_state()
    images, labels = draw(3, size)
    assert torch.equal(torch.get_rng_state(), before)
    assert (images.shape, images.dtype, labels.shape) == ((50, channels, size, size), torch.uint8, (50,))
    assert all(torch.equal(*pair) for pair in zip(draw(3, size), (images, labels), strict=True))
    assert not torch.equal(draw(4, size)[0], images)
    assert images.flatten(1).float().std(1).min() > 5  # every image shows something


def test_a_glyphs_label_says_what_is_drawn():
    images, labels = draw_glyphs("1O", 400, seed=0)
    width = (images.amax(2) > 64).sum((1, 2)).float()
    assert width[labels == 1].mean() > 1.3 * width[labels == 0].mean()  # an O is wider than a 1


def toy(n: int = 10, channels: int = 1) -> ImageDataset:
    """Images whose every pixel is the image's number; labels the same."""
    numbers = torch.arange(n)
    return ImageDataset(numbers.to(torch.uint8)[:, None, None, None].expand(n, channels, 4, 4).clone(), numbers, "toy")


def seen(loader: BatchLoader) -> list[list[int]]:
    """Iterate one epoch; the labels, after a check that the images are theirs."""
    batches = list(loader)
    for x, labels in batches:
        assert (x.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert torch.equal(x.mul(255).round()[:, 0, 0, 0].long(), labels)
    return [labels.tolist() for _, labels in batches]


def test_statistics_and_parts_of_a_dataset():
    images, changed, relabelled = toy(), toy(), toy()
    assert images.variance() == pytest.approx(np.var(np.arange(10) / 255), rel=1e-12)
    part = images.subset(slice(2, 5))
    assert (len(part), part.name, part.labels.tolist()) == (3, "toy", [2, 3, 4])
    assert images.subset(torch.tensor([7, 1])).labels.tolist() == [7, 1]
    assert torch.equal(images.floats(slice(3, 4)), torch.full((1, 1, 4, 4), 3 / 255))
    changed.images[9, 0, 3, 3] += 1
    relabelled.labels[0] = 1
    assert len({each.fingerprint() for each in (images, toy(), changed, relabelled)}) == 3


@pytest.mark.parametrize("labels", [None, [0, 0], *(np.zeros(2, kind) for kind in (np.uint8, np.uint16, np.int32))])
def test_a_dataset_takes_arrays_and_any_integers_as_labels(labels):
    images = np.arange(2 * 16, dtype=np.uint8).reshape(2, 1, 4, 4)
    ours = ImageDataset(images, labels)
    assert torch.equal(ours.images, torch.from_numpy(images))
    assert (ours.labels.dtype, ours.labels.tolist()) == (torch.int64, [0, 0])


BYTES = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
REFUSED = {
    "name": [lambda: load_images("emnist")],
    "characters": [lambda: draw_glyphs("", 3, seed=0), lambda: draw_glyphs("a b", 3, seed=0)],
    "images": [lambda x=x: ImageDataset(x, [0] * 3) for x in (BYTES.float(), BYTES[:, 0], BYTES[:, 0].numpy())],
    "labels": [lambda y=y: ImageDataset(BYTES, y) for y in ([0] * 2, BYTES[:, 0, :1, 0], torch.zeros(3))],
    "batch_size": [lambda n=n: BatchLoader(toy(), n) for n in (0, -2, 2.5)],
    "seed": [lambda: BatchLoader(toy(), seed=-1)],
    "no batches": [lambda: BatchLoader(toy(0), 4), lambda: BatchLoader(toy(3), 4, drop_last=True)],
    "dataset": [lambda d=d: BatchLoader(d) for d in (TensorDataset(BYTES), Subset(toy(), [0]), [1, 2])],
}


@pytest.mark.parametrize(("field", "call"), [(field, call) for field, calls in REFUSED.items() for call in calls])
def test_what_can_not_be_taken_is_named(field, call):
    with pytest.raises(ValueError, match=field):
        call()


@pytest.mark.parametrize(("n", "drop_last", "sizes"), [(10, False, [4, 4, 2]), (10, True, [4, 4]), (8, True, [4, 4])])
def test_batches_have_the_sizes_that_len_promises(n, drop_last, sizes):
    loader = BatchLoader(toy(n), np.int64(4), shuffle=True, drop_last=drop_last)
    assert [len(batch) for batch in seen(loader)] == sizes
    assert len(loader) == len(sizes)


def test_an_order_is_a_function_of_seed_and_epoch():
    loader, other = (BatchLoader(toy(100), 100, shuffle=True, seed=seed) for seed in (5, np.int64(5)))
    orders = [seen(loader)[0] for _ in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(map(tuple, [list(range(100)), *orders]))) == 4
    other.set_epoch(2)
    torch.rand(3)
    assert seen(other)[0] == orders[2]
    assert seen(BatchLoader(toy(100), 100, shuffle=True, seed=6))[0] != orders[0]
    assert seen(BatchLoader(toy(), 4, shuffle=True, seed=42)) == [[8, 4, 0, 7], [5, 2, 6, 1], [9, 3]]  # as stored runs


def test_without_shuffling_images_come_in_order_as_copies_on_the_device():
    loader = BatchLoader(toy(), 4)
    next(iter(loader))[0].zero_().add_(9)
    assert seen(loader) == seen(loader) == seen(DataLoader(toy(), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert {part.device.type for batch in BatchLoader(toy(), 4, device="meta") for part in batch} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_a_loader_hands_out_other_tensors_as_they_are(dtype):
    values, labels = torch.arange(24).view(6, 2, 2).to(dtype), torch.arange(6)
    ours = [torch.cat(parts) for parts in zip(*BatchLoader(TensorDataset(values, labels), 4), strict=True)]
    assert ours[0].dtype == dtype and torch.equal(ours[0], values) and torch.equal(ours[1], labels)


@pytest.mark.usefixtures("small_stand_in")
def test_create_dataloader_shuffles_full_batches_to_train_and_keeps_order_to_test(config, monkeypatch, tmp_path):
    config = replace(config, batch_size=4)
    train, test = (create_dataloader(config, train=train, dataset=toy()) for train in (True, False))
    assert seen(train) == seen(BatchLoader(toy(), 4, shuffle=True, drop_last=True, seed=config.seed))
    assert seen(test) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    with pytest.raises(ValueError, match="in_channels"):
        create_dataloader(config, dataset=toy(channels=3))
    monkeypatch.setenv("VQVAE_DATA", str(tmp_path))
    assert len(create_dataloader(config, train=False).dataset) == 100
    with pytest.raises(DataError):
        create_dataloader(config, stand_in=False)
