"""Two-dimensional vector quantization that the reader's browser computes, with no kernel and no network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML

__all__ = ["playground"]

_numbers = itertools.count(1)


def playground() -> HTML:
    """Show points, codes and their Voronoi cells in a page of their own, with controls for K, beta and the rule.

    The arithmetic in ``playground.html`` is that of :class:`~vqvae_lib.VectorQuantizer` and
    :class:`~vqvae_lib.EMAVectorQuantizer`, in float64; a test compares the two.

    Returns:
        One self-contained piece of HTML, style and script. It works in a built page, Jupyter, Colab and VS Code, and
        more than once in a page.
    """
    from IPython.display import HTML  # only there when a notebook runs

    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return HTML(page.replace("@ID@", f"vq-playground-{next(_numbers)}"))
