"""Widgets: the panel of each setting is the right one, with and without ``Stack``; training starts, stops and fails."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace
from pathlib import Path

import fake_sweep
import ipywidgets
import numpy as np
import pytest
import torch
from fake_sweep import BETAS, SIZES, grey
from PIL import Image

from vqvae_lib import DataError, ImageDataset, VQVAETrainer, widgets
from vqvae_lib.figures import sweep as figures
from vqvae_lib.stored import PICTURES, StoredRun

HAS_STACK = hasattr(ipywidgets, "Stack")


@pytest.fixture(scope="module")
def originals() -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageDataset(images, torch.zeros(20), "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, originals) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    fake_sweep.write(folder, "tiny", originals.fingerprint())
    return folder


@pytest.fixture(scope="module", autouse=True)
def dataset(originals):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(widgets, "load_images", lambda name, *, train, stand_in: originals)
        yield


@pytest.fixture(
    scope="module",
    params=[pytest.param(True, marks=pytest.mark.skipif(not HAS_STACK, reason="ipywidgets 7")), False],
)
def explorer(request, folder, dataset) -> ipywidgets.VBox:
    """The explorer as ipywidgets 8 shows it, and as 7 does; made once, since all its pictures take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.param:
            patch.delattr(ipywidgets, "Stack", raising=False)
        return widgets.explore_sweep(folder)


@pytest.fixture
def only_the_panel_asked_for(monkeypatch) -> None:
    """As with ipywidgets 7: not all panels are drawn at once, which takes seconds."""
    monkeypatch.delattr(ipywidgets, "Stack", raising=False)


def choose(explorer: ipywidgets.VBox, size: int, beta: float) -> str:
    """Move both sliders; return the HTML that is then shown, following links as the browser does."""
    sliders, shown = explorer.children[:2], explorer.children[-1]
    for slider, value in zip(sliders, (size, beta), strict=True):
        slider.value = value
    if isinstance(shown, ipywidgets.HTML):
        return shown.value
    followers: dict[ipywidgets.Widget, ipywidgets.Widget] = {
        link.target[0]: link.source[0]
        for link in live_links()
        if (link.source[1], link.target[1]) == ("index", "selected_index")
    }
    while not isinstance(shown, ipywidgets.HTML):
        shown = shown.children[followers[shown].index]
    return shown.value


def live_links() -> list[ipywidgets.widgets.widget_link.Link]:
    from ipywidgets.widgets.widget import _instances

    return [widget for widget in _instances.values() if isinstance(widget, ipywidgets.widgets.widget_link.Link)]


def pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in found]


def alts(text: str) -> list[str]:
    return [html.unescape(alt) for alt in re.findall(r'alt="([^"]*)"', text)]


# --- the sweep --------------------------------------------------------------------------------------------------------


def test_the_picture_is_that_of_the_setting_whatever_way_leads_there(explorer):
    for size in (*SIZES, *reversed(SIZES)):
        for beta in (*BETAS, *reversed(BETAS)):
            drawn, *plots = pictures(choose(explorer, size, beta))
            assert (drawn == grey(size, beta)).all()
            assert drawn.shape == (8, 8 * PICTURES)
            assert len(plots) == 2


def test_alternative_texts_name_the_setting_and_what_is_seen(explorer):
    for size in SIZES:
        for beta in BETAS:
            text = choose(explorer, size, beta)
            drawn, usage, curve = alts(text)
            assert all(f"K = {size}, β = {beta:g}" in alt for alt in (drawn, usage, curve))
            assert f"{1 / (100 * size):.4f}" in drawn
            assert f"{size - 1} of {size}" in usage
            assert "0.1000 to between 0.0500 and 0.0600" in curve


def test_numbers_are_means_over_seeds_with_their_range(explorer):
    text = choose(explorer, 16, 0.25)
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    table = {name: cells for name, *cells in rows}
    assert table["test MSE a pixel"] == ["0.00094", "0.00063", "0.00125"]
    p = np.arange(1, 16) / np.arange(16).sum()
    perplexity = np.exp(-(p * np.log(p)).sum())
    assert table["perplexity"] == [f"{perplexity:.1f}"] * 3
    assert table["bits an image (of 16)"] == [f"{4 * np.log2(perplexity):.0f}"] * 3  # 2 x 2 positions
    assert table["active codes (of 16)"] == ["15"] * 3


