"""The lab on a built page: every station by mouse, touch and keys; no other host; no work where nobody looks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import build
import chromium
import nbformat
import notebooks
import pytest
import torch
import vendor
import yaml

from vqvae_book.lab import STATIONS, lab
from vqvae_book.lab.files import MOST_BYTES, write_files
from vqvae_lib import VQVAE, ImageDataset, PixelCNN, about_pretrained, draw_glyphs

MOST_KB = 300  # of scripts and lists, before a model is used
QUICK = "data=glyphs&hidden_dim=16&embedding_dim=8&num_embeddings=32&batch_size=16&steps=100"
WRITTEN, PRIOR = "mnist-k32", "mnist-k32-classes"


@pytest.fixture(scope="module")
def site(tmp_path_factory, scripts) -> Path:
    """A book of one page, with the lab, made with the real book's settings."""
    root = tmp_path_factory.mktemp("book")
    build.prepare(root)
    shutil.rmtree(root / "chapters")
    (root / "chapters").mkdir()
    output = nbformat.v4.new_output("display_data", data={"text/plain": "…", "text/html": lab().data})
    cells = [nbformat.v4.new_markdown_cell("# The lab"), nbformat.v4.new_code_cell("lab()", outputs=[output])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA), root / "chapters" / "lab.ipynb")
    (root / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "chapters/lab"}), encoding="utf-8")
    write_files(root / "assets" / "lab", ImageDataset(*draw_glyphs("0123456789", 20, seed=1), "glyphs"))
    assert build.make_pages(root, root) == 0
    return root / "_build" / "html"


@pytest.fixture(scope="module")
def address(site):
    with chromium.serve(site) as address:
        yield address


def only_from(page, address: str) -> list[str]:
    """Refuse every request to another host; return the list in which such requests, and all to the lab, are noted."""
    asked: list[str] = []

    def gate(route) -> None:
        asked.append(route.request.url)
        route.continue_() if urlsplit(route.request.url).netloc == urlsplit(address).netloc else route.abort()

    page.route("**/*", gate)
    return asked


@pytest.fixture
def shown(page, address):
    asked = only_from(page, address)
    page.goto(f"{address}/chapters/lab.html")
    page.wait_for_selector(".vq-lab .pad")
    page.asked = asked
    yield page
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert page.inner_text(".vq-lab .trouble") == ""


def state(page, expression: str):
    return page.evaluate(f"(() => {{ const lab = document.querySelector('.vq-lab').lab; return {expression}; }})()")


def codes(page, station: str, which: int = 0) -> list[int]:
    """The numbers in a grid; -1 where there is none yet."""
    texts = page.locator(f".station.{station} .grid").nth(which).locator("td").all_inner_texts()
    return [int(text) if text else -1 for text in texts]


def settled(page, station: str, words: str) -> None:
    found = f"document.querySelector('.station.{station} .said').textContent.includes('{words}')"
    page.wait_for_function(found)


def open_station(page, station: str) -> None:
    page.locator(f"[role=tab][id$=tab-{station}]").click()
    page.wait_for_selector(f".station.{station} :is(.grid, .fields)", state="visible")


