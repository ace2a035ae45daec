"""Figures: what is drawn where, from small made-up values; legible, told apart, and left to no one else to show."""

from __future__ import annotations

import ast
import importlib
import io
import re
from pathlib import Path
from types import SimpleNamespace

import IPython
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from project import ROOT

from vqvae_book import figures
from vqvae_book.figures import codebook, draw, maths, prior, quantizer, style, sweep, vae
from vqvae_lib import VQVAE, BatchLoader, VQVAEConfig
from vqvae_lib.viz import visualize_codebook_usage, visualize_reconstruction

IMAGES, GRID = torch.linspace(0, 1, 6 * 784).view(6, 1, 28, 28), torch.arange(49).view(7, 7) % 16
PATCHES = torch.cat([IMAGES, torch.full((1, 1, 28, 28), np.nan)])
PLANE, CODES = torch.linspace(0, 9, 80).sin().view(40, 2), torch.linspace(0, 5, 10).cos().view(5, 2)
LINE, CURVE, USES = torch.linspace(0.1, 1, 12), ([1, 2, 3], [0.3, 0.2, 0.1]), torch.tensor([40, 0, 30, 0, 20, 10])
FIELD = torch.tensor([[False, True, False], [False, False, False]])

# function: what draws it, its number of plots (colorbars among them), and of lines in the first; of what is not below
PICTURES = {
    "introduction.numbers_over_image": (lambda f: f(IMAGES[0], GRID, IMAGES[1]), 3, 0),
    "introduction.bit_costs": (lambda f: f({"pixels": (6272, True), "codes": (441, False)}), 1, 0),
    "introduction.change_one": (lambda f: f(IMAGES[0], IMAGES[:2], [3, 5, 7], (2, 4)), 7, 0),
    "introduction.model": (lambda f: f(IMAGES[0], GRID, IMAGES[1], 16), 1, 5),
    "maths.latent_planes": (lambda f: f({"a": PLANE, "VAE": PLANE}, torch.arange(40) % 10, rings=["VAE"]), 2, 10),
    "maths.pulls": (lambda f: f(PLANE, CODES, {"codebook": (0 * PLANE, CODES), "commitment": (PLANE, CODES)}), 2, 2),
    "maths.gradient_table": (lambda f: f(["a", "b"], ["c", "d"], torch.tensor([[0, 1.5], [2, 0]])), 1, 0),
    "model.costs": (lambda f: f(["one", "two"], [100, 300], [5000, 5000]), 1, 0),
    "model.bits": (lambda f: f([7, 14], [16, 512], (7, 512), {"PNG": 2000.0}), 1, 4),
    "model.footprint": (lambda f: f(IMAGES[0], IMAGES[1], (4, 4, 12)), 4, 0),
    "quantizer.voronoi": (lambda f: f(PLANE, CODES, 3.0), 2, 1),
    "quantizer.score_lines": (lambda f: f(torch.tensor([-1.0, 0.5])), 2, 5),
    "quantizer.bars": (lambda f: f({"top": {"a": 1.0, "b": 2.5}, "below": {"c": 3.0}}, "time (ms)"), 2, 0),
    "quantizer.gradients_in_a_cell": (lambda f: f(PLANE, CODES[0], {"copied": PLANE}, CODES[1]), 1, 3),
    "vae.models": (lambda f: f(), 1, 0),
    "training.history_rows": (lambda f: f([1, 2, 3], {"loss": CURVE[1], "codes": CURVE[0]}, log=["loss"]), 2, 1),
    "training.error_vs_perplexity": (lambda f: f({"EMA": CURVE}, {"EMA": (0.1, 5.0), "b": (0.2, 4.0)}), 2, 3),
    "codebook.code_grid": (lambda f: f(IMAGES[0], torch.rand(3, 7, 7), GRID), 2, 12),
    "codebook.walk": (lambda f: f({"a": IMAGES, "b": IMAGES}, {"a": CURVE, "b": CURVE}), 13, 0),
    "codebook.atlas": (lambda f: f(PATCHES.expand(-1, 3, -1, -1), 3, 4), 1, 0),
    "codebook.geometry": (lambda f: f(CODES, torch.tensor([3.0, 1.0]), USES[:5], LINE[:5]), 3, 0),
    "codebook.near_and_far": (lambda f: f(LINE, LINE + 0.01, 0.2), 1, 3),
}  # fmt: skip