@pytest.mark.usefixtures("only_the_panel_asked_for")
def test_failed_runs_are_named_and_left_out_of_the_mean(folder, tmp_path):
    for path in folder.glob("*.json"):
        run = StoredRun.read(path)
        if path.stem in ("sweep-K0004-b0-seed0", "sweep-K0016-b0-seed0", "sweep-K0016-b0-seed1"):
            run = replace(run, evaluation={"recon_loss": 0.06 + 0.01 * run.config.seed})
        run.write(tmp_path)
    explorer = widgets.explore_sweep(tmp_path)
    some, all_, none = (choose(explorer, *setting) for setting in ((4, 0.0), (16, 0.0), (16, 0.25)))
    assert "1 of 2 seeds failed" in some
    assert "seed 0 with a test MSE of 0.0600" in some
    assert "mean of 1 seed<" in some
    assert "<td>0.00500</td>" in some and "<td>0.03250</td>" not in some
    assert "2 of 2 seeds failed" in all_
    assert "<td>0.06500</td>" in all_  # nothing is left to leave out
    assert "failed" not in none


def test_a_run_has_failed_that_loses_more_than_half_the_variance(folder):
    run = StoredRun.read(next(folder.glob("*.json")))  # of images with a variance of .1
    assert [widgets.failed(replace(run, evaluation={"recon_loss": error})) for error in (0.049, 0.051)] == [False, True]


def test_sliders_have_names_and_their_values_as_words(explorer):
    size, beta = explorer.children[:2]
    assert (size.description, beta.description) == ("K", "β")
    assert [label for label, _ in size.options] == ["4", "16"]
    assert [label for label, _ in beta.options] == ["0", "0.25", "4"]


def test_originals_stand_above_and_come_from_the_dataset(explorer, originals):
    (picture,) = pictures(explorer.children[2].value)
    assert (picture == np.concatenate(originals.images[:PICTURES, 0].numpy(), axis=1)).all()
    assert alts(explorer.children[2].value) == ["The first 8 test images."]


@pytest.mark.usefixtures("only_the_panel_asked_for")
def test_without_the_dataset_the_panel_says_so(folder, monkeypatch):
    def absent(*_: object, **__: object) -> None:
        raise DataError("tiny is not in /nowhere.")

    monkeypatch.setattr(widgets, "load_images", absent)
    explorer = widgets.explore_sweep(folder)
    assert "tiny is not in /nowhere" in explorer.children[2].value
    assert (pictures(choose(explorer, 4, 0.0))[0] == grey(4, 0.0)).all()


@pytest.mark.usefixtures("only_the_panel_asked_for")
def test_another_dataset_is_not_passed_off_as_the_originals(folder, originals, monkeypatch):
    monkeypatch.setattr(widgets, "load_images", lambda *_, **__: originals.subset(slice(0, 10)))
    note = widgets.explore_sweep(folder).children[2].value
    assert "not the one of the runs" in note
    assert pictures(note) == []


@pytest.mark.usefixtures("only_the_panel_asked_for")
def test_a_setting_without_runs_says_so(folder, tmp_path):
    for path in folder.glob("*.json"):
        if "K0016-b4" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    explorer = widgets.explore_sweep(tmp_path)
    assert "no stored run with K = 16, β = 4" in choose(explorer, 16, 4.0)
    assert (pictures(choose(explorer, 4, 4.0))[0] == grey(4, 4.0)).all()


def test_without_any_run_the_remedy_is_named(tmp_path):
    assert "make sweep" in widgets.explore_sweep(tmp_path).data


