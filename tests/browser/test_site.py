"""A built page needs no other host: a small book with the real configuration, read from disk and from a server."""

from __future__ import annotations

import base64
import io
import random
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import build
import check_site
import chromium
import nbformat
import notebooks
import pdf
import pytest
import torch
import yaml
from helpers import brightness
from PIL import Image
from pypdf import PdfReader

from vqvae_book.playground import playground
from vqvae_book.widgets import step_through

EQUATIONS = r"""# 2. Equations

Two sums, and the [playground](playground.ipynb), [the loop](widget.ipynb#31-the-loop) and
[Figure 3.1](widget.ipynb#figure-3-1).

$$k(z) = \arg\min_{j} \lVert z - e_j \rVert_2 \tag{2.1}$$

## 2.1 Size $K$

Inline, $e_k = m_k / N_k$, and aligned:

\begin{align}
a &= b \tag{2.2} \\
c &= d + d + d + d + d + d + d + d + d + d + d + d + d + d + d + d + d + d + d + d \tag{2.3}
\end{align}
"""
WIDEST = "x = torch.zeros(1)" + "  # as wide as the formatter lets code be ".ljust(70, "~")
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def cell(code: str, data: dict, *tags: str) -> nbformat.NotebookNode:
    metadata = {"tags": [*tags], "mystnb": {"image": {"alt": "A dot"}}}
    outputs = [nbformat.v4.new_output("display_data", data={"text/plain": "…", **data})]
    return nbformat.v4.new_code_cell(code, outputs=outputs, metadata=metadata)


def notebook(title: str, output: str) -> nbformat.NotebookNode:
    shown = f"```python\n{WIDEST}\n```"
    cells = [
        nbformat.v4.new_markdown_cell(f"# {title}\n\n$e_k$"),
        notebooks.first_cell(""),
        nbformat.v4.new_code_cell("from torch import nn", metadata={"tags": ["hide-input"]}),
        cell(f"show()\n{WIDEST}", {"text/html": output}),
        cell("source()", {"text/markdown": shown}),
        nbformat.v4.new_markdown_cell(f"## 3.1 The loop\n\n{shown}"),
        cell("say(1)", {"text/markdown": "A sentence on $K$, see [Figure 3.1](#figure-3-1)."}, "hide-input"),
        cell("draw()", {"image/png": DOT}, "hide-input"),
        cell("again()", {"image/png": DOT}, "remove-input"),
        nbformat.v4.new_markdown_cell("**Figure 3.1.** A dot.\n\n**Not a figure.** [The loop](#31-the-loop) again."),
        cell("widget()", {"text/html": "<b>live</b>"}, "hide-input"),
    ]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA | {"execution": {"seconds": 1.0}})


@pytest.fixture(scope="package")
def book(tmp_path_factory, scripts) -> Path:
    """Three pages, as `make book` builds them: equations, a widget, the playground."""
    root = tmp_path_factory.mktemp("book")
    build.prepare(root)
    chapters = root / "chapters"
    shutil.rmtree(chapters)
    chapters.mkdir()
    pages = [{"file": "chapters/widget"}, {"file": "chapters/playground"}]
    toc = {"format": "jb-book", "root": "chapters/equations", "chapters": pages}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    (chapters / "equations.md").write_text(EQUATIONS, encoding="utf-8")
    frames = [torch.full((8, 1, 4, 4), i / 255) for i in range(11)]
    steps = step_through(frames, [f"Frame {i}" for i in range(11)], "drawn")
    nbformat.write(notebook("3. Widget", steps.data), chapters / "widget.ipynb")
    nbformat.write(notebook("Playground", playground().data), chapters / "playground.ipynb")
    build.finish(root)
    assert build.make_pages(root, root, book_pdf=pdf.NAME) == 0
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


def test_equations_and_their_numbers_are_in_the_page_and_need_no_script(watched, address):
    watched.goto(f"{address}/equations.html", wait_until="networkidle")
    for kind in ("math", ".katex-html"):  # for screen readers, for the eye
        assert watched.locator(f".bd-article section .math {kind}").count() == 4
    numbers = " ".join(watched.locator(".bd-article .katex-tag").all_inner_texts())
    assert re.findall(r"[(].+?[)]", numbers) == ["(2.1)", "(2.2)", "(2.3)"]
    assert watched.locator("script[src*=katex i], script[src*=mathjax i]").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_maths_has_the_color_of_its_text_and_scrolls_by_itself_on_a_phone(page, served, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{served}/equations.html", wait_until="networkidle")
    colors = "all => all.map((one) => getComputedStyle(one).color)"
    assert len(set(page.locator(".bd-article p:has(.katex), .bd-article p .katex .mord").evaluate_all(colors))) == 1
    wide = page.locator("div.math").last.evaluate("math => [math.scrollWidth, math.clientWidth]")
    assert wide[0] > wide[1] > 300 and page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("div.math").last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('div.math')].at(-1).tabIndex === 0")
    assert page.locator("div.math").first.get_attribute("tabindex") is None  # it fits


