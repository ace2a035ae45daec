"""Run each notebook as Colab would: alone in an empty folder, in an environment with Colab's versions, package absent.

The environment is `.venv-colab` (tools/environment.py colab). The package comes from a local clone of HEAD, brought in
by each notebook's own first cell. VQVAE_QUICK=1 shortens training: nothing that runs here is published. The widgets'
tests run there too, since Colab has ipywidgets 7.

    python tools/colab_check.py [NOTEBOOK ...]   all where none is named
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from environment import BIN
from project import ROOT, chapters, step

PYTHON = ROOT / ".venv-colab" / BIN / "python"


def output(*command: str | Path) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def packages() -> set[str]:
    """What is installed in the environment, as "name==version", without the book's package."""
    lines = output(PYTHON, "-m", "pip", "list", "--format=freeze").splitlines()
    return {line for line in lines if not line.startswith("vqvae")}


def installed() -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vqvae_lib') is None)"
    return subprocess.run([PYTHON, "-c", code], cwd=tempfile.gettempdir()).returncode == 0


def check_widgets() -> str:
    """Run the widgets' tests on this checkout; returns what went wrong, or ""."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", "tests/test_widgets.py"]
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    return f"pytest ended with status {status}" if status else ""


def check(notebook: Path, source: str) -> str:
    """Run one notebook; returns what went wrong, or ""."""
    subprocess.run([PYTHON, "-m", "pip", "uninstall", "-q", "-y", "vqvae_lib"], check=True, stderr=subprocess.DEVNULL)
    if installed():
        return "the package could not be removed before the run"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, notebook.name)
        copy.write_bytes(notebook.read_bytes())
        options = ["--nbmake", "--nbmake-timeout=600", "-q", "-p", "no:cacheprovider"]
        environment = {**os.environ, "VQVAE_SOURCE": source, "VQVAE_QUICK": "1"}
        done = subprocess.run([PYTHON, "-m", "pytest", *options, copy.name], cwd=folder, env=environment)
    if done.returncode:
        return f"pytest ended with status {done.returncode}"
    return "" if installed() else "the first cell did not install the package"


def main() -> int:
    if output("git", "status", "--porcelain", "--untracked-files=no").strip():
        print("The working tree has changes that are not committed: HEAD is checked, not they.")
    before, failed = packages(), {}
    with tempfile.TemporaryDirectory() as folder:
        output("git", "clone", "-q", "--bare", ROOT, Path(folder, "source.git"))
        output("git", "clone", "-q", Path(folder, "source.git"), Path(folder, "checkout"))
        source = f"git+{Path(folder, 'source.git').as_uri()}"
        named = {(ROOT / name).resolve().relative_to(ROOT) for name in sys.argv[1:]}
        found = [
            path
            for path in chapters(Path(folder, "checkout"))
            if not named or path.relative_to(Path(folder, "checkout")) in named
        ]
        for notebook in found:
            name = notebook.relative_to(Path(folder, "checkout")).as_posix()
            with step(f"Colab check of {name}"):
                fault = check(notebook, source)
            if fault:
                failed[name] = fault
    with step("Colab check of the widgets"):
        fault = check_widgets()
    if fault:
        failed["tests/test_widgets.py"] = fault
    if changed := before ^ packages():
        failed["environment"] = f"a notebook changed Colab's own packages: {sorted(changed)}"
    for name, fault in failed.items():
        print(f"{name}: {fault}", file=sys.stderr)
    print(f"Colab check: {len(found)} notebooks, {len(failed)} faults")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
