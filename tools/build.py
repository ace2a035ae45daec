"""Execute the chapters once, for the test and for the site.

    python tools/build.py test                   execute every notebook
    python tools/build.py site                   execute what is not up to date, then build the site
    python tools/build.py serve --port PORT      show the site, and rebuild its pages when prose or styles change
    python tools/build.py test --only NOTEBOOK   execute some, in executed/alone, beside the site's own

Notebooks are executed in copies below `executed/book`, and the site is built from those. Each copy says what its
execution depended on: its code, the library, and the modules of the book's own package that it imports. Prose is not
part of that: it is taken from the sources when the site is built.
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
from nbformat import NotebookNode
from notebooks import published, read
from project import ROOT, STATIC, chapters, imports

EXECUTED = ROOT / "executed"
BOOK = EXECUTED / "book"
MOST_WORKERS = 4  # each holds a kernel of about 2 GB
# Without the check of a kind of address that no setting has: its grammars take a fifth of a small build's time.
JUPYTER_BOOK = "import sys; sys.modules['rfc3987_syntax'] = None; from jupyter_book.cli.main import main; main()"
NO_KERNEL = "Kernel didn't respond"  # two that start at once may choose the same port
TIMES = "<!-- times of chapters -->"  # in how_checked.ipynb
WORDED = {"text/markdown", "text/plain"}  # what `say`, `table` and `source` leave


def data_listing() -> list[tuple[str, int]]:
    """Names and sizes of the data on disk: where none lies there, what a chapter showed came from the stand-in."""
    # `vqvae_lib.data.data_root`'s rule, without the seconds that importing torch takes; a test compares the two.
    root = Path(os.environ.get("VQVAE_DATA") or Path.home() / ".cache" / "vqvae_lib" / "data")
    return sorted((p.name, p.stat().st_size) for kind in ("*/raw/*-ubyte*", "cifar*/*batch*") for p in root.glob(kind))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def book_modules(notebook: Path, root: Path = ROOT) -> dict[str, Path]:
    """Modules of `vqvae_book` that a notebook imports, directly or through others, and their files."""
    waiting, found = set(), {}
    for cell in code_cells(read(notebook)):
        with contextlib.suppress(SyntaxError):  # of a magic, of what is meant to fail
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
    files = [root / "requirements.txt", *(root / "vqvae_lib").glob("*.py"), *modules.values()]
    files += [page for file in modules.values() if (page := file.with_suffix(".html")).exists()]
    if "vqvae_book.results" in modules:  # what imports that reads the stored files
        files += [path for path in (root / "vqvae_book").rglob("*") if path.suffix in {".json", ".npz"}]
    cells = [(cell.source, cell.metadata) for cell in code_cells(read(notebook))]
    digest = hashlib.sha256(json.dumps([platform.python_version(), cells]).encode())
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
    command = [sys.executable, "-m", "pytest", *options, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if NO_KERNEL in done.stdout:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
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
    for source in sorted(notebooks, key=lambda path: -path.stat().st_size):  # the long ones first: cores end together
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
    """Make executed notebooks into pages: prose as it now stands, no paths in errors, one page has all times."""
    rows = [TIMES, "", "## Time of each notebook", "", "| notebook | seconds |", "| --- | --- |"]
    for path in chapters(book):
        seconds = read(path).metadata.execution["seconds"]
        rows.append(f"| {path.relative_to(book / 'chapters').with_suffix('')} | {seconds:.0f} |")
    for path in chapters(book):
        page, source = read(path), ROOT / path.relative_to(book)
        if source.exists():
            executed = iter(code_cells(page))
            page.cells = [next(executed, cell) if cell.cell_type == "code" else cell for cell in read(source).cells]
            for cell in page.cells:
                if cell.cell_type == "markdown":
                    cell.source = cell.source.replace(TIMES, "\n".join(rows))
        for cell in page.cells:
            outputs, tags = cell.get("outputs", ()), cell.metadata.get("tags", ())
            if outputs and all(output.get("data", {}).keys() == WORDED for output in outputs) and "hide-input" in tags:
                cell.metadata.tags = [tag.replace("hide-input", "remove-input") for tag in tags]
            for output in outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        if (text := nbformat.writes(page)) != path.read_text(encoding="utf-8"):  # Sphinx reads what is newer
            path.write_text(text, encoding="utf-8", newline="\n")


def make_pages(book: Path, output: Path, anew: bool = True, **config: str) -> int:
    """Build all pages of a prepared book, else those that changed, in output/_build/html; warnings are errors."""
    settings = yaml.safe_load((book / "_config.yml").read_text(encoding="utf-8"))
    settings["execute"]["execute_notebooks"] = "off"
    settings["sphinx"]["config"] |= config
    (book / "_config.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    options = ["--path-output", str(output), "-n", "-W", "--keep-going", "-q"]
    if anew:
        shutil.rmtree(output / "_build" / "html", ignore_errors=True)  # pages that are no longer in the book
        options.append("--all")
    return subprocess.run([sys.executable, "-c", JUPYTER_BOOK, "build", str(book), *options], cwd=output).returncode


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


def sources() -> dict[Path, int]:
    """What pages are made of besides code, and when each file was last written."""
    files = [path for name in ("chapters", "assets") for path in (ROOT / name).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def serve(port: int) -> None:
    """Show the site until it is stopped, and build those pages anew whose prose changes."""
    seen, pages = sources(), {"book_pdf": pdf.NAME if (pdf.SITE / pdf.NAME).exists() else ""}
    with contextlib.suppress(KeyboardInterrupt), chromium.serve(pdf.SITE, port) as address:
        print(f"The book is at {address}. Edited prose is shown at once; edited code needs `make book`")
        while True:
            time.sleep(0.5)
            if (now := sources()) != seen:
                changed, seen, start = [path for path in now if now[path] != seen.get(path)], now, time.perf_counter()
                prepare(BOOK)
                finish(BOOK)
                make_pages(BOOK, ROOT, anew=False, **pages)
                print(*(path.name for path in changed), f"shown after {time.perf_counter() - start:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["test", "site", "serve"])
    parser.add_argument("--only", type=Path, nargs="+", metavar="NOTEBOOK")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    if arguments.action == "serve":
        return serve(arguments.port)
    if arguments.only:
        return execute([path.resolve() for path in arguments.only], EXECUTED / "alone", fresh=True)
    if arguments.action == "test":
        return execute(chapters(), BOOK, fresh=True)
    if os.environ.get("VQVAE_QUICK"):
        sys.exit("VQVAE_QUICK shortens training, so its results are never published. Remedy: unset it and build again")
    vendor.fetch()  # before the sources are copied
    return execute(chapters(), BOOK, fresh=False) or site()


if __name__ == "__main__":
    sys.exit(main())
