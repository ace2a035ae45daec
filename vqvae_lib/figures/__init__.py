"""Every picture of the book: functions that return a ``Figure``, one module a chapter, one style for all."""

from .codebook import usage_histogram, visualize_codebook_usage, visualize_reconstruction
from .style import COLOURS, HEAT, MARKERS, canvas, image_grid, show_image
