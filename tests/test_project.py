"""Notebooks in their stored form, executions that are done again when they must, and environments that agree."""

from __future__ import annotations

import ast
import functools
import itertools
import os
import re
import subprocess
import sys
import tomllib

import build
import nbformat
import notebooks
import project
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement

from vqvae_lib.data import data_root

NOTEBOOKS = pytest.mark.parametrize(
    "path", project.chapters(), ids=lambda path: path.relative_to(project.ROOT / "chapters").as_posix()
)
DIRECTIVE = re.compile(r"^\s*(```+|:::+)\{|\{[a-z:]+\}`", re.MULTILINE)
HEADING = re.compile(r"^(#{1,6}) ", re.MULTILINE)
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.DOTALL)
FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*?$", re.MULTILINE | re.DOTALL)
DRAWS = re.compile(r"(fig(ure)?\d*$|figures\.\w+\(|visualize_\w+\(|plt\.)")


def notebook(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Cells below a title, as the repository keeps them."""
    whole = new_notebook(cells=[new_markdown_cell("# A title"), *cells])
    return nbformat.reads(notebooks.normalized(whole), as_version=4)


def faults(page: nbformat.NotebookNode) -> set[str]:
    """What would not read well on the site, in Colab or on GitHub."""
    found, levels = set(), []
    for cell in page.cells:
        if cell.cell_type == "markdown":
            text = FENCE.sub("", cell.source)
            levels += [len(marks) for marks in HEADING.findall(text)]
            tagged = [one for one in DISPLAYED.findall(text) if r"\\" in one and r"\tag" in one]
            found |= {"directive"} if DIRECTIVE.search(cell.source) else set()
            found |= {"lines and a tag between $$"} if tagged else set()
        elif not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
            body = [] if cell.source.startswith("%") else ast.parse(cell.source).body
            last = ast.unparse(body[-1].value) if body and isinstance(body[-1], ast.Expr) else ""
            found |= {"no alternative text"} if DRAWS.match(last) else set()
    found |= {"titles"} if levels[:1] != [1] or levels.count(1) > 1 else set()
    return found | ({"skipped level"} if any(b > a + 1 for a, b in itertools.pairwise(levels)) else set())


@NOTEBOOKS
def test_a_notebook_is_stored_without_outputs_and_reads_well_everywhere(path):
    page = notebooks.read(path)
    assert path.read_text(encoding="utf-8") == notebooks.normalized(page), "Remedy: make format"
    assert faults(page) == set()
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([\w./-]+\.(?:ipynb|md))(?:#[\w-]+)?\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        ("code", "fig = draw()\nfig", {"no alternative text"}),
        ("code", "fig = draw()", set()),
        ("markdown", "```{note}\nA directive.\n```", {"directive"}),
        ("markdown", "A {ref}`role`.", {"directive"}),
        ("markdown", "$$a \\\\ b$$\n\n$$c \\\\ d \\tag{1}$$", {"lines and a tag between $$"}),
        ("markdown", "# Another title", {"titles"}),
        ("markdown", "### Too deep", {"skipped level"}),
        ("markdown", "## Part\n\n$e_{k}$ $$a \\\\ b$$ $$c \\tag{1}$$\n\n```python\n# no head\n```", set()),
    ],
)
def test_faults_are_found(kind, source, expected):
    assert faults(notebook({"code": new_code_cell, "markdown": new_markdown_cell}[kind](source))) == expected


def test_the_stored_form_drops_what_editors_leave_and_is_stable():
    code = new_code_cell("1 + 1", execution_count=3, metadata={"tags": ["hide-input"], "scrolled": True})
    code.outputs = [new_output("stream", text="2\n")]
    kept = notebook(code, new_code_cell("1 + 1"), new_code_cell("1 + 1"))
    cell = kept.cells[2]
    assert (cell.outputs, cell.execution_count) == ([], None)
    assert cell.metadata == {"tags": ["hide-input"], **notebooks.FOLDED}  # folded everywhere
    assert kept == nbformat.reads(notebooks.normalized(kept), as_version=4)
    assert len({cell.id for cell in kept.cells}) == len(kept.cells)
    old = new_code_cell(notebooks.first_cell().source.replace("--no-deps", "--upgrade"))
    assert [cell.source for cell in notebook(old).cells] == ["# A title", notebooks.first_cell().source]


def test_the_set_up_cell_says_what_is_missing_where_it_cannot_install(tmp_path):
    script = tmp_path / "cell.py"  # for an interpreter that sees no site-packages
    script.write_text(notebooks.first_cell("").source, encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "-S", script], capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode == 1
    assert "VQVAE_SOURCE" in done.stderr


def test_the_table_of_contents_names_every_page_and_no_other():
    found = [path for path in (project.ROOT / "chapters").rglob("*") if path.suffix in {".ipynb", ".md"}]
    pages = {path.relative_to(project.ROOT).with_suffix("").as_posix() for path in found if ".ipynb_" not in str(path)}
    assert sorted(project.toc_pages()) == sorted(pages)


EMPTY = """requirements.txt vqvae_lib/quantizer.py vqvae_book/__init__.py vqvae_book/notebook.py vqvae_book/results.py
vqvae_book/runs/one.json vqvae_book/figures/style.py vqvae_book/playground.py vqvae_book/playground.html"""
HOUSE = dict.fromkeys(EMPTY.split(), "") | {
    "vqvae_book/figures/__init__.py": "from .style import INK",
    "vqvae_book/figures/prior.py": "def draw():\n    from ..playground import playground",
}
ALL = {"draws", "plain", "reads"}


@pytest.fixture
def house(tmp_path):
    for name, source in HOUSE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    code = {"draws": "figures import prior", "plain": "notebook import say", "reads": "results import measured"}
    for name, what in code.items():
        cells = [new_code_cell("%magic"), new_code_cell(f"from vqvae_book.{what}")]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "executed_anew"),
    [
        ("vqvae_book/figures/prior.py", {"draws"}),
        ("vqvae_book/figures/style.py", {"draws"}),
        ("vqvae_book/playground.html", {"draws"}),
        ("vqvae_book/__init__.py", ALL),
        ("vqvae_book/runs/one.json", {"reads"}),
        ("vqvae_lib/quantizer.py", ALL),
        ("requirements.txt", ALL),
    ],
)
def test_a_change_executes_those_notebooks_that_depend_on_it(house, file, executed_anew):
    before = {name: build.key(house / f"{name}.ipynb", house) for name in ALL}
    (house / file).write_text((house / file).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert {name for name in ALL if before[name] != build.key(house / f"{name}.ipynb", house)} == executed_anew


def test_prose_reaches_the_page_without_an_execution_and_code_does_not(house, monkeypatch):
    monkeypatch.setattr(build, "ROOT", house)
    source, copy = house / "chapters" / "one.ipynb", house / "executed" / "chapters" / "one.ipynb"
    new = f"new\n\n{build.TIMES}\n\n## After the times"
    for path, words, outputs in ((source, new, []), (copy, "old", [new_output("stream", text="2")])):
        path.parent.mkdir(parents=True)
        page = notebook(new_code_cell("1 + 1"), new_markdown_cell(words))
        page.cells[2].outputs, page.metadata.execution = outputs, {"seconds": 1.0}
        nbformat.write(page, path)
    assert build.key(source, house) == build.key(copy, house)
    build.finish(house / "executed")
    page = notebooks.read(copy)
    before, after = page.cells[3].source.split(build.TIMES)
    assert (before, page.cells[2].outputs[0].text) == ("new\n\n", "2")
    assert "| one | 1 |" in after and after.endswith("## After the times")  # each time, and what the source has there
    stamp = copy.stat().st_mtime_ns
    build.finish(house / "executed")
    assert copy.stat().st_mtime_ns == stamp  # nothing is new to Sphinx
    page.cells[2].source = "1 + 2"
    nbformat.write(page, source)
    assert build.key(source, house) != build.key(copy, house)


def test_mode_and_data_belong_to_what_an_execution_depends_on(house, monkeypatch):
    monkeypatch.setenv("HOME", str(house))
    monkeypatch.setenv("USERPROFILE", str(house))
    for name in ("VQVAE_DATA", "VQVAE_QUICK", "VQVAE_STAND_IN"):
        monkeypatch.delenv(name, raising=False)
    key = functools.partial(build.key, house / "plain.ipynb", house)
    keys = [key()]
    monkeypatch.setenv("VQVAE_STAND_IN", "forbid")  # no data here: what ran on the stand-in is not good enough
    keys.append(key())
    file = data_root() / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"four")
    assert build.data_listing() == [(file.name, 4)]
    keys.append(key())
    monkeypatch.setenv("VQVAE_QUICK", "1")
    assert len({*keys, key()}) == 4


@pytest.mark.slow
def test_progress_bars_leave_nothing_on_a_page_and_errors_are_told(tmp_path):
    code = ["from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass\nprint('done')", "1 / 0"]
    page = tmp_path / "page.ipynb"
    nbformat.write(new_notebook(cells=[*map(new_code_cell, code)], metadata=notebooks.METADATA), page)
    command = [sys.executable, "-c", "import sys, build, pathlib; sys.exit(build.run(pathlib.Path(sys.argv[1])))"]
    environment = {**os.environ, **project.STATIC, "PYTHONPATH": str(project.ROOT / "tools")}
    done = subprocess.run([*command, page], env=environment, capture_output=True, text=True)
    assert "ZeroDivisionError" in done.stderr
    assert [output.text for output in notebooks.read(page).cells[0].outputs] == ["done\n"]


@pytest.mark.parametrize("name", ["requirements", "requirements-colab", "requirements-past"])
def test_requirements_are_exact_name_no_host_and_suit_the_package(name):
    lines = (project.ROOT / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+( ; .*)?$", line) for line in lines)
    versions = dict(line.split(" ;")[0].split("==") for line in lines)
    package = tomllib.loads(project.PYPROJECT.read_text(encoding="utf-8"))["project"]
    for requirement in map(Requirement, package["dependencies"]):
        assert versions[requirement.name] in requirement.specifier
