"""Every picture of the book: functions that return a `Figure`, one module per chapter.

Importing this package has a notebook show the book's figures as small PNG files; no
other figure, and none of matplotlib's settings, is touched.
"""

from .draw import (
    bar_panels,
    image_grid,
    line_panels,
    map_panels,
    metric_panels,
    seeds_strip,
    tradeoff,
)
from .style import show_small

show_small()
