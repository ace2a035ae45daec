"""What tests import by name; not from conftest, of which there are two."""

from __future__ import annotations

import pytest
import torch

from vqvae_lib import data_root

HAS_MNIST = (data_root() / "MNIST").is_dir()
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
