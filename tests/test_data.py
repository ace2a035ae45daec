"""Data: torchvision's own reading, each fault on disk, failed downloads, the stand-in, and batches."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import struct
from dataclasses import replace
from http.client import IncompleteRead
from itertools import chain
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import HAS_MNIST, needs_mnist
from torch.utils.data import TensorDataset
from torchvision import datasets
from torchvision.transforms import ToTensor

from vqvae_lib import (
    BatchLoader,
    DataError,
    ImageDataset,
    create_dataloader,
    data,
    data_root,
    draw_glyphs,
    draw_scenes,
    load_images,
)

SIZES = {"train-images-idx3-ubyte": (30, 28, 28), "train-labels-idx1-ubyte": (30,)}
SIZES |= {"t10k-images-idx3-ubyte": (20, 28, 28), "t10k-labels-idx1-ubyte": (20,)}


def write_idx(folder: Path) -> None:
    """Write four whole idx files with few random images into ``folder``."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for file, shape in SIZES.items():
        header = struct.pack(f">{1 + len(shape)}I", 2048 + len(shape), *shape)
        content = rng.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8)
        (folder / file).write_bytes(header + content.tobytes())


@pytest.fixture
def few(monkeypatch, tmp_path):
    """A root with a small MNIST whose sizes and checksums the library takes for the true ones."""
    raw = tmp_path / "root" / "MNIST" / "raw"
    write_idx(raw)
    monkeypatch.setattr(data, "_IDX", {file: (2048 + len(shape), shape) for file, shape in SIZES.items()})
    sums = {file: hashlib.sha256((raw / file).read_bytes()).hexdigest() for file in SIZES}
    monkeypatch.setattr(data, "_SHA256", {"mnist": sums})
    shutil.copytree(raw, tmp_path / "root" / "FashionMNIST" / "raw")
    return tmp_path / "root"


@pytest.fixture
def small_stand_in(monkeypatch):
    """The stand-in in a hundredth of its size."""
    monkeypatch.setattr(
        data, "draw_glyphs", lambda characters, count, *, seed: draw_glyphs(characters, count // 100, seed=seed)
    )


# --- reading ----------------------------------------------------------------------------------------------------------


@needs_mnist
@pytest.mark.parametrize(("train", "size"), [(True, 60_000), (False, 10_000)])
def test_real_mnist_is_what_torchvision_reads(train, size):
    ours = load_images("mnist", train=train)
    theirs = datasets.MNIST(data_root(), train=train, transform=ToTensor())
    assert ours.images.shape == (size, 1, 28, 28)
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)
    batches = BatchLoader(ours, 100)
    x, labels = next(iter(batches))
    for i in range(100):
        image, label = theirs[i]
        assert torch.equal(ours[i][0], image)
        assert torch.equal(x[i], image)
        assert ours[i][1] == label == labels[i]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize(("train", "size"), [(True, 30), (False, 20)])
def test_files_on_disk_are_what_torchvision_reads_and_need_no_network(few, name, train, size):
    ours = load_images(name, train=train, root=few)
    theirs = data._CLASSES[name](few, train=train, transform=ToTensor())
    assert ours.name == name
    assert len(ours) == size
    for i in range(size):
        image, label = ours[i]
        assert image.dtype == torch.float32
        assert torch.equal(image, theirs[i][0])
        assert label == theirs[i][1]
    assert torch.equal(ours.floats(), torch.stack([image for image, _ in theirs]))


def test_the_root_is_an_argument_else_the_environments_else_in_the_home_folder(few, monkeypatch):
    monkeypatch.setenv("VQVAE_DATA", str(few))
    assert data_root() == few
    assert load_images("mnist").fingerprint() == load_images("mnist", root=few).fingerprint()
    monkeypatch.delenv("VQVAE_DATA")
    assert data_root() == Path.home() / ".cache" / "vqvae_lib" / "data"


def test_the_books_own_images_as_a_chapter_loads_them(monkeypatch, tmp_path, caplog):
    """With MNIST on disk the real ones; elsewhere the stand-in, in full, and one line that says so."""
    monkeypatch.delenv("VQVAE_STAND_IN", raising=False)
    if not HAS_MNIST:
        monkeypatch.setenv("VQVAE_DATA", str(tmp_path))
    images = load_images(train=False)
    assert images.name == ("mnist" if HAS_MNIST else "glyphs")
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == (0 if HAS_MNIST else 1)
    assert images.images.shape == (10_000, 1, 28, 28)
    assert images.labels.unique().tolist() == list(range(10))


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match=r"name = 'emnist' .*'mnist', 'fashion_mnist', 'cifar10', 'glyphs'"):
        load_images("emnist")


