"""Pictures of the site: smaller, and as they were drawn."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import palettes
import pytest
from PIL import Image


def png(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def figure() -> bytes:
    """Lines, shades of grey and a colour map in one picture, as matplotlib writes it."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3))
    for i, colour in enumerate(("#2f6db5", "#d9731a", "#2a8c6a", "#8a5aa8")):
        left.plot(np.arange(20), (np.arange(20) - i) ** 2, color=colour, label=f"line {i}")
    left.legend()
    middle.imshow(np.linspace(0, 1, 28 * 28).reshape(28, 28), cmap="gray")
    right.imshow(np.linspace(0, 1, 28 * 28).reshape(28, 28).T, cmap="viridis")
    written = io.BytesIO()
    fig.savefig(written, dpi=120)
    plt.close(fig)
    return written.getvalue()


def test_a_figure_gets_smaller_and_no_colour_moves_far(figure):
    small = palettes.compressed(figure)
    assert len(small) < 0.6 * len(figure)
    error = np.abs(pixels(small) - pixels(figure))
    assert error.max() <= 20
    assert (error**2).mean() ** 0.5 < 3


def test_shades_of_grey_stay_within_the_limit_and_few_colours_stay_the_same():
    greys = png(Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1))).convert("RGB"))
    assert np.abs(pixels(palettes.compressed(greys)) - pixels(greys)).max() <= palettes.LIMIT
    noise = np.random.default_rng(0).integers(0, 2, (64, 64), dtype=np.uint8) * 200
    two = png(Image.fromarray(noise).convert("RGB"))
    assert np.array_equal(pixels(palettes.compressed(two)), pixels(two))


def test_it_is_done_once(figure):
    small = palettes.compressed(figure)
    assert palettes.compressed(small) == small


def test_what_is_not_opaque_stays_as_it_is():
    picture = png(Image.new("RGBA", (50, 50), (10, 20, 30, 128)))
    assert palettes.compressed(picture) == picture
