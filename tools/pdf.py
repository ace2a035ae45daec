"""Print the built site as one PDF, through headless Chromium: build.py does it.

`pdf.js` puts all pages of `_toc.yml` into one, so that links between chapters, bookmarks and page numbers
come out right; the print rules of `assets/custom.css` say how it looks.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import yaml
from project import ROOT, site_address, toc_pages
from pypdf import PdfReader, PdfWriter
from pypdf.generic import Fit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SITE = ROOT / "_build" / "html"
NAME = "vqvae-book.pdf"
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
WIDTH = 672  # px of a page's text: A4 less the margins, at 96 px per inch
PAPER = {
    "format": "A4",
    "margin": {"top": "18mm", "bottom": "20mm", "left": "16mm", "right": "16mm"},
    "print_background": True,
    "display_header_footer": True,
    "header_template": "<p></p>",
    "footer_template": '<p style="font: 8px sans-serif; margin: 0 auto"><span class="pageNumber"></span></p>',
    "tagged": True,
}
NUMBER_CONTENTS = """numbers => document.querySelectorAll(".cover .number").forEach((element, i) => {
    element.textContent = numbers[i];
})"""


def make(browser: Browser, site: Path = SITE, root: Path = ROOT) -> Path:
    """Print a built site; where the PDF is.

    Raises:
        ValueError: a link leads to no place in the PDF.
    """
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    files = [f"{page}.html" for page in toc_pages(root)]
    cover = {"title": config["title"], "lines": [config["author"], "Text under CC BY 4.0, code under the MIT license."]}
    with chromium.serve(site) as address:
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.set_default_timeout(chromium.PATIENCE)
        page.emulate_media(media="print")
        page.goto(f"{address}/{files[0]}", wait_until="load")
        found = page.evaluate(SCRIPT, {"files": files, "cover": cover, "site": site_address()})
        if found["faults"]:
            raise ValueError(f"The PDF would have faults: {found['faults']}")
        # Printed twice: the contents name pages that only the first print shows.
        first = PdfReader(io.BytesIO(page.pdf(**PAPER)))
        places = {name.lstrip("/"): place for name, place in first.named_destinations.items()}
        numbers = [first.get_destination_page_number(places[entry["id"]]) for entry in found["entries"]]
        page.evaluate(NUMBER_CONTENTS, [number + 1 for number in numbers])
        book, chapter = PdfWriter(clone_from=io.BytesIO(page.pdf(**PAPER))), None
        page.close()
    for entry, number in zip(found["entries"], numbers, strict=True):
        above = chapter if entry["level"] > 1 else None
        place = {"page_number": number, "fit": Fit.xyz(top=places[entry["id"]].top)}
        item = book.add_outline_item(title=entry["title"], parent=above, **place)
        chapter = above or item
    book.add_metadata({"/Title": config["title"], "/Author": config["author"]})
    book.write(site / NAME)
    return site / NAME
