"""What tests import by name; not from conftest, of which there are two."""

from __future__ import annotations

import pytest
import torch

from vqvae_lib import data_root

HAS_MNIST = (data_root() / "MNIST").is_dir()
needs_mnist = pytest.mark.skipif(not HAS_MNIST, reason="MNIST is not on disk: set VQVAE_DATA to the folder that has it")


def same_bits(one: object, other: object) -> bool:
    """Compare nested states: equal to the last bit, wherever a tensor stands."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return one == other


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
