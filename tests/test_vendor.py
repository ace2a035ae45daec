"""What npm delivers is used only if it is what the list names."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from types import SimpleNamespace

import project
import pytest
import vendor


def packed(path, files: dict[str, bytes]) -> str:
    """Write a package as npm packs it; its hash as npm gives it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A list of one package, and an npm that delivers it and counts how often it is asked."""
    package = tmp_path / "thing-1.0.0.tgz"
    facts = {"version": "1.0.0", "integrity": packed(package, {"a.js": b"a", "b.js": b"b"}), "files": ["a.*"]}
    monkeypatch.setattr(vendor, "LIST", tmp_path / "list.json")
    vendor.LIST.write_text(json.dumps({vendor.SITE: {"thing": facts}}), encoding="utf-8")
    asked = []
    monkeypatch.setattr(vendor, "pack", lambda name, scratch: asked.append(name) or package)
    return SimpleNamespace(root=tmp_path / "book", package=package, asked=asked)


def test_wanted_files_are_fetched_once(registry):
    assert vendor.fetch(root=registry.root) and vendor.fetch(root=registry.root)
    assert registry.asked == ["thing@1.0.0"]
    found = {path.relative_to(registry.root / vendor.SITE).as_posix() for path in registry.root.rglob("*.*")}
    assert found == {"thing/a.js", "versions.json"}


def test_a_change_of_the_list_fetches_anew(registry):
    vendor.fetch(root=registry.root)
    vendor.LIST.write_text(vendor.LIST.read_text(encoding="utf-8").replace("a.*", "b.*"), encoding="utf-8")
    assert not vendor.complete(vendor.SITE, registry.root)
    assert vendor.fetch(root=registry.root)
    assert [path.name for path in registry.root.rglob("*.js")] == ["b.js"]


def test_another_package_than_the_listed_one_is_refused(registry):
    packed(registry.package, {"a.js": b"something else"})
    with pytest.raises(ValueError, match="sha512"):
        vendor.fetch(root=registry.root)
    assert not list(registry.root.rglob("*.js"))
    assert not vendor.complete(vendor.SITE, registry.root)


def test_without_npm_the_site_falls_back_to_the_defaults_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not vendor.fetch(root=tmp_path)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "no npm" in said and "CDNs" in said
    config = SimpleNamespace(mathjax_path="default")
    monkeypatch.setattr(vendor, "complete", lambda folder: False)
    vendor.use(None, config)
    require, own, bundle = config.nb_ipywidgets_js
    assert config.mathjax_path == "default" and own == "widgets.js"
    assert require.startswith("https://") and bundle.startswith("https://")


def test_the_list_pins_versions_and_hashes_and_git_ignores_what_is_fetched():
    ignored = (project.ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for folder in (vendor.SITE, vendor.TESTS):
        assert any(f"{folder}/".startswith(line) for line in ignored if line and line[0] != "#")
        for facts in vendor.wanted(folder).values():
            assert facts["version"].count(".") == 2
            assert facts["integrity"].startswith("sha512-") and len(facts["integrity"]) == 95