def test_copied_maths_is_tex(page, served):
    page.goto(f"{served}/equations.html", wait_until="networkidle")
    copied = """() => new Promise((resolve) => {
        getSelection().selectAllChildren(document.querySelector(".bd-article p:has(.katex)"));
        document.addEventListener("copy", (event) => resolve(event.clipboardData.getData("text/plain")));
        document.execCommand("copy");
    })"""
    assert page.evaluate(copied) == "Inline, $e_k = m_k / N_k$, and aligned:"


def test_a_page_loads_one_sheet_and_one_script_with_the_letters_that_lines_need(page, served):
    fonts = "[...document.fonts].filter(({ status }) => status === 'loaded').map(({ family }) => family)"
    asked, shared = [], {"book.css", "book.js", "logo.svg", "favicon.svg"}
    page.on("request", lambda request: asked.append(urlsplit(request.url).path.split("/")[-1]))
    page.goto(f"{served}/../genindex.html", wait_until="networkidle")
    assert {*asked} <= {"genindex.html", *shared} and page.evaluate(fonts) == ["Font Awesome 6 Free"]
    asked.clear()
    page.goto(f"{served}/widget.html", wait_until="networkidle")
    assert page.locator(".cell_output .math math annotation").all_text_contents() == ["K"]
    assert {"KaTeX_Main", "KaTeX_Math"} <= {*page.evaluate(fonts)}
    assert {name for name in asked if "." in name and not name.endswith(".webp")} <= {"widget.html", *shared}


def test_the_search_page_finds_and_its_finds_are_highlighted(page, served):
    page.goto(f"{served}/../search.html?q=aligned", wait_until="networkidle")
    page.locator("#search-results li a").first.click()
    page.wait_for_url("**/equations.html*")
    assert page.locator(".bd-article .highlighted").first.inner_text() == "aligned"


def test_a_search_from_a_disk_finds_pages_and_says_what_it_lacks(page, book):
    page.goto(f"{book.parent.as_uri()}/search.html?q=aligned")
    page.locator("#search-results li a").first.wait_for()
    assert page.get_by_text("make serve").is_visible()


def test_pictures_have_their_size_before_they_come_and_come_when_they_are_near(page, served):
    page.goto(f"{served}/widget.html", wait_until="networkidle")
    seen = "all => all.map((image) => ['width', 'height', 'loading'].map((name) => image.getAttribute(name)))"
    pictures = page.locator(".cell_output img[src*=_images]")
    assert pictures.evaluate_all(seen) == [["1", "1", None], ["1", "1", "lazy"]]
    assert brightness(pictures.first) == Image.open(io.BytesIO(base64.b64decode(DOT))).getpixel((0, 0))