# --- pictures step by step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", [pytest.param(True, marks=pytest.mark.skipif(not HAS_STACK, reason="7")), False])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_step_shows_its_own_frame_and_text(stack, channels, monkeypatch):
    if not stack:
        monkeypatch.delattr(ipywidgets, "Stack", raising=False)
    frames = [torch.full((2, channels, 4, 4), i / 255) for i in range(5)]
    widget = widgets.step_through(frames, [f"frame <{i}>" for i in range(5)], "codes drawn")
    slider, shown = widget.children
    assert slider.description == "codes drawn"
    assert [label for label, _ in slider.options] == ["0", "1", "2", "3", "4"]
    for i in (0, 4, 2, 3, 1):
        slider.value = i
        panel = shown
        if stack:
            [link] = [link for link in live_links() if link.target[0] is shown]
            assert (link.source, link.target[1]) == ((slider, "index"), "selected_index")
            panel = shown.children[slider.index]
        assert alts(panel.value) == [f"frame <{i}>"]
        assert f"codes drawn {i} of 4" in panel.value
        [picture] = pictures(panel.value)
        assert picture.shape[:2] == (4, 8)
        assert (picture == i).all()


def test_the_step_shown_first_is_the_one_that_the_slider_points_at():
    widget = widgets.step_through([torch.zeros(1, 1, 4, 4)] * 5, list("abcde"), "step")
    slider, shown = widget.children
    assert not HAS_STACK or shown.selected_index == slider.index


@pytest.mark.parametrize(("frames", "texts"), [(0, 0), (1, 2), (2, 1)])
def test_frames_need_a_text_each(frames, texts):
    with pytest.raises(ValueError, match=f"{frames} frames and {texts} texts"):
        widgets.step_through([torch.zeros(1, 1, 4, 4)] * frames, ["text"] * texts, "step")


# --- its figures ------------------------------------------------------------------------------------------------------


def test_heat_maps_write_each_number_into_its_cell():
    values = np.array([[0.5, 0.25, np.nan], [1.0, 2.0, 4.0]])
    tables = {"error": (values, ".2f"), "codes": (10 * values, ".0f"), "bits": (values, ".1f")}
    figure = figures.heat_maps(tables, SIZES, BETAS, log=["codes"])
    figure.canvas.draw()
    error, codes, bits, empty = figure.axes
    assert [text.get_text() for text in error.texts] == ["0.50", "0.25", "1.00", "2.00", "4.00"]
    assert [text.get_position() for text in codes.texts] == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]
    assert [label.get_text() for label in error.get_yticklabels()] == ["4", "16"]
    assert [label.get_text() for label in bits.get_xticklabels()] == ["0", "0.25", "4"]
    assert (bits.get_xlabel(), bits.get_ylabel()) == ("β", "K")
    assert not empty.axison


def test_use_by_rank_shows_every_run_in_falling_order():
    counts = [torch.tensor([1, 0, 3]), torch.tensor([2, 2, 0])]
    (axis,) = figures.usage_by_rank(counts).axes
    steps = [patch.get_data().values.tolist() for patch in axis.patches]
    assert steps == [[75, 25, 0], [50, 50, 0]]


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def trainer(config, digits, monkeypatch) -> widgets.TrainExplorer:
    monkeypatch.delenv("VQVAE_STATIC", raising=False)
    explorer = widgets.train_explorer(config, digits, digits.subset(slice(0, 50)))
    explorer.steps.value = 6
    return explorer


def train(explorer: widgets.TrainExplorer) -> None:
    explorer.train_button.click()
    explorer.thread.join(120)
    assert not explorer.thread.is_alive()


def usable(explorer: widgets.TrainExplorer) -> bool:
    return not explorer.train_button.disabled and explorer.stop_button.disabled


def test_no_name_of_ours_hides_one_of_the_widgets(trainer):
    plain = type("Plain", (ipywidgets.VBox,), {"__init__": None, "__doc__": ""})  # what every subclass has
    ours = {*vars(widgets.TrainExplorer), *vars(trainer)} - {*vars(plain), *vars(ipywidgets.VBox())}
    ours = {name for name in ours if not name.startswith("__")}  # Python 3.13 adds some of these to each class
    assert [name for name in ours if hasattr(ipywidgets.VBox, name)] == []
    assert "IntText" in repr(trainer)  # what a notebook shows where there are no widgets


