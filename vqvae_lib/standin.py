"""Drawn characters that replace MNIST if it is not available."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._util import check_int, require

# Display and symbol fonts have no ordinary digits.
_FAMILIES = ("DejaVu", "STIXGeneral", "cmr", "cmb", "cmtt", "cmss")


def draw_glyphs(
    characters: str, count: int, *, seed: int, size: int = 28
) -> tuple[Tensor, Tensor]:
    """Draw characters in matplotlib's typefaces, each with its own random affine map.

    ``seed`` fixes characters, typefaces and maps.

    Returns:
        images (count, 1, size, size) uint8, white on black, and labels (count,) int64,
        positions in ``characters``.
    """
    visible = bool(characters) and not any(c.isspace() for c in characters)
    require(visible, "characters", characters, "one or more characters, none blank")
    count, size = check_int("count", count), check_int("size", size)
    templates = _glyph_templates(characters)  # (characters, typefaces, 64, 64)
    generator = torch.Generator().manual_seed(check_int("seed", seed, 0))
    labels = torch.randint(len(characters), (count,), generator=generator)
    faces = torch.randint(templates.shape[1], (count,), generator=generator)
    u = torch.rand(count, 6, generator=generator) * 2 - 1
    angle, shear = 0.26 * u[:, 0], 0.25 * u[:, 1]  # radians; up to 15 degrees
    width = 1.15 + 0.25 * u[:, 2]  # of the output, in units of the glyph's box
    height = 1.15 + 0.15 * u[:, 3]
    cos, sin = angle.cos(), angle.sin()
    across = [width * cos, width * (shear * cos - sin), 0.12 * u[:, 4]]
    down = [height * sin, height * (shear * sin + cos), 0.12 * u[:, 5]]
    maps = torch.stack(across + down, dim=1).view(-1, 2, 3)  # (count, 6) -> 2 x 3 each
    images = torch.empty(count, 1, size, size, dtype=torch.uint8)
    for start in range(0, count, 2048):  # in parts, to bound the memory
        part = slice(start, start + 2048)
        shape = [len(maps[part]), 1, 2 * size, 2 * size]
        grid = F.affine_grid(maps[part], shape, align_corners=False)
        drawn = templates[labels[part], faces[part]][:, None]
        warped = F.grid_sample(drawn, grid, align_corners=False)
        # The mean of 2 x 2 samples per pixel makes edges smooth.
        images[part] = F.avg_pool2d(warped, 2).mul(255).round().to(torch.uint8)
    return images, labels


def glyph_digits(train: bool = True) -> tuple[Tensor, Tensor]:
    """Draw the stand-in for MNIST: 60,000 digits to train on, or 10,000 to test on."""
    count, seed = (60_000, 0) if train else (10_000, 1)
    return draw_glyphs("0123456789", count, seed=seed)


def _glyph_templates(characters: str) -> Tensor:
    """Draw each character in each typeface: (characters, typefaces, 64, 64) float32."""
    import matplotlib  # needed only to draw glyphs
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [f for f in sorted(folder.glob("*.ttf")) if f.name.startswith(_FAMILIES)]
    files = [f for f in files if "Display" not in f.name]
    templates = np.zeros((len(characters), len(files), 64, 64), dtype=np.float32)
    for j, file in enumerate(files):
        font = ImageFont.truetype(str(file), 56)
        for i, character in enumerate(characters):
            left, top, right, bottom = font.getbbox(character)
            glyph = Image.new("L", (right - left, bottom - top))
            pen = ImageDraw.Draw(glyph)
            pen.text((-left, -top), character, fill=255, font=font)
            scale = 40 / max(glyph.size)
            width, height = (max(1, round(side * scale)) for side in glyph.size)
            glyph = glyph.resize((width, height), Image.Resampling.LANCZOS)
            box = Image.new("L", (64, 64))
            box.paste(glyph, ((64 - width) // 2, (64 - height) // 2))
            templates[i, j] = np.asarray(box, dtype=np.float32) / 255
    return torch.from_numpy(templates)
