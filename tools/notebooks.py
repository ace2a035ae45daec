"""Notebooks as the repository keeps them: no outputs, one kernel, ids that follow the content, one set-up cell.

python tools/notebooks.py format [NOTEBOOK ...]        put them in that form (all where none is named)
python tools/notebooks.py check [NOTEBOOK ...]         fail where one is not in that form
python tools/notebooks.py from-markdown TEXT NOTEBOOK  make a notebook from MyST notebook text
python tools/notebooks.py to-markdown NOTEBOOK TEXT    and back
python tools/notebooks.py execute NOTEBOOK ...         run copies with nbmake, in executed/try
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from project import ROOT, chapters, install_source, recorded_repository

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("tags", "mystnb")  # all that a cell may carry; editors leave much more
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # what "hide-input" is to Colab and to JupyterLab
TEMPLATE = Path(__file__).with_name("first_cell.py")
DIRECTIVE = re.compile(r"^\s*(```+|:::+)\{|\{[a-z:]+\}`", re.MULTILINE)
HEADING = re.compile(r"^(#{1,6}) ", re.MULTILINE)
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.DOTALL)
FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*?$", re.MULTILINE | re.DOTALL)


def first_cell(install: str | None = None) -> NotebookNode:
    """The set-up cell, the same in every notebook, with what pip installs filled in: the repository if not given."""
    if install is None:
        url = recorded_repository()
        install = f"git+{url}" if url else ""
    source = TEMPLATE.read_text(encoding="utf-8").strip().replace("@REPOSITORY@", install)
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["hide-cell"]})


def is_first_cell(cell: NotebookNode) -> bool:
    """Whether a cell is the set-up cell, in this or an older wording: it opens with the template's first line."""
    return cell.source.startswith(TEMPLATE.read_text(encoding="utf-8").splitlines()[0])


def normalised(notebook: NotebookNode) -> str:
    """The text of a notebook in the form in which the repository keeps it."""
    written = [cell for cell in notebook.cells if not is_first_cell(cell) and cell.source.strip()]
    cells, seen = [], {}
    for cell in [*written[:1], first_cell(), *written[1:]]:
        source = "\n".join(line.rstrip() for line in cell.source.strip().splitlines())
        metadata = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        if "hide-input" in metadata.get("tags", []):
            metadata |= FOLDED
        make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}[cell.cell_type]
        # An id that follows the content changes with its own cell only: small diffs, and the same for all editors.
        digest = hashlib.sha256(f"{cell.cell_type}\n{source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        name = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cells.append(make(source, id=name, metadata=metadata))
    clean = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    clean.nbformat_minor = 5
    nbformat.validate(clean)
    return nbformat.writes(clean, indent=1, ensure_ascii=False) + "\n"


def published(path: Path) -> str:
    """The text of a notebook as the site offers it: its set-up cell installs from where this build comes from."""
    notebook = read(path)
    for cell in filter(is_first_cell, notebook.cells):
        cell.source = first_cell(install_source()).source
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def draws(source: str) -> bool:
    """Whether a cell's last expression looks like a figure: `fig`, `figures.…(…)` or `visualize_…(…)`."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with a magic, or one that is meant to fail
        return False
    if not body or not isinstance(body[-1], ast.Expr):
        return False
    last = ast.unparse(body[-1].value)
    return re.match(r"(fig(ure)?\d*$|figures\.\w+\(|visualize_\w+\(|plt\.)", last) is not None


def faults(path: Path) -> list[str]:
    """What is wrong with a stored notebook, one sentence each; an empty list where nothing is."""
    notebook, found = read(path), []
    if path.read_text(encoding="utf-8") != normalised(notebook):
        found.append("is not in its stored form (outputs, metadata, ids, kernel or set-up cell). Remedy: make format")
    if not notebook.cells or not notebook.cells[0].source.startswith("# "):
        return [*found, "does not open with a Markdown cell that starts with the title, `# …`"]
    levels = []
    for cell in notebook.cells:
        start = cell.source.strip().splitlines()[0][:60] if cell.source.strip() else ""
        if cell.cell_type == "markdown":
            if DIRECTIVE.search(cell.source):
                found.append(f"has a directive or role, which Colab shows as raw text, in the cell {start!r}")
            if any(r"\\" in equation and r"\tag" in equation for equation in DISPLAYED.findall(cell.source)):
                found.append(f"has lines and a tag between $$, which the site can't set, in the cell {start!r}")
            levels += [len(marks) for marks in HEADING.findall(FENCE.sub("", cell.source))]
        elif draws(cell.source) and not alternative_text(cell):
            found.append(f"draws without alternative text (metadata mystnb.image.alt) in the cell {start!r}")
    if levels.count(1) != 1:
        found.append(f"has {levels.count(1)} headings of the first level; a page has one")
    if any(after > before + 1 for before, after in itertools.pairwise(levels)):
        found.append("skips a heading level")
    return found


def alternative_text(cell: NotebookNode) -> str:
    """What a screen reader says in place of the cell's picture, or ""."""
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()


def nameless_pictures(notebook: NotebookNode) -> list[str]:
    """The first lines of the cells of an executed notebook that show a picture without alternative text."""
    found = []
    for cell in notebook.cells:
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        pictures = any(kind.startswith("image/") for bundle in data for kind in bundle)
        html = "".join(str(bundle.get("text/html", "")) for bundle in data)
        bare = any("alt=" not in tag for tag in re.findall(r"<img\b[^>]*>", html))
        if (pictures and not alternative_text(cell)) or bare:
            found.append(cell.source.strip().splitlines()[0][:60])
    return found


def execute(paths: list[Path]) -> int:
    """Run copies of the notebooks under executed/try, leaving the sources as they are."""
    copies = []
    for path in paths:
        copy = ROOT / "executed" / "try" / path.resolve().relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copies.append(copy)
    start = time.perf_counter()
    options = ["--nbmake", "--overwrite", "--nbmake-timeout=600", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, copies)]
    code = subprocess.run(command, cwd=ROOT).returncode
    for copy in copies:
        print(f"{copy.relative_to(ROOT)}: pictures without alternative text: {nameless_pictures(read(copy)) or 'none'}")
    print(f"{time.perf_counter() - start:.1f} s")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["format", "check", "from-markdown", "to-markdown", "execute"])
    parser.add_argument("paths", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.action.endswith("-markdown"):
        if len(arguments.paths) != 2:
            parser.error(f"{arguments.action} takes two paths, the source and the target")
        source, target = arguments.paths
        if arguments.action == "from-markdown":
            text = normalised(jupytext.read(source, fmt="md:myst"))
        else:
            notebook = read(source)
            notebook.cells = [cell for cell in notebook.cells if not is_first_cell(cell)]
            for cell in notebook.cells:  # what `normalised` adds would be noise in a text
                cell.metadata = {key: value for key, value in cell.metadata.items() if key not in FOLDED}
            text = jupytext.writes(notebook, fmt="md:myst")
        target.write_text(text, encoding="utf-8", newline="\n")
        return 0
    paths = arguments.paths or chapters()
    if arguments.action == "execute":
        return execute(paths)
    failed = 0
    for path in paths:
        if arguments.action == "format":
            text = normalised(read(path))
            if text != path.read_text(encoding="utf-8"):
                path.write_text(text, encoding="utf-8", newline="\n")
                print(f"formatted {path}")
        for fault in faults(path):
            failed += 1
            print(f"{path}: {fault}", file=sys.stderr)
    if arguments.action == "check":
        print(f"{len(paths)} notebooks, {failed} faults")
        return 1 if failed else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
