"""Widgets: each picture is the right one; training starts, stops and fails."""

import base64
import html
import io
import itertools
import json
import re
from dataclasses import replace
from unittest.mock import Mock

import fake_sweep
import numpy as np
import pytest
import torch
from fake_sweep import BETAS, SIZES, grey
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from vqvae_book import explorer, widgets
from vqvae_book.figures.style import HEAT
from vqvae_book.results import PICTURES, png_strip, stored_runs, sweep
from vqvae_lib import DataError, ImageDataset, VQVAETrainer

TINY = ImageDataset(torch.arange(20 * 64).reshape(20, 1, 8, 8).remainder(251).byte(), name="tiny")


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):  # originals from memory, and plots that are not drawn
    buffer = io.BytesIO()
    Image.new("P", (1, 1)).save(buffer, "PNG")
    monkeypatch.setattr(explorer, "load_images", Mock(return_value=TINY))
    monkeypatch.setattr(widgets, "small_png", Mock(return_value=buffer.getvalue()))


@pytest.fixture
def folder(tmp_path):
    fake_sweep.write(tmp_path, "tiny", TINY.fingerprint())
    return tmp_path


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def pictures(text: str) -> list[np.ndarray]:
    return [pixels(png) for png in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]


def beside(images: torch.Tensor) -> np.ndarray:
    return np.concatenate((images[:, 0] * 255).round().byte().numpy(), axis=1)


def alts(text: str) -> list[str]:
    return [html.unescape(alt) for alt in re.findall(r'alt="([^"]*)"', text)]


def rows(text: str) -> list[list[str]]:
    return [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]


def test_each_cell_of_the_map_holds_the_runs_of_its_setting(folder):
    shown = explorer.contents(sweep(folder))
    assert (shown["sizes"], shown["betas"], shown["seeds"], shown["start"]) == ([*SIZES], [*BETAS], [0, 1], (1, 1))
    assert shown["originals"] == png_strip(TINY.floats(slice(PICTURES)))
    for (i, size), (j, beta) in itertools.product(enumerate(SIZES), enumerate(BETAS)):
        cell = shown["cells"][i][j]
        assert cell["setting"] == f"K = {size}, β = {beta:g}" and all(cell["setting"] in alt for alt in cell["alts"])
        assert cell["table"][0] == [f"{error / (100 * size):.5f}" for error in (1.5, 1, 2)]
        assert cell["mean"] == pytest.approx(0.015 / size)
        for seed, run in enumerate(cell["runs"]):
            picture = pixels(run["picture"])
            assert (picture == grey(size, beta, seed)).all() and picture.shape == (8, 8 * PICTURES)
            assert run["numbers"][0] == f"{(1 + seed) / (100 * size):.5f}" and not run["failed"]
            assert run["curve"] == [(10, 0.1), (30, [0.05, 0.06][seed])]
            shares = [100 * (size - rank) / (size * (size - 1) / 2) for rank in range(1, size)]  # the last has none
            assert run["use"] == [(rank, pytest.approx(share, rel=0.01)) for rank, share in enumerate(shares, 1)]
    # Of all that is drawn nothing is out of sight.
    assert shown["errors"][0] < 0.05 and shown["errors"][1] > 0.1 and shown["steps"] == 30
    assert shown["least"] == pytest.approx(100 / 120, rel=0.01)
    assert all(contrast(*cell["colors"]) >= 4.5 for row in shown["cells"] for cell in row)  # each number can be read
    values = np.linspace(0, 1, 99)  # and could be on any color of the scale
    assert min(contrast(to_hex(HEAT(v)), explorer.readable_on(HEAT(v))) for v in values) >= 4.5


