"""Figures: returned, closed for pyplot, labelled; and the equations that docstrings name exist."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from types import SimpleNamespace

import IPython
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import project
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vqvae_lib import BatchLoader, figures, visualize_codebook_usage, visualize_reconstruction
from vqvae_lib.figures import COLOURS, canvas, image_grid, prior, show_image, style, usage_histogram, vae
from vqvae_lib.figures.style import small_png

LIBRARY = project.ROOT / "vqvae_lib"
MODULES = sorted((LIBRARY / "figures").glob("*.py"))
COUNTS = torch.tensor([40, 0, 30, 0, 20, 10])


@pytest.fixture(autouse=True)
def pyplot_is_clean():
    """No figure may be left to pyplot, which would show it a second time."""
    assert plt.get_fignums() == []
    yield
    assert plt.get_fignums() == []


def drawn(figure: Figure) -> Figure:
    """Check that what came back is a figure and can be drawn."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return figure


def title_of(axis: Axes) -> str:
    """Return an axis's title, wherever it stands."""
    return axis.get_title(loc="left") + axis.get_title(loc="center")


# --- each picture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 8])
def test_reconstructions_stand_below_their_originals_and_both_rows_are_named(trainer, digits, n):
    axes = drawn(visualize_reconstruction(trainer, digits, n)).axes
    assert len(axes) == 2 * n
    names = [axes[0].yaxis.label, axes[n].yaxis.label]
    assert [name.get_text() for name in names] == ["original", "reconstruction"]
    assert all(name.get_visible() and axis.axison for name, axis in zip(names, axes[::n], strict=True))
    shown = torch.stack([torch.as_tensor(axis.images[0].get_array()) for axis in axes])
    x = digits.floats(slice(0, n))
    assert torch.equal(shown[:n], x[:, 0])
    assert torch.equal(shown[n:], trainer.reconstruct(x)[0][:, 0])


def test_usage_is_counted_over_a_whole_pass(trainer, digits):
    figure = drawn(visualize_codebook_usage(trainer, BatchLoader(digits.subset(slice(0, 50)), 32)))
    (axis,) = figure.axes
    counts = torch.bincount(trainer.model.encode(digits.floats(slice(0, 50))).flatten(), minlength=16)
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == pytest.approx((counts / counts.sum() * 100).tolist(), rel=1e-5)
    assert f"{int((counts > 0).sum())} of 16 codes" in title_of(axis)


@pytest.mark.parametrize("ranked", [False, True])
def test_the_histogram_has_a_bar_for_each_code_and_labels_its_axes(ranked):
    (axis,) = drawn(usage_histogram(COUNTS, ranked=ranked)).axes
    heights = [40, 30, 20, 10, 0, 0] if ranked else [40, 0, 30, 0, 20, 10]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx(heights)
    assert [bar.get_x() + bar.get_width() / 2 for bar in axis.patches] == pytest.approx(range(6))
    assert "code" in axis.get_xlabel()
    assert "%" in axis.get_ylabel()
    assert "4 of 6 codes used, perplexity 4" in title_of(axis)
    assert axis.get_legend() is not None


def test_a_grid_names_its_rows_and_titles_its_columns():
    rows = [torch.rand(3, 1, 8, 8), torch.rand(3, 3, 8, 8)]
    axes = drawn(image_grid(rows, ["grey", "colour"], titles=["a", "b", "c"])).axes
    assert [axis.get_ylabel() for axis in axes] == ["grey", "", "", "colour", "", ""]
    assert [axis.get_title(loc="center") for axis in axes] == ["a", "b", "c", "", "", ""]
    assert all(len(axis.get_xticks()) == len(axis.get_yticks()) == 0 for axis in axes)
    assert [axis.images[0].get_array().ndim for axis in axes] == [2, 2, 2, 3, 3, 3]
    with pytest.raises(ValueError, match="zip"):
        image_grid(rows, ["one name for two rows"])


def test_a_grid_of_images_is_shown_with_fewer_dots_than_a_plot():
    """Such grids are the heaviest pictures of a page, and have no fine detail."""
    widths = []
    for figure in (image_grid([torch.rand(3, 1, 28, 28)], ["row"]), canvas()[0]):
        widths.append(Image.open(io.BytesIO(small_png(figure))).width / figure.get_size_inches()[0])
    assert widths[0] < 0.9 * widths[1]


