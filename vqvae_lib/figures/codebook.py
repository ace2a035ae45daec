"""Pictures of what a codebook does (chapter 5, and the description's two figures)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..analysis import active_codes, collect_indices, usage_counts
from ..quantizer import perplexity
from ..training import VQVAETrainer
from .style import BLUE, GREY, ORANGE, canvas, image_grid

__all__ = ["usage_histogram", "visualize_codebook_usage", "visualize_reconstruction"]


def visualize_reconstruction(trainer: VQVAETrainer, dataset: torch.utils.data.Dataset, n: int = 8) -> Figure:
    """Show the first ``n`` images of ``dataset`` above their reconstructions, both rows named."""
    x = torch.stack([dataset[i][0] for i in range(n)])
    x_recon, _ = trainer.reconstruct(x)
    return image_grid([x, x_recon], ["original", "reconstruction"])


def visualize_codebook_usage(trainer: VQVAETrainer, loader: Iterable[tuple[Tensor, Tensor]]) -> Figure:
    """Show how often each code of the codebook is used over a whole pass of ``loader``."""
    indices = collect_indices(trainer.model, loader)
    return usage_histogram(usage_counts(indices, trainer.config.num_embeddings))


def usage_histogram(counts: Tensor, *, ranked: bool = False) -> Figure:
    """Draw one bar a code, unused codes included, beside the level at which all would be used alike.

    Args:
        counts: (K,) uses.
        ranked: order codes from most to least used, instead of by index.
    """
    size, used = len(counts), active_codes(counts)
    share = counts.double() / counts.sum() * 100
    share = (share.sort(descending=True).values if ranked else share).numpy()
    figure, [[axis]] = canvas(height=2.6)
    axis.bar(range(size), share, width=1.0, color=BLUE, linewidth=0)
    axis.axhline(100 / size, color=ORANGE, linestyle="--", linewidth=1.2, label=f"all alike: {100 / size:.2g} %")
    axis.set_xlim(-0.5, size - 0.5)
    axis.set_xlabel("code, from most to least used" if ranked else "code index")
    axis.set_ylabel("share of positions (%)")
    axis.set_title(f"{used} of {size} codes used, perplexity {float(perplexity(counts)):.0f}")
    axis.legend()
    axis.grid(axis="x", visible=False)
    if used < size and not ranked:
        unused = (counts == 0).nonzero().flatten()
        axis.plot(unused, torch.zeros(len(unused)), "|", color=GREY, markersize=4, clip_on=False)
    return figure
