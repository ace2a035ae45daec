"""The project's own promises: notebooks in their stored form, README and CI in agreement, one place for the address."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import build
import nbformat
import notebooks
import project
import pytest
import yaml
from packaging.requirements import Requirement

from vqvae_lib.data import data_root

NOTEBOOKS = project.chapters()
README = (project.ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (project.ROOT / "Makefile").read_text(encoding="utf-8")
CI = (project.ROOT / ".ci" / "run").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads(project.PYPROJECT.read_text(encoding="utf-8"))


def notebook(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    title = nbformat.v4.new_markdown_cell("# A title")
    return nbformat.reads(notebooks.normalised(nbformat.v4.new_notebook(cells=[title, *cells])), as_version=4)


def faults(tmp_path, *cells: nbformat.NotebookNode) -> str:
    path = tmp_path / "page.ipynb"
    path.write_text(notebooks.normalised(notebook(*cells)), encoding="utf-8")
    return " ".join(notebooks.faults(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(project.ROOT / "chapters").as_posix())
def test_notebook_is_in_its_stored_form(path):
    assert notebooks.faults(path) == []


def test_stored_form_drops_outputs_and_what_editors_leave():
    code = nbformat.v4.new_code_cell("1 + 1", execution_count=3, metadata={"tags": ["hide-input"], "scrolled": True})
    code.outputs = [nbformat.v4.new_output("stream", text="2\n")]
    kept = notebook(code)
    assert kept.cells[-1].outputs == []
    assert kept.cells[-1].execution_count is None
    assert kept.cells[-1].metadata == {"tags": ["hide-input"], **notebooks.FOLDED}  # folded everywhere
    assert kept.metadata == notebooks.METADATA


def test_stored_form_is_stable_and_its_ids_are_unique_and_follow_the_content():
    twice = [nbformat.v4.new_code_cell("1 + 1") for _ in range(2)]
    first, second = notebook(*twice), notebook(*twice)
    assert first == second == nbformat.reads(notebooks.normalised(first), as_version=4)
    assert len({cell.id for cell in first.cells}) == len(first.cells)


def test_set_up_cell_is_put_in_once_and_an_older_one_is_replaced():
    old = nbformat.v4.new_code_cell(notebooks.first_cell().source.replace("--no-deps", "--upgrade"))
    sources = [cell.source for cell in notebook(old).cells]
    assert sources == ["# A title", notebooks.first_cell().source]


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (nbformat.v4.new_code_cell("figures.usage(counts)"), "without alternative text"),
        (nbformat.v4.new_code_cell("fig = draw()\nfig"), "without alternative text"),
        (nbformat.v4.new_markdown_cell("```{note}\nA directive.\n```"), "directive or role"),
        (nbformat.v4.new_markdown_cell("A {ref}`role`."), "directive or role"),
        (nbformat.v4.new_markdown_cell("$$a \\\\ b$$\n\n$$c \\\\ d \\tag{1}$$"), "lines and a tag between"),
        (nbformat.v4.new_markdown_cell("# Another title"), "2 headings of the first level"),
        (nbformat.v4.new_markdown_cell("### Too deep"), "skips a heading level"),
    ],
)
def test_faults_are_found(tmp_path, cell, fault):
    assert fault in faults(tmp_path, cell)


def test_sound_cells_have_no_faults(tmp_path):
    picture = nbformat.v4.new_code_cell("fig", metadata={"mystnb": {"image": {"alt": "A line that rises."}}})
    text = nbformat.v4.new_markdown_cell(
        "## Part\n\n$\\mathcal{L}$, $e_{k}$, $$a \\\\ b$$ $$c \\tag{1}$$\n\n```python\n# a comment\n```"
    )
    assert faults(tmp_path, text, picture) == ""


def test_a_picture_without_alternative_text_is_found_after_execution():
    cell = nbformat.v4.new_code_cell("draw()")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "aGk="})]
    executed = nbformat.v4.new_notebook(cells=[cell])
    assert notebooks.nameless_pictures(executed) == ["draw()"]
    cell.metadata = nbformat.from_dict({"mystnb": {"image": {"alt": "Six points."}}})
    assert notebooks.nameless_pictures(executed) == []


def test_set_up_cell_says_what_is_missing_where_it_cannot_install(tmp_path):
    """In an interpreter that sees no site-packages, with no source known, the cell raises an error with the remedy."""
    script = tmp_path / "cell.py"
    template = notebooks.TEMPLATE.read_text(encoding="utf-8").replace("@REPOSITORY@", "")
    script.write_text(template, encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "-S", script], capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode == 1
    assert "pip install -e ." in done.stderr


def test_the_table_of_contents_names_every_page_and_no_other():
    toc = yaml.safe_load((project.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"], *(page["file"] for part in toc.get("parts", []) for page in part["chapters"] or [])]
    found = {path for path in (project.ROOT / "chapters").rglob("*") if path.suffix in {".ipynb", ".md"}}
    found = {path for path in found if ".ipynb_checkpoints" not in path.parts}
    assert sorted(pages) == sorted(path.relative_to(project.ROOT).with_suffix("").as_posix() for path in found)


def test_readme_names_the_commands_that_ci_calls_and_all_exist():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.M))
    in_readme = set(re.findall(r"`make ([a-z-]+)", README))
    in_ci = set(re.findall(r"\bmake ([a-z-]+)", CI))
    assert in_readme <= targets
    assert in_ci <= targets
    assert {"book", "test", "lint", "colab-check"} <= in_ci & in_readme


def test_readme_gives_the_commands_that_make_runs():
    """The plain commands, for those without make, are the Makefile's own."""
    plain = set(re.findall(r"^\.venv/bin/python (-m pytest .+|tools/\S+ \S+)$", README, flags=re.M))
    made = {line.split("python ", 1)[1] for line in MAKEFILE.splitlines() if line.startswith("\t@$(BIN)/python ")}
    assert {"-m pytest -n 2 --ignore=tests/browser", "tools/build.py test", "tools/build.py site"} <= plain <= made


