"""The explorer of the sweep over K and beta, which the reader's browser runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm, to_hex

from vqvae_lib import active_codes
from vqvae_lib.data import DataError, load_images

from .figures.draw import shares
from .figures.style import HEAT
from .notebook import embed, say
from .results import PICTURES, RUNS, Result, failed, png_strip, sweep

if TYPE_CHECKING:
    from IPython.display import HTML, Markdown

# Label -> name in a result, and format.
NUMBERS = {
    "test MSE per pixel": ("MSE", ".5f"),
    "bits per image": ("bits", ".0f"),
    "active codes": ("active codes", ".0f"),
    "perplexity": ("perplexity", ".1f"),
}
RANKS = 32  # of a usage curve: on a logarithmic axis more can't be seen
BOOK = 0.25  # the book's beta


def explore_sweep(folder: str | Path = RUNS) -> HTML | Markdown:
    """Show the runs of a sweep; sliders or a map choose K and beta, buttons the seed.

    ``explorer.html`` shows what :func:`contents` gathers, and needs neither kernel nor
    other files: it is the same in Jupyter, in Colab and on the site, where the build
    moves the pictures to a separate file.
    """
    if not (points := sweep(folder)):
        return say("> There are no runs of the sweep. Remedy: `make sweep`.")
    data = contents(points)
    return embed(__file__, PICTURES=_set_apart(data), DATA=data)


def _set_apart(data: dict[str, Any]) -> list[str]:
    """Take out all pictures but the one shown first; put numbers in their place."""
    row, column = data["start"]
    first = data["cells"][row][column]["runs"][:1]
    runs = [run for line in data["cells"] for cell in line for run in cell["runs"]]
    later = [run for run in runs if run not in first]
    pictures = [run["picture"] for run in later]
    for place, run in enumerate(later):
        run["picture"] = place
    return pictures


def contents(points: Mapping[tuple[int, float], Sequence[Result]]) -> dict[str, Any]:
    """Gather what the explorer shows of the runs, (K, beta) -> one run per seed."""
    sizes, betas = (sorted(set(values)) for values in zip(*points, strict=True))
    runs = [run for same in points.values() for run in same]
    originals, why = _originals(runs[0])
    errors = [error for run in runs for error in run.history["recon_loss"]]
    rows = [[_cell(K, b, points.get((K, b), ())) for b in betas] for K in sizes]
    cells = [cell for row in rows for cell in row]
    means = [cell["mean"] for cell in cells if cell["mean"]]
    norm = LogNorm(min(means, default=1), max(means, default=1))
    for cell in cells:
        if cell["mean"]:
            color = HEAT(norm(cell["mean"]))
            cell["colors"] = to_hex(color), readable_on(color)
    least = min(share for c in cells for run in c["runs"] for _, share in run["use"])
    return {
        "sizes": sizes,
        "betas": betas,
        "seeds": sorted({run.settings["seed"] for run in runs}),
        "start": (len(sizes) // 2, betas.index(BOOK) if BOOK in betas else 0),
        "labels": list(NUMBERS),
        "originals": originals,
        "why": why,
        "errors": (min(errors) * 0.9, max(errors) * 1.1),
        "steps": max(run.history["step"][-1] for run in runs),
        "least": least,
        "cells": rows,
    }


def _originals(run: Result) -> tuple[str, str]:
    """Return the images that every run redraws as a PNG, or "" and why there is none.

    No run holds an image of a dataset.
    """
    try:
        test = load_images(run.provenance["data"], train=False, stand_in=False)
    except DataError as error:
        return "", f"The originals can't be shown: {error}"
    if test.fingerprint() != run.provenance["test"]:
        return "", "The originals can't be shown: this is a different dataset."
    return png_strip(test.floats(slice(PICTURES))), ""


def readable_on(color: Sequence[float]) -> str:
    """Return black or white, whichever has more contrast: one always has 4.5 : 1."""
    luminance = np.array(color[:3]) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    return "#000" if luminance > 0.18 else "#fff"


def _cell(size: int, beta: float, runs: Sequence[Result]) -> dict[str, Any]:
    """Gather one setting: numbers of the seeds that learned, and each seed's run."""
    setting = f"K = {size}, β = {beta:g}"
    kept = [run for run in runs if not failed(run)]
    lost = [f"seed {run.settings['seed']}" for run in runs if failed(run)]
    table = []
    for name, form in NUMBERS.values():
        values = [run.numbers[name] for run in kept]
        ends = (statistics.fmean(values), min(values), max(values)) if kept else ()
        table.append([f"{end:{form}}" for end in ends] or ["–"] * 3)
    note = f"All {len(runs)} seeds learned." if len(runs) > 1 else "One seed learned."
    if not runs:
        note = f"There is no stored run with {setting}. Remedy: make sweep."
    elif lost:
        note = f"{len(lost)} of {len(runs)} seeds failed, losing more than half of the "
        note += f"pixels' variance; the means leave them out: {', '.join(lost)}."
    mean = statistics.fmean(run.numbers["MSE"] for run in kept) if kept else 0
    cell = {"setting": setting, "table": table, "note": note, "mean": mean}
    cell |= {"count": len(kept), "lost": len(lost), "runs": [_run(run) for run in runs]}
    if runs:
        most = max(float(run.usage.max() / run.usage.sum()) for run in runs)
        fewest = min(active_codes(run.usage) for run in runs)
        ends = [run.history["recon_loss"][-1] for run in runs]
        cell["alts"] = [
            f"Use of the codes with {setting}, by rank: at least {fewest} of {size} "
            f"are used; the most used takes up to {most:.1%} of the positions.",
            f"Training error with {setting}: it goes from "
            f"{runs[0].history['recon_loss'][0]:.4f} to between {min(ends):.4f} and "
            f"{max(ends):.4f}.",
        ]
    return cell


def _run(run: Result) -> dict[str, Any]:
    """Gather one run: its numbers as text, its pictures as PNG, and two curves."""
    use = shares(run.usage)
    used = active_codes(run.usage)
    ranks = np.unique(np.geomspace(1, used, RANKS).round().astype(int))
    curve = zip(run.history["step"], run.history["recon_loss"], strict=True)
    return {
        "seed": run.settings["seed"],
        "failed": failed(run),
        "numbers": [f"{run.numbers[name]:{form}}" for name, form in NUMBERS.values()],
        "picture": png_strip(run.pictures["reconstructions"]),
        "use": [(int(rank), float(f"{use[rank - 1]:.3g}")) for rank in ranks],
        "curve": [(int(step), float(f"{error:.4g}")) for step, error in curve],
    }
