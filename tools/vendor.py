"""Scripts of other projects, from npm: those that the site serves itself, and those that check it.

    python tools/vendor.py

`package-lock.json` pins them and their hashes; npm runs nothing of them. What pages need is copied to `assets/vendor`,
which Sphinx copies into the site's _static: a page asks no other host for anything. Nothing fetched is committed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from project import ROOT

MODULES = ROOT / "node_modules"
SITE = ROOT / "assets" / "vendor"
SERVED = ("katex/LICENSE", "katex/dist/katex.min.css", "katex/dist/fonts/*.woff2")
AXE = MODULES / "axe-core" / "axe.min.js"


def complete() -> bool:
    """Whether all is there, as the lock file has it."""
    stamp = SITE / "package-lock.json"  # written last
    return AXE.exists() and stamp.exists() and stamp.read_bytes() == (ROOT / stamp.name).read_bytes()


def fetch() -> None:
    """Have npm install the packages, unless they are there, and copy what the site serves."""
    if complete():
        return
    if (npm := shutil.which("npm")) is None:
        sys.exit("The site's scripts come from npm, which is missing. Remedy: install Node.js, which includes it")
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=ROOT, check=True)
    shutil.rmtree(SITE, ignore_errors=True)
    for file in [file for pattern in SERVED for file in MODULES.glob(pattern)]:
        target = SITE / file.relative_to(MODULES)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    shutil.copyfile(ROOT / "package-lock.json", SITE / "package-lock.json")


if __name__ == "__main__":
    fetch()