def test_an_image_is_shown_on_a_scale_from_0_to_1():
    figure, [[axis]] = canvas()
    show_image(axis, torch.full((1, 4, 4), 1.5, requires_grad=True))
    assert axis.images[0].get_clim() == (0, 1)
    assert axis.images[0].get_array().max() == 1
    drawn(figure)


def test_a_frame_has_the_books_style_and_leaves_everyone_elses_alone():
    before = dict(plt.rcParams)
    figure, axes = canvas(2, 3, height=4)
    assert axes.shape == (2, 3)
    assert tuple(figure.get_size_inches()) == (figures.style.WIDTH, 4)
    assert dict(plt.rcParams) == before


def luminance(colour: str) -> float:
    """Return the relative luminance of "#rrggbb", as the accessibility guidelines (WCAG 2) define it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_small_png_keeps_its_rare_colours():
    figure, [[axis]] = canvas()
    axis.imshow(np.random.default_rng(0).random((40, 40)))  # many greys
    axis.axvline(20, color="#ff00ff", linewidth=1)
    small = Image.open(io.BytesIO(small_png(figure, colours=32)))
    assert small.mode == "P"
    assert len(small.getcolors()) <= 32
    far = np.abs(np.asarray(small.convert("RGB")).astype(int) - [255, 0, 255]).sum(axis=2)
    assert far.min() < 40


def test_a_notebook_shows_the_books_figures_small_and_others_as_before(monkeypatch):
    formatter = DisplayFormatter()
    formatter.formatters["image/png"].for_type(Figure, lambda figure: b"as before")
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(display_formatter=formatter))
    style._show_small()
    ours, theirs = canvas()[0], Figure()
    assert formatter.format(ours)[0]["image/png"] == small_png(ours)
    assert formatter.format(theirs)[0]["image/png"] == b"as before"


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_stands_out_from_the_paper(colour):
    assert (luminance(figures.style.PAPER) + 0.05) / (luminance(colour) + 0.05) >= 3


# --- the prior (chapter 6) --------------------------------------------------------------------------------------------

SEES = torch.zeros(4, 4, dtype=torch.bool)
SEES[1, 0] = SEES[2, 0] = SEES[3, 2] = True  # of six earlier pairs three are seen


def test_masks_are_written_out_and_their_middle_is_framed():
    kernel = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    (axis,) = drawn(prior.masks({"kind A": kernel})).axes
    assert [text.get_text() for text in axis.texts] == [str(int(v)) for v in kernel.flatten()]
    assert title_of(axis) == "kind A"
    (frame,) = axis.patches
    assert frame.get_xy() == (0.5, 0.5)


def test_a_field_tells_seen_from_earlier_from_later():
    seen = torch.zeros(2, 3, dtype=torch.bool)
    seen[0, 1] = True
    figure = drawn(prior.fields({"a": seen, "b": ~seen}, (1, 1)))
    assert figure.axes[0].images[0].get_array().tolist() == [[1, 2, 1], [1, 0, 0]]
    assert figure.axes[0].patches[0].get_xy() == (0.5, 0.5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(prior.MEANINGS)


def test_causality_shows_every_pair():
    figure = drawn(prior.causality({"one": SEES, "other": SEES.T}))
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 0, 0, 0], [2, 0, 0, 0], [2, 1, 0, 0], [1, 1, 2, 0]]
    assert "in reading order" in figure.axes[1].get_xlabel()


def test_a_learning_curve_names_its_levels():
    figure = drawn(prior.learning([1, 2, 3], [5.0, 3.0, 2.0], {"uniform": 5.0, "table": 4.0}))
    assert [text.get_text() for text in figure.legends[0].get_texts()][1:] == ["uniform", "table"]
    assert figure.axes[0].get_ylim()[1] > 5


def test_the_bits_of_an_image_stand_below_its_map():
    bits = torch.tensor([[[1.0, 2.0], [0.5, 0.0]], [[4.0, 1.0], [1.0, 1.0]]])
    figure = drawn(prior.surprise(torch.rand(2, 1, 8, 8), bits))
    assert [axis.get_xlabel() for axis in figure.axes[2:4]] == ["4 bits", "7 bits"]  # 3.5 goes to the even one
    assert all(axis.images[0].get_clim() == (0, 4) for axis in figure.axes[2:4])


def test_choices_are_ranked_by_the_first_panel():
    panels = {"T = 1": torch.tensor([0.1, 0.7, 0.2]), "T = 0": torch.tensor([0.0, 1.0, 0.0])}
    first, second = drawn(prior.choices(panels)).axes
    assert [bar.get_height() for bar in first.patches] == pytest.approx([70, 20, 10])
    assert [bar.get_height() for bar in second.patches] == pytest.approx([100, 0, 0])


@pytest.mark.parametrize("seeds", [1, 3])
def test_prices_go_through_the_means_over_seeds_and_span_their_range(seeds):
    points = {
        K: ({"nominal": [49.0 * i] * seeds, "learned": [20.0 * i + s for s in range(seeds)]}, [0.1 / i] * seeds)
        for i, K in enumerate((2, 4, 8), start=1)
    }
    (axis,) = drawn(prior.prices(points, {"another": (30.0, 0.08)})).axes
    learned = axis.lines[1]
    assert learned.get_xdata() == pytest.approx([20 * i + (seeds - 1) / 2 for i in (1, 2, 3)])
    assert [text.get_text() for text in axis.texts] == ["K = 2", "K = 4", "K = 8"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["nominal", "learned", "another"]


@pytest.mark.parametrize("sizes", [[16], [8, 32, 128]])
def test_quality_has_a_line_for_each_kind_and_the_floor(sizes):
    points = {K: {"samples": [9.0, 11.0], "independent": [90.0, 90.0]} for K in sizes}
    figure = drawn(prior.quality(points, 0.5, "distance"))
    (axis,) = figure.axes
    assert axis.lines[0].get_ydata() == pytest.approx([10] * len(sizes))
    assert axis.lines[-1].get_ydata() == [0.5, 0.5]
    assert [label.get_text() for label in axis.get_xticklabels()] == [str(size) for size in sizes]
    assert len(figure.legends[0].get_texts()) == 3


def test_shares_by_class_are_means_over_seeds():
    (axis,) = drawn(prior.by_class([[0.9, 0.5, 1.0], [0.7, 0.5, 1.0]], 0.95, "redrawn")).axes
    assert axis.lines[0].get_ydata() == pytest.approx([80, 50, 100])
    assert axis.get_ylim()[0] < 50


def test_the_given_part_of_a_completion_is_marked_where_it_was_given():
    rows = [torch.rand(2, 1, 8, 8)] * 3
    axes = drawn(prior.completions(rows, ["image", "drawn", "drawn"], given=4, first=1)).axes
    assert [len(axis.lines) for axis in axes] == [0, 0, 1, 1, 1, 1]
    assert axes[2].lines[0].get_ydata() == [3.5, 3.5]


# --- VAE and VQ-VAE (chapter 7) ---------------------------------------------------------------------------------------


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_bits_back_draws_the_difference_and_the_finest_bins_last():
    widths, sent, returned = torch.tensor([1.0, 0.1]), torch.tensor([3.0, 6.0]), torch.tensor([1.0, 4.5])
    figure = drawn(
        vae.bits_back(torch.tensor([0.1, 1.0]), {"mean 0": torch.tensor([2.0, 0.0])}, widths, sent, returned, 1.5)
    )
    left, right = figure.axes
    assert [line.get_label() for line in right.lines] == ["sent", "given back", "difference", "KL"]
    assert right.lines[2].get_ydata() == pytest.approx([2, 1.5])
    assert right.get_xlim()[0] > right.get_xlim()[1]
    assert "standard deviation" in left.get_xlabel()


def test_training_draws_what_a_run_has():
    steps = [1, 2, 3]
    runs = {
        "VAE": {"error": (steps, [0.3, 0.2, 0.1]), "rate": (steps, [1, 2, 3])},
        "codes": {"rate": (steps, [9, 9, 9])},
    }
    figure = drawn(vae.training(runs))
    assert [len(line.get_xdata()) for axis in figure.axes for line in axis.lines] == [3, 0, 3, 3]
    assert legend(figure) == ["VAE", "codes"]


def test_a_map_of_the_kl_is_in_bits_and_its_numbers_are_ranked():
    kl = torch.tensor([[[0.1, 0.0]], [[0.3, 0.02]]])  # (d, h, w) in nats
    figure = drawn(vae.kl_maps(kl))
    assert np.asarray(figure.axes[0].images[0].get_array()) * np.log(2) == pytest.approx(np.array([[0.4, 0.02]]))
    assert list(figure.axes[1].lines[0].get_ydata()) == pytest.approx([0.3, 0.1, 0.02, 1e-6])


@pytest.mark.parametrize("seeds", [1, 3])
def test_tradeoffs_go_through_the_means_over_seeds_and_span_their_ranges(seeds):
    settings = {f"K = {K}": ([10.0 * K + s for s in range(seeds)], [1 / K] * seeds) for K in (2, 4)}
    figure = drawn(vae.tradeoff({"a": settings, "b": settings}, x="bits", y="error", named=["b"], level=("data", 0.3)))
    (axis,) = figure.axes
    line, _, bars = axis.containers[0]
    assert line.get_xdata() == pytest.approx([20 + (seeds - 1) / 2, 40 + (seeds - 1) / 2])
    assert np.ptp(bars[0].get_segments()[0], axis=0) == pytest.approx([seeds - 1, 0])
    assert [text.get_text() for text in axis.texts] == ["K = 2", "K = 4"]
    assert sorted(legend(figure)) == ["a", "b", "data"]


def test_bits_at_equal_error_leave_out_what_is_not_known():
    rows = {"K = 8": {"one": 50.0, "other": 80.0}, "K = 16": {"one": float("nan"), "other": float("nan")}}
    figure = drawn(vae.equal_error(rows))
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == list(rows)
    assert axis.lines[0].get_xdata()[0] == 50
    assert len(axis.collections[0].get_segments()) == 1 and len(axis.collections[1].get_segments()) == 0


def test_dots_have_a_row_a_name_and_a_mark_a_seed():
    panels = {"paid": {"VAE, map": [3.0, 5.0], "VQ, map": [31.0]}, "used": {"VAE, map": [0.0, 1.0]}}
    figure = drawn(vae.dots(panels, x=["nats", "nats"], scales=["log", "symlog"], levels={"paid": ("the floor", 2.0)}))
    paid, used = figure.axes
    assert [label.get_text() for label in paid.get_yticklabels()] == ["VAE, map", "VQ, map"]
    assert [list(line.get_xdata()) for line in paid.lines] == [[3, 5], [31], [2, 2]]
    assert len({line.get_marker() for line in paid.lines[:2]}) == 2
    assert paid.texts[0].get_text() == "the floor"
    assert (paid.get_xscale(), used.get_xscale(), len(used.lines)) == ("log", "symlog", 1)


# --- what holds for every module of figures ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_figures_come_from_the_books_frames_and_are_shown_by_no_one(path):
    """Frames are closed for pyplot where they are made; a module that knows no pyplot can leave nothing open."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "show" not in [function.attr for function in called if isinstance(function, ast.Attribute)]
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert path.stem == "style" or not [line for line in imports if "pyplot" in line]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    for function in functions:
        draws = ast.unparse(function.returns) in ("Figure", "tuple[Figure, np.ndarray]", "bytes")  # bytes of a picture
        onto = function.args.args and ast.unparse(function.args.args[0].annotation) == "Axes"
        assert draws or onto, f"{function.name} returns no Figure"
        assert ast.get_docstring(function), function.name


