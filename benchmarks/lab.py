"""How fast the lab's models are in a page: headless Chromium, no GPU.

    python benchmarks/lab.py

A stroke is from the page's question to codes, picture and difference on the screen; a sample is all 49 codes.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import chromium

from vqvae_book.lab import lab
from vqvae_book.lab.files import write_files
from vqvae_lib import ImageDataset, draw_glyphs

GOALS = {"stroke": 50, "sample": 150}  # milliseconds
TIMES = 30
SHELL = '<!doctype html><html lang="en" data-content_root="./"><title>Lab</title><body>'
DONE = "document.querySelector('.station.{0}').dataset.milliseconds !== undefined"


def taken(page, station: str) -> float:
    """Wait for a station's next time, and take it, in milliseconds."""
    page.wait_for_function(DONE.format(station), timeout=chromium.PATIENCE)
    take = "(one) => { const found = one.dataset.milliseconds; delete one.dataset.milliseconds; return Number(found); }"
    return page.locator(f".station.{station}").evaluate(take)


def main() -> None:
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        write_files(site / "_static" / "lab", ImageDataset(*draw_glyphs("0123456789", 20, seed=1), "glyphs"))
        (site / "index.html").write_text(SHELL + lab().data, encoding="utf-8")
        with chromium.serve(site) as address, chromium.launch(chromium.find()) as browser:
            page = browser.new_page()
            page.goto(f"{address}/index.html")
            page.wait_for_selector(".pad")
            for K in page.evaluate("document.querySelector('.vq-lab').lab.choices"):
                page.get_by_role("radio", name=str(K), exact=True).check()
                for _ in range(TIMES):
                    page.locator(".pad").press("Space")  # a dot of ink: a stroke of one point
                    times.setdefault(f"stroke, K = {K}", []).append(taken(page, "draw"))
                    page.locator(".pad").press("Space")
            page.locator("[role=tab][id$=tab-write]").click()
            for _ in range(TIMES):
                page.get_by_role("button", name="Write all").click()
                times.setdefault("sample", []).append(taken(page, "write"))
                page.get_by_role("button", name="Start over").click()
                page.wait_for_function("document.querySelector('.station.write .said').textContent.startsWith('0')")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, values in times.items():
        values = values[3:]  # the first load the model
        low, median = min(values), statistics.median(values)
        goal = GOALS[name.partition(",")[0]]
        print(f"{name}: median {median:.0f} ms, least {low:.0f} (goal {goal})")


if __name__ == "__main__":
    main()