# --- faults on disk ---------------------------------------------------------------------------------------------------


def fault_missing(path: Path) -> None:
    path.unlink()


def fault_empty(path: Path) -> None:
    path.write_bytes(b"")


def fault_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def fault_too_long(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def fault_magic(path: Path) -> None:
    path.write_bytes(b"\0\0\x0d" + path.read_bytes()[3:])


def fault_count(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:7] + b"\x01" + content[8:])


def fault_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])


FAULTS = {
    fault_missing: "is missing",
    fault_empty: "0 bytes, expected",
    fault_truncated: "bytes, expected .* not whole",
    fault_too_long: "bytes, expected .* not whole",
    fault_magic: "is damaged",
    fault_count: "is damaged",
    fault_byte: "is damaged",
}


@pytest.mark.parametrize("file", SIZES)
@pytest.mark.parametrize(("fault", "message"), FAULTS.items(), ids=lambda f: getattr(f, "__name__", ""))
def test_a_fault_names_the_file_and_the_remedy_and_is_no_reason_for_the_stand_in(few, file, fault, message):
    path = few / "MNIST" / "raw" / file
    fault(path)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))} .*{message}.*Delete {re.escape(str(few / 'MNIST'))}"):
        load_images("mnist", root=few, stand_in=True)


@pytest.mark.parametrize("fault", [fault_missing, fault_truncated, fault_magic])
def test_fashion_mnists_files_are_checked_too(few, fault):
    path = few / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    fault(path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_images("fashion_mnist", root=few)


@needs_mnist
def test_one_wrong_byte_in_real_mnist_is_found(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in SIZES:
        (raw / file).symlink_to((data_root() / "MNIST" / "raw" / file).resolve())
    path = raw / "t10k-labels-idx1-ubyte"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert len(load_images("mnist", root=tmp_path, train=False)) == 10_000
    fault_byte(path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        load_images("mnist", root=tmp_path, train=False)


def test_a_half_cifar_names_its_folder_and_the_remedy(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"half")
    with pytest.raises(DataError, match=f"{re.escape(str(folder))} is damaged or not whole. Delete it"):
        load_images("cifar10", root=tmp_path)


# --- downloads --------------------------------------------------------------------------------------------------------


def half_download(error: BaseException):
    """A download that has written half a file when it breaks off."""

    def fetch(root: str, download: bool) -> None:
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte").write_bytes(b"half")
        raise error

    return fetch


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route"),
        TimeoutError("timed out"),
        RuntimeError("File not found or corrupted."),
        IncompleteRead(b"12"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_interrupted_download_says_why_and_leaves_nothing(monkeypatch, tmp_path, error):
    monkeypatch.setitem(data._CLASSES, "mnist", half_download(error))
    root = tmp_path / "root"
    with pytest.raises(
        DataError, match=rf"mnist is not in {re.escape(str(root))} .*{re.escape(str(error))}.*VQVAE_DATA"
    ):
        load_images("mnist", root=root, stand_in=False)
    assert list(root.iterdir()) == []


def test_a_download_stopped_by_hand_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setitem(data._CLASSES, "mnist", half_download(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        load_images("mnist", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_ends_early_without_an_error_is_not_taken_for_whole(few, monkeypatch, tmp_path):
    def fetch(root: str, download: bool) -> None:
        shutil.copytree(few / "MNIST", Path(root) / "MNIST")
        fault_truncated(Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte")

    monkeypatch.setitem(data._CLASSES, "mnist", fetch)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte .* not whole"):
        load_images("mnist", root=tmp_path / "new", stand_in=False)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_whole_download_is_moved_into_place_and_used_from_then_on(few, monkeypatch, tmp_path):
    calls = []

    class Fetched(datasets.MNIST):
        def download(self) -> None:
            calls.append(self.root)
            shutil.copytree(few / "MNIST" / "raw", self.raw_folder)

        @property
        def raw_folder(self) -> str:
            return str(Path(self.root) / "MNIST" / "raw")

    monkeypatch.setitem(data._CLASSES, "mnist", Fetched)
    root = tmp_path / "new"
    first, second = load_images("mnist", root=root), load_images("mnist", root=root)
    assert len(calls) == 1
    assert [p.name for p in root.iterdir()] == ["MNIST"]
    assert first.fingerprint() == second.fingerprint() == load_images("mnist", root=few).fingerprint()


# --- the stand-in -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_stand_in")
@pytest.mark.parametrize(("train", "size"), [(True, 600), (False, 100)])
def test_the_stand_in_takes_mnists_place_and_one_line_says_so(monkeypatch, tmp_path, caplog, train, size):
    monkeypatch.delenv("VQVAE_STAND_IN", raising=False)
    images = load_images("mnist", train=train, root=tmp_path)
    assert images.name == "glyphs"
    assert images.images.shape == (size, 1, 28, 28)
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "\n" not in line
    for part in ("MNIST wanted", str(tmp_path), "could not be downloaded", "Using the stand-in instead", "glyphs"):
        assert part in line


@pytest.mark.usefixtures("small_stand_in")
@pytest.mark.parametrize(
    ("setting", "argument", "name", "allowed"),
    [
        (None, None, "mnist", True),
        ("forbid", None, "mnist", False),
        ("forbid", True, "mnist", True),
        (None, False, "mnist", False),
        (None, True, "fashion_mnist", False),
        (None, True, "cifar10", False),
    ],
)
def test_the_stand_in_can_be_forbidden_and_is_for_mnist_alone(monkeypatch, tmp_path, setting, argument, name, allowed):
    monkeypatch.delenv("VQVAE_STAND_IN", raising=False)
    if setting:
        monkeypatch.setenv("VQVAE_STAND_IN", setting)
    if allowed:
        assert load_images(name, root=tmp_path, stand_in=argument).name == "glyphs"
    else:
        with pytest.raises(DataError, match=f"{name} is not in .* could not be downloaded .*VQVAE_DATA"):
            load_images(name, root=tmp_path, stand_in=argument)
    assert list(tmp_path.iterdir()) == []


def test_glyphs_are_the_same_for_the_same_seed_and_no_one_elses_numbers():
    before = torch.get_rng_state()
    images, labels = draw_glyphs("0123456789", 300, seed=3)
    again, labels_again = draw_glyphs("0123456789", 300, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(images, draw_glyphs("0123456789", 300, seed=4)[0])
    assert not torch.equal(images[:1], images[1:2])


def test_glyphs_train_and_test_sets_differ_and_can_be_asked_for_by_name(small_stand_in, tmp_path):
    train, test = (load_images("glyphs", train=train, root=tmp_path / "unused") for train in (True, False))
    assert (len(train), len(test), train.name) == (600, 100, "glyphs")
    assert train.fingerprint() != test.fingerprint()
    assert not (train.images[:, None] == test.images).flatten(2).all(2).any()  # no image is in both


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize("count", [1, 50])
def test_glyphs_come_in_any_number_and_size(size, count):
    images, labels = draw_glyphs("AB7", count, seed=0, size=size)
    assert images.shape == (count, 1, size, size)
    assert images.dtype == torch.uint8
    assert labels.shape == (count,)
    assert 0 <= labels.min() <= labels.max() < 3
    assert images.flatten(1).amax(1).min() > 64  # every image shows something


def test_a_glyphs_label_says_what_is_drawn():
    images, labels = draw_glyphs("1O", 400, seed=0)
    ink = images.float().mean((1, 2, 3))
    width = (images.amax(2) > 64).sum((1, 2)).float()
    assert set(labels.tolist()) == {0, 1}
    assert width[labels == 1].mean() > 1.3 * width[labels == 0].mean()  # an O is wider than a 1
    assert ink.std() > 0


# --- datasets and batches ---------------------------------------------------------------------------------------------


def toy(n: int = 10, channels: int = 1) -> ImageDataset:
    """Images whose every pixel is the image's number; labels the same."""
    numbers = torch.arange(n)
    return ImageDataset(numbers.to(torch.uint8)[:, None, None, None].expand(n, channels, 4, 4).clone(), numbers, "toy")


def seen(loader: BatchLoader) -> list[list[int]]:
    """Iterate one epoch; the labels, after a check that the images are theirs."""
    batches = list(loader)
    for x, labels in batches:
        assert x.dtype == torch.float32
        assert torch.equal(x.mul(255).round()[:, 0, 0, 0].long(), labels)
    return [labels.tolist() for _, labels in batches]


def test_scenes_are_colour_images_and_a_function_of_the_seed():
    scenes, again = draw_scenes(50, seed=3, size=24), draw_scenes(50, seed=3, size=24)
    assert scenes.images.shape == (50, 3, 24, 24) and scenes.images.dtype == torch.uint8
    assert torch.equal(scenes.images, again.images)
    assert not torch.equal(scenes.images, draw_scenes(50, seed=4, size=24).images)
    assert all(len(image.flatten(1).unique(dim=1).T) > 24 for image in scenes.images)  # a blend, not one colour
    assert scenes.labels.tolist() == [0] * 50


@pytest.mark.parametrize(
    ("n", "drop_last", "sizes"),
    [(10, False, [4, 4, 2]), (10, True, [4, 4]), (8, False, [4, 4]), (8, True, [4, 4]), (3, False, [3])],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_have_the_sizes_that_len_promises(n, drop_last, sizes, shuffle):
    loader = BatchLoader(toy(n), 4, shuffle=shuffle, drop_last=drop_last)
    assert [len(batch) for batch in seen(loader)] == sizes
    assert len(loader) == len(sizes)


def test_without_shuffling_images_come_in_order():
    loader = BatchLoader(toy(), 4)
    assert seen(loader) == seen(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_order_is_a_function_of_seed_and_epoch():
    def order(loader: BatchLoader) -> list[int]:
        return list(chain.from_iterable(seen(loader)))

    loader = BatchLoader(toy(100), 7, shuffle=True, seed=5)
    orders = [order(loader) for _ in range(3)]
    assert all(sorted(numbers) == list(range(100)) for numbers in orders)
    assert len(set(map(tuple, [list(range(100)), *orders]))) == 4
    other = BatchLoader(toy(100), 7, shuffle=True, seed=5)
    other.set_epoch(2)
    torch.rand(3)
    assert order(other) == orders[2]
    assert order(BatchLoader(toy(100), 7, shuffle=True, seed=6)) != orders[0]


def test_batches_are_copies():
    loader = BatchLoader(toy(), 4)
    next(iter(loader))[0].zero_().add_(9)
    assert seen(loader)[0] == [0, 1, 2, 3]


def test_create_dataloader_shuffles_whole_batches_for_training_and_keeps_order_for_testing(config):
    config = replace(config, batch_size=4)
    train, test = (create_dataloader(config, train=train, dataset=toy()) for train in (True, False))
    assert (train.shuffle, train.drop_last, train.batch_size, train.seed) == (True, True, 4, config.seed)
    assert seen(test) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_statistics_of_a_dataset():
    images = toy()
    assert images.variance() == pytest.approx(np.var(np.arange(10) / 255))
    part = images.subset(slice(2, 5))
    assert (len(part), part.name, part.labels.tolist()) == (3, "toy", [2, 3, 4])
    assert images.subset(torch.tensor([7, 1])).labels.tolist() == [7, 1]
    assert torch.equal(images.floats(slice(3, 4)), torch.full((1, 1, 4, 4), 3 / 255))


@pytest.mark.parametrize("change", ["pixel", "label"])
def test_a_fingerprint_changes_with_every_pixel_and_label(change):
    one, other = toy(), toy()
    assert one.fingerprint() == other.fingerprint()
    if change == "pixel":
        other.images[9, 0, 3, 3] += 1
    else:
        other.labels[0] = 1
    assert one.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(3, 1, 4, 4), torch.zeros(3), r"images are torch\.float32 \(3, 1, 4, 4\): expected uint8"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3), r"\(3, 4, 4\): expected uint8 \(N, C, H, W\)"),
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), r"labels have shape \(2,\): expected \(3,\)"),
    ],
)
def test_a_dataset_refuses_what_is_no_image(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageDataset(images, labels, "wrong")


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_a_loader_hands_out_other_tensors_as_they_are(dtype):
    values, labels = torch.arange(24).view(6, 2, 2).to(dtype), torch.arange(6)
    (x, first), (y, second) = BatchLoader(TensorDataset(values, labels), 3)
    assert x.dtype == dtype
    assert torch.equal(torch.cat([x, y]), values)
    assert torch.equal(torch.cat([first, second]), labels)


@pytest.mark.parametrize(
    ("n", "batch_size", "drop_last", "message"),
    [
        (10, 0, False, "batch_size = 0"),
        (10, -2, False, "batch_size = -2"),
        (0, 4, False, "0 images make no batch of 4"),
        (3, 4, True, "3 images make no batch of 4"),
    ],
)
def test_a_loader_refuses_what_makes_no_batch(n, batch_size, drop_last, message):
    with pytest.raises(ValueError, match=message):
        BatchLoader(toy(n), batch_size, drop_last=drop_last)


def test_a_wrong_number_of_channels_is_named_with_its_remedy(config):
    with pytest.raises(ValueError, match=r"in_channels = 1, .* toy have 3: set in_channels=3"):
        create_dataloader(config, dataset=toy(channels=3))
