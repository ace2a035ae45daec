"""Two-dimensional vector quantization that the reader's browser computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .notebook import embed

if TYPE_CHECKING:
    from IPython.display import HTML


def playground() -> HTML:
    """Show points, codes and their cells, with controls for K, beta and the rule.

    ``playground.html`` computes what :class:`vqvae_lib.VectorQuantizer` and
    :class:`vqvae_lib.EMAVectorQuantizer` do, in float64; a test compares them. It needs
    neither kernel nor other files, and can be on a page more than once.
    """
    return embed(__file__)
