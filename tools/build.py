"""Execute the chapters once, for the test and for the site.

    python tools/build.py test                   execute every notebook
    python tools/build.py site                   execute what has no up-to-date execution, then build the site
    python tools/build.py test --only NOTEBOOK   execute one, in executed/alone, beside the site's own

Notebooks are executed by nbmake in copies below `executed/book` (nbmake ignores what lies in a folder named `_build`);
the site is built from those copies with execution off, so what was tested is what is read. A stamp per notebook says
what its execution depended on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import chromium
import pdf
import pytest
import vendor
import yaml
from notebooks import nameless_pictures, published, read
from project import ROOT, chapters, step

EXECUTED = ROOT / "executed"
BOOK = EXECUTED / "book"
SOURCES = ("_config.yml", "_toc.yml", "pyproject.toml", "assets", "tools", "chapters")
SECONDS_PER_CELL = 600
MOST_WORKERS = 4  # each holds a kernel with the data and a model or two, about 2 GB
TIMES = "<!-- times of chapters -->"  # in how_checked.ipynb


def data_listing() -> list[tuple[str, int]]:
    """Names and sizes of the data on disk: where none lies there, what a chapter showed came from the stand-in."""
    # `vqvae_lib.data.data_root`'s rule, without the seconds that importing torch takes; a test compares the two.
    root = Path(os.environ.get("VQVAE_DATA") or Path.home() / ".cache" / "vqvae_lib" / "data")
    return sorted((path.name, path.stat().st_size) for path in root.glob("*/raw/*-ubyte*"))


def code_key(*notebooks: Path) -> str:
    """A hash of the code that an execution depends on: the notebook, the library and its environment."""
    digest = hashlib.sha256(platform.python_version().encode())
    library = sorted(path for path in (ROOT / "vqvae_lib").rglob("*") if path.suffix in {".py", ".html"})
    for path in [*notebooks, ROOT / "requirements.txt", *library]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key(notebook: Path) -> str:
    """A hash of all that an execution of the notebook depends on: code, stored results, data and mode."""
    listing = data_listing()
    # With data on disk it makes no difference whether the stand-in is forbidden.
    stand_in = None if listing else os.environ.get("VQVAE_STAND_IN")
    stored = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((ROOT / "vqvae_lib").rglob("*.json"))]
    facts = [code_key(notebook), stored, listing, stand_in, os.environ.get("VQVAE_QUICK")]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class Progress:
    """Pytest plugin that prints a line for each notebook and keeps the seconds of those that passed."""

    def __init__(self, book: Path) -> None:
        self.book = book
        self.passed: dict[Path, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            print(f"\n==> {report.fspath}: {report.outcome} in {report.duration:.1f} s", flush=True)
            if report.passed:
                self.passed[self.book / report.fspath] = report.duration


def stamp_of(target: Path, book: Path) -> Path:
    """Where it is kept what the execution of a copy depended on, and how long it took."""
    return book / "stamps" / f"{target.stem}-{len(target.parts)}.json"


def prepare(book: Path) -> None:
    """Copy all sources but the notebooks into `book`, and remove what is no longer among them."""
    book.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        source, target = ROOT / name, book / name
        if source.is_dir():
            if name != "chapters":
                shutil.rmtree(target, ignore_errors=True)
            ignore = shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints", "__pycache__")
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignore)
        else:
            shutil.copyfile(source, target)
    for path in (book / "chapters").rglob("*"):
        if path.is_file() and not (ROOT / path.relative_to(book)).exists():
            path.unlink()


def execute(notebooks: list[Path], book: Path, fresh: bool) -> int:
    """Execute notebooks in `book`, all where `fresh`, else those without an up-to-date execution; an exit status."""
    prepare(book)
    targets = {book / path.relative_to(ROOT): path for path in notebooks}
    stamps = {target: stamp_of(target, book) for target in targets}
    stale = []
    for target, source in targets.items():
        stamp = stamps[target]
        done = target.exists() and stamp.exists() and json.loads(stamp.read_text())["key"] == key(source)
        if done and not fresh:
            continue
        stamp.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(published(source), encoding="utf-8", newline="\n")
        stale.append(target)
    print(f"==> {len(stale)} of {len(targets)} notebooks to execute", flush=True)
    if not stale:
        return 0
    started = {target: code_key(targets[target]) for target in stale}
    # Trained models are shared between chapters, but only those that this very library trained.
    runs = book / "runs"
    if fresh:
        shutil.rmtree(runs, ignore_errors=True)
    os.environ["VQVAE_CACHE"] = str(runs / code_key()[:16])
    os.environ["VQVAE_STATIC"] = "1"  # what is executed here is read on pages with no kernel behind them
    progress = Progress(book)
    options = ["--nbmake", "--overwrite", f"--nbmake-timeout={SECONDS_PER_CELL}", "-p", "no:cacheprovider"]
    # Two notebooks at a time with a thread each are done sooner than one after the other with two threads each.
    workers = min(len(stale), MOST_WORKERS, os.cpu_count() or 1)
    if workers > 1:
        options += ["-n", str(workers), "--maxschedchunk=1"]
        os.environ["OMP_NUM_THREADS"] = str((os.cpu_count() or 1) // workers)
    status = pytest.main([*options, f"--rootdir={book}", *map(str, stale)], plugins=[progress])
    for target, seconds in progress.passed.items():
        nameless = nameless_pictures(read(target))
        if nameless:
            print(
                f"{target.relative_to(book)}: pictures without alternative text in the cells {nameless}",
                file=sys.stderr,
            )
            status = status or 1
        # Code edited during the run is not what was executed. Data is looked at now: the run may have downloaded it.
        elif started[target] == code_key(targets[target]):
            stamps[target].parent.mkdir(exist_ok=True)
            stamps[target].write_text(json.dumps({"key": key(targets[target]), "seconds": round(seconds, 1)}))
    return int(status)


def fill_times(book: Path) -> None:
    """Put the seconds that each notebook took into the executed page that has a place for them."""
    page = book / "chapters" / "how_checked.ipynb"
    rows = ["## Time of each notebook", "", "| notebook | seconds |", "| --- | --- |"]
    for path in chapters(book):
        seconds = json.loads(stamp_of(path, book).read_text())["seconds"]
        rows.append(f"| {path.relative_to(book / 'chapters').with_suffix('')} | {seconds:.0f} |")
    cells = json.loads(page.read_text(encoding="utf-8"))
    for cell in cells["cells"]:
        text, place, _ = "".join(cell["source"]).partition(TIMES)
        if place:  # what an earlier build has put behind the comment goes
            cell["source"] = text + "\n".join([place, "", *rows])
    page.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")


def shorten_errors(book: Path) -> None:
    """Leave of each error that a page shows its name and message: where it was raised is a matter of this machine."""
    for path in chapters(book):
        page = json.loads(path.read_text(encoding="utf-8"))
        outputs = [output for cell in page["cells"] for output in cell.get("outputs", ())]
        errors = [output for output in outputs if output["output_type"] == "error"]
        for output in errors:
            output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
        if errors:
            path.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")


def site() -> int:
    """Build the site from the executed copies, warnings as errors, and print it as a PDF where there is a browser."""
    fill_times(BOOK)
    shorten_errors(BOOK)
    path = chromium.find()
    config = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    config["execute"]["execute_notebooks"] = "off"
    config["sphinx"]["config"]["book_pdf"] = pdf.NAME if path else ""
    (BOOK / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    jupyter_book = shutil.which("jupyter-book", path=Path(sys.executable).parent)
    command = [jupyter_book, "build", str(BOOK), "--path-output", str(ROOT), "-n", "-W", "--keep-going", "--all", "-q"]
    shutil.rmtree(pdf.SITE, ignore_errors=True)  # pages that are no longer in the book
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        return status
    if path:
        with step(f"printing {pdf.NAME}"), chromium.launch(path) as browser:
            pdf.make(browser)
    else:
        print(f"==> no PDF, and no link to one: there is no browser here. {chromium.REMEDY}.")
    print(f"The book is at {ROOT / '_build' / 'html' / 'index.html'}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["test", "site"])
    parser.add_argument("--only", type=Path, help="one notebook")
    arguments = parser.parse_args()
    if arguments.action == "site" and os.environ.get("VQVAE_QUICK"):
        print(
            "VQVAE_QUICK shortens training and is never published. Remedy: unset it and build again.", file=sys.stderr
        )
        return 2
    if arguments.only:
        with step(f"executing {arguments.only}"):
            return execute([arguments.only.resolve()], EXECUTED / "alone", fresh=True)
    if arguments.action == "site":
        vendor.fetch()  # before the sources are copied
    with step("executing the chapters"):
        status = execute(chapters(), BOOK, fresh=arguments.action == "test")
    if status or arguments.action == "test":
        return status
    with step("building the site"):
        return site()


if __name__ == "__main__":
    sys.exit(main())
