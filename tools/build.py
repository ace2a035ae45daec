"""Execute the chapters once, for the test and for the site.

    python tools/build.py test                   execute every notebook
    python tools/build.py site                   execute what has no up-to-date execution, then build the site
    python tools/build.py test --only NOTEBOOK   execute some, in executed/alone, beside the site's own

Notebooks are executed in copies below `executed/book`, and the site is built from those. Each copy says what its
execution depended on: the library, and of the book's own package the modules that it imports.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chromium
import nbformat
import pdf
import vendor
import yaml
from notebooks import published, read
from project import ROOT, STATIC, chapters, imports

EXECUTED = ROOT / "executed"
BOOK = EXECUTED / "book"
MOST_WORKERS = 4  # each holds a kernel of about 2 GB
TIMES = "<!-- times of chapters -->"  # in how_checked.ipynb
WORDED = {"text/markdown", "text/plain"}  # what `say`, `table` and `source` leave


def data_listing() -> list[tuple[str, int]]:
    """Names and sizes of the data on disk: where none lies there, what a chapter showed came from the stand-in."""
    # `vqvae_lib.data.data_root`'s rule, without the seconds that importing torch takes; a test compares the two.
    root = Path(os.environ.get("VQVAE_DATA") or Path.home() / ".cache" / "vqvae_lib" / "data")
    return sorted((path.name, path.stat().st_size) for path in root.glob("*/raw/*-ubyte*"))


def book_modules(notebook: Path, root: Path = ROOT) -> dict[str, Path]:
    """Modules of `vqvae_book` that a notebook imports, directly or through others, and their files."""
    waiting, found = set(), {}
    for cell in read(notebook).cells:
        with contextlib.suppress(SyntaxError):  # of a magic, of what is meant to fail, of Markdown
            waiting |= imports(cell.source)
    while waiting:
        name = waiting.pop()
        stem, above = root.joinpath(*name.split(".")), name.rpartition(".")[0]
        file = next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)
        if file and name not in found and stem.is_relative_to(root / "vqvae_book"):
            found[name] = file
            waiting |= {above, *imports(file.read_text(encoding="utf-8"), name if file.parent == stem else above)}
    return found


def code_key(notebook: Path, root: Path = ROOT) -> str:
    """A hash of the code and the stored results that an execution depends on."""
    modules = book_modules(notebook, root)
    files = [notebook, root / "requirements.txt", *(root / "vqvae_lib").glob("*.py"), *modules.values()]
    files += [page for file in modules.values() if (page := file.with_suffix(".html")).exists()]
    if "vqvae_book.results" in modules:  # what imports that reads the stored files
        files += [path for path in (root / "vqvae_book").rglob("*") if path.suffix in {".json", ".npz"}]
    digest = hashlib.sha256(platform.python_version().encode())
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def key(notebook: Path, root: Path = ROOT) -> str:
    """A hash of all that an execution of the notebook depends on: code, stored results, data and mode."""
    listing = data_listing()
    # With data on disk it makes no difference whether the stand-in is forbidden.
    stand_in = None if listing else os.environ.get("VQVAE_STAND_IN")
    facts = [code_key(notebook, root), listing, stand_in, os.environ.get("VQVAE_QUICK")]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def prepare(book: Path) -> None:
    """Copy all sources but the notebooks into `book`, and remove what is no longer among them."""
    book.mkdir(parents=True, exist_ok=True)
    for path in (book / "chapters").rglob("*"):
        if path.is_file() and not (ROOT / path.relative_to(book)).exists():
            path.unlink()
    for name in ("assets", "tools", "chapters"):
        ignore = shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints", "__pycache__")
        shutil.copytree(ROOT / name, book / name, dirs_exist_ok=True, ignore=ignore)
    for name in ("_config.yml", "_toc.yml", "pyproject.toml"):
        shutil.copyfile(ROOT / name, book / name)


def run(path: Path) -> str:
    """Execute a notebook in place with nbmake, write into it how long that took; return what went wrong, or ""."""
    start = time.perf_counter()
    options = ["-q", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=600", "--overwrite"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, path], capture_output=True, text=True, cwd=ROOT)
    seconds, fault = time.perf_counter() - start, done.stdout + done.stderr if done.returncode else ""
    notebook = read(path)
    notebook.metadata.execution = {"seconds": seconds}
    nbformat.write(notebook, path)
    print(f"==> {path.name}: {fault or 'passed'}, {seconds:.1f} s", flush=True)
    return fault


def execute(notebooks: list[Path], book: Path, fresh: bool) -> int:
    """Execute notebooks in `book`, all where `fresh`, else those without an up-to-date execution; an exit status."""
    prepare(book)
    started = {}  # what is to be executed, its source, and the code that it is to be executed with
    for source in notebooks:
        target = book / source.relative_to(ROOT)
        if not fresh and target.exists() and read(target).metadata.get("execution", {}).get("key") == key(source):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(published(source), encoding="utf-8", newline="\n")
        started[target] = source, code_key(source)
    if fresh:
        shutil.rmtree(book / "runs", ignore_errors=True)
    # Two notebooks at a time with a thread each are done sooner than one after the other with two threads each.
    workers = max(1, min(len(started), MOST_WORKERS, os.cpu_count() or 1))
    if workers > 1:
        os.environ["OMP_NUM_THREADS"] = str((os.cpu_count() or 1) // workers)
    # Chapters share trained models, each under a name that says what it depends on.
    os.environ |= STATIC | {"VQVAE_CACHE": str(book / "runs")}
    with ThreadPoolExecutor(workers) as pool:
        failed = {target for target, fault in zip(started, pool.map(run, started), strict=True) if fault}
    for target, (source, code) in started.items():
        # Code edited during the run is not what was executed. Data is looked at now: the run may have downloaded it.
        if target not in failed and code == code_key(source):
            page = read(target)
            page.metadata.execution["key"] = key(source)
            nbformat.write(page, target)
    print(f"{len(started) - len(failed)} passed, {len(failed)} failed, {len(notebooks) - len(started)} skipped")
    return 1 if failed else 0


def finish(book: Path) -> None:
    """Make executed notebooks into pages: sentences stand alone, errors name no paths, one page has all times."""
    rows = [TIMES, "", "## Time of each notebook", "", "| notebook | seconds |", "| --- | --- |"]
    for path in chapters(book):
        seconds = read(path).metadata.execution["seconds"]
        rows.append(f"| {path.relative_to(book / 'chapters').with_suffix('')} | {seconds:.0f} |")
    for path in chapters(book):
        page = read(path)
        for cell in page.cells:
            text, place, _ = cell.source.partition(TIMES)
            if place and cell.cell_type == "markdown":  # what an earlier build has put behind the comment goes
                cell.source = text + "\n".join(rows)
            outputs, tags = cell.get("outputs", ()), cell.metadata.get("tags", ())
            if outputs and all(output.get("data", {}).keys() == WORDED for output in outputs) and "hide-input" in tags:
                cell.metadata.tags = [tag.replace("hide-input", "remove-input") for tag in tags]
            for output in outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        nbformat.write(page, path)


def make_pages(book: Path, output: Path, **config: str) -> int:
    """Build the pages of a prepared book, notebooks as they are and warnings as errors, in output/_build/html."""
    settings = yaml.safe_load((book / "_config.yml").read_text(encoding="utf-8"))
    settings["execute"]["execute_notebooks"] = "off"
    settings["sphinx"]["config"] |= config
    (book / "_config.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    program = shutil.which("jupyter-book", path=Path(sys.executable).parent)
    shutil.rmtree(output / "_build" / "html", ignore_errors=True)  # pages that are no longer in the book
    options = ["--path-output", str(output), "-n", "-W", "--keep-going", "--all", "-q"]
    return subprocess.run([program, "build", str(book), *options], cwd=output).returncode


def site() -> int:
    """Build the site from the executed copies, and print it as a PDF where there is a browser."""
    from vqvae_book.lab.files import write_files  # it imports torch, which nothing else here needs

    finish(BOOK)
    write_files(BOOK / "assets" / "lab")
    path = chromium.find()
    status = make_pages(BOOK, ROOT, book_pdf=pdf.NAME if path else "")
    if path and not status:
        with chromium.launch(path) as browser:
            pdf.make(browser)
    print(f"The book is at {pdf.SITE / 'index.html'}", f"There is no PDF. {chromium.REMEDY}" * (not path), sep="\n")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["test", "site"])
    parser.add_argument("--only", type=Path, nargs="+", metavar="NOTEBOOK")
    arguments = parser.parse_args()
    if arguments.only:
        return execute([path.resolve() for path in arguments.only], EXECUTED / "alone", fresh=True)
    if arguments.action == "test":
        return execute(chapters(), BOOK, fresh=True)
    if os.environ.get("VQVAE_QUICK"):
        sys.exit("VQVAE_QUICK shortens training, and is never published. Remedy: unset it and build again")
    vendor.fetch()  # before the sources are copied
    return execute(chapters(), BOOK, fresh=False) or site()


if __name__ == "__main__":
    sys.exit(main())
