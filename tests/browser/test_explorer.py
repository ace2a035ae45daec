"""The sweep's explorer on a built page, from disk or after the server has gone: no kernel, no other host, any input."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import build
import chromium
import fake_sweep
import nbformat
import pytest
import torch
import vendor
import yaml
from fake_sweep import BETAS, SIZES, grey
from helpers import brightness

from vqvae_book import explorer
from vqvae_book.results import PICTURES, stored_runs
from vqvae_lib import ImageDataset

MOST_BYTES = 500_000  # of the explorer with the book's own sweep
WAIT_FOR_CACHE = """async ([name, wanted]) => {
    for (let i = 0; Boolean(await caches.match(name, { ignoreSearch: true })) !== wanted; i++) {
        if (i > 1000) throw new Error(`${name} is ${wanted ? "not" : "still"} in the cache`);
        await new Promise((done) => setTimeout(done, 50));
    }
}"""
SHELL = '<!doctype html><html lang="en" data-theme="light"><title>Explorer</title><body><main>{html}'


@pytest.fixture(scope="module")
def site(tmp_path_factory, scripts) -> Path:
    """A book of one page with the explorer, made with the real book's settings."""
    root = tmp_path_factory.mktemp("book")
    build.prepare(root)
    shutil.rmtree(root / "chapters")
    fake_sweep.write(root / "sweep", "glyphs", "not those of the generator")
    code = [
        "import torch, tqdm.auto\nfrom vqvae_book import widgets\nassert len([*tqdm.auto.tqdm(range(2))]) == 2",
        "widgets.step_through([torch.zeros(1, 1, 4, 4)] * 3, ['Black.'] * 3, 'step')",
        f"widgets.explore_sweep({str(root / 'sweep')!r})",
    ]
    cells = [nbformat.v4.new_markdown_cell("# Explorer"), *map(nbformat.v4.new_code_cell, code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / "page.ipynb")
    (root / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "page"}))
    # As `jupyter-book build .` does it: the extension of ours sets what static pages need, and the kernel runs.
    program = shutil.which("jupyter-book", path=Path(sys.executable).parent)
    done = subprocess.run([program, "build", root, "--all", "-q"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return root / "_build" / "html"


@pytest.fixture
def shown(page, site):
    """The page in Chromium, with every request to another host refused; at the end none must have been made."""
    asked: list[str] = []

    def only_from_disk(route) -> None:
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    page.route("**/*", only_from_disk)
    page.goto((site / "page.html").as_uri())
    page.wait_for_selector(".vq-explorer .shown", state="visible")
    yield page
    assert asked == []


def slider(page, name: str):
    return page.get_by_role("slider", name=name, exact=True)


def cell(page, size: int, beta: float):
    return page.locator(".map tbody tr").nth(SIZES.index(size)).locator("td").nth(BETAS.index(beta))


def expect_setting(page, size: int, beta: float, seed: int = 0) -> None:
    """Check that all that is shown is that of one setting and seed."""
    setting = f"K = {size}, β = {beta:g}"
    page.wait_for_selector(f".redrawn[alt*='{setting};'][alt*=', seed {seed},']", state="visible")  # it may be fetched
    assert brightness(page.locator(".redrawn")) == grey(size, beta, seed)
    assert all(setting in page.get_attribute(name, "aria-label") for name in (".use", ".learning"))
    heads, *rows = [row.locator("th, td").all_inner_texts() for row in page.locator(".numbers tr").all()]
    assert heads[:2] == [setting, f"seed {seed}"]
    assert rows[0][1:] == [f"{error / (100 * size):.5f}" for error in (1 + seed, 1.5, 1, 2)]
    assert slider(page, "K").get_attribute("aria-valuetext") == str(size)
    assert slider(page, "β").get_attribute("aria-valuetext") == f"{beta:g}"
    assert page.locator("td[aria-selected=true]").evaluate_all("(all) => all.map((one) => one.ariaLabel)") == [
        cell(page, size, beta).get_attribute("aria-label")
    ]


def test_sliders_map_and_seeds_lead_to_every_run_by_keyboard(shown):
    expect_setting(shown, SIZES[1], 0.25)
    slider(shown, "K").press("Home")
    slider(shown, "β").press("Home")
    expect_setting(shown, SIZES[0], BETAS[0])
    slider(shown, "β").press("ArrowRight")
    expect_setting(shown, SIZES[0], BETAS[1])
    shown.get_by_role("radio", name="1").press("Space")
    expect_setting(shown, SIZES[0], BETAS[1], seed=1)
    cell(shown, SIZES[0], BETAS[1]).focus()
    for key, size, beta in (
        ("Home", 0, 0),
        ("ArrowDown", 1, 0),
        ("ArrowDown", 1, 0),
        ("End", 1, 2),
        ("ArrowLeft", 1, 1),
    ):
        shown.keyboard.press(key)
        expect_setting(shown, SIZES[size], BETAS[beta], seed=1)
    shown.keyboard.press("Tab")  # the map takes one place in the order of the tabulator
    assert shown.evaluate("document.activeElement.className") == "K"


def test_a_click_in_the_map_moves_the_sliders_and_a_slider_the_mark(shown):
    for size in SIZES:
        for beta in BETAS:
            cell(shown, size, beta).click()
            expect_setting(shown, size, beta)
    box = slider(shown, "β").bounding_box()
    shown.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    expect_setting(shown, SIZES[1], BETAS[0])


def show(page, folder: Path) -> None:
    page.set_content(SHELL.format(html=explorer.explore_sweep(folder).data))


def test_a_failed_run_is_called_so_and_moves_nothing(page, tmp_path):
    fake_sweep.write(tmp_path, "glyphs", "not those of the generator")
    for run in stored_runs("sweep-K0004-b0-seed0", tmp_path):
        replace(run, numbers=run.numbers | {"MSE": 0.09}).write(tmp_path)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        show(page, tmp_path)
        places, ticks = set(), set()
        for size in SIZES:
            for beta in BETAS:
                cell(page, size, beta).click()
                boxes = [
                    page.locator(name).bounding_box()
                    for name in (".redrawn", ".numbers", ".learning", ".legend >> nth=1")
                ]
                places.add(tuple(box["y"] + page.evaluate("scrollY") for box in boxes))
                ticks.add(tuple(page.locator(".use text").all_inner_texts()))
                assert ("failed run, seed 0" in page.inner_text(".caption")) == ((size, beta) == (4, 0))
        assert len(places) == len(ticks) == 1
    cell(page, 4, 0.0).click()
    assert "failed run" in page.get_attribute(".redrawn", "alt") and "seed 0" in page.inner_text(".note")
    page.get_by_role("radio", name="1").check()
    assert "failed" not in page.inner_text(".caption")
    assert page.locator(".map").get_by_text("*").count() == 1


def test_the_difference_is_orange_where_too_bright_and_blue_where_too_dark(page, tmp_path, monkeypatch):
    level = torch.full((PICTURES, 1, 8, 8), grey(16, 0.25), dtype=torch.uint8)
    level[1], level[2] = 0, 255  # the model's are all of one grey
    images = ImageDataset(level, name="levels")
    fake_sweep.write(tmp_path, "levels", images.fingerprint())
    monkeypatch.setattr(explorer, "load_images", Mock(return_value=images))
    show(page, tmp_path)
    page.wait_for_function("document.querySelector('.difference').width === 64")
    pixel = "(canvas, x) => [...canvas.getContext('2d').getImageData(x, 4, 1, 1).data]"
    same, brighter, darker = (page.locator(".difference").evaluate(pixel, 4 + 8 * i) for i in range(3))
    assert same == [252, 252, 252, 255]
    assert brighter[0] > brighter[1] > brighter[2] and darker[0] < darker[1] < darker[2]
    top = [page.locator(name).bounding_box() for name in (".originals", ".redrawn", ".difference")]
    assert all(after["y"] - before["y"] - before["height"] < 8 for before, after in itertools.pairwise(top))


def test_an_executed_page_asks_for_no_script_of_widgets_and_shows_no_dead_controls(shown):
    scripts = shown.evaluate("[...document.scripts].map(({ src, type }) => src + type)")
    assert scripts and not [script for script in scripts if "widget" in script or "require" in script]
    assert shown.locator(".vq-steps").is_visible()


def test_a_page_once_read_needs_no_server_and_a_rebuilt_one_shows_at_once(page, site, tmp_path):
    book = shutil.copytree(site, tmp_path / "book")  # not at the root of its host: as on GitHub Pages
    file, asked = book / "page.html", []
    (book / "_static" / "lab").mkdir()
    (book / "_static" / "lab" / "weights.bin").write_bytes(b"0")
    page.on("request", lambda request: asked.append(request.url))
    with chromium.serve(tmp_path) as address:
        page.goto(f"{address}/book/page.html")
        pictures = page.get_attribute(".vq-explorer [data-src]", "data-src").partition("?")[0]
        page.evaluate(WAIT_FOR_CACHE, [pictures, True])  # the last but one of all that the page embeds
        page.evaluate("fetch('_static/lab/weights.bin')")  # as the lab does, when a model is first used
    assert not [url for url in asked if pictures in url]
    page.goto(f"{address}/book/page.html")
    expect_setting(page, SIZES[1], 0.25)
    slider(page, "K").press("Home")
    expect_setting(page, SIZES[0], 0.25)
    assert page.locator(".bd-article h1").evaluate("head => getComputedStyle(head).textWrap") == "balance"  # our sheet
    assert len([url for url in asked if pictures in url]) == 1
    page.goto(f"{address}/book/genindex.html")
    assert "no network" in page.inner_text("p")

    (book / "_static" / "other.js").write_bytes((book / pictures).read_bytes())
    file.write_text(
        file.read_text(encoding="utf-8").replace("Explorer<", "Rebuilt<").replace(pictures, "_static/other.js")
    )
    os.utime(file, (2e9, 2e9))  # servers count in seconds
    with chromium.serve(tmp_path, int(address.rpartition(":")[2])):
        page.goto(f"{address}/book/page.html")
        assert page.inner_text("h1").startswith("Rebuilt")
        page.evaluate(WAIT_FOR_CACHE, [pictures, False])  # which nothing embeds now
        page.evaluate(WAIT_FOR_CACHE, ["_static/lab/weights.bin", True])
    page.reload()
    assert page.inner_text("h1").startswith("Rebuilt")
    slider(page, "K").press("Home")
    expect_setting(page, SIZES[0], 0.25)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_can_be_read_in_either_theme(shown, width, theme):
    shown.set_viewport_size({"width": width, "height": 900})
    shown.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    right = "(all) => Math.max(...all.map((one) => one.getBoundingClientRect().right))"
    assert shown.locator(".cell_output :is(img, svg, table):visible").evaluate_all(right) <= width  # nothing is cut off
    shown.add_script_tag(path=vendor.AXE)
    found = shown.evaluate("axe.run('.cell_output')")["violations"]
    assert [(fault["id"], [node["html"][:200] for node in fault["nodes"]]) for fault in found] == []


def test_the_explorer_is_light():
    assert len(explorer.explore_sweep().data.encode()) <= MOST_BYTES
