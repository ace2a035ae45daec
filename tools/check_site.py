"""Open every page of the built site in Chromium, and say what is wrong with it.

    python tools/check_site.py                  every page
    python tools/check_site.py --lighthouse 5   the same, Lighthouse on five pages alone

Held against a page: an error or warning in the console, a request to another host or one that fails, a link or anchor
that is not there, what axe-core finds in light and in dark, scrolling sideways on a phone, its weight, and what search
engines and screen readers miss. Lighthouse asks some of that again in its own way, and more; npm installs it, from
`tools/lighthouse`, into `executed/lighthouse`. A page with a fault is looked at again, and what the second look no
longer finds is printed and not held against it: a browser on a busy machine now and then gives up on a request.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import chromium
import vendor
from project import ROOT, step

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

SITE = ROOT / "_build" / "html"
QUESTIONS = Path(__file__).with_suffix(".js")
AXE = ROOT / vendor.TESTS / "axe-core" / "axe.min.js"
LIGHTHOUSE = ROOT / "executed" / "lighthouse"
LIGHTHOUSE_FILES = ("package.json", "package-lock.json", "check.mjs")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MOST_BYTES, MOST_BYTES_WITH_WIDGETS = 600_000, 1_500_000  # besides what pages share
KNOWN_WARNING = "strict mode: use allowUnionTypes"  # of the widgets' bundle, in a page that uses it
SHARED = ("_static/", "searchindex.js")


@dataclass
class Page:
    """A page as the browser saw it: what it says of itself, its bytes and its faults."""

    name: str
    facts: dict = field(default_factory=dict)
    weight: int = 0
    faults: list[str] = field(default_factory=list)
    passing: list[str] = field(default_factory=list)  # faults that a second look did not find


def listen(tab: Tab, address: str, page: Page, loaded: set[str]) -> None:
    """Hold against the page what its console says and what it asks for in vain or elsewhere; keep what it loads."""

    def gate(route) -> None:
        url = route.request.url
        if url.startswith(("data:", "blob:", f"{address}/")):
            route.continue_()
        else:
            page.faults.append(f"asks another host: {url}")
            route.abort()

    def hear(message) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(KNOWN_WARNING):
            page.faults.append(f"console: {message.text[:300]}")

    def arrive(response) -> None:
        if response.status >= 400:
            page.faults.append(f"{response.status}: {response.url}")
        loaded.add(response.url)

    tab.route("**/*", gate)
    tab.on("console", hear)
    tab.on("pageerror", lambda error: page.faults.append(f"script: {error}"))
    tab.on("response", arrive)
    tab.on("requestfailed", lambda request: page.faults.append(f"failed: {request.url}"))


def weight_of(loaded: set[str], address: str, site: Path) -> int:
    """Bytes of the files that a page loads and does not share with the others."""
    paths = {unquote(urlsplit(url).path).lstrip("/") for url in loaded if url.startswith(f"{address}/")}
    own = [site / path for path in paths if not path.startswith(SHARED)]
    return sum(file.stat().st_size for file in own if file.is_file())


def visit(browser: Browser, address: str, name: str, site: Path) -> Page:
    """Open a page, light and dark, wide and narrow; what there is to say of it alone."""
    page, loaded = Page(name), set()
    tab = browser.new_page(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
    tab.set_default_timeout(chromium.PATIENCE)
    listen(tab, address, page, loaded)
    tab.goto(f"{address}/{name}", wait_until="networkidle")
    tab.evaluate("window.MathJax?.startup?.promise.then(() => true)")
    page.facts = tab.evaluate(QUESTIONS.read_text(encoding="utf-8"))
    page.weight = weight_of(loaded, address, site)
    # axe-core would hand itself to require.js, which widgets use, instead of to the page.
    tab.evaluate("window.define = undefined")
    tab.add_script_tag(path=AXE)
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
    hold(page)
    return page


def hold(page: Page) -> None:
    """Add the faults that the page's own facts show."""
    facts = page.facts
    if facts["heads"] != 1:
        page.faults.append(f"{facts['heads']} headings of the first level instead of one")
    page.faults += [f"an equation is not set: {fault}" for fault in facts["unset"]]
    page.faults += [f"no {name}" for name in ("lang", "title", "description", "favicon") if not facts[name]]
    most = MOST_BYTES_WITH_WIDGETS if facts["widgets"] else MOST_BYTES
    if page.weight > most:
        page.faults.append(f"weighs {page.weight / 1e3:.0f} KB, more than {most / 1e3:.0f} KB")


def hold_links(pages: dict[str, Page], address: str, site: Path) -> None:
    """Add each link within the site that leads to no file, or to no place in its page."""
    for page in pages.values():
        for link in sorted(set(page.facts["links"])):
            url = urlsplit(link)
            if not link.startswith(f"{address}/"):
                continue
            target, anchor = unquote(url.path).lstrip("/"), unquote(url.fragment)
            if not (site / target).is_file():
                page.faults.append(f"dead link: {target}")
            elif anchor and target in pages and anchor not in pages[target].facts["anchors"]:
                page.faults.append(f"dead link: {target} has no #{anchor}")


