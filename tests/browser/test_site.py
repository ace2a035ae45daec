"""A built page needs no other host: a small book with the real configuration, read from disk and from a server."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import build
import ipywidgets
import nbformat
import notebooks
import pytest
import vendor
import yaml
from ipywidgets.embed import embed_data

from vqvae_lib.playground import playground

EQUATIONS = r"""# Equations

$$k(z) = \arg\min_{j} \lVert z - e_j \rVert_2 \tag{2.1}$$

Inline, $e_k = m_k / N_k$, and aligned:

\begin{align}
a &= b \tag{2.2} \\
c &= d \tag{2.3}
\end{align}
"""
STATE, VIEW = "application/vnd.jupyter.widget-state+json", "application/vnd.jupyter.widget-view+json"


def notebook(title: str, output: dict, metadata: dict | None = None) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell("show()", outputs=[nbformat.v4.new_output("display_data", data=output)])
    cells = [nbformat.v4.new_markdown_cell(f"# {title}\n\n$e_k$"), cell]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA | (metadata or {}))


@pytest.fixture(scope="package")
def book(tmp_path_factory) -> Path:
    """Three pages, as `make book` builds them: equations, a widget, the playground."""
    if not vendor.fetch():
        pytest.skip("the site's scripts could not be fetched: that needs npm and its registry")
    root = tmp_path_factory.mktemp("book")
    build.prepare(root)
    chapters = root / "chapters"
    shutil.rmtree(chapters)
    chapters.mkdir()
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = "off"
    (root / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    pages = [{"file": "chapters/widget"}, {"file": "chapters/playground"}]
    (root / "_toc.yml").write_text(
        yaml.safe_dump({"format": "jb-book", "root": "chapters/equations", "chapters": pages}), encoding="utf-8"
    )
    (chapters / "equations.md").write_text(EQUATIONS, encoding="utf-8")
    slider = ipywidgets.IntSlider(description=r"Codes \(K\)", value=3)
    state = embed_data(views=[slider])
    shown = {VIEW: state["view_specs"][0], "text/plain": "slider"}
    nbformat.write(notebook("Widget", shown, {"widgets": {STATE: state["manager_state"]}}), chapters / "widget.ipynb")
    shown = {"text/html": playground().data, "text/plain": "playground"}
    nbformat.write(notebook("Playground", shown), chapters / "playground.ipynb")
    jupyter_book = shutil.which("jupyter-book", path=Path(sys.executable).parent)
    command = [jupyter_book, "build", str(root), "-n", "-W", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "_build" / "html" / "chapters"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="package")
def served(book):
    """The book's address on a server of this machine."""
    handler = functools.partial(QuietHandler, directory=book.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/chapters"
        server.shutdown()


@pytest.fixture(params=["server", "disk"])
def address(request, served, book) -> str:
    return served if request.param == "server" else book.as_uri()


@pytest.fixture
def watched(page, address):
    """A page whose requests to other hosts are blocked and, like those that fail, held against it."""
    home, faults = urlsplit(address).netloc, []

    def gate(route):
        parts = urlsplit(route.request.url)
        if parts.scheme in ("http", "https", "file") and parts.netloc != home:
            faults.append(f"another host: {route.request.url}")
            route.abort()
        else:
            route.continue_()

    page.route("**/*", gate)
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on(
        "response",
        lambda response: faults.append(f"{response.status}: {response.url}") if response.status >= 400 else None,
    )
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield page
    assert faults == []


def scripts(page) -> str:
    return " ".join(page.evaluate("[...document.scripts].map((script) => script.src)"))


def test_equations_and_their_numbers_are_set_by_the_sites_own_mathjax(watched, address):
    watched.goto(f"{address}/equations.html", wait_until="networkidle")
    watched.wait_for_selector("mjx-container")
    assert watched.locator("mjx-container").count() == 3
    assert watched.locator("mjx-container mjx-merror, mjx-container [data-mjx-error]").count() == 0
    labels = watched.evaluate("[...document.querySelectorAll('mjx-container [id^=\"mjx-eqn\"]')].map((tag) => tag.id)")
    assert labels == ["mjx-eqn:2.1", "mjx-eqn:2.2", "mjx-eqn:2.3"]
    assert "embed-amd.js" not in scripts(watched) and "require.js" not in scripts(watched)


def test_a_widget_lives_on_the_sites_own_scripts_and_its_label_is_set(watched, address):
    watched.goto(f"{address}/widget.html", wait_until="networkidle")
    handle = watched.locator(".noUi-handle")
    handle.wait_for()
    handle.press("ArrowRight")
    assert watched.locator(".widget-readout").inner_text() == "4"
    watched.locator(".widget-label mjx-container").wait_for(state="attached")
    watched.evaluate("document.fonts.ready")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_playground_answers_in_a_built_page(watched, address, width):
    watched.set_viewport_size({"width": width, "height": 844})
    watched.goto(f"{address}/playground.html", wait_until="networkidle")
    watched.click(".once")
    assert watched.inner_text(".status").startswith("Step 1: 240 points")
    assert watched.evaluate("document.documentElement.scrollWidth") <= width
    box = watched.locator(".vq-playground").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert "embed-amd.js" not in scripts(watched)