def test_a_formula_that_cannot_be_set_fails_the_build_and_is_named(book, tmp_path, capfd):
    root = shutil.copytree(book.parent.parent.parent, tmp_path / "book", ignore=shutil.ignore_patterns("_build"))
    (root / "chapters" / "equations.md").write_text(EQUATIONS.replace(r"\lVert", r"\nosuchthing"), encoding="utf-8")
    assert build.make_pages(root, root) != 0
    assert re.search(r"chapters/equations.html: a formula can't be set: k\(z\) = .*nosuchthing", capfd.readouterr().err)


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_are_stepped_through_by_keyboard_and_mouse_and_nothing_moves(watched, address, width):
    watched.set_viewport_size({"width": width, "height": 844})
    watched.goto(f"{address}/widget.html", wait_until="networkidle")
    slider, image = watched.get_by_role("slider", name="drawn", exact=True), watched.locator(".vq-steps img")
    boxes, places = "all => JSON.stringify(all.map((one) => one.getBoundingClientRect()))", set()

    def expect_step(i: int) -> None:
        watched.wait_for_selector(f".vq-steps img[alt='Frame {i}']")  # the first time, they are fetched
        assert (brightness(image), image.get_attribute("alt")) == (i, f"Frame {i}")
        assert slider.get_attribute("aria-valuetext") == watched.inner_text(".vq-steps .value") == f"{i} of 10"
        places.add(watched.locator(".vq-steps, .vq-steps *").evaluate_all(boxes))

    expect_step(5)
    for key, step in (("ArrowRight", 6), ("End", 10), ("ArrowLeft", 9), ("Home", 0)):
        slider.press(key)
        expect_step(step)
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    expect_step(10)
    watched.mouse.down()
    watched.mouse.move(box["x"] + 2, box["y"], steps=4)
    watched.mouse.up()
    expect_step(0)
    assert len(places) == 1 and watched.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_middle_picture_and_what_it_is_are_shown(browser, served):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{served}/widget.html")
    assert page.get_by_role("img", name="Frame 5").is_visible() and page.get_by_role("slider").count() == 0
    assert page.locator(".vq-steps figcaption").inner_text().split() == ["drawn", "5", "of", "10"]
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_playground_answers_in_a_built_page(watched, address, width):
    watched.set_viewport_size({"width": width, "height": 844})
    watched.goto(f"{address}/playground.html", wait_until="networkidle")
    watched.click(".once")
    assert watched.inner_text(".status").startswith("Step 1: 240 points")
    assert watched.evaluate("document.documentElement.scrollWidth") <= width
    box = watched.locator(".vq-playground").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_book_is_one_pdf_with_bookmarks_contents_links_and_pictures_of_what_moves(book, browser):
    document = PdfReader(pdf.make(browser, site=book.parent, root=book.parent.parent.parent))
    equations, [size], *others = document.outline
    heads = [equations, *(entry for entry in others if not isinstance(entry, list))]
    assert [head.title for head in heads] == ["2. Equations", "3. Widget", "Playground"]
    assert size.title == "2.1 Size K"
    assert [document.get_destination_page_number(head) for head in heads] == [1, 2, 3]
    contents, equations, widget, *playground = [page.extract_text() for page in document.pages]
    numbered = [line.split()[-1] for line in contents.splitlines() if line.startswith(("2. ", "3. ", "Pl"))]
    assert numbered == ["2", "3", "4"]
    assert "Inline" in equations
    assert "drawn 5 of 10" in widget and "on the site, page “3. Widget”" in widget
    assert all(text.startswith("Playground") for text in playground)  # above each page
    assert "on the site, page “Playground”" in playground[0]
    still = max((image.image for page in document.pages[3:] for image in page.images), key=lambda image: image.width)
    assert still.width > pdf.WIDTH and len(still.convert("RGB").getcolors(1 << 24)) > 256
    strip = next(image.image for image in document.pages[2].images if image.image.width == 32)
    assert strip.convert("RGB").getcolors() == [(32 * 4, (5, 5, 5))]  # the same, with a palette
    assert document.trailer["/Root"]["/MarkInfo"]["/Marked"] and document.trailer["/Root"]["/Lang"] == "en"
    links = [link.get_object() for page in document.pages for link in page.get("/Annots", [])]
    assert "/chapters-playground" in {link.get("/Dest") for link in links}
    assert not [link for link in links if "127.0.0.1" in str(link)]


def test_long_code_can_be_divided_between_printed_pages(page, served):
    page.emulate_media(media="print")
    page.goto(f"{served}/widget.html", wait_until="networkidle")
    boxes = """code => { for (var all = []; !code.matches(".cell"); code = code.parentElement) all.push(code);
        return all.map((one) => getComputedStyle(one)).map((style) => `${style.display} ${style.breakInside}`); }"""
    code = page.locator(".cell pre").filter(has_text="as wide as")  # of a cell, and in its output
    assert {box for i in range(code.count()) for box in code.nth(i).evaluate(boxes)} == {"block auto"}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_visible_code_line_is_cut_at_1280_px(page, served, theme):
    assert len(WIDEST) == 88
    page.set_viewport_size({"width": 1265, "height": 900})  # a window of 1280 px less its scroll bar
    page.emulate_media(color_scheme=theme)
    page.goto(f"{served}/widget.html", wait_until="networkidle")
    code = page.locator(".bd-article div.highlight pre").filter(has_text="as wide as")
    assert code.count() == 3  # in a cell, in an output of `source`, in Markdown
    assert code.evaluate_all("all => all.map((code) => code.scrollWidth <= code.clientWidth)") == [True] * 3
    # Nor is it wider than its column, nor so small that nobody reads it.
    right = "element => element.getBoundingClientRect().right"
    assert code.first.evaluate(right) <= page.locator(".bd-article").evaluate(right)
    assert code.first.evaluate("code => parseFloat(getComputedStyle(code).fontSize)") >= 13


def test_folded_code_is_a_word_that_a_keyboard_opens_and_a_sentence_stands_alone(page, served):
    page.goto(f"{served}/widget.html", wait_until="networkidle")
    names = ["Show the setup", "Show the imports", "Show the code of this figure", "Show the code"]
    folded = page.locator(".bd-article summary")
    assert folded.evaluate_all("all => all.map((one) => one.ariaLabel)") == names
    assert page.get_by_text("A sentence").evaluate("sentence => sentence.closest('.cell').innerText").split()[-3:] == (
        ["see", "Figure", "3.1."]
    )
    hidden = page.get_by_text("draw()")
    assert not hidden.is_visible()
    folded.nth(2).press("Enter")
    assert hidden.is_visible()
    # Setup and imports share a line, and the figure's word is at the right edge.
    boxes = [folded.nth(number).bounding_box() for number in range(3)]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"]
    article = page.locator(".bd-article .cell_output").first.bounding_box()
    assert boxes[2]["x"] + boxes[2]["width"] == pytest.approx(article["x"] + article["width"], abs=4)


