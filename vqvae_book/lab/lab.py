"""The place of the lab, or of one of its stations, in a chapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqvae_lib._util import check_choice

from ..notebook import embed
from ..results import png_strip, stored_studies

if TYPE_CHECKING:
    from IPython.display import HTML

STATIONS = ("draw", "edit", "write", "train")


def lab(station: str = "") -> HTML:
    """Show the lab, or one station of it, where a page of the built book is read.

    In a notebook, and where no script runs, it shows a picture and says where it is.
    """
    check_choice("station", station, ("", *STATIONS))
    [study] = stored_studies("classes-K0032-seed0")
    rows = study.pictures["rows"].unflatten(0, (8, 10))[1:, 3]  # a three, row by row
    return embed(__file__, STATION=station, PICTURE=png_strip(rows))