# --- equations --------------------------------------------------------------------------------------------------------


def named_equations() -> dict[str, set[str]]:
    """Return number -> files, for all equations that the library's sources name."""
    found: dict[str, set[str]] = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        for phrase in re.findall(
            r"[Ee]quations?\s+((?:\(\d+\.\d+[a-z]?\)[\s,and]*)+)", path.read_text(encoding="utf-8")
        ):
            for number in re.findall(r"\d+\.\d+[a-z]?", phrase):
                found.setdefault(number, set()).add(path.relative_to(LIBRARY).as_posix())
    return found


def chapter_of(number: str) -> Path | None:
    return next(iter((project.ROOT / "chapters").glob(f"{int(number.split('.')[0]):02}_*.ipynb")), None)


def test_the_library_names_equations():
    assert {"1.8b", "2.2", "2.7"} <= named_equations().keys()


@pytest.mark.parametrize(("number", "files"), sorted(named_equations().items()), ids=sorted(named_equations()))
def test_an_equation_that_a_docstring_names_stands_in_its_chapter(number, files):
    chapter = chapter_of(number)
    if chapter is None:
        pytest.skip(f"chapter {number.split('.')[0]} is not there yet; equation ({number}) is named in {sorted(files)}")
    cells = nbformat.read(chapter, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    # "(1.8)" may stand for a pair, (1.8a) and (1.8b).
    assert re.search(rf"\\tag\{{{re.escape(number)}[a-z]?\}}", text), (
        f"{chapter.name} has no equation ({number}), which {sorted(files)} name"
    )
