"""Notebooks as the repository keeps them: no outputs, one kernel, ids that follow the content, one setup cell.

    python tools/notebooks.py format [NOTEBOOK ...]   put them in that form; with no names, all, renumbered
    python tools/notebooks.py check                   list those not in that form

jupytext turns them into text and back; CONTRIBUTING.md has the commands.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from numbers_of_book import known, linked, numbered, referring, slugs
from project import ROOT, chapters, install_source, recorded_repository

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("tags", "mystnb")  # all that a cell may carry; editors leave much more
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # what "hide-input" is to Colab and to JupyterLab
TEMPLATE = Path(__file__).with_name("first_cell.py")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def first_cell(install: str | None = None) -> NotebookNode:
    """The setup cell, known by its first line, with what pip installs; the repository if not given."""
    if install is None:
        url = recorded_repository()
        install = f"git+{url}" if url else ""
    source = TEMPLATE.read_text(encoding="utf-8").strip().replace("@REPOSITORY@", install)
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["hide-cell"]})


def is_first_cell(cell: NotebookNode) -> bool:
    return cell.source.startswith(TEMPLATE.read_text(encoding="utf-8").splitlines()[0])


def normalized(notebook: NotebookNode) -> str:
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
        cells.append(make(source, id=digest + f"-{seen[digest]}" * (seen[digest] > 1), metadata=metadata))
    clean = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(clean)
    return nbformat.writes(clean, indent=1, ensure_ascii=False) + "\n"


def published(path: Path) -> str:
    """The text of a notebook as the site offers it: its setup cell installs from where this build comes from."""
    notebook = read(path)
    for cell in filter(is_first_cell, notebook.cells):
        cell.source = first_cell(install_source()).source
    return nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n"


def book(root: Path = ROOT) -> dict[Path, str]:
    """Notebooks, pages and Python files as they should stand: in their form, with their numbers in order."""
    folder, texts = root / "chapters", {}
    opened = {path: read(path) for path in chapters(root)}
    pages = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    pages |= {path: "\n\n".join(c.source for c in n.cells if c.cell_type == "markdown") for path, n in opened.items()}
    named = {path.relative_to(folder).as_posix(): text for path, text in pages.items()}
    numbers = known(named)
    anchors = {page: slugs(numbered(page, text, numbers)) for page, text in named.items()}
    for path, text in pages.items():
        page = path.relative_to(folder).as_posix()
        texts[path] = linked(page, numbered(page, text, numbers), anchors)
        for cell in opened[path].cells if path in opened else ():
            if cell.cell_type == "markdown":
                cell.source = linked(page, numbered(page, cell.source, numbers), anchors)
            else:
                cell.source = referring(cell.source, numbers)
            if alt := cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
                cell.metadata.mystnb.image.alt = referring(alt, numbers)
    code = [path for package in ("vqvae_lib", "vqvae_book") for path in (root / package).rglob("*.py")]
    texts |= {path: referring(path.read_text(encoding="utf-8"), numbers) for path in code}
    return texts | {path: normalized(notebook) for path, notebook in opened.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["format", "check"])
    parser.add_argument("paths", nargs="*", type=Path)
    action, paths = vars(parser.parse_args()).values()
    texts = {path: normalized(read(path)) for path in paths} or book()
    differ = {path: text for path, text in texts.items() if text != path.read_text(encoding="utf-8")}
    for path, text in differ.items():
        if action == "format":
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path}: {'formatted' if action == 'format' else 'not in its stored form. Remedy: make format'}")
    return 1 if differ and action == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
