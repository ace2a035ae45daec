"""What the published book promises: one address in all places, papers that are listed, scripts of its own."""

from __future__ import annotations

import re
import subprocess
import tomllib
from types import SimpleNamespace

import book_site
import notebooks
import project
import pytest
import vendor
import yaml
from docutils import nodes
from docutils.utils import new_document
from myst_nb.sphinx_ import HideCodeCellNode

CHAPTERS = project.ROOT / "chapters"
PAGES = [*project.chapters(), *sorted(CHAPTERS.rglob("*.md"))]
FORK = {"GITHUB_REPOSITORY": "Someone/fork", "GITHUB_SHA": "0" * 40}


def test_the_references_have_every_paper_that_a_page_cites():
    number = r"arXiv:(\d{4}\.\d{4,5})"
    listed = set(re.findall(number, (CHAPTERS / "references.md").read_text(encoding="utf-8")))
    assert {found for path in PAGES for found in re.findall(number, path.read_text(encoding="utf-8"))} <= listed


def test_the_api_reference_has_every_module_of_the_library():
    shown = set(re.findall(r"automodule:: (vqvae_lib\.\S+)", (CHAPTERS / "api.md").read_text(encoding="utf-8")))
    modules = {f"vqvae_lib.{path.stem}" for path in (project.ROOT / "vqvae_lib").glob("[a-z]*.py")}
    assert shown == modules


def test_the_citation_names_the_book_and_its_version():
    cited, site = (yaml.safe_load((project.ROOT / name).read_text("utf-8")) for name in ("CITATION.cff", "_config.yml"))
    package = tomllib.loads(project.PYPROJECT.read_text(encoding="utf-8"))["project"]
    assert (cited["title"], cited["version"]) == (site["title"], package["version"])
    assert [author["name"] for author in cited["authors"]] == [site["author"]]


def code(source: str, language: str = "python") -> nodes.literal_block:
    return nodes.literal_block(source, source, language=language)


def test_reading_takes_a_third_of_a_second_per_word_four_per_line_of_code_half_a_minute_per_figure():
    page, folded = new_document("page"), HideCodeCellNode()
    folded += code("x = 1\n" * 1_000)
    page += [folded, nodes.raw("", "state " * 1_000, format="html"), code("x = 1\n\ny = 2\n"), nodes.image()]
    page += [nodes.paragraph("", "word " * 340), code("printed " * 170, "none")]
    assert book_site.seconds(page) == pytest.approx(2 * 4 + 30 + 120 + 60)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/Owner/book.name.git", "https://github.com/Owner/book.name"),
        ("https://user:secret@github.com/Owner/book", "https://github.com/Owner/book"),
        ("git@github.com:Owner/book.git", "https://github.com/Owner/book"),
        ("ssh://git@gitlab.com/group/part/book.git", "https://gitlab.com/group/part/book"),
        ("git@elsewhere.org:Owner/book.git", ""),
        ("https://github.com.elsewhere.org/Owner/book", ""),
        ("https://elsewhere.org/github.com/Owner/book", ""),
        ("http://github.com/Owner/book", ""),
        ("https://github.com/Owner", ""),
        ("/srv/github.com/Owner/book.git", ""),
        ("../book", ""),
        ("", ""),
    ],
)
def test_a_clones_origin_is_an_address_where_everybody_can_reach_it(remote, address):
    assert project.web_address(remote) == address


def test_the_address_is_that_of_the_build_else_the_one_set_else_the_origin_and_stored_notebooks_ignore_the_origin(
    monkeypatch, tmp_path
):
    stored = notebooks.first_cell().source
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(project, "recorded_repository", lambda: "")
    git = ["git", "-C", tmp_path]
    subprocess.run([*git, "init", "-q"], check=True)
    assert project.repository({}) == ""
    subprocess.run([*git, "remote", "add", "origin", "git@github.com:Owner/clone.git"], check=True)
    assert project.repository({}) == "https://github.com/Owner/clone"
    assert project.repository(FORK) == "https://github.com/Someone/fork"
    assert notebooks.first_cell().source == stored
    monkeypatch.setattr(project, "recorded_repository", lambda: "https://github.com/Owner/set")
    assert project.repository({}) == "https://github.com/Owner/set"
    monkeypatch.setattr(project, "recorded_repository", lambda: "")
    monkeypatch.setenv("PATH", "")  # no git
    assert project.repository({}) == ""


def configured(monkeypatch, recorded: str, environment: dict[str, str]) -> SimpleNamespace:
    """What the Sphinx extension makes of an empty configuration."""
    for name in FORK:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(project, "recorded_repository", lambda: recorded)
    config = SimpleNamespace(html_theme_options={})
    book_site.add_links(None, config)
    return config


@pytest.mark.parametrize("environment", [{}, FORK])
def test_all_places_agree_on_the_repository_and_a_fork_overrides_it(monkeypatch, environment):
    config = configured(monkeypatch, "https://github.com/Owner/Book", environment)
    name, commit = ("Someone/fork", "@" + "0" * 40) if environment else ("Owner/Book", "")
    assert config.html_theme_options["repository_url"] == f"https://github.com/{name}"
    assert "colab_url" in config.html_theme_options["launch_buttons"]
    owner, book = name.split("/")
    assert config.html_baseurl == config.ogp_site_url == f"https://{owner.lower()}.github.io/{book}/"
    assert project.site_address({"GITHUB_REPOSITORY": "Me/me.github.io"}) == "https://me.github.io/"
    assert f'git+https://github.com/{name}{commit}\\"' in notebooks.published(project.chapters()[0])


def test_a_repository_elsewhere_has_buttons_but_for_colab_and_none_has_none(monkeypatch):
    options = configured(monkeypatch, "https://gitlab.com/Owner/book", {}).html_theme_options
    assert options["repository_url"] == "https://gitlab.com/Owner/book"
    assert "launch_buttons" not in options  # Colab opens what is on GitHub
    monkeypatch.setattr(project, "origin", lambda: "")
    assert configured(monkeypatch, "", {}).html_theme_options == {}


@pytest.fixture
def npm(tmp_path, monkeypatch):
    asked = []

    def install(command, cwd, check):
        asked.append(command)
        for pattern in (*vendor.SERVED, "axe-core/axe.min.js", "katex/dist/katex.js"):
            file = cwd / "node_modules" / pattern.replace("*", "font")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(pattern)

    monkeypatch.setattr(vendor, "ROOT", tmp_path)
    monkeypatch.setattr(vendor, "MODULES", tmp_path / "node_modules")
    monkeypatch.setattr(vendor, "SITE", tmp_path / "assets" / "vendor")
    monkeypatch.setattr(vendor, "AXE", tmp_path / "node_modules" / "axe-core" / "axe.min.js")
    monkeypatch.setattr(vendor.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(vendor.subprocess, "run", install)
    (tmp_path / "package-lock.json").write_text("first")
    return asked


def test_the_sites_scripts_are_fetched_once_and_again_when_the_lock_file_changes(npm, tmp_path):
    for _ in range(2):
        vendor.fetch()
    assert len(npm) == 1 and "--ignore-scripts" in npm[0]
    assert len(list((tmp_path / "assets" / "vendor").rglob("*.*"))) == len(vendor.SERVED)  # the lock file, no LICENSE
    (tmp_path / "package-lock.json").write_text("second")
    assert not vendor.complete()
    vendor.fetch()
    assert len(npm) == 2
