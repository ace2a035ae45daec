"""Two-dimensional vector quantization that the reader's browser computes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML

_numbers = itertools.count(1)


def playground() -> HTML:
    """Show points, codes and their cells, with controls for K, beta and the rule.

    ``playground.html`` computes what :class:`vqvae_lib.VectorQuantizer` and
    :class:`vqvae_lib.EMAVectorQuantizer` do, in float64; a test compares them. It needs
    neither kernel nor other files, and may stand in a page more than once.
    """
    from IPython.display import HTML  # only there when a notebook runs

    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return HTML(page.replace("@ID@", f"vq-playground-{next(_numbers)}"))
