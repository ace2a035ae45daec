"""Checks of chapter 4."""

from __future__ import annotations

import torch
from torch import Tensor

from vqvae_lib import VQVAE

from ..exercises import exercise, first_wrong, guarded


@exercise(
    "4.1", "Three halvings leave 4 × 4 positions; the field is larger than the image."
)
def third_halving(answer: Tensor) -> str | None:
    expected = {"the side of the grid": 4, "the bits": 144, "the side of the field": 38}
    return first_wrong(answer, expected)


@exercise(
    "4.3", "The field is 18 pixels wide; on two sides, seven of them are outside."
)
def share_of_padding(answer: float) -> str | None:
    if abs(answer - 7 / 18) < 0.01:
        return "That is the share along one side. The field is a square at a corner."
    if abs(answer - (11 / 18) ** 2) < 0.01:
        return "That is the share of the field that is inside the image."
    if abs(answer - (1 - (11 / 18) ** 2)) > 0.01:
        return "How far does the field of code (0, 0) reach beyond the image, per side?"
    return None


@exercise("4.2", "Two rows and two columns are lost, but codes see every pixel.")
def odd_sides(answer: Tensor) -> str | None:
    parts = {"the side of the picture": 28, "the pixels that no code sees": 0}
    return first_wrong(answer, parts)


@exercise("4.4", "A fine grid with few codes for the same 392 bits: now train both.")
def fine_grid(answer: VQVAE) -> str | None:
    K, indices = (
        answer.vq.num_embeddings,
        guarded(answer.encode)(torch.rand(2, 1, 28, 28)),
    )
    if indices.shape[1:] != (14, 14):
        return f"It encodes 28 × 28 pixels as {tuple(indices.shape[1:])} codes."
    if K != 4:
        return f"It has {K} codes, which give a different number of bits."
    shape = tuple(guarded(answer.decode)(indices).shape[2:])
    return None if shape == (28, 28) else f"It decodes them as {shape} pixels."


@exercise("4.5", "The grid has kept its size, and a code sees 34 × 34 pixels.")
def residual_blocks(answer: VQVAE) -> str | None:
    side = guarded(answer.encode)(torch.rand(1, 1, 28, 28)).shape[-1]
    if side != 7:
        return f"28 pixels per side became {side} codes: the blocks must keep the size."
    x = torch.rand(16, 1, 64, 64, requires_grad=True)
    guarded(answer.encoder)(x)[:, :, 8, 8].sum().backward()
    z = torch.randn(16, answer.vq.embedding_dim, 17, 17)
    changed = z.clone()
    changed[:, :, 8, 8] += 9
    with torch.no_grad():
        drawn, redrawn = (guarded(answer.decoder)(codes) for codes in (z, changed))
    for name, touched in {"encoder": x.grad, "decoder": drawn - redrawn}.items():
        rows = touched.abs().amax((0, 1)).nonzero()[:, 0]
        found = int(rows.max() - rows.min()) + 1
        if found != 34:
            return (
                f"In the {name} a code reaches {found} pixels per side: not two blocks."
            )
    return None
