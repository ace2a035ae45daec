"""Pictures of chapter 5: a run's quantities, ends of runs, number formats."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from . import draw
from .draw import Curve, Values, plot
from .style import COLORS, MARKERS, canvas


def history_rows(
    steps: Values, quantities: Mapping[str, Values], *, log: Sequence[str] = ()
) -> Figure:
    """Draw a run's quantities one below another: name -> values; log: names."""
    n = len(quantities)
    figure, axes = canvas(n, height=1.05 * n + 0.4, sharex=True)
    for i, (name, values) in enumerate(quantities.items()):
        axes[i, 0].plot(steps, values, f"{MARKERS[i]}-", color=COLORS[i], markersize=3)
        axes[i, 0].set(ylabel=name, yscale="log" if name in log else "linear")
    axes[-1, 0].set_xlabel("optimizer steps")
    figure.align_ylabels()
    return figure


def error_vs_perplexity(
    runs: Mapping[str, Curve], ends: Mapping[str, tuple[float, float]]
) -> Figure:
    """Show runs, name -> (errors, perplexities) along it, and where models end."""
    figure, [[left, right]] = canvas(1, 2, height=3.3)
    x, y = "reconstruction error (MSE per pixel)", "perplexity (codes)"
    plot(left, runs, x, y, "along the run: o start, X end", marks=0, xscale="log")
    for color, (errors, perplexities) in zip(COLORS, runs.values(), strict=False):
        left.plot(errors[0], perplexities[0], "o", color=color, markersize=4)
        left.plot(errors[-1], perplexities[-1], "X", color=color, markersize=8)
    points = {name: ([error], [codes]) for name, (error, codes) in ends.items()}
    plot(right, points, x, y, "finished models, test images", marks=6, xscale="log")
    for axis in (left, right):
        draw.plain_ticks(axis, "x", 5)
        draw.legend(axis, fontsize=7)
    return figure
