"""Scripts of other projects that the site serves itself, so that a page asks no other host for anything.

    python tools/vendor.py

`tools/vendor.json` says, for each folder, which files of which npm package lie there, with the package's version and
hash. npm fetches the packages from the registry that it is configured for. Nothing fetched is committed, and a folder
that is as the list says is not fetched again.

As a Sphinx extension this module points the pages at those scripts where they are there, and leaves the defaults, which
are on public CDNs, where they are not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from project import ROOT

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

LIST = Path(__file__).with_suffix(".json")
SITE = "assets/vendor"  # below `assets`, which Sphinx copies into the site's _static
TESTS = "executed/vendor"


def wanted(folder: str) -> dict[str, dict]:
    """What the list says of a folder: for each package its version, hash and files."""
    return json.loads(LIST.read_text(encoding="utf-8"))[folder]


def complete(folder: str, root: Path = ROOT) -> bool:
    """Whether the folder holds what the list says: `versions.json` is written last, when all else is there."""
    stamp = root / folder / "versions.json"
    return stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == wanted(folder)


def pack(package: str, scratch: Path) -> Path:
    """Let npm fetch a package as the registry has it, running nothing of it; the file.

    Raises:
        OSError: there is no npm, or it could not fetch the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("there is no npm here")
    command = [npm, "pack", package, "--ignore-scripts", "--json", "--loglevel=error"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"npm could not fetch {package} (status {done.returncode})")
    return scratch / json.loads(done.stdout)[0]["filename"]


def unpack(package: Path, name: str, facts: dict, target: Path) -> None:
    """Check a packed npm package against its hash, and write its wanted files to `target`/name.

    Raises:
        ValueError: the package is not the one that the list names, or lacks a file.
    """
    method, expected = facts["integrity"].split("-", 1)
    found = base64.b64encode(hashlib.new(method, package.read_bytes()).digest()).decode()
    if found != expected:
        raise ValueError(
            f"{name} {facts['version']} as npm delivered it has the {method} {found}, and {LIST.name} says {expected}. "
            "Remedy: find out why before you build with it; nothing was unpacked."
        )
    with tarfile.open(package) as archive:
        members = {member.name.removeprefix("package/"): member for member in archive.getmembers() if member.isfile()}
        for pattern in facts["files"]:
            paths = [path for path in members if fnmatch(path, pattern)]
            if not paths:
                raise ValueError(f"{name} {facts['version']} has no file {pattern}. Remedy: mend {LIST.name}.")
            for path in paths:
                file = target / name / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.extractfile(members[path]).read())


def fetch(folder: str = SITE, root: Path = ROOT) -> bool:
    """Fill a folder of the list from npm, unless it is full; whether it is full afterwards."""
    if complete(folder, root):
        return True
    target = root / folder
    shutil.rmtree(target, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for name, facts in wanted(folder).items():
                unpack(pack(f"{name}@{facts['version']}", Path(scratch)), name, facts, target)
    except OSError as error:  # no npm, or no registry
        fallback = "; the pages will load MathJax and the widgets from public CDNs" if folder == SITE else ""
        print(f"==> {folder} stays empty: {error}{fallback}", flush=True)
        return False
    (target / "versions.json").write_text(json.dumps(wanted(folder), indent=2) + "\n", encoding="utf-8")
    print(f"==> fetched {folder}: {', '.join(wanted(folder))}", flush=True)
    return True


def use(app: Sphinx, config: Config) -> None:
    """Point the pages at the scripts of the folder, where it is full."""
    from myst_nb.core.config import ipywidgets_js_factory  # only there when Sphinx runs

    require, bundle = ipywidgets_js_factory().items()  # on CDNs
    defer = {}
    if complete(SITE):
        config.mathjax_path = "vendor/mathjax/es5/tex-svg.js"
        defer = {"defer": "defer"}  # keeps the order
        require = ("vendor/requirejs/require.js", defer)
        bundle = ("vendor/@jupyter-widgets/html-manager/dist/embed-amd.js", defer)
    # Only pages with widgets load these.
    config.nb_ipywidgets_js = dict([require, ("widgets.js", defer), bundle])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", use)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.exit(0 if all([fetch(SITE), fetch(TESTS)]) else 1)