def redirect_target(file: Path) -> str | None:
    """Where a page that does nothing but lead on leads to, or None for any other page."""
    start, _, rest = file.read_text(encoding="utf-8").partition('http-equiv="Refresh" content="0; url=')
    return rest.partition('"')[0] if rest and len(start) < 200 else None


def check(browser: Browser, address: str, site: Path) -> list[Page]:
    """Visit every page of the site; those that only lead on are asked where to."""
    pages, leading_on = {}, []
    for file in sorted(site.rglob("*.html")):
        name = file.relative_to(site).as_posix()
        if name.startswith("_static/"):
            continue
        if target := redirect_target(file):
            dead = not (file.parent / target).is_file()
            leading_on.append(Page(name, faults=[f"dead link: {target}"] if dead else []))
            continue
        pages[name] = visit(browser, address, name, site)
        if pages[name].faults:
            passing = pages[name].faults
            pages[name] = visit(browser, address, name, site)
            pages[name].passing = [] if pages[name].faults else passing
    hold_links(pages, address, site)
    return [*leading_on, *pages.values()]


def install_lighthouse() -> None:
    """Let npm install Lighthouse as the lock file has it, running nothing of the packages, unless it is there.

    Raises:
        OSError: there is no npm, or it could not install.
    """
    sources = [ROOT / "tools" / "lighthouse" / name for name in LIGHTHOUSE_FILES]
    stamp = LIGHTHOUSE / "installed.json"
    LIGHTHOUSE.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copyfile(source, LIGHTHOUSE / source.name)
    wanted = sources[1].read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("Lighthouse needs npm and Node.js 18.16 or newer. Remedy: install them, or --lighthouse 0")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=LIGHTHOUSE)
    if done.returncode:
        raise OSError(f"npm could not install Lighthouse (status {done.returncode})")
    stamp.write_text(wanted, encoding="utf-8")


def ask_lighthouse(pages: list[Page], address: str, path: str) -> dict[str, str]:
    """Return the address of each page that has not full marks in Lighthouse, with the reason."""
    wanting = {f"{address}/{page.name}": "gave no result" for page in pages}
    command = ["node", "check.mjs", path, " ".join(chromium.FLAGS), *wanting]
    with subprocess.Popen(command, cwd=LIGHTHOUSE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            result = json.loads(line)
            short = {name: score for name, score in result["scores"].items() if score != 1}
            if short:
                wanting[result["address"]] = f"{short} {result.get('error', '')} {'; '.join(result['faults'])}"
            else:
                del wanting[result["address"]]
    return wanting


def hold_lighthouse(pages: list[Page], address: str, path: str) -> None:
    """Add what keeps a page from full marks in Lighthouse, in two attempts."""
    by_address = {f"{address}/{page.name}": page for page in pages}
    first = ask_lighthouse(pages, address, path)
    second = ask_lighthouse([by_address[wanting] for wanting in first], address, path) if first else {}
    for wanting, reason in first.items():
        page = by_address[wanting]
        (page.faults if wanting in second else page.passing).append(f"Lighthouse: {second.get(wanting, reason)}")


def share(pages: list[Page], size: int | None) -> list[Page]:
    """All pages for None, else `size` of them, from the heaviest down in even steps: each kind is among them."""
    if size is None or size >= len(pages):
        return pages
    heaviest_first = sorted(pages, key=lambda page: -page.weight)
    return [heaviest_first[i * len(pages) // size] for i in range(size)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, default=SITE)
    parser.add_argument("--lighthouse", type=int, help="on how many pages; all where it is not given")
    arguments = parser.parse_args()
    site, path = arguments.site.resolve(), chromium.find()
    if path is None or not (site / "index.html").exists():
        print(f"No browser. {chromium.REMEDY}." if path is None else "No site. Remedy: make book", file=sys.stderr)
        return 2
    if not vendor.fetch(vendor.TESTS):
        return 2
    if arguments.lighthouse != 0:
        install_lighthouse()
    with chromium.serve(site) as address:
        with step("opening every page"), chromium.launch(path) as browser:
            pages = check(browser, address, site)
        asked = share([page for page in pages if page.facts], arguments.lighthouse)
        if asked:
            with step(f"Lighthouse on {len(asked)} of {len(pages)} pages"):
                hold_lighthouse(asked, address, path)
    for page in pages:
        marks = ", Lighthouse 100" if page in asked and not page.faults else ""
        print(f"{page.name}: {page.weight / 1e3:.0f} KB{marks}")
    for page in pages:  # last, where nobody has to look for them
        for fault in page.passing:
            print(f"{page.name}, at the first look alone: {fault}")
        for fault in page.faults:
            print(f"{page.name}: {fault}")
    faults = sum(len(page.faults) for page in pages)
    print(f"{len(pages)} pages, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
