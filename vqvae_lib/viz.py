"""Two figures of a trained model; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ._util import require
from .metrics import active_codes, collect_indices, perplexity, usage_counts
from .model import VQVAE
from .vqvae_trainer import VQVAETrainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def visualize_reconstruction(
    trainer: VQVAETrainer | VQVAE, dataset: Dataset, n: int = 8
) -> Figure:
    """Show the first n images of a dataset of (image, label) above their
    reconstructions by a trainer or a model."""
    import matplotlib.pyplot as plt

    require(
        1 <= n <= len(dataset), "n", n, f"1 to {len(dataset)}, the dataset's length"
    )
    model = getattr(trainer, "model", trainer)
    x = torch.stack([dataset[i][0] for i in range(n)])
    with torch.no_grad():
        x_recon = model.decode(model.encode(x.to(next(model.parameters()).device)))
    frame = {"figsize": (n + 1.6, 2.2), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(2, n, **frame)
    plt.close(figure)  # so a notebook shows it once, as the cell's result
    pairs = ((x, "original"), (x_recon, "reconstruction"))
    for row, (images, name) in zip(axes, pairs, strict=True):
        for axis, image in zip(row, images.cpu().clamp(0, 1), strict=True):
            pixels = image.movedim(0, -1).squeeze(-1)  # (H, W, C), or (H, W) if gray
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def visualize_codebook_usage(
    trainer: VQVAETrainer | VQVAE, loader: Iterable[tuple[Tensor, Tensor]]
) -> Figure:
    """Show how often each code is used in a pass over a loader, all stages together."""
    import matplotlib.pyplot as plt

    model = getattr(trainer, "model", trainer)
    size = model.vq.num_embeddings
    counts = usage_counts(collect_indices(model, loader), size).cpu()
    figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
    plt.close(figure)
    axis.bar(range(size), (100 * counts / counts.sum()).tolist(), width=1)
    axis.axhline(100 / size, color="C1", linestyle="--", label="equal use")
    unused = (counts == 0).nonzero().flatten()
    axis.plot(unused, 0 * unused, "|", color="0.4", clip_on=False, label="unused")
    axis.set(xlabel="code", ylabel="share of positions (%)", xlim=(-0.5, size - 0.5))
    used = f"{active_codes(counts)} of {size} codes used"
    axis.set_title(f"{used}, perplexity {float(perplexity(counts)):.0f}")
    axis.legend()
    return figure