@pytest.fixture(autouse=True)
def left_alone():
    """No figure may be left to pyplot, which would show it a second time; and its settings stay as they were."""
    before = dict(plt.rcParams)
    yield
    assert (plt.get_fignums(), dict(plt.rcParams)) == ([], before)


def shown(figure: Figure) -> list:
    figure.canvas.draw()
    return figure.axes


def words(texts: list) -> list[str]:
    return [text.get_text() for text in texts]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_and_names_its_axes(name):
    module, function = name.split(".")
    drawing, plots, lines = PICTURES[name]
    axes = shown(drawing(getattr(importlib.import_module(f"vqvae_book.figures.{module}"), function)))
    assert (len(axes), len(axes[0].lines)) == (plots, lines)
    for axis in axes:
        below = [other for other in axes if other is axis or axis.get_shared_x_axes().joined(axis, other)]
        bare = axis.images or not axis.axison or not len(axis.get_xticks()) or axis.get_label() == "<colorbar>"
        assert bare or any(other.get_xlabel() for other in below)


def test_modules_show_nothing_themselves_and_all_their_pictures_are_drawn_here():
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in sorted((ROOT / "vqvae_book" / "figures").glob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        assert "pyplot" not in "".join(ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom))
        assert "show" not in [node.attr for node in nodes if isinstance(node, ast.Attribute)]
        for node in nodes:
            if isinstance(node, ast.FunctionDef) and ast.unparse(node.returns or node) == "Figure":
                assert re.search(rf"\b{path.stem}\.{node.name}\b|figures\.{node.name}\(", tests), node.name


