"""What tests import by name; not from conftest, of which there are two."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset

from vqvae_lib import BatchLoader, EMAVectorQuantizer, Trainer, VectorQuantizer, data_root

HAS_MNIST = (data_root() / "MNIST").is_dir()
HALVES = [torch.float16, torch.bfloat16]
INTEGERS = [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]

both = pytest.mark.parametrize("kind", [VectorQuantizer, EMAVectorQuantizer], ids=lambda kind: kind.__name__)
needs_mnist = pytest.mark.skipif(not HAS_MNIST, reason="MNIST is not on disk: set VQVAE_DATA to the folder that has it")


def differing(one: object, other: object, place: str = "") -> list[str]:
    """Name the places where nested states are not equal to the last bit, wherever a tensor stands."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [f"{place}: {one} is not {other}"]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differing(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [found for i in range(len(one)) for found in differing(one[i], other[i], f"{place}.{i}")]
    return [] if one == other else [f"{place}: {one!r} is not {other!r}"]


def same_bits(one: object, other: object) -> bool:
    """Compare nested states: equal to the last bit."""
    return not differing(one, other)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def whole(*shape: int, seed: int = 0, reach: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    """Whole numbers: all products and sums are exact, so ties are true ties and equality is equality."""
    return torch.randint(-reach, reach + 1, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def squared_distances(z: Tensor, codebook: Tensor) -> Tensor:
    """(N, K) float64, one subtraction for each pair: brute force."""
    return (z.detach().double()[:, None] - codebook.detach().double()).square().sum(-1)


def brute_force(z: Tensor, codebook: Tensor) -> Tensor:
    """The nearest code of each vector, the first of equal ones (which argmin does not promise)."""
    table = squared_distances(z, codebook)
    return (table == table.min(1, keepdim=True).values).int().argmax(1)


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def placed(kind: type, codebook: Tensor, **choices: object) -> torch.nn.Module:
    """Make a quantizer in training whose codes stand where we put them and whose decay is past its warm-up."""
    vq = kind(*codebook.shape, **{"init": "uniform", "restart_threshold": 0, **choices}).to(codebook.dtype)
    vq.codebook.data.copy_(codebook)
    vq.updates.fill_(10**6)
    return vq


def trained(kind: type, steps: int = 3, k: int = 16, **choices: object) -> torch.nn.Module:
    """Make a quantizer of codes of length 4 that has started and seen some batches."""
    vq = kind(k, 4, **{"restart_threshold": 0.5, **choices})
    vq.initialize(normal(64, 4))
    for step in range(steps):
        vq(normal(64, 4, seed=step))
    return vq


def train(model: torch.nn.Module, images: Tensor, steps: int = 4) -> None:
    """Train a VQ-VAE in a user's own loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        x_recon, vq_loss, _ = model(images)
        optimizer.zero_grad()
        (F.mse_loss(x_recon, images) + vq_loss).backward()
        optimizer.step()


class NoFloat64(TorchFunctionMode):
    """A device without float64, as Apple's: only what has gone through ``.cpu()`` may be of that kind."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.cpu:
            result = result.clone()
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_host = func is torch.Tensor.cpu or (given and all(hasattr(tensor, "on_host") for tensor in given))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and on_host:
                made.on_host = True
            elif isinstance(made, Tensor) and made.dtype is torch.float64:
                raise TypeError(f"{func.__name__}: this device has no float64")
        return result


@contextmanager
def no_looks() -> Iterator[None]:
    """Refuse what makes a GPU's stream wait for the host: reading values, shapes that hang on values, copies."""
    aten = torch.ops.aten
    waiting = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.lift_fresh}
    calls = {torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.numpy}

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func.overloadpacket not in waiting, f"{func} waits for the device"
            return func(*args, **(kwargs or {}))

    class Calls(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            assert func not in calls, f"{func} waits for the device"
            return func(*args, **(kwargs or {}))

    with Operations(), Calls():
        yield


def brightness(image) -> int:
    """The brightness, 0 to 255, of a picture in one grey, given by its locator in a browser; -1 if pixels differ."""
    return image.evaluate(
        """async (image) => {
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
            const reds = new Set(pixels.filter((_, i) => i % 4 == 0));
            return reds.size == 1 ? pixels[0] : -1;
        }"""
    )


def stripes(n: int = 256) -> TensorDataset:
    """Grids whose rows repeat their first code, drawn at random: 4 log2 3 bits. The label is the first row's."""
    first = torch.randint(3, (n, 4, 1), generator=torch.Generator().manual_seed(0))
    return TensorDataset(first.expand(n, 4, 4).contiguous(), first[:, 0, 0])


def expect_stripes_are_learned(prior: torch.nn.Module, steps: int) -> None:
    """Check that a prior of codes finds the bits that `stripes` need, fewer with labels, and draws such grids."""
    config, classes = prior.config, prior.config.num_classes
    loader = BatchLoader(stripes(), config.batch_size, shuffle=True, drop_last=True)
    trainer = Trainer(prior, config)
    trainer.fit(loader, steps=steps)
    least = (4 - (classes > 0)) * math.log2(3)
    assert least - 0.3 < trainer.evaluate(loader)["bits_per_image"] < least + 0.5
    labels = torch.arange(64) % 3 if classes else None
    drawn = trainer.model.sample(64, 4, 4, labels)
    assert ((drawn == drawn[:, :, :1]).all(2)).float().mean() > 0.95
    assert labels is None or (drawn[:, 0, 0] == labels).float().mean() > 0.95
