"""The sweep's explorer on a built page, opened from disk: no kernel, no other host, keyboard or mouse."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import build
import fake_sweep
import nbformat
import pytest
import vendor
import yaml
from fake_sweep import BETAS, SIZES, grey
from helpers import brightness

MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def site(tmp_path_factory, scripts) -> Path:
    """A book of one page with the explorer and training's note, made with the real book's settings."""
    root = tmp_path_factory.mktemp("book")
    build.prepare(root)
    shutil.rmtree(root / "chapters")
    fake_sweep.write(root / "sweep", "glyphs", "not those of the generator")
    code = [
        "from vqvae_book import widgets",
        f"widgets.explore_sweep({str(root / 'sweep')!r})",
        "widgets.train_explorer(None, None, None)",
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
    page.wait_for_selector(".noUi-handle")
    page.wait_for_selector("figure img")
    yield page
    assert asked == []


def slider(page, name: str):
    return page.get_by_role("slider", name=name, exact=True)


def seen(page) -> tuple[int, list[str]]:
    """Brightness of the reconstructions and alternative texts of all pictures, of the one panel that is shown."""
    images = page.locator(".cell_output img:visible")
    alts = [images.nth(i).get_attribute("alt") for i in range(images.count())]
    return brightness(images.first), alts


def expect_setting(page, size: int, beta: float) -> None:
    """Wait until the panel of a setting is shown, and check that all of it is that setting's."""
    setting = f"K = {size}, β = {beta:g}"
    page.wait_for_selector(f'figure img[alt*="{setting};"]')
    level, alts = seen(page)
    assert level == grey(size, beta)
    assert len(alts) == 3
    assert all(setting in alt for alt in alts)
    assert page.locator(".cell_output th:visible").first.inner_text() == setting
    assert slider(page, "K").get_attribute("aria-valuetext") == str(size)
    assert slider(page, "β").get_attribute("aria-valuetext") == f"{beta:g}"


def test_the_keyboard_alone_reaches_every_setting(shown):
    expect_setting(shown, SIZES[1], BETAS[1])
    slider(shown, "K").focus()
    shown.keyboard.press("Home")
    slider(shown, "β").focus()
    shown.keyboard.press("Home")
    expect_setting(shown, SIZES[0], BETAS[0])
    for i, size in enumerate(SIZES):
        if i:
            slider(shown, "K").focus()
            shown.keyboard.press("ArrowRight")
        slider(shown, "β").focus()
        shown.keyboard.press("Home")
        expect_setting(shown, size, BETAS[0])
        for beta in BETAS[1:]:
            shown.keyboard.press("ArrowRight")
            expect_setting(shown, size, beta)


def test_both_sliders_are_in_the_order_of_the_tabulator(shown):
    slider(shown, "K").focus()
    names = []
    for _ in range(2):  # a slider's handle, then the value beside it
        shown.keyboard.press("Tab")
        names.append(
            shown.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.outerHTML")
        )
    assert "β" in names


def test_the_mouse_moves_both_sliders(shown):
    for name, to, setting in (("K", "start", (SIZES[0], BETAS[1])), ("β", "end", (SIZES[0], BETAS[2]))):
        handle = slider(shown, name)
        handle.scroll_into_view_if_needed()
        box, track = (
            handle.bounding_box(),
            handle.locator("xpath=ancestor::*[contains(@class,'noUi-base')]").bounding_box(),
        )
        shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        shown.mouse.down()
        shown.mouse.move(track["x"] + (track["width"] if to == "end" else 0), box["y"], steps=4)
        shown.mouse.up()
        expect_setting(shown, *setting)


def test_where_no_kernel_is_training_says_what_to_do_and_shows_no_dead_controls(shown):
    assert shown.get_by_text("open this chapter in Colab").is_visible()
    assert shown.get_by_role("button", name="Train").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_can_be_read_in_either_theme(shown, width, theme):
    shown.set_viewport_size({"width": width, "height": 900})
    shown.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    right = "(all) => Math.max(...all.map((one) => one.getBoundingClientRect().right))"
    assert shown.locator(".cell_output :is(img, table):visible").evaluate_all(right) <= width  # nothing is cut off
    # axe-core would hand itself to require.js, which the page's widgets use, instead of to the page.
    shown.evaluate("window.kept = window.define; window.define = undefined")
    shown.add_script_tag(path=vendor.AXE)
    found = shown.evaluate("axe.run('.cell_output')")["violations"]
    assert [(fault["id"], [node["html"][:200] for node in fault["nodes"]]) for fault in found] == []
