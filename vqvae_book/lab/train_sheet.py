"""MNIST's pictures for training in the page: one sheet, made by the site's build."""

from __future__ import annotations

from pathlib import Path

from vqvae_lib.data import load_images

SHEET, COLUMNS, TRAIN, TEST = "mnist.png", 64, 3_712, 256  # whole rows of pictures
MOST_BYTES = 1_000_000


def write_sheet(folder: Path) -> Path | None:
    """Write the first images of MNIST's two halves, (3,968, 28, 28) uint8, as one PNG.

    The last 256 are test images. Where there is no MNIST, no file: the page draws
    glyphs. The source is named in the file (LeCun, Cortes and Burges 1998).
    """
    from PIL import Image, PngImagePlugin

    parts = [
        load_images("mnist", train=train).subset(slice(count))
        for train, count in ((True, TRAIN), (False, TEST))
    ]
    if any(part.name != "mnist" for part in parts):
        return None
    pixels = [part.images.numpy().reshape(-1, COLUMNS, 28, 28) for part in parts]
    rows = [part.swapaxes(1, 2).reshape(-1, 28 * COLUMNS) for part in pixels]
    about = PngImagePlugin.PngInfo()
    about.add_text("Source", "MNIST, http://yann.lecun.com/exdb/mnist/")
    sheet = Image.new("L", (28 * COLUMNS, sum(map(len, rows))))
    for part, top in zip(rows, (0, len(rows[0])), strict=True):
        sheet.paste(Image.fromarray(part), (0, top))
    path = folder / SHEET
    sheet.save(path, optimize=True, pnginfo=about)
    if path.stat().st_size > MOST_BYTES:
        size = path.stat().st_size
        raise ValueError(f"{SHEET} has {size:,} bytes: at most {MOST_BYTES:,}")
    return path
