"""Every picture of the chapters is drawn once from small made-up values, and says what it was given to say.

The chapters draw them from real values; here a picture that can't be drawn, or lost a name or an axis, is found without
a training run. Where arithmetic stands behind a picture, test_figures.py tests it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import vqvae_lib.figures
from vqvae_lib import nearest_code

torch.manual_seed(0)
IMAGES = torch.rand(6, 1, 28, 28)
GRID = torch.randint(16, (7, 7))
PLANE = torch.randn(40, 2)
CODES = torch.randn(5, 2)
LINE = torch.linspace(0.1, 1, 12)
HISTORY = {name: [3.0, 2.0, 1.0] for name in ("step", "recon_loss", "vq_loss", "active_codes", "perplexity")}
CURVE = ([1, 2, 3], [0.3, 0.2, 0.1])
ROWS = [
    {"N": n, "K": k, "ours ms": 1.0 * n, "bare product ms": 0.5 * n, "MiB beyond": 5.0}
    for n, k in ((1, 8), (2, 8), (1, 16))
]

# module: function: what draws it, and words that must be readable in the picture
PICTURES: dict[str, dict[str, tuple[Callable[[Callable], Figure], set[str]]]] = {
    "introduction": {
        "numbers_over_image": (
            lambda draw: draw(IMAGES[0], GRID, IMAGES[1]),
            {"k: 7 × 7 whole numbers", str(int(GRID[3, 3]))},
        ),
        "bit_costs": (
            lambda draw: draw({"as pixels": (6272.0, True), "as codes": (441.0, False)}),
            {"as codes", "  441"},
        ),
        "change_one": (lambda draw: draw(IMAGES[0], IMAGES[:2], [3, 5, 7], (2, 4)), {"true: 3", "→ 7"}),
        "model": (lambda draw: draw(IMAGES[0], GRID, IMAGES[1], 16), {"encoder", "decoder"}),
    },
    "maths": {
        "latent_planes": (
            lambda draw: draw({"VAE": PLANE, "VQ-VAE": PLANE}, torch.arange(40) % 10, rings=["VAE"], codes=CODES),
            {"VAE", "VQ-VAE", "code"},
        ),
        "evidence": (lambda draw: draw(LINE, -LINE, LINE, -0.1, 8), {"sharpness of the posterior (1: the true one)"}),
        "staircase": (lambda draw: draw(LINE, LINE, LINE, LINE, LINE), {"place on a line through the latent plane"}),
        "pulls": (
            lambda draw: draw(
                PLANE, CODES, {"codebook": (torch.zeros(40, 2), CODES), "commitment": (PLANE, 0 * CODES)}
            ),
            {"codebook", "commitment"},
        ),
        "gradient_table": (
            lambda draw: draw(["first", "second"], ["encoder", "codes"], torch.tensor([[0, 1.5], [2.5, 0]])),
            {"first", "second", "encoder", "codes", "1.5", "2.5", "0"},
        ),
        "norms_and_means": (lambda draw: draw({"MNIST": {4: 4.1, 64: 0.26}}, {"MNIST": 1}), {"measured, MNIST"}),
        "code_sheet": (lambda draw: draw(IMAGES, torch.tensor([5, 1, 2, 0, 0, 2]), columns=4), {"50.0 %", "0.0 %"}),
        "cost": (
            lambda draw: draw(
                [16, 64], {"whole": [0.1, 0.4], "chunks": [0.1, 0.2]}, {"whole": [9, 99], "chunks": [9, 9]}
            ),
            {"whole", "chunks", "in proportion to K"},
        ),
        "loss_curves": (lambda draw: draw({"right": HISTORY, "swapped": HISTORY}), {"right", "swapped", "step"}),
        "beta_weights": (
            lambda draw: draw([0.25, 1], {"on the encoder": {"right": [0.25, 1], "swapped": [1, 1]}}),
            {"on the encoder", "right", "swapped", "commitment cost β"},
        ),
        "meeting": (lambda draw: draw({"β = 1": (LINE, LINE)}), {"β = 1", "step of gradient descent"}),
    },
    "model": {
        "costs": (lambda draw: draw(["one", "two"], [100, 300], [5000, 5000]), {"parameters: 400", "products: 10,000"}),
        "bits": (
            lambda draw: draw([7, 14], [16, 512], (7, 512), {"PNG": 2000.0}),
            {"grid 7 x 7", "grid 14 x 14", "PNG"},
        ),
        "scales": (lambda draw: draw(["one", "two"], {"PyTorch": [1.0, 0.3]}), {"PyTorch", "one", "two"}),
        "curves": (lambda draw: draw({"mean start": CURVE}, 1.0, "a constant"), {"mean start", "a constant"}),
        "maps": (
            lambda draw: draw(
                [LINE.outer(LINE)] * 2, ["left", "right"], "gradient", boxes=[(1, 1, 3)] * 2, diverging=True
            ),
            {"left", "right", "gradient"},
        ),
        "profiles": (lambda draw: draw({"a row": LINE}, 2, 5), {"a row"}),
        "footprint": (lambda draw: draw(IMAGES[0], IMAGES[1], (4, 4, 12)), {"reconstruction", "one code changed"}),
        "overlaps": (lambda draw: draw({"kernel 4": LINE.round()}), {"kernel 4"}),
        "spectra": (lambda draw: draw({"transposed": LINE}), {"transposed"}),
        "rings": (lambda draw: draw([0.1, 0.2, 0.3], 0.2), set()),
    },
    "quantizer": {
        "voronoi": (lambda draw: draw(PLANE, CODES, 3.0), {"before: 40 vectors", "after: 5 codes and their cells"}),
        "score_lines": (lambda draw: draw(torch.tensor([-1.0, 0.5])), {"code at -1.0", "code at 0.5"}),
        "two_rules": (lambda draw: draw(CODES, {"nearest": nearest_code}, 3.0), {"nearest", "code with a cell"}),
        "flattened": (lambda draw: draw({"right": torch.arange(12).view(6, 2)}), {"right", "row handed to the lookup"}),
        "lines": (
            lambda draw: draw({"panel": {"curve": CURVE}}, x="steps", y="error", yscale="log", levels={"floor": 0.05}),
            {"panel", "curve", "steps", "error", "floor"},
        ),
        "scaling": (lambda draw: draw(ROWS), {"N = 1", "K = 8", "library", "bare product", "time (ms)"}),
        "bars": (
            lambda draw: draw({"top": {"a": 1.0, "b": 2.5}, "below": {"c": 3.0}}, "time (ms)"),
            {"top", "a", "2.5"},
        ),
        "dead_and_alive": (
            lambda draw: draw(PLANE, {"no restart": torch.stack([CODES, CODES + 90])}, 3.0),
            {"no restart\n1 of 5 in use", "dead"},
        ),
        "training_runs": (lambda draw: draw({"uniform": HISTORY}, 512), {"uniform", "Codes in use"}),
        "ranked_use": (lambda draw: draw({"data": torch.tensor([5, 0, 3])}), {"data: 2 codes"}),
    },
    "training": {
        "curves": (
            lambda draw: draw({"MSE": {f"run {i}": CURVE for i in range(5)}, "lr": {"run 0": CURVE}}, log=["MSE"]),
            {"MSE", "run 4", "optimiser steps"},
        ),
        "gauges": (
            lambda draw: draw([1, 2, 3], {"loss": CURVE[1], "codes": CURVE[0]}, log=["loss"]),
            {"loss", "codes"},
        ),
        "counted": (lambda draw: draw([2, 8, 32], [3.0, 6.0, 7.0], 16, {"all": 7.2, "mean": 5.0}), {"all", "mean"}),
        "paths": (lambda draw: draw({"EMA": CURVE}, {"EMA": (0.1, 5.0), "other": (0.2, 4.0)}), {"EMA", "other"}),
        "families": (
            lambda draw: draw({"MSE": {"EMA": [CURVE, CURVE], "gradient": [CURVE]}}, log=["MSE"]),
            {"gradient"},
        ),
        "spread": (lambda draw: draw({"EMA": [0.1, 0.2], "gradient": [0.3]}, "test MSE"), {"EMA", "test MSE"}),
        "formats": (
            lambda draw: draw({"weights": torch.randn(99), "none": torch.zeros(9)}, 6e-8, 2.0**16),
            {"weights"},
        ),
    },
    "sweep": {
        "learning_curves": (lambda draw: draw([CURVE, CURVE], (0.05, 0.5)), {"optimiser steps", "one line a seed"}),
    },
    "outlook": {
        "codebooks": (
            lambda draw: draw(PLANE, dict.fromkeys(("VQ", "FSQ"), (CODES, nearest_code(PLANE, CODES))), 3.0),
            {"vector"},
        ),
        "gradients_in_a_cell": (
            lambda draw: draw(PLANE, CODES[0], {"copied": torch.ones(40, 2)}, torch.ones(2)),
            {"copied"},
        ),
    },
    "codebook": {
        "maps": (
            lambda draw: draw({"all": LINE.outer(LINE)}, label="entropy (bits)", inner=4),
            {"all", "entropy (bits)"},
        ),
        "code_maps": (
            lambda draw: draw(IMAGES, torch.rand(6, 3, 7, 7), IMAGES, GRID.expand(6, 7, 7)),
            {"codes", "decoded"},
        ),
        "atlas": (lambda draw: draw(torch.cat([torch.rand(4, 12, 12), torch.full((1, 12, 12), np.nan)]), 3, 4), set()),
        "geometry": (
            lambda draw: draw(CODES, torch.tensor([3.0, 1.0]), torch.tensor([9, 1, 0, 3, 4]), torch.rand(5)),
            {"The codes", "Their spread"},
        ),
        "densities": (
            lambda draw: draw({"digits": LINE, "noise": LINE + 1}, x="distance"),
            {"digits", "noise", "distance"},
        ),
        "near_and_far": (lambda draw: draw(torch.rand(90), torch.rand(90) + 0.01, 0.2), {"one swap"}),
        "rate_distortion": (
            lambda draw: draw({16: ([196.0], [170.0], [0.005]), 64: ([294.0], [250.0], [0.003])}),
            {"equally likely codes", "K = 16"},
        ),
        "walk": (lambda draw: draw([IMAGES[:3], IMAGES[3:]], ["one", "two"], cell=(3, 3), titles="abc"), {"one", "c"}),
    },
}
# Tested by what they show.
ELSEWHERE = "".join((Path(__file__).parent / f"test_{name}.py").read_text("utf-8") for name in ("figures", "widgets"))


def readable(figure: Figure) -> set[str]:
    """All text that the picture shows."""
    ticks = [label for axis in figure.axes for label in (*axis.get_xticklabels(), *axis.get_yticklabels())]
    return {text.get_text() for text in [*figure.findobj(Text), *ticks] if text.get_visible()}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PICTURES.items() for name in names])
def test_a_picture_is_drawn_and_says_what_it_shows(module, name):
    draw, words = PICTURES[module][name]
    figure = draw(getattr(importlib.import_module(f"vqvae_lib.figures.{module}"), name))
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    assert words - readable(figure) == set()
    plotted = [axis for axis in figure.axes if axis.lines or axis.patches or axis.collections]
    for axis in plotted:
        if axis.axison and len(axis.get_xticks()) and axis.xaxis.get_visible() and not axis.images:
            shared = [other for other in figure.axes if other is axis or axis.get_shared_x_axes().joined(axis, other)]
            below = any(other.get_xlabel() for other in shared)
            assert below, f"an axis of {module}.{name} has ticks and no label"


def test_every_picture_of_the_library_is_drawn_here_or_elsewhere():
    modules = [f"vqvae_lib.figures.{m.name}" for m in pkgutil.iter_modules(vqvae_lib.figures.__path__)]
    public = {
        f"{path.rpartition('.')[2]}.{name}"
        for path in modules
        for name in importlib.import_module(path).__all__
        if inspect.isfunction(thing := getattr(importlib.import_module(path), name))
        and "axis" not in inspect.signature(thing).parameters  # a part of other pictures
    }
    drawn = {f"{module}.{name}" for module, names in PICTURES.items() for name in names}
    missing = {name for name in public - drawn if not re.search(rf"\b{name.partition('.')[2]}\(", ELSEWHERE)}
    assert missing == set(), "Remedy: a line in PICTURES"
