"""What the published book promises: one address in all places, papers that are listed, scripts of its own."""

from __future__ import annotations

import re
from types import SimpleNamespace

import book_site
import notebooks
import project
import pytest
import vendor

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


@pytest.fixture
def npm(tmp_path, monkeypatch):
    asked = []

    def install(command, cwd, check):
        asked.append(command)
        for pattern in (*vendor.SERVED, "axe-core/axe.min.js", "mathjax/es5/other.js"):
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