def stroke(page) -> None:
    page.locator(".pad").hover()  # once it is in view, and stands still
    box = page.locator(".pad").bounding_box()
    places = [(0.3, 0.2), (0.7, 0.25), (0.5, 0.5), (0.45, 0.8)]
    screen = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*screen[0])
    page.mouse.down()
    for place in screen[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()
    assert state(page, "lab.state.image !== null")
    row = "document.querySelector('.models tbody tr:last-child td:last-child')"  # what comes last
    priced = f"{row}.textContent !== '' && document.querySelector('.vq-lab').lab.waiting.size === 0"
    page.wait_for_function(priced)


@torch.no_grad()
def test_what_is_drawn_gets_the_codes_of_the_library_under_each_model(shown):
    stroke(shown)
    x = torch.tensor(state(shown, "[...lab.state.image]")).view(1, 1, 28, 28)
    assert 20 < float(x.sum()) < 200
    for K in state(shown, "lab.choices"):
        shown.get_by_role("radio", name=K, exact=True).check()
        model = VQVAE.from_pretrained(f"mnist-k{K}")
        theirs = model.encode(x)
        shown.wait_for_function(f"document.querySelector('.station.draw .said').textContent.includes('of {K} codes')")
        ours = codes(shown, "draw")
        assert sum(a == b for a, b in zip(ours, theirs.flatten().tolist(), strict=True)) >= 48
        error = float((model.decode(theirs) - x).square().mean())
        assert float(re.search(r"error (\.\d+)", shown.inner_text(".station.draw .said")).group(1)) == pytest.approx(
            error, rel=0.05, abs=1e-4
        )
    assert len(shown.locator(".models tbody tr").all()) == len(state(shown, "lab.choices"))


def test_keys_alone_draw_and_what_they_do_is_said(shown):
    shown.locator(".pad").focus()
    shown.keyboard.press("Space")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        shown.keyboard.press(key)
    assert state(shown, "lab.spoken.textContent") == "Pen down, row 17, column 16"
    shown.keyboard.press("Space")
    shown.keyboard.press("ArrowUp")
    ink = state(shown, "lab.state.image.reduce((a, b) => a + b)")
    assert 5 < ink < 20 and state(shown, "lab.state.image[14 * 28 + 14] > 0.5 && lab.state.image[16 * 28 + 15] > 0.5")
    shown.get_by_role("button", name="Undo").press("Enter")
    assert state(shown, "lab.state.image.reduce((a, b) => a + b)") == 0
    settled(shown, "draw", "Mean squared error")
    shown.locator(".station.draw .grid td").first.focus()
    for key in ("ArrowRight", "ArrowDown", "End"):
        shown.keyboard.press(key)
    assert "row 2, column 7" in shown.evaluate("document.activeElement.ariaLabel")


def test_a_finger_draws_and_scrolls_nothing(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(chromium.PATIENCE)
    only_from(page, address)
    page.goto(f"{address}/chapters/lab.html")
    page.wait_for_selector(".vq-lab .pad")
    page.locator(".pad").scroll_into_view_if_needed()
    box, before = page.locator(".pad").bounding_box(), page.evaluate("scrollY")
    touch = context.new_cdp_session(page)
    for n, kind in enumerate(["touchStart", *["touchMove"] * 8, "touchEnd"]):
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] * (0.8 - 0.06 * n)}
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if kind == "touchEnd" else [at]})
    page.wait_for_function("document.querySelector('.vq-lab').lab.state.image?.reduce((a, b) => a + b) > 10")
    assert page.evaluate("scrollY") == before
    context.close()


@torch.no_grad()
def test_another_code_changes_the_picture_and_undo_brings_it_back(shown):
    open_station(shown, "edit")
    settled(shown, "edit", "before")
    first = codes(shown, "edit")
    canvas = "document.querySelector('.station.edit .squares canvas').getContext('2d')"
    pixels = f"[...{canvas}.getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
    before = shown.evaluate(pixels)
    cell = shown.locator(".station.edit .grid").first.locator("td").nth(24)
    cell.press("Enter")
    shown.wait_for_selector(".atlas button")
    assert shown.locator(".atlas button").first.get_attribute("aria-label") == f"code {first[24]}"  # most like itself
    shown.locator(".atlas button").last.press("Enter")
    settled(shown, "edit", "1 cell has changed")
    edited = codes(shown, "edit")
    assert [place for place in range(49) if edited[place] != first[place]] == [24]
    assert f"was {first[24]}" in cell.get_attribute("aria-label") and shown.locator(".frames path[d^=M12]").count() == 1
    after = shown.evaluate(pixels)
    image = VQVAE.from_pretrained(WRITTEN).decode(torch.tensor(edited).view(1, 7, 7)).flatten()
    assert (torch.tensor(after) / 255 - image).abs().max() < 0.01 and after != before
    shown.get_by_role("button", name="Undo").click()
    settled(shown, "edit", "0 cells")
    assert codes(shown, "edit") == first and shown.evaluate(pixels) == before
    shown.get_by_role("button", name="Redo").click()
    settled(shown, "edit", "1 cell has changed")
    assert codes(shown, "edit") == edited
    for K in ("8", "32"):  # under another model, and back
        shown.locator(".station.edit").get_by_role("radio", name=K, exact=True).check()
        settled(shown, "edit", "0 cells" if K == "8" else "1 cell has changed")
    assert codes(shown, "edit") == edited and shown.get_by_role("button", name="Undo").is_enabled()


