"""The lab's station of training, alone on a page of its own: a model learns in Chromium, by keyboard, and is named."""

from __future__ import annotations

import shutil
from io import BytesIO

import chromium
import numpy as np
import pytest
import vendor
from PIL import Image
from project import ROOT

PAGE = """<!doctype html><html lang="en"{theme}><meta name="viewport" content="width=device-width"><title>Train</title>
<style>html {{ --ink: #1f2933; --soft: #55606c; --paper: #fcfcfa; --field: #fff; --line: #8792a0; --blue: #245a99;
 --orange: #b45709; }} html[data-theme="dark"] {{ --ink: #e3e7eb; --soft: #b4bcc5; --paper: #15191e; --field: #1e242b;
 --line: #7b8794; --blue: #a8cdf2; --orange: #f0a868; color-scheme: dark; }} body {{ background: var(--paper);
 color: var(--ink); font: 15px/1.45 sans-serif; margin: 8px; }} a {{ color: var(--blue) }} .controls {{ display: flex;
 flex-wrap: wrap; gap: 0.4rem; }} .spoken {{ clip-path: inset(50%); position: absolute; height: 1px; }}
.hint {{ color: var(--soft); font-size: 0.9em; margin: 0.3rem 0; }}
button, select {{ background: var(--field); color: var(--ink); border: 1px solid var(--line); font: inherit;
 min-height: 2rem; }}</style><main><h1>Train</h1><h2>A run</h2><h3>In this page</h3><div id="station"></div></main>
<script type="module">import {{ mount }} from "./train_station.js";
window.station = mount(document.getElementById("station"), {{}});</script></html>"""
QUICK = "data=glyphs&hidden_dim=16&embedding_dim=8&num_embeddings=32&batch_size=16&steps=100"
FEW = "data=glyphs&hidden_dim=16&num_embeddings=512&rule=gradient&init=uniform&lr=0.001&schedule=constant&steps=100"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for script in (ROOT / "vqvae_book" / "lab").glob("*.js"):
        shutil.copyfile(script, folder / script.name)
    for name, theme in (("light", ""), ("dark", ' data-theme="dark"')):
        (folder / f"{name}.html").write_text(PAGE.format(theme=theme), encoding="utf-8")
    with chromium.serve(folder) as address:
        yield address


def ended(page, n: int = 0) -> dict:
    """Wait until a run's last step, and return its last entry."""
    page.wait_for_function(f"station.runs[{n}].history.at(-1)?.step === 100")
    return page.evaluate(f"station.runs[{n}].history.at(-1)")


def test_a_model_learns_by_keyboard_and_pausing_stops_all_work(page, address):
    page.goto(f"{address}/light.html#train?{QUICK}")
    page.get_by_role("button", name="Train").focus()
    page.keyboard.press("Enter")
    run = page.get_by_role("region", name="Run 1")
    page.wait_for_function("station.runs[0]?.history.at(-1)?.step >= 5")
    page.evaluate("station.stop()")
    page.wait_for_timeout(500)
    steps = page.evaluate("station.runs[0].history.at(-1).step")
    page.wait_for_timeout(500)
    assert page.evaluate("station.runs[0].history.at(-1).step") == steps < 100
    run.get_by_role("button", name="Step").press("Enter")
    page.wait_for_function(f"station.runs[0].history.at(-1).step === {steps + 1}")
    run.get_by_role("button", name="Resume").press("Enter")
    entry = ended(page)
    assert entry["normalized_mse"] < 0.5
    assert "100 of 100" in run.inner_text()
    assert page.get_by_role("status").inner_text().startswith("Run 1, step 100")
    first = page.evaluate("station.runs[0].history")
    run.get_by_role("button", name="Reset").press("Enter")
    run.get_by_role("button", name="Resume").press("Enter")
    ended(page)
    again = page.evaluate("station.runs[0].history")
    assert again[-1]["normalized_mse"] == first[-1]["normalized_mse"]  # whatever was paused between
    run.get_by_role("button", name="Remove").press("Enter")
    assert page.evaluate("station.runs.length") == 0


def test_a_run_that_uses_few_codes_is_named_beside_one_that_does_not(page, address):
    page.goto(f"{address}/light.html#train?{FEW}")
    page.get_by_role("button", name="Train").click()
    page.get_by_label("Codes K").select_option("32")
    page.get_by_label("Update rule").select_option("restart")
    page.get_by_label("Start", exact=True).select_option("data")
    assert page.evaluate("location.hash").count("=") == 6  # the new settings, without what is as at the start
    page.get_by_role("button", name="Train").click()
    ended(page, 0), ended(page, 1)
    few, healthy = (page.get_by_role("region", name=f"Run {n}") for n in (1, 2))
    assert "quarter of the codes" in few.inner_text()
    links = [link.get_attribute("href") for link in few.get_by_role("link").all()]
    assert any(link.endswith("02_quantizer.html#dead-codes-and-codebook-collapse") for link in links)
    assert "quarter of the codes" not in healthy.inner_text()


def test_ten_runs_leave_no_thread_and_no_memory_behind(page, address):
    page.goto(f"{address}/light.html#train?{QUICK}")
    inside, held = page.context.new_cdp_session(page), []
    for _ in range(10):
        page.get_by_role("button", name="Train").click()
        page.wait_for_function("station.runs[0]?.history.length > 1")
        page.get_by_role("button", name="Remove").click()
        inside.send("HeapProfiler.collectGarbage")
        usage = inside.send("Runtime.getHeapUsage")
        held.append(usage["usedSize"] + usage["backingStorageSize"])
    for _ in range(100):  # that a thread has ended is told a moment later
        page.wait_for_timeout(50 * bool(page.workers))
    assert page.workers == []
    assert held[-1] - held[1] < 1_000_000  # its pictures alone have 3 MB


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_station_fits_and_axe_finds_nothing(page, address, scripts, theme, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}/{theme}.html#train?{QUICK}")
    page.get_by_role("button", name="Train").click()
    page.wait_for_function("station.runs[0]?.history.length > 1")
    page.evaluate("station.stop()")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.add_script_tag(path=vendor.AXE)
    found = page.evaluate("axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))")
    assert found == []


def test_the_page_reads_the_sheet_s_pictures_as_they_are(page, address):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 64, 28, 28), dtype=np.uint8)
    sheet = BytesIO()
    Image.fromarray(pictures.swapaxes(1, 2).reshape(8 * 28, 64 * 28)).save(sheet, "png")
    page.route("**/mnist.png", lambda route: route.fulfill(body=sheet.getvalue(), content_type="image/png"))
    page.goto(f"{address}/light.html")
    read = "import('./train_data.js').then(({ sheetData }) => sheetData('mnist.png'))"
    found = page.evaluate(f"{read}.then(({{ train, test }}) => [[...train], [...test]])")
    assert [bytes(part) for part in found] == [pictures[:4].tobytes(), pictures[4:].tobytes()]