def contrast(*colors: str) -> float:
    """WCAG's ratio, from 1 to 21."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (high + 0.05) / (low + 0.05)


def test_what_failed_is_left_out_of_the_mean_and_what_is_missing_is_named(folder, monkeypatch):
    assert "make sweep" in widgets.explore_sweep(folder / "empty").data
    for run in stored_runs(folder=folder):
        if run.name in ("sweep-K0004-b0-seed0", "sweep-K0016-b0-seed0", "sweep-K0016-b0-seed1"):
            replace(run, numbers=run.numbers | {"MSE": 0.06 + 0.01 * run.settings["seed"]}).write(folder)
        elif "K0016-b4" in run.name:
            (folder / f"{run.name}.json").unlink()
    for behavior in ({"side_effect": DataError("tiny is not here")}, {"return_value": TINY.subset(slice(0, 10))}):
        monkeypatch.setattr(explorer, "load_images", Mock(**behavior))
        shown = explorer.contents(sweep(folder))
        assert shown["originals"] == "" and "can't be shown" in shown["why"]  # others are not passed off as these
    [some, *_], [all_, none, missing] = shown["cells"]
    assert "1 of 2 seeds failed" in some["note"] and some["note"].endswith(": seed 0.")
    assert [run["failed"] for run in some["runs"]] == [True, False]
    assert some["count"] == 1 and some["table"][0] == ["0.00500"] * 3 and some["mean"] == 0.005
    assert "2 of 2 seeds failed" in all_["note"] and all_["table"][0] == ["–"] * 3  # a mean of nothing
    assert all_["mean"] == 0 and "colors" not in all_
    assert "failed" not in none["note"] and none["lost"] == 0
    assert "K = 16, β = 4" in missing["note"] and missing["runs"] == []


def test_the_page_holds_its_data_whole_and_no_other_place_to_ask(folder, monkeypatch):
    monkeypatch.setattr(explorer, "load_images", Mock(side_effect=DataError("</script> & <b>")))
    one, other = (widgets.explore_sweep(folder).data for _ in range(2))
    assert one != other and "@" + "ID@" not in one and one.count("</script>") == 2
    parts = (r'type="application/json">(.*)</script>', r"const data = (.*);\n")
    pictures, data = (json.loads(re.search(part, one)[1]) for part in parts)
    runs = [run for row in data["cells"] for cell in row for run in cell["runs"]]
    assert sum(isinstance(run["picture"], str) for run in runs) == 1  # the first to be seen
    for run in runs:
        run["picture"] = run["picture"] if isinstance(run["picture"], str) else pictures[run["picture"]]
    assert data == json.loads(json.dumps(explorer.contents(sweep(folder))))
    assert "https://" not in one and "http://" not in one.replace("http://www.w3.org", "")


@pytest.mark.parametrize("channels", [1, 3])
def test_each_step_has_its_own_frame_and_text_and_the_middle_one_needs_no_script(channels):
    frames = [torch.full((2, channels, 4, 5), i / 255) for i in range(5)]
    texts = [f'frame </script> & "{i}"' for i in range(5)]
    page = widgets.step_through(frames, texts, "codes <drawn>").data
    pngs, said = zip(*json.loads(re.search(r'type="application/json">(.*)</script>', page)[1]), strict=True)
    assert [*said] == texts and page.count("</script>") == 2
    assert all(pixels(png).shape[:2] == (4, 10) and (pixels(png) == i).all() for i, png in enumerate(pngs))
    [first] = pictures(page)
    assert (first == 2).all() and alts(page) == [texts[2]]
    assert 'width="10" height="4"' in page and ">codes &lt;drawn&gt;</label>" in page
    with pytest.raises(ValueError, match="texts = 2"):
        widgets.step_through(frames, ["text"] * 2, "step")


@pytest.fixture
def trainer(config, digits) -> widgets.TrainExplorer:
    explorer = widgets.TrainExplorer(config, digits, digits.subset(slice(0, 50)))
    explorer.steps.value = 6
    return explorer


def train(explorer: widgets.TrainExplorer) -> str:  # what is said then
    explorer.train_button.click()
    if explorer.thread is not None:
        explorer.thread.join(120)
        assert not explorer.thread.is_alive()
    assert not explorer.train_button.disabled and explorer.stop_button.disabled
    return explorer.message.value


def test_a_run_trains_with_the_chosen_setting_as_the_trainer_does_and_adds_a_line(trainer, config, loader):
    trainer.beta.value, trainer.rule.value = 1.5, "gradient"
    for trainer.size.value in (5, 7):
        train(trainer)
    usual = VQVAETrainer(replace(config, num_embeddings=5, commitment_cost=1.5, codebook_update="gradient"))
    usual.fit(loader, steps=6, window=6)
    assert trainer.runs[0].history["recon_loss"] == usual.history["recon_loss"]
    assert trainer.progress.value == trainer.progress.max == 6
    text, (first, second) = trainer.comparison.value, trainer.runs
    assert [" ".join(row[:5]) for row in rows(text)[1:]] == ["run 1 5 1.5 gradient 6", "run 2 7 1.5 gradient 6"]
    assert rows(text)[1][5] == f"{first.numbers['MSE']:.5f}"
    images = [trainer.test.floats(slice(PICTURES)), *(run.pictures["reconstructions"] for run in (first, second))]
    assert all((a == beside(b)).all() for a, b in zip(pictures(text)[1:], images, strict=True))
    assert "K = 7, β = 1.5, gradient" in alts(text)[-1]
    trainer.runs += [replace(first, name=f"run {i}") for i in range(3, 9)]
    train(trainer)
    assert re.findall(r"run \d", alts(trainer.comparison.value)[0]) == [f"run {i}" for i in range(4, 10)]  # the latest


def test_stop_ends_the_run_and_keeps_what_it_has(trainer):
    trainer.steps.value = 10_000
    trainer.progress.observe(lambda change: change["new"] and trainer.stop_button.click(), "value")
    assert "of 10000, stopped" in train(trainer)
    assert 0 < trainer.runs[0].settings["steps"] == trainer.runs[0].history["step"][-1] < 100
    assert len(pictures(trainer.comparison.value)) == 3


def test_an_impossible_setting_and_any_failure_are_told_and_the_widget_stays_usable(trainer, monkeypatch):
    for field, value, named in (("size", 0, "num_embeddings = 0"), ("size", 10**9, "K = "), ("steps", 0, "steps = 0")):
        before = getattr(trainer, field).value
        getattr(trainer, field).value = value
        assert named in train(trainer) and trainer.thread is None
        getattr(trainer, field).value = before
    for error in (RuntimeError("out of <memory>"), TypeError("no float64"), MemoryError()):
        with monkeypatch.context() as patch:
            patch.setattr(VQVAETrainer, "evaluate", Mock(side_effect=error))
            assert html.escape(str(error) or "MemoryError()") in train(trainer)
    assert "alert" not in train(trainer) and len(trainer.runs) == 1
