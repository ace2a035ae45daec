"""Print the built site as one PDF, through headless Chromium.

    python tools/pdf.py

`pdf.js` puts all pages of `_toc.yml` into one, so that equations, links between chapters, bookmarks and page numbers
come out right; the print rules of `assets/custom.css` say how it looks.
"""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import yaml
from project import ROOT, site_address, step, toc_pages
from pypdf import PdfReader, PdfWriter
from pypdf.generic import Fit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SITE = ROOT / "_build" / "html"
NAME = "vqvae-book.pdf"
SCRIPT = Path(__file__).with_suffix(".js")
WIDTH = 672  # px of a page's text: A4 less the margins, at 96 px an inch
MARGIN = {"top": "18mm", "bottom": "20mm", "left": "16mm", "right": "16mm"}
NUMBER = '<p style="font: 8px sans-serif; margin: 0 auto"><span class="pageNumber"></span></p>'
NUMBER_CONTENTS = """numbers => document.querySelectorAll(".cover .number").forEach((element, i) => {
    element.textContent = numbers[i];
})"""


def printed(page: Page) -> PdfReader:
    """The page as a PDF, as the browser makes it."""
    made = page.pdf(
        format="A4",
        margin=MARGIN,
        print_background=True,
        display_header_footer=True,
        header_template="<p></p>",
        footer_template=NUMBER,
        tagged=True,
    )
    return PdfReader(io.BytesIO(made))


def places_of(document: PdfReader) -> dict[str, tuple[int, float]]:
    """Page, from 0, and height on it of each element that a link leads to."""
    found = document.named_destinations.items()
    return {name.lstrip("/"): (document.get_destination_page_number(place), place.top) for name, place in found}


def with_bookmarks(document: PdfReader, entries: list[dict]) -> PdfWriter:
    """The document with an outline: the pages of the book, and below each its headings."""
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it remarks on the numbering of objects, which nobody sees
    places, written, parent = places_of(document), PdfWriter(clone_from=document), None
    for entry in entries:
        number, top = places[entry["id"]]
        above = None if entry["level"] == 1 else parent
        item = written.add_outline_item(title=entry["title"], page_number=number, parent=above, fit=Fit.xyz(top=top))
        parent = item if above is None else parent
    return written


def make(browser: Browser, site: Path = SITE, root: Path = ROOT) -> Path:
    """Print a built site; where the PDF is.

    Raises:
        ValueError: an equation could not be set, or a link leads to no place in the PDF.
    """
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    files = [f"{page}.html" for page in toc_pages(root)]
    cover = {"title": config["title"], "lines": [config["author"], "Text under CC BY 4.0, code under the MIT licence."]}
    with chromium.serve(site) as address:
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.set_default_timeout(chromium.PATIENCE)
        page.emulate_media(media="print")
        page.goto(f"{address}/{files[0]}", wait_until="load")
        found = page.evaluate(
            SCRIPT.read_text(encoding="utf-8"), {"files": files, "cover": cover, "site": site_address()}
        )
        if faults := [f"not set: {fault}" for fault in found["unset"]] + found["dangling"]:
            raise ValueError(f"The PDF would have equations that are not set, or links that lead nowhere: {faults}")
        places = places_of(printed(page))  # printed twice: the contents name pages that only the first print shows
        page.evaluate(NUMBER_CONTENTS, [places[entry["id"]][0] + 1 for entry in found["entries"]])
        document = with_bookmarks(printed(page), found["entries"])
    document.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    document.write(site / NAME)
    return site / NAME


def main() -> int:
    path = chromium.find()
    if path is None:
        print(f"There is no browser here. {chromium.REMEDY}.", file=sys.stderr)
        return 1
    if not (SITE / "index.html").exists():
        print("There is no site yet. Remedy: make book", file=sys.stderr)
        return 1
    with step(f"printing {NAME}"), chromium.launch(path) as browser:
        made = make(browser)
    print(f"The PDF is at {made}, {made.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