def test_two_grids_are_mixed_cell_by_cell_and_the_way_leads_to_the_other(shown):
    open_station(shown, "edit")
    settled(shown, "edit", "before")
    first, other = codes(shown, "edit"), codes(shown, "edit", 1)
    place = next(p for p in range(49) if first[p] != other[p])
    shown.locator(".station.edit .grid").nth(1).locator("td").nth(place).click()
    settled(shown, "edit", "1 cell has changed")
    assert codes(shown, "edit")[place] == other[place]
    way = shown.get_by_role("slider", name="Path to")
    way.press("End")
    settled(shown, "edit", f"{sum(a != b for a, b in zip(first, other, strict=True))} cells have changed")
    assert codes(shown, "edit") == other
    way.press("Home")
    settled(shown, "edit", "0 cells")
    assert codes(shown, "edit") == first


@torch.no_grad()
def test_the_prior_writes_step_by_step_what_it_writes_at_once_and_bars_are_its_distribution(shown):
    open_station(shown, "write")
    for n in range(1, 4):
        shown.get_by_role("button", name="Step").press("Enter")
        settled(shown, "write", f"{n} of 49")
        shown.wait_for_function(
            f"document.querySelector('.station.write .wide').textContent.includes('column {n + 1}:')"
        )
    begun = codes(shown, "write")
    shares = [
        float(text.split()[-1].rstrip("%"))
        for text in shown.locator(".bars li span:last-child").all_inner_texts()
        if "<" not in text
    ]
    assert sum(shares) == pytest.approx(100, abs=1)
    shown.get_by_role("button", name="Write all").click()
    settled(shown, "write", "All 49")
    written = codes(shown, "write")
    assert written[:3] == begun[:3] and -1 not in written
    nats = PixelCNN.from_pretrained(PRIOR).nats(torch.tensor(written).view(1, 7, 7), torch.tensor([3]))
    bits = float(re.search(r"([\d.]+) bits", shown.inner_text(".station.write .said")).group(1))
    assert bits == pytest.approx(float(nats.sum() / torch.tensor(2.0).log()), rel=0.03)  # its weights have 8 bits here
    # The same seed writes the same again, and a redrawn rest leaves what is before it alone.
    shown.locator(".station.write .grid td").nth(30).press("Enter")
    shown.get_by_role("button", name="Redraw from here").click()
    settled(shown, "write", "30 of 49")
    assert codes(shown, "write") == written[:30] + [-1] * 19
    shown.get_by_label("Seed").fill("1")
    shown.get_by_label("Seed").press("Tab")
    shown.get_by_role("button", name="Write all").click()
    settled(shown, "write", "All 49")
    assert codes(shown, "write") == written


def test_a_drawing_is_completed_under_the_codes_of_its_upper_half(shown):
    stroke(shown)
    own = codes(shown, "draw")
    open_station(shown, "write")
    shown.get_by_role("button", name="Complete your drawing").click()
    settled(shown, "write", "All 49")  # code by code
    assert codes(shown, "write")[:28] == own[:28]
    assert "upper four rows are yours" in shown.inner_text(".station.write")


def test_nothing_works_on_where_nobody_looks(shown):
    open_station(shown, "write")
    shown.get_by_role("button", name="Play").click()
    settled(shown, "write", "3 of 49")
    shown.evaluate("""Object.defineProperty(document, 'hidden', { value: true, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'))""")
    shown.wait_for_timeout(300)
    stopped = codes(shown, "write")
    shown.wait_for_timeout(600)
    assert codes(shown, "write") == stopped and state(shown, "lab.waiting.size") == 0
    assert shown.get_by_role("button", name="Play").is_visible() and -1 in stopped


