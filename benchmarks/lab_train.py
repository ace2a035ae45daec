"""How fast a model trains in the lab's page: headless Chromium, no GPU; and what error its 300 steps reach.

    python benchmarks/lab_train.py

Width 32, D 16, K 64, batches of 32. The time of a step includes neither measuring nor drawing.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import chromium

from vqvae_book.lab import train_sheet

LAB = Path(train_sheet.__file__).parent
GOAL, LIMIT, ERROR = 100, 150, 0.07  # ms, ms, share of the variance
PAGE = """<!doctype html><title>Train</title><div id="station"></div><script type="module">
import { mount } from "./train_station.js"; window.station = mount(document.getElementById("station"), {});</script>"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for script in LAB.glob("*.js"):
            shutil.copyfile(script, folder / script.name)
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        data = "mnist" if train_sheet.write_sheet(folder) else "glyphs"
        with chromium.serve(folder) as address, chromium.launch(chromium.find()) as browser:
            page = browser.new_page()
            page.goto(f"{address}/index.html#train?data={data}")
            page.get_by_role("button", name="Train").click()
            page.wait_for_function("station.runs[0]?.history.at(-1)?.step === 300", timeout=10 * chromium.PATIENCE)
            times, last = page.evaluate("[station.runs[0].times, station.runs[0].history.at(-1)]")
    low, median = min(times), statistics.median(times)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, images: {data}")
    print(f"a step: median {median:.0f} ms, least {low:.0f} (goal {GOAL}, at most {LIMIT})")
    print(f"normalized test MSE after 300 steps: {last['normalized_mse']:.4f} (MNIST: at most {ERROR})")


if __name__ == "__main__":
    main()