def test_a_run_trains_with_the_chosen_setting_and_adds_a_line(trainer):
    trainer.size.value, trainer.beta.value, trainer.rule.value = 5, 1.5, "gradient"
    train(trainer)
    (run,) = trainer.runs
    config = run.config
    assert (config.num_embeddings, config.commitment_cost, config.codebook_update) == (5, 1.5, "gradient")
    assert run.steps == [1, 2, 3, 4, 5, 6]
    assert trainer.progress.value == trainer.progress.max == 6
    assert usable(trainer)
    trainer.size.value = 7
    train(trainer)
    text = trainer.comparison.value
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    assert [row[:5] for row in rows[1:]] == [
        ["run 1", "5", "1.5", "gradient", "6"],
        ["run 2", "7", "1.5", "gradient", "6"],
    ]
    assert rows[1][5] == f"{run.numbers['recon_loss']:.5f}"
    curve, first, *drawn = pictures(text)
    assert curve.ndim == 2  # a palette
    assert (first == np.concatenate(trainer.test.images[:PICTURES, 0].numpy(), axis=1)).all()
    for picture, run in zip(drawn, trainer.runs, strict=True):
        assert (picture == np.concatenate((run.pictures[:, 0] * 255).round().numpy(), axis=1)).all()
    assert "K = 7, β = 1.5, gradient" in alts(text)[-1]


def test_the_run_is_the_one_that_the_trainer_makes(trainer, config, loader):
    """The schedule spans the chosen steps, and the batches are those of ``fit``."""
    train(trainer)
    usual = VQVAETrainer(config)
    usual.fit(loader, steps=6, window=1)
    assert trainer.runs[0].errors == pytest.approx(usual.history["recon_loss"], rel=1e-5)


def test_stop_ends_the_run_and_keeps_what_it_has(trainer, monkeypatch):
    steps = []
    train_epoch = widgets.VQVAETrainer.train_epoch

    def stop_after_three(self, loader):
        numbers = train_epoch(self, loader)
        steps.append(self.step)
        if len(steps) == 3:
            trainer.stop_button.click()
        return numbers

    monkeypatch.setattr(widgets.VQVAETrainer, "train_epoch", stop_after_three)
    trainer.steps.value = 10_000
    train(trainer)
    assert trainer.runs[0].steps == [1, 2, 3]
    assert "3 steps of 10000, stopped" in trainer.message.value
    assert len(pictures(trainer.comparison.value)) == 3
    assert usable(trainer)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("size", 0, "num_embeddings = 0"),
        ("size", 10**9, "K = 1000000000"),
        ("beta", -1.0, "commitment_cost = -1.0"),
        ("beta", float("nan"), "commitment_cost = nan"),
        ("steps", 0, "steps = 0"),
    ],
)
def test_an_impossible_setting_is_named_and_the_widget_stays_usable(trainer, field, value, named):
    before = getattr(trainer, field).value
    getattr(trainer, field).value = value
    trainer.train_button.click()
    assert named in trainer.message.value
    assert 'role="alert"' in trainer.message.value
    assert trainer.thread is None
    assert usable(trainer)
    getattr(trainer, field).value = before
    train(trainer)
    assert len(trainer.runs) == 1
    assert "alert" not in trainer.message.value


@pytest.mark.parametrize("error", [RuntimeError("out of <memory>"), ValueError("diverged"), MemoryError()])
def test_a_failure_in_training_is_shown_and_the_widget_stays_usable(trainer, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(widgets.VQVAETrainer, "train_epoch", fail)
        train(trainer)
    assert html.escape(str(error) or "MemoryError()") in trainer.message.value
    assert trainer.runs == []
    assert usable(trainer)
    train(trainer)
    assert len(trainer.runs) == 1


def test_curves_beyond_those_that_can_be_told_apart_are_left_out(trainer):
    trainer.steps.value = 1
    train(trainer)
    run = trainer.runs[0]
    trainer.runs += [replace(run)] * 7
    trainer._show_runs()
    alt = next(alt for alt in alts(trainer.comparison.value) if "Training error" in alt)
    assert "run 8" in alt
    assert "run 2 " not in alt
    assert trainer.comparison.value.count("<tr>") == 1 + 8


def test_a_page_without_a_kernel_says_what_to_do(monkeypatch):
    monkeypatch.setenv("VQVAE_STATIC", "1")
    note = widgets.train_explorer()  # loads no data
    assert not isinstance(note, ipywidgets.Widget)
    assert "Colab" in note.data
    assert "Jupyter" in note.data
