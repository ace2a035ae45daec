"""Print the built site as one PDF, through headless Chromium: build.py does it.

`pdf.js` puts the pages of `_toc.yml` into one, so that links between chapters, bookmarks and page numbers
come out right; the print rules of `assets/custom.css` say how it looks.
"""

from __future__ import annotations

import base64
import io
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import chromium
import numpy as np
import pikepdf
import yaml
from pikepdf import Name
from project import ROOT, site_address, toc_pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SITE = ROOT / "_build" / "html"
NAME = "vqvae-book.pdf"
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
ON_SITE_ALONE = ("chapters/api", "chapters/api_book")  # 48 pages of signatures, to be searched rather than read
LIVE = '.cell_output [id^="vq-"]:has(script):not(.vq-selfcheck)'  # what a script moves
WIDTH = 672  # px of a page's text: A4 less the margins, at 96 px per inch
PAPER = {"print_background": True, "prefer_css_page_size": True, "tagged": True}
NUMBER = "numbers => document.querySelectorAll('.cover .number').forEach((place, i) => place.append(numbers[i]))"


def stills(page: Page, address: str) -> list[str]:
    """Pictures, as addresses that hold them, of what moves on a page: how each shows itself first."""
    page.goto(address, wait_until="load")
    pictures = [base64.b64encode(live.screenshot()).decode() for live in page.locator(LIVE).all()]
    return [f"data:image/png;base64,{picture}" for picture in pictures]


def shrink(image: pikepdf.Stream) -> None:
    """Give an image of few colors the palette that Chromium has taken away: the same pixels in fewer bytes."""
    pixels = np.frombuffer(image.read_bytes(), np.uint8).reshape(image.Width * image.Height, -1)
    numbers = pixels @ 256 ** np.arange(pixels.shape[1])
    colors, first, indices = np.unique(numbers, return_index=True, return_inverse=True)
    if len(colors) <= 256:
        image.ColorSpace = pikepdf.Array([Name.Indexed, image.ColorSpace, len(colors) - 1, pixels[first].tobytes()])
        image.write(zlib.compress(indices.astype(np.uint8).tobytes(), 9), filter=Name.FlateDecode)


def make(browser: Browser, site: Path = SITE, root: Path = ROOT) -> Path:
    """Print a built site; where the PDF is.

    Raises:
        ValueError: a link leads to no place in the PDF.
    """
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    files = [f"{page}.html" for page in toc_pages(root) if page not in ON_SITE_ALONE]
    lines = [config["author"], "Text under CC BY 4.0, code under the MIT license."]
    lines += [f"Interactive parts and the API are on the site: {home}"] if (home := site_address()) else []
    with chromium.serve(site) as address:
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, device_scale_factor=2, color_scheme="light")
        page.set_default_timeout(chromium.PATIENCE)
        page.emulate_media(media="print")
        moving = [file for file in files if re.search(r'id="vq-(?!selfcheck)', (site / file).read_text("utf-8"))]
        facts = {"files": files, "title": config["title"], "lines": lines, "site": home, "live": LIVE}
        facts["stills"] = {file: stills(page, f"{address}/{file}") for file in moving}
        page.goto(f"{address}/{files[0]}", wait_until="load")
        found = page.evaluate(SCRIPT, facts)
        if found["faults"]:
            raise ValueError(f"The PDF would have faults: {found['faults']}")
        # Printed twice: the contents name pages that only the first print shows.
        first = pikepdf.open(io.BytesIO(page.pdf(**PAPER)))
        places = [Name(f"/{entry['id']}") for entry in found["entries"]]
        page.evaluate(NUMBER, [pikepdf.Page(first.Root.Dests[place][0]).index + 1 for place in places])
        book = pikepdf.open(io.BytesIO(page.pdf(**PAPER)))
        page.close()
    with book.open_outline() as outline:
        for entry, place in zip(found["entries"], places, strict=True):
            above = outline.root[-1].children if entry["level"] > 1 else outline.root
            above.append(pikepdf.OutlineItem(entry["title"], place))
    for item in book.objects:
        if isinstance(item, pikepdf.Stream) and item.get("/Subtype") == Name.Image and item.Filter == Name.FlateDecode:
            shrink(item)
    book.docinfo["/Title"], book.docinfo["/Author"] = config["title"], config["author"]
    book.Root.ViewerPreferences = pikepdf.Dictionary(DisplayDocTitle=True)
    # More than half of what Chromium writes are tags, for screen readers: packed they take a tenth.
    book.save(site / NAME, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return site / NAME