def test_captions_and_numbered_sections_are_places_that_links_name(page, served):
    page.goto(f"{served}/equations.html", wait_until="networkidle")
    links = page.locator(".bd-article p a").evaluate_all("all => all.map((link) => link.getAttribute('href'))")
    assert links == ["playground.html", "widget.html#the-loop", "widget.html#figure-3-1"]
    page.goto(f"{served}/widget.html", wait_until="networkidle")
    assert page.locator(".caption").all_inner_texts() == ["Figure 3.1. A dot."]
    assert page.locator("#figure-3-1.caption, #the-loop > h2").count() == 2
    for text, place in (("Figure 3.1", "#figure-3-1"), ("The loop", "#the-loop")):
        assert page.locator(".bd-article p a", has_text=text).get_attribute("href") == place
    size = "element => parseFloat(getComputedStyle(element).fontSize)"
    assert page.locator(".caption").evaluate(size) < page.get_by_text("Not a figure").evaluate(size)
    assert page.locator("nav.bd-links li").all_inner_texts() == ["2. Equations", "3. Widget", "Playground"]
    assert page.title().startswith("3. Widget ")
    assert page.locator(".page-toc a, .bd-toc-nav a").first.inner_text() == "3.1 The loop"


def test_a_chapter_says_how_long_it_takes_to_read_and_another_page_does_not(page, served):
    page.goto(f"{served}/widget.html", wait_until="networkidle")
    assert page.locator("h1 + p").inner_text() == "About 5 minutes to read."
    page.goto(f"{served}/equations.html", wait_until="networkidle")
    assert page.get_by_text("to read").count() == 0


def test_the_pages_of_the_book_are_without_fault(book, browser):
    pdf.make(browser, site=book.parent, root=book.parent.parent.parent)  # the pages link it
    with chromium.serve(book.parent) as address:
        pages = check_site.check(browser, address, book.parent)
    assert {page.name: page.faults for page in pages if page.faults} == {}
    assert {"search.html", "chapters/widget.html"} <= {page.name for page in pages}
    assert all(0 < page.facts["weight"] < 250 and page.facts["requests"] < 15 for page in pages)


BAD_PAGE = """<!doctype html><html data-theme="light"><head><title></title>
<link rel="stylesheet" href="big.css"></head><body><main>
<h1>One</h1><h1>Two</h1><p style="color: #ddd; background: #fff; width: 500px">Pale, and wide.</p>
<a href="nowhere.html">gone</a> <a href="bad.html#nowhere">no such place</a> <a href="bad.html#here">here</a>
<i id="here"></i><i class="math">e^{2</i><img src="data:," alt="_images/big.png">
<div class="cell_input"><pre style="width: 9em; overflow: auto">a line of code that is too long</pre></div>
<img src="missing.png" alt="">
<img src="http://elsewhere.invalid/a.png" alt="">
</main><script type="application/vnd.jupyter.widget-view+json">{}</script><script>
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.onchange = () => (document.documentElement.dataset.theme = dark.matches ? "dark" : "light");
console.warn("a warning");
setTimeout(() => { document.querySelector("h1").style.marginTop = "400px"; }, 50);
nothing.there();
</script></body></html>"""


def test_each_fault_of_a_page_is_found(browser, scripts, tmp_path):
    (tmp_path / "bad.html").write_text(BAD_PAGE, encoding="utf-8")
    (tmp_path / "big.css").write_bytes(random.Random(0).randbytes(600_000))  # which can't be compressed
    with chromium.serve(tmp_path) as address:
        [bad] = check_site.check(browser, address, tmp_path)
    expected = """console: a warning|script: nothing is not defined|404: |another host: http://elsewhere.invalid/a.png
axe-core, light: color-contrast|axe-core, dark: color-contrast|scrolls sideways|2 headings of the first level
an equation is not set: e^{2|no lang|no title|no description|no favicon|loads 730 |moves while|dead link: nowhere.html
dead link: bad.html has no #nowhere|code is cut off: a line|a picture without a text|has a widget that needs a kernel"""
    for start in expected.replace("\n", "|").split("|"):
        assert any(fault.startswith(start) for fault in bad.faults), (start, bad.faults)
    assert not [fault for fault in bad.faults if "#here" in fault]