def luminance(color: object) -> float:
    """Relative luminance, as the accessibility guidelines (WCAG 2) define it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colors_stand_out_from_the_paper_and_numbers_from_every_heat():
    [[axis]] = style.canvas()[1]
    draw.heat(axis, torch.linspace(0, 1, 9).view(1, 9), ".1f")
    written = zip(axis.texts, style.HEAT(np.linspace(0, 1, 9)), strict=True)
    pairs = [(color, style.PAPER) for color in style.COLORS] + [(text.get_color(), shade) for text, shade in written]
    for pair in pairs:
        darker, lighter = sorted(map(luminance, pair))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, pair


def test_a_small_png_keeps_rare_colors_and_all_of_a_photograph():
    figure, [[axis]] = style.canvas()
    axis.imshow(np.random.default_rng(0).random((40, 40)))
    axis.axvline(20, color="#ff00ff", linewidth=1)
    small = Image.open(io.BytesIO(style.small_png(figure, colors=32)))
    assert small.mode == "P" and len(small.getcolors()) <= 32
    assert np.abs(np.asarray(small.convert("RGB")).astype(int) - [255, 0, 255]).sum(axis=2).min() < 40
    photograph = figures.image_grid([torch.rand(1, 3, 200, 200)], ["noise"])
    assert Image.open(io.BytesIO(style.small_png(photograph))).mode == "RGB"


def test_a_notebook_shows_the_books_figures_small_and_others_as_before(monkeypatch):
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, lambda figure: b"as before")
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(display_formatter=formatter))
    style.show_small()
    ours = style.canvas()[0]
    assert formatter.format(ours)[0]["image/png"] == style.small_png(ours)
    assert formatter.format(Figure())[0]["image/png"] == b"as before"


def test_a_grid_names_rows_and_columns_and_refuses_rows_without_a_name():
    rows = [torch.full((3, 1, 8, 8), 1.5, requires_grad=True), torch.rand(3, 3, 8, 8)]
    axes = shown(figures.image_grid(rows, ["gray", "color"], titles=["a", "b", "c"], box=(2, 1, 4)))
    names = [(axis.get_ylabel(), axis.get_title()) for axis in axes]
    assert names == [("gray", "a"), ("", "b"), ("", "c"), ("color", ""), ("", ""), ("", "")]
    assert [axis.images[0].get_array().ndim for axis in axes] == [2, 2, 2, 3, 3, 3]
    assert (axes[0].images[0].get_clim(), axes[0].images[0].get_array().max()) == ((0, 1), 1)
    assert {axis.patches[0].get_xy() for axis in axes} == {(0.5, 1.5)}
    for wrong in ([rows, ["one"]], [[rows[0], rows[1][:2]], ["a", "b"]]):
        with pytest.raises(ValueError, match="zip"):
            figures.image_grid(*wrong)


@pytest.mark.parametrize("marks", [0, 4])
def test_lines_are_told_apart_without_their_color_and_named_once(marks):
    panels = {"p": dict.fromkeys("abcd", CURVE), "q": {"a": CURVE}}
    look = {"levels": {"l": 2.0}, "uprights": {"u": 2}, "marks": marks, "yscale": "log"}
    left, right = shown(figure := figures.line_panels(panels, x="x", y="y", **look))
    assert len({(line.get_marker(), line.get_linestyle()) for line in left.lines[:4]}) == 4
    assert [line.get_color() for line in left.lines[:5]] == list(style.COLORS[:5])
    assert words(figure.legends[0].get_texts()) == [*"abcdlu"]
    assert (left.get_ylabel(), right.get_ylabel(), right.get_yscale()) == ("y", "", "log")


def test_a_run_has_one_color_in_all_panels_and_a_family_one_name():
    panels = {"rate": {"b": CURVE}, "MSE": {"a": [CURVE, CURVE], "b": CURVE}, "none": {"a": []}}
    rate, error, none = shown(figure := figures.metric_panels(panels, log=["MSE"]))
    assert [line.get_color() for line in error.lines] == [error.lines[0].get_color()] * 2 + [rate.lines[0].get_color()]
    assert sorted(words(figure.legends[0].get_texts())) == ["a", "b"]
    assert ([axis.get_yscale() for axis in (rate, error)], len(none.texts)) == (["linear", "log"], 1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_tradeoffs_go_through_the_means_over_seeds_and_span_their_ranges(seeds):
    points = {f"K = {K}": ([10.0 * K + s for s in range(seeds)], [1 / K] * seeds) for K in (2, 4)}
    (axis,) = shown(figures.tradeoff({"a": points, "b": points}, x="bits", y="error", named=["b"], sizes=[16, 32, 64]))
    line, _, (across, upright) = axis.containers[0]
    assert line.get_xdata() == pytest.approx([20 + (seeds - 1) / 2, 40 + (seeds - 1) / 2])
    assert [float(np.ptp(s[:, 0])) for s in across.get_segments()] == pytest.approx([seeds - 1] * 2)
    assert [float(np.ptp(s[:, 1])) for s in upright.get_segments()] == pytest.approx([0, 0])
    assert (words(axis.texts), words(axis.get_xticklabels())) == (["K = 2", "K = 4"], ["16", "32", "64"])


def test_strips_have_a_row_a_name_a_mark_a_seed_and_a_logarithmic_axis_where_values_lie_far_apart():
    panels = {"paid": {"VAE, 1": [3.0, 5.0], "VQ, 1": [31.0]}, "used": {"VQ, 1": [0.0, 1.0], "VQ, 2": [0.5]}}
    paid, used = shown(figures.seeds_strip(panels, x=["nats", "share"], levels={"paid": ("floor", 2.0)}))
    assert words(paid.get_yticklabels()) == ["VAE, 1", "VQ, 1", "VQ, 2"]
    assert [(list(line.get_xdata()), line.get_ydata()[0]) for line in paid.lines[:2]] == [([3, 5], 0), ([31], 1)]
    assert paid.collections[0].get_segments()[0][:, 0].tolist() == [4, 4]
    assert len({line.get_marker() for line in (*paid.lines[:2], *used.lines)}) == 2
    assert (paid.get_xscale(), used.get_xscale()) == ("log", "linear")


def test_codes_are_ranked_by_use_in_percent():
    (axis,) = shown(codebook.usage_histogram(USES))
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([40, 30, 20, 10, 0, 0])
    assert axis.lines[0].get_ydata() == pytest.approx([100 / 6] * 2)
    names = [axis.get_xlabel() for axis in shown(maths.code_sheet(IMAGES, USES, columns=4))]
    assert names == ["40.0%", "30.0%", "20.0%", "10.0%", "0.0%", "0.0%", "", ""]
    assert [bar.get_height() for bar in shown(figures.bar_panels({"a": [2, 1]}, x="x", y="y"))[0].patches] == [2, 1]


@pytest.mark.parametrize("z", [None, torch.tensor([[-1.0, 0.0]])])
def test_planes_tell_codes_in_use_from_others(z):
    codes = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.1, 0.0]])
    rules = {"product": lambda z, e: (z @ e.T).argmax(1)}
    figure = quantizer.code_planes(dict.fromkeys(("nearest", "product"), codes), 2.0, z, rules=rules)
    used = [[len(line.get_xdata()) for line in axis.lines[-2:]] for axis in shown(figure)]
    assert used == ([[3, 0], [2, 1]] if z is None else [[1, 2]] * 2)


def test_heat_maps_share_a_scale_outline_boxes_and_write_numbers_into_their_cells():
    maps = {"a": torch.eye(4), "b": -3 * torch.eye(4)}
    axes = shown(figures.map_panels(maps, "gray level", diverging=True))
    assert [axis.images[0].get_clim() for axis in axes[:2]] == [(-3, 3)] * 2
    (axis, _) = shown(figures.map_panels({"a": torch.eye(6)}, "bits", boxes=[(1, 2, 3)]))
    assert (axis.patches[0].get_xy(), axis.patches[0].get_width(), axis.images[0].get_clim()) == ((1.5, 0.5), 3, (0, 1))
    values = np.array([[0.5, 0.25, np.nan], [1.0, 2.0, 4.0]])
    tables = {"error": (values, ".2f"), "codes": (10 * values, ".0f"), "bits": (values, ".1f")}
    error, codes, bits, empty = shown(sweep.heat_maps(tables, [4, 16], [0, 0.25, 4], log=["codes"]))
    assert words(error.texts) == ["0.50", "0.25", "1.00", "2.00", "4.00"]
    assert [text.get_position() for text in codes.texts] == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]
    assert (words(error.get_yticklabels()), words(bits.get_xticklabels())) == (["4", "16"], ["0", "0.25", "4"])
    assert ([axis.get_xlabel() for axis in (error, bits)], empty.axison) == (["", "β"], False)


def test_the_prior_is_shown_what_it_sees_what_it_misses_and_what_comes_later():
    (axis, _) = shown(prior.fields({"a": FIELD, "b": ~FIELD}, (1, 1)))
    assert (axis.images[0].get_array().tolist(), axis.patches[0].get_xy()) == ([[1, 2, 1], [1, 0, 0]], (0.5, 0.5))
    (axis,) = shown(prior.masks({"A": torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])}))
    assert (words(axis.texts), axis.patches[0].get_xy()) == (list("111100000"), (0.5, 0.5))
    *_, left, right, _ = shown(prior.surprise(IMAGES[:2], torch.tensor([[[1.0, 2.0]], [[4.0, 1.0]]])))
    assert ([left.get_xlabel(), right.get_xlabel()], left.images[0].get_clim()) == (["3 bits", "5 bits"], (0, 4))
    axes = shown(prior.completions([IMAGES] * 3, ["image", "drawn", "drawn"], given=4, first=1))
    assert [line.get_ydata()[0] for axis in axes for line in axis.lines] == [3.5] * 12


def test_the_kernels_of_both_stacks_cover_numbers_before_the_one_asked_for_alone():
    (axis,) = shown(prior.two_stacks((1, 2), side=3))
    numbers = {text.get_position(): int(text.get_text()) for text in axis.texts if text.get_text().isdecimal()}
    frames = [patch for patch in axis.patches if not patch.get_fill()]
    covered = [
        {k for (x, y), k in numbers.items() if frame.get_bbox().contains(x, y)}
        for frame in sorted(frames, key=lambda frame: (frame.get_x(), -frame.get_y()))
    ]
    assert covered == [{6}, {2, 3}, {4, 5}]  # what is asked for, the row above it, its own row so far


def test_a_grid_in_the_making_shows_drawn_codes_and_tints_the_newest_and_those_to_come():
    grids, blank = torch.tensor([[[1, 2], [3, 4]]]), torch.zeros(1, 2, 2, dtype=torch.long)
    frames = prior.making(lambda codes: codes[:, None] / 4, grids, blank)
    gray = [(frame.amax(1) - frame.amin(1) < 1e-6).flatten().tolist() for frame in frames]
    assert gray == [[i < drawn - 1 for i in range(4)] for drawn in range(5)]
    assert frames[4][0, :, 0, 0].tolist() == [0.25] * 3
    red, blue = frames[2][0, 0], frames[2][0, 2]
    assert red[0, 1] > blue[0, 1] and (blue[1] > red[1]).all()


def test_gaussian_latents_are_mapped_in_bits_and_ranked_in_nats():
    left, right, _ = shown(vae.kl_maps(torch.tensor([[[0.1, 0.0]], [[0.3, 0.02]]])))
    assert np.asarray(left.images[0].get_array()) * np.log(2) == pytest.approx(np.array([[0.4, 0.02]]))
    assert list(right.lines[0].get_ydata()) == pytest.approx([0.3, 0.1, 0.02, 1e-6])
    _, right = shown(vae.bits_back({"mean 0": CURVE}, {"sent": CURVE}, 1.5))
    assert right.get_xlim()[0] > right.get_xlim()[1]


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize("of", ["trainer", "model"])
def test_reconstructions_stand_below_their_originals_as_many_as_there_are(trainer, digits, n, of):
    axes = shown(visualize_reconstruction(trainer if of == "trainer" else trainer.model, digits, n))
    pixels = torch.stack([torch.as_tensor(axis.images[0].get_array()) for axis in axes])
    x = digits.floats(slice(0, n))
    torch.testing.assert_close(pixels, torch.cat([x, trainer.reconstruct(x)[0]])[:, 0])
    assert [axis.get_ylabel() != "" for axis in axes] == [True, *[False] * (n - 1)] * 2
    with pytest.raises(ValueError, match=f"n = {n}"):
        visualize_reconstruction(trainer, digits.subset(slice(0, n - 1)), n)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"quantizer": "fsq", "levels": (3, 5), "embedding_dim": 2, "num_embeddings": 15},
        {"quantizer": "residual", "num_codebooks": 2, "num_embeddings": 8, "embedding_dim": 4},
    ],
)
def test_usage_is_counted_over_a_whole_pass_for_every_kind_of_codes(trainer, digits, fields):
    if fields:
        model = given = VQVAE(VQVAEConfig(hidden_dim=8, device="cpu", **fields)).eval()
    else:
        model, given = trainer.model, trainer
    (axis,) = shown(visualize_codebook_usage(given, BatchLoader(digits.subset(slice(0, 50)), 32)))
    codes = model.encode(digits.floats(slice(0, 50))).flatten()
    counts = torch.bincount(codes, minlength=model.vq.num_embeddings)
    assert [bar.get_height() for bar in axis.patches] == pytest.approx((100 * counts / counts.sum()).tolist(), rel=1e-5)
    assert axis.lines[1].get_xdata().tolist() == (counts == 0).nonzero().flatten().tolist()


def test_an_equation_that_a_docstring_names_stands_in_its_chapter():
    for path in sorted((ROOT / "vqvae_lib").glob("*.py")):
        for number in re.findall(r"\(([1-9]\.[1-9]\d*[a-z]?)\)", path.read_text(encoding="utf-8")):
            (chapter,) = (ROOT / "chapters").glob(f"{int(number[0]):02}_*.ipynb")
            text = "".join(cell.source for cell in nbformat.read(chapter, as_version=4).cells)
            assert f"\\tag{{{number}}}" in text, f"{path.name} names ({number}), which {chapter.name} lacks"


def test_growing_cases_are_sorted_beside_the_smallest_other_number():
    sizes = ((2, 8), (1, 8), (1, 9))
    rows = [{"N": n, "K": k, "ours ms": n, "bare product ms": n / 2, "MiB beyond": 5} for n, k in sizes]
    axes = shown(quantizer.scaling(rows))
    assert [list(axis.lines[0].get_xdata()) for axis in axes[:2]] == [[8, 9], [1, 2]]
    assert list(axes[1].lines[1].get_ydata()) == [0.5, 1]
