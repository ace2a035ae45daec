"""Open every page of the built site in Chromium, and say what is wrong with it.

    python tools/check_site.py                  every page
    python tools/check_site.py --lighthouse 5   and Lighthouse on about five of them, light and heavy ones (-1: on all)
    python tools/check_site.py --speed 5        only how fast each opens on a slow phone, the medians of five visits

Faults are: an error or warning in the console, a request to another host or one that fails, a dead link or anchor, code
that is cut off, what axe-core finds in light and in dark, sideways scrolling on a phone, too many bytes, things that
move while the page loads, what search engines and screen readers lack. Faults that a second look no longer finds are
printed as flaky: a browser on a busy machine now and then gives up on a request.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import chromium
import vendor
from pdf import SITE

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

QUESTIONS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
LIGHTHOUSE = Path(__file__).with_name("lighthouse.mjs")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MOST_KIB = {"chapters/00_introduction.html": 350}  # of what a page first loads, compressed as servers do it
OTHERS_KIB, MOST_SHIFT = 500, 0.02
SHIFT = """new Promise((done) => {
    let sum = 0;
    const add = (list) => list.getEntries().forEach(({ value }) => { sum += value; });
    new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(sum), 100);
})"""

READ = """(async () => { // from top to bottom: what comes near is laid out, and what scrolls gets its place for keys
    for (let y = 0; y < document.body.scrollHeight; y += innerHeight) {
        scrollTo(0, y);
        await new Promise(requestAnimationFrame);
        await new Promise((done) => setTimeout(done)); // for observers
    }
    scrollTo(0, 0);
})()"""


@dataclass
class Page:
    """A page as the browser saw it: what it says of itself and its faults."""

    name: str
    facts: dict = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)  # faults that a second look did not find


def listen(tab: Tab, home: str, faults: list[str]) -> None:
    """Note what the tab's console says, and what it asks for in vain or from another place than `home`."""

    def gate(route) -> None:
        if route.request.url.startswith(("data:", "blob:", f"{home}/")):
            return route.continue_()
        faults.append(f"another host: {route.request.url}")
        return route.abort()

    def hear(message) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"console: {message.text[:300]}")

    tab.route("**/*", gate)
    tab.on("console", hear)
    tab.on("pageerror", lambda error: faults.append(f"script: {error}"))
    tab.on("response", lambda got: faults.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
    tab.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))


def visit(browser: Browser, address: str, name: str) -> Page:
    """Open a page, light and dark, wide and narrow; what there is to say of it alone."""
    page, loaded = Page(name), []
    tab = browser.new_page(viewport=PHONE, color_scheme="light", reduced_motion="reduce")
    tab.set_default_timeout(chromium.PATIENCE)
    listen(tab, address, page.faults)
    tab.on("response", lambda got: loaded.append(got))
    tab.goto(f"{address}/{name}", wait_until="networkidle")
    shift, most = tab.evaluate(SHIFT), MOST_KIB.get(name, OTHERS_KIB)
    weight = sum(min(len(body), len(gzip.compress(body, 6))) for body in (got.body() for got in loaded)) / 1024
    page.faults += [f"loads {weight:.0f} KiB, more than {most}"] if weight > most else []
    page.faults += [f"moves while it loads, by {shift:.3f}"] if shift > MOST_SHIFT else []
    tab.set_viewport_size(WIDE)
    tab.evaluate(READ)
    tab.add_style_tag(content=".bd-article section { content-visibility: visible !important; }")  # it would hide faults
    page.facts = tab.evaluate(QUESTIONS) | {"weight": weight, "requests": len(loaded), "shift": shift}
    page.faults += page.facts["faults"]
    tab.add_script_tag(path=vendor.AXE)
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)
        tab.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
        for violation in tab.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]:
            nodes = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
            page.faults.append(f"axe-core, {theme}: {violation['id']}: {nodes}")
    tab.set_viewport_size(PHONE)
    width = tab.evaluate("document.documentElement.scrollWidth")
    if width > PHONE["width"]:
        page.faults.append(f"scrolls sideways: {width} px wide on a screen of {PHONE['width']} px")
    tab.close()
    return page


