"""Run each notebook as Colab would: alone in an empty folder, in an environment with Colab's versions, package absent.

    python tools/colab_check.py [--seconds N] [NOTEBOOK ...]   all where none is named

With ``--seconds`` it starts no further notebook after that time, and names those left out; one is always tried.
The package comes from a local clone of HEAD, installed by each notebook's own first cell. VQVAE_QUICK=1 shortens
training: nothing that runs here is published.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import BIN
from project import ROOT, chapters

PYTHON = ROOT / ".venv-colab" / BIN / "python"
PYTEST = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--nbmake", "--nbmake-timeout=600"]


def output(*command: str | Path) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def installed() -> set[str]:
    """What is installed in the environment, as "name==version"."""
    return set(output(PYTHON, "-m", "pip", "list", "--format=freeze").splitlines())


def check(notebook: Path, source: str, before: set[str]) -> str:
    """Run one notebook; returns what went wrong, or ""."""
    output(PYTHON, "-m", "pip", "uninstall", "-q", "-y", "vqvae_lib")
    if installed() != before:
        return "uninstalling the package did not restore the environment"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, notebook.name)
        copy.write_bytes(notebook.read_bytes())
        environment = {**os.environ, "VQVAE_SOURCE": source, "VQVAE_QUICK": "1"}
        if status := subprocess.run([*PYTEST, copy.name], cwd=folder, env=environment).returncode:
            return f"pytest ended with status {status}"
    new = installed() ^ before
    ours = len(new) == 1 and new.pop().startswith("vqvae")
    return "" if ours else f"the first cell should install only our package, but changed: {sorted(new)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("notebook", nargs="*", type=Path)
    asked, start = parser.parse_args(), time.monotonic()
    if output("git", "status", "--porcelain", "--untracked-files=no").strip():
        print("The working tree has uncommitted changes: HEAD is checked, without them.")
    failed, before = {}, {package for package in installed() if not package.startswith("vqvae")}
    with tempfile.TemporaryDirectory() as folder:
        bare, checkout = Path(folder, "source.git"), Path(folder, "checkout")
        output("git", "clone", "-q", "--bare", ROOT, bare)
        output("git", "clone", "-q", bare, checkout)
        wanted = {path.resolve().relative_to(ROOT) for path in asked.notebook}
        found = [path for path in chapters(checkout) if not wanted or path.relative_to(checkout) in wanted]
        for notebook in found:
            name = notebook.relative_to(checkout).as_posix()
            if failed and time.monotonic() - start > asked.seconds:
                print(f"==> {name}: left out, no time")
                continue
            print(f"==> {name}", flush=True)
            failed[name] = check(notebook, f"git+{bare.as_uri()}", before)
    faults = [f"{name}: {fault}" for name, fault in failed.items() if fault]
    print("\n".join([*faults, f"Colab check: {len(failed)} of {len(found)} notebooks, {len(faults)} faults"]))
    return 1 if faults or not found else 0


if __name__ == "__main__":
    sys.exit(main())
