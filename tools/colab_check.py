"""Run each notebook as Colab would: alone in an empty folder, in an environment with Colab's versions, package absent.

    python tools/colab_check.py [NOTEBOOK ...]   all where none is named

The package comes from a local clone of HEAD, installed by each notebook's own first cell. VQVAE_QUICK=1 shortens
training: nothing that runs here is published. With WITHIN=600, none but the first starts after so many seconds.
"""

from __future__ import annotations

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
    end = time.monotonic() + float(os.environ.get("WITHIN", "inf"))
    if output("git", "status", "--porcelain", "--untracked-files=no").strip():
        print("The working tree has uncommitted changes: HEAD is checked, without them.")
    failed, before = {}, {package for package in installed() if not package.startswith("vqvae")}
    with tempfile.TemporaryDirectory() as folder:
        bare, checkout = Path(folder, "source.git"), Path(folder, "checkout")
        output("git", "clone", "-q", "--bare", ROOT, bare)
        output("git", "clone", "-q", bare, checkout)
        wanted = {Path(name).resolve().relative_to(ROOT) for name in sys.argv[1:]}
        found = [path for path in chapters(checkout) if not wanted or path.relative_to(checkout) in wanted]
        for notebook in found:
            name = notebook.relative_to(checkout).as_posix()
            in_time = not failed or time.monotonic() < end
            print(f"==> {name}{'' if in_time else ': left out, no time'}", flush=True)
            failed |= {name: check(notebook, f"git+{bare.as_uri()}", before)} if in_time else {}
    faults = [f"{name}: {fault}" for name, fault in failed.items() if fault]
    print("\n".join([*faults, f"Colab check: {len(failed)} of {len(found)} notebooks, {len(faults)} faults"]))
    return 1 if faults or not found else 0


if __name__ == "__main__":
    sys.exit(main())
