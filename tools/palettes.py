"""Sphinx extension: the site's pictures with as few colours as the eye needs, in a third of the bytes.

A figure has few colours, and the shades of its edges. It gets a palette of its own, the smallest with which no pixel
moves by more than `LIMIT`, else the largest that PNG has.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageChops

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SIZES = (64, 128, 256)
LIMIT = 6  # of 255, in any of red, green and blue


def compressed(picture: bytes) -> bytes:
    """A PNG with a palette, or the picture as it is: if it has one, is not opaque, or would get no smaller."""
    image = Image.open(io.BytesIO(picture))
    if image.mode == "P" or image.convert("RGBA").getextrema()[3][0] < 255:
        return picture
    drawn = image.convert("RGB")
    for size in SIZES:
        palette = drawn.quantize(size, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        error = ImageChops.difference(palette.convert("RGB"), drawn)
        if max(high for _, high in error.getextrema()) <= LIMIT:
            break
    written = io.BytesIO()
    palette.save(written, "PNG", optimize=True)
    return min(written.getvalue(), picture, key=len)


def compress(app: Sphinx, exception: Exception | None) -> None:
    """Compress what the site shows, once all pages are written."""
    if exception is None:
        for file in Path(app.outdir, "_images").glob("*.png"):
            file.write_bytes(compressed(file.read_bytes()))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", compress)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
