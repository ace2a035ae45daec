"""The widgets with a live kernel behind them, under ipywidgets 8: in Voila and in JupyterLab, by keyboard."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_sweep
import nbformat
import notebooks
import pytest
from fake_sweep import BETAS, SIZES, grey
from helpers import brightness

MILLISECONDS = 120_000  # to start a server, a kernel and torch on a busy machine
CELLS = [
    """import torch

from vqvae_book import widgets
from vqvae_lib import ImageDataset, VQVAEConfig, draw_glyphs

torch.set_num_threads(1)
digits = ImageDataset(*draw_glyphs("0123456789", 64, seed=1), "glyphs")
config = VQVAEConfig(hidden_dim=8, num_embeddings=16, embedding_dim=4, batch_size=32, device="cpu")""",
    """frames = [torch.full((2, 1, 4, 4), 10 * i / 255) for i in range(4)]
alts = [f"frame {i}" for i in range(4)]
widgets.step_through(frames, alts, "step")""",
    "widgets.explore_sweep('sweep')",
    "widgets.TrainExplorer(config, digits, digits)",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A notebook with all widgets, and the sweep that it shows."""
    folder = tmp_path_factory.mktemp("live")
    fake_sweep.write(folder / "sweep", "glyphs", "not those of the generator")
    cells = [nbformat.v4.new_markdown_cell("# Live"), *map(nbformat.v4.new_code_cell, CELLS)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA), folder / "live.ipynb")
    return folder


def start(folder: Path, *command: str) -> tuple[subprocess.Popen, str]:
    """Start a server on a free port, with settings of its own; return it when it listens, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(folder / "settings") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
    log = folder / f"{command[0]}.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "--no-browser", f"--port={port}"],
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + MILLISECONDS / 1000
    while "running at" not in log.read_text(encoding="utf-8"):
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise AssertionError(log.read_text(encoding="utf-8"))
        time.sleep(0.2)
    return server, f"http://127.0.0.1:{port}"


def run_all_in_lab(page, address: str) -> None:
    """Open the notebook in JupyterLab and run its cells, once the kernel listens: an earlier request is lost."""
    page.goto(f"{address}/doc/tree/live.ipynb?reset")
    page.wait_for_selector(".jp-Notebook")
    deadline = time.monotonic() + MILLISECONDS / 1000
    kernels: list[dict] = []
    while not any(kernel["execution_state"] == "idle" and kernel["connections"] for kernel in kernels):
        assert time.monotonic() < deadline, f"no kernel is ready: {kernels}"
        time.sleep(0.3)
        kernels = page.request.get(f"{address}/api/kernels").json()
    page.evaluate("window.jupyterapp.commands.execute('runmenu:run-all')")


HOSTS: dict[str, tuple[list[str], Callable]] = {
    "voila": (["voila", "live.ipynb"], lambda page, address: page.goto(address, timeout=MILLISECONDS)),
    "jupyterlab": (
        ["jupyterlab", "--ServerApp.token=", "--allow-root", "--expose-app-in-browser", "--LabApp.news_url=None"],
        run_all_in_lab,
    ),
}


@pytest.fixture(scope="module", params=HOSTS)
def live(request, browser, folder) -> Iterator:
    """The page with its kernel, opened once: starting one takes much longer than all the tests."""
    command, open_notebook = HOSTS[request.param]
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: make env")
    server, address = start(folder, *command)
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 4000})  # JupyterLab draws what is in view
        page.set_default_timeout(MILLISECONDS)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        open_notebook(page, address)
        page.wait_for_selector("button:text-is('Train')")
        yield page
        page.close()
        assert errors == []
    finally:
        server.terminate()
        server.wait(30)


def test_the_keyboard_reaches_every_step_and_its_picture(live):
    slider = live.get_by_role("slider", name="step", exact=True)
    slider.focus()
    for i, key in enumerate(["Home", *["ArrowRight"] * 3]):
        live.keyboard.press(key)  # which JupyterLab does not take for itself
        assert brightness(live.get_by_role("img", name=f"frame {i}", exact=True)) == 10 * i


def test_the_explorer_answers_to_sliders_map_and_seeds(live):
    explorer = live.locator(".vq-explorer")
    size, beta = (explorer.get_by_role("slider", name=name, exact=True) for name in ("K", "β"))
    beta.press("Home")
    for key, place in (("Home", 0), ("ArrowRight", 1)):
        size.press(key)
        assert brightness(explorer.locator(".redrawn")) == grey(SIZES[place], BETAS[0])
    cells = explorer.locator(".map td[role=gridcell]")
    cells.nth(0).click()
    for _ in BETAS[1:]:
        live.keyboard.press("ArrowRight")  # which JupyterLab does not take for itself
    explorer.get_by_role("radio", name="1").check()
    assert brightness(explorer.locator(".redrawn")) == grey(SIZES[0], BETAS[-1], 1)
    assert f"K = {SIZES[0]}, β = {BETAS[-1]:g}" in explorer.locator(".numbers").inner_text()


def test_training_runs_stops_and_survives_an_impossible_setting(live):
    trainer = live.locator(".widget-vbox:has(button:text-is('Train'))")
    train, stop = (trainer.get_by_role("button", name=name, exact=True) for name in ("Train", "Stop"))

    def start(**values: str) -> None:
        for name, value in values.items():
            trainer.get_by_role("spinbutton", name=name, exact=True).fill(value)
            live.keyboard.press("Tab")
        train.press("Enter")

    start(K="0", steps="3")
    trainer.get_by_role("alert").get_by_text("num_embeddings = 0").wait_for()
    start(K="5")
    trainer.get_by_text("Run 1: 3 steps.").wait_for()
    start(K="7", steps="1000000")
    trainer.get_by_text("Training on 64 images").wait_for()
    stop.press("Enter")
    trainer.get_by_text("of 1000000, stopped.").wait_for()
    assert train.is_enabled() and stop.is_disabled()
    rows = [row.locator("th, td").all_inner_texts() for row in trainer.locator("tr").all()]
    assert [row[:2] for row in rows[1:]] == [["run 1", "5"], ["run 2", "7"]]
    assert trainer.locator("figure img").count() == 3  # the originals, and each run's
