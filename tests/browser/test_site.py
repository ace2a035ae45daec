"""A built page needs no other host: a small book with the real configuration, read from disk and from a server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import build
import check_site
import chromium
import ipywidgets
import nbformat
import notebooks
import pdf
import pytest
import vendor
import yaml
from ipywidgets.embed import embed_data
from pypdf import PdfReader

from vqvae_lib.playground import playground

EQUATIONS = r"""# Equations

Two sums, and the [playground](playground.ipynb).

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
    config["sphinx"]["config"]["book_pdf"] = pdf.NAME
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


@pytest.fixture(scope="package")
def served(book):
    """The book's address on a server of this machine."""
    with chromium.serve(book.parent) as address:
        yield f"{address}/chapters"


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


def test_the_widgets_bundle_finds_its_fonts(watched, address):
    watched.goto(f"{address}/widget.html", wait_until="networkidle")
    watched.locator(".noUi-handle").wait_for()
    # The theme's icons ask for them where the theme's script is late: a missing font is an error in the console.
    families = watched.evaluate(
        """async () => {
          const fonts = [...document.fonts].filter((font) => /Awesome/.test(font.family));
          await Promise.all(fonts.map((font) => font.load()));
          return fonts.map((font) => font.family);
        }"""
    )
    assert any("Awesome" in family for family in families)


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


def test_the_book_is_one_pdf_with_bookmarks_contents_and_links(book, browser):
    made = pdf.make(browser, site=book.parent, root=book.parent.parent.parent)
    document = PdfReader(made)
    assert [(entry.title, document.get_destination_page_number(entry)) for entry in document.outline] == [
        ("Equations", 1),
        ("Widget", 2),
        ("Playground", 3),
    ]
    contents, equations, widget, playground = [page.extract_text() for page in document.pages]
    assert [line.split()[-1] for line in contents.splitlines() if line.startswith(("Eq", "Wi", "Pl"))] == [
        "2",
        "3",
        "4",
    ]
    assert "Inline" in equations
    assert "on the site alone: page “Widget”" in widget
    assert "on the site alone: page “Playground”" in playground
    links = [link.get_object() for page in document.pages for link in page.get("/Annots", [])]
    assert "/chapters-playground" in {link.get("/Dest") for link in links}
    assert not [link for link in links if "127.0.0.1" in str(link)]


@pytest.mark.parametrize("fault", [r"\nosuchthing", r"\frac{"])
def test_an_equation_that_is_not_set_is_not_printed(book, browser, tmp_path, fault):
    site = shutil.copytree(book.parent, tmp_path / "site")
    page = site / "chapters" / "equations.html"
    page.write_text(page.read_text(encoding="utf-8").replace(r"\lVert", fault), encoding="utf-8")
    with pytest.raises(ValueError, match="not set"):
        pdf.make(browser, site=site, root=book.parent.parent.parent)


def test_the_pages_of_the_book_are_without_fault(book, browser):
    if not vendor.fetch(vendor.TESTS):
        pytest.skip("axe-core could not be fetched: it needs npm and its registry")
    pdf.make(browser, site=book.parent, root=book.parent.parent.parent)  # the pages link it
    with chromium.serve(book.parent) as address:
        pages = check_site.check(browser, address, book.parent)
    assert {page.name: page.faults for page in pages if page.faults} == {}
    assert {"index.html", "search.html", "chapters/widget.html"} <= {page.name for page in pages}
    assert [page.name for page in pages if page.facts.get("widgets")] == [
        "chapters/playground.html",
        "chapters/widget.html",
    ]


BAD_PAGE = """<!doctype html><html data-theme="light"><head><title></title></head><body><main>
<h1>One</h1><h1>Two</h1><p style="color: #ddd; background: #fff; width: 500px">Pale, and wide.</p>
<a href="nowhere.html">gone</a> <a href="bad.html#nowhere">no such place</a> <a href="bad.html#here">here</a>
<i id="here"></i><i class="math">e^{2</i><img src="big.png" alt=""><img src="missing.png" alt="">
<img src="http://elsewhere.invalid/a.png" alt="">
</main><script>
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.onchange = () => (document.documentElement.dataset.theme = dark.matches ? "dark" : "light");
console.warn("a warning");
nothing.there();
</script></body></html>"""


def test_each_fault_of_a_page_is_found(browser, tmp_path):
    if not vendor.fetch(vendor.TESTS):
        pytest.skip("axe-core could not be fetched: it needs npm and its registry")
    (tmp_path / "bad.html").write_text(BAD_PAGE, encoding="utf-8")
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=gone.html" />', encoding="utf-8")
    (tmp_path / "big.png").write_bytes(bytes(check_site.MOST_BYTES))
    with chromium.serve(tmp_path) as address:
        index, bad = check_site.check(browser, address, tmp_path)
    assert index.faults == ["dead link: gone.html"]
    expected = [
        "console: a warning",
        "script: nothing is not defined",
        "404: ",
        "asks another host: http://elsewhere.invalid/a.png",
        "axe-core, light: color-contrast",
        "axe-core, dark: color-contrast",
        "scrolls sideways",
        "2 headings of the first level",
        "an equation is not set: e^{2",
        "no lang",
        "no title",
        "no description",
        "no favicon",
        "weighs 601 KB",
        "dead link: nowhere.html",
        "dead link: bad.html has no #nowhere",
    ]
    assert [start for start in expected if not any(fault.startswith(start) for fault in bad.faults)] == []
    assert not [fault for fault in bad.faults if "#here" in fault]


def test_a_share_for_lighthouse_spans_light_and_heavy_pages():
    pages = [check_site.Page(str(i), weight=i) for i in range(10)]
    assert [page.weight for page in check_site.share(pages, 3)] == [9, 6, 3]
    assert check_site.share(pages, None) == check_site.share(pages, 20) == pages
