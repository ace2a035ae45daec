"""Every picture of the book: functions that return a `Figure`, one module per chapter.

Importing this package makes a notebook show the book's figures as small PNG files;
other figures and matplotlib's settings are left alone.
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