def check_links(pages: dict[str, Page], address: str, site: Path) -> None:
    """Add each link within the site that leads to no file, or to no place in its page."""
    for page in pages.values():
        for link in sorted(link for link in set(page.facts["links"]) if link.startswith(f"{address}/")):
            target, anchor = (unquote(part).lstrip("/") for part in (urlsplit(link).path, urlsplit(link).fragment))
            if not (site / target).is_file():
                page.faults.append(f"dead link: {target}")
            elif anchor and target in pages and anchor not in pages[target].facts["anchors"]:
                page.faults.append(f"dead link: {target} has no #{anchor}")


def check(browser: Browser, address: str, site: Path) -> list[Page]:
    """Visit every page of the site."""
    pages = {}
    for name in names(site):
        pages[name] = visit(browser, address, name)
        if first := pages[name].faults:
            pages[name] = visit(browser, address, name)
            pages[name].flaky = [] if pages[name].faults else first
    check_links(pages, address, site)
    return list(pages.values())


def ask_lighthouse(pages: list[Page], address: str, path: str) -> None:
    """Add what keeps a page from full marks in Lighthouse."""
    for name, reason in lighthouse(path, 0, [f"{address}/{page.name}" for page in pages]).items():
        next(page for page in pages if name == f"{address}/{page.name}").faults.append(f"Lighthouse: {reason}")


def lighthouse(path: str, runs: int, addresses: list[str]) -> dict:
    """What lighthouse.mjs finds."""
    command = ["node", LIGHTHOUSE, path, chromium.FLAGS, str(runs), *addresses]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def show_speed(path: str, runs: int) -> None:
    """Print how fast each page opens on Lighthouse's slow phone: reported, since machines differ, and never a fault."""
    with chromium.serve(SITE, handler=chromium.PackingHandler) as address:
        for name in names(SITE):
            [visits] = lighthouse(path, runs, [f"{address}/{name}"]).values()
            score, paint, blocked = map(statistics.median, zip(*visits, strict=True))
            speed = f"performance {score:.2f}, largest paint {paint / 1000:.2f} s, blocked {blocked:.0f} ms"
            print(f"{name}: {speed}", flush=True)


def names(site: Path) -> list[str]:
    """All pages of the site but those that only lead on to another."""
    files = [file for file in sorted(site.rglob("*.html")) if file.relative_to(site).parts[0] != "_static"]
    files = [file for file in files if 'http-equiv="Refresh"' not in file.read_text(encoding="utf-8")[:300]]
    return [file.relative_to(site).as_posix() for file in files]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lighthouse", type=int, default=0, help="on about how many pages; -1: on all")
    parser.add_argument("--speed", type=int, default=0, help="how many visits to each page")
    given, path = parser.parse_args(), chromium.find()
    wanted = given.lighthouse
    if path is None or not (SITE / "index.html").exists():
        sys.exit(f"No browser. {chromium.REMEDY}" if path is None else "No site. Remedy: make book")
    vendor.fetch()
    if given.speed:
        show_speed(path, given.speed)
        return 0
    with chromium.serve(SITE) as address:
        with chromium.launch(path) as browser:
            pages = sorted(check(browser, address, SITE), key=lambda page: page.facts["weight"], reverse=True)
        # Each kind of page is in a share of them, from the heaviest down.
        asked = pages if wanted < 0 else pages[:: max(1, len(pages) // wanted)] if wanted else []
        ask_lighthouse(asked, address, path)
    for page in pages:
        facts = "{weight:.0f} KiB in {requests} requests, shift {shift:.3f}".format(**page.facts)
        print(f"{page.name}: {facts}{', checked by Lighthouse' * (page in asked)}")
    for page in pages:  # last, where nobody has to look for them
        for fault in [*(f"flaky, {fault}" for fault in page.flaky), *page.faults]:
            print(f"{page.name}: {fault}")
    faults = sum(len(page.faults) for page in pages)
    print(f"{len(pages)} pages, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