def test_the_repository_is_written_in_one_place_and_a_fork_overrides_it():
    recorded = PYPROJECT["tool"]["vqvae-book"]["repository"]
    assert project.repository({}) == recorded
    assert project.repository({"GITHUB_REPOSITORY": "someone/fork"}) == "https://github.com/someone/fork"
    assert recorded == "" or project.URL.fullmatch(recorded)
    assert (f"git+{recorded}" if recorded else "") in notebooks.first_cell().source


@pytest.mark.parametrize("given", [None, "elsewhere"])
def test_a_stamp_looks_at_the_data_that_the_library_reads(given, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("VQVAE_DATA", raising=False)
    if given:
        monkeypatch.setenv("VQVAE_DATA", str(tmp_path / given))
    assert build.data_listing() == []
    file = data_root() / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"four")
    assert build.data_listing() == [(file.name, 4)]


def test_an_execution_is_out_of_date_when_its_notebook_or_its_mode_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("VQVAE_DATA", str(tmp_path))
    monkeypatch.delenv("VQVAE_QUICK", raising=False)
    monkeypatch.delenv("VQVAE_STAND_IN", raising=False)
    path = tmp_path / "page.ipynb"
    path.write_text(notebooks.normalised(notebook()), encoding="utf-8")
    keys = [build.key(path)]
    monkeypatch.setenv("VQVAE_STAND_IN", "forbid")  # no data here: what ran on the stand-in is not good enough
    keys.append(build.key(path))
    monkeypatch.setenv("VQVAE_QUICK", "1")
    keys.append(build.key(path))
    path.write_text(notebooks.normalised(notebook(nbformat.v4.new_code_cell("1 + 1"))), encoding="utf-8")
    keys.append(build.key(path))
    assert len(set(keys)) == len(keys)


def test_the_site_refuses_quick_mode(monkeypatch, capsys):
    monkeypatch.setenv("VQVAE_QUICK", "1")
    monkeypatch.setattr(sys, "argv", ["build.py", "site"])
    assert build.main() == 2
    assert "VQVAE_QUICK" in capsys.readouterr().err


def test_requirements_are_exact_and_name_no_host():
    for name in ("requirements.txt", "requirements-colab.txt"):
        lines = (project.ROOT / name).read_text(encoding="utf-8").splitlines()
        assert all(re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+( ; .*)?$", line) for line in lines), name


def test_the_package_asks_for_what_colab_has():
    """All that the package needs is there in a version it accepts, so `--no-deps` is enough."""
    lines = (project.ROOT / "requirements-colab.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split(" ;")[0].split("==") for line in lines)
    for requirement in map(Requirement, PYPROJECT["project"]["dependencies"]):
        assert requirement.name in versions, requirement
        assert versions[requirement.name] in requirement.specifier