def test_a_model_trained_in_the_page_is_drawn_and_edited_with_beside_the_shipped_ones(shown):
    stroke(shown)
    drawn = state(shown, "[...lab.state.image]")
    shown.evaluate(f"location.hash = 'train?{QUICK}'")
    open_station(shown, "train")
    shown.get_by_role("button", name="Train", exact=True).click()
    run = shown.get_by_role("region", name="Run 1")
    shown.wait_for_function("parseInt(document.querySelector('.vq-train .run dd')?.textContent) >= 20")
    run.get_by_role("button", name="Draw with it").press("Enter")
    shown.wait_for_selector(".station.draw .pad", state="visible")
    own = shown.get_by_role("radio", name="Run 1, 32", exact=True)
    assert own.is_checked() and state(shown, "[...lab.state.image]") == drawn
    # The shipped model has 32 codes, too: until the new answer comes, its own stands there.
    shipped = str(round(about_pretrained(WRITTEN)["MSE"], 4)).lstrip("0")
    shown.wait_for_function(f"!document.querySelector('.station.draw .said').textContent.includes('have {shipped}')")
    settled(shown, "draw", "of 32 codes")
    seen = codes(shown, "draw")
    shown.get_by_role("radio", name="32", exact=True).check()
    settled(shown, "draw", f"test images have {shipped}")
    open_station(shown, "edit")
    shown.locator(".station.edit").get_by_role("radio", name="Run 1, 32", exact=True).check()
    cells = "[...document.querySelector('.station.edit .grid').querySelectorAll('td')]"
    shown.wait_for_function(f"{cells}.map((cell) => Number(cell.textContent)).join() === '{','.join(map(str, seen))}'")
    # A thread that is ended takes the model along; the next one has it again.
    shown.evaluate("document.querySelector('.vq-lab').lab.worker.terminate()")
    shown.evaluate("document.querySelector('.vq-lab').lab.worker = null")
    shown.locator(".station.edit .grid td").first.click()
    shown.wait_for_selector(".atlas button")
    assert shown.locator(".atlas button").count() == 32


def test_no_model_is_fetched_before_it_is_used_and_all_files_are_light(shown, site):
    folder = site / "_static" / "lab"
    assert all(path.stat().st_size <= MOST_BYTES for path in folder.iterdir())
    first = [folder / url.rpartition("/")[2].split("?")[0] for url in shown.asked if "/_static/lab/" in url]
    later = {".bin", ".png"}  # weights, and MNIST's sheet
    assert first and not [path for path in first if path.suffix in later]
    assert sum(path.stat().st_size for path in folder.iterdir() if path.suffix not in later) < 1000 * MOST_KB


def test_tabs_are_reached_by_arrow_keys(shown):
    shown.locator("[role=tab]").first.focus()
    for station in (*STATIONS[1:], STATIONS[0]):
        shown.keyboard.press("ArrowRight")
        shown.wait_for_selector(f".station.{station}", state="visible")
        assert shown.locator("[role=tabpanel]:visible").count() == 1
        assert shown.evaluate("document.activeElement.ariaSelected") == "true"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_station_fits_the_screen_and_can_be_read_in_either_theme(shown, width, theme):
    shown.set_viewport_size({"width": width, "height": 900})
    shown.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    stroke(shown)
    shown.add_script_tag(path=vendor.AXE)
    for station in STATIONS:
        open_station(shown, station)
        if station == "edit":
            settled(shown, "edit", "before")
            shown.locator(".station.edit .grid td").first.click()
            shown.wait_for_selector(".atlas button")
        if station == "write":
            shown.get_by_role("button", name="Write all").click()
            settled(shown, "write", "All 49")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        found = shown.evaluate("axe.run('.cell_output')")["violations"]
        assert [(fault["id"], [node["html"][:200] for node in fault["nodes"]]) for fault in found] == []


def test_without_scripts_or_a_server_a_picture_and_a_sentence_stand_in_its_place(browser, address, site, page):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{address}/chapters/lab.html")
    assert plain.locator(".without img").is_visible() and "browser that runs scripts" in plain.inner_text(".without")
    context.close()
    page.goto((site / "chapters" / "lab.html").as_uri())
    page.wait_for_function("document.querySelector('.without').textContent.includes('make serve')")
    page.set_content(lab("write").data)  # in a notebook
    assert page.locator(".without img").is_visible() and "chapters/lab.html" in page.inner_text(".without")
