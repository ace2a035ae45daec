"""Make the environments of the book: `.venv` for building and testing it, `.venv-colab` with Colab's versions,
and `.venv-bench` with the peers of the benchmarks.

python tools/environment.py [book|colab|bench]

Runs on any Python 3.8 or newer with nothing installed. An environment is stamped with a hash of the files that define
it, so a second run ends at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = "Scripts" if os.name == "nt" else "bin"
# name: (folder, Python versions, most wanted first, defining files, whether the package is installed too)
ENVIRONMENTS = {
    "book": (".venv", ("3.12", "3.11", "3.13"), ("requirements.txt", "pyproject.toml"), True),
    "bench": (".venv-bench", ("3.12", "3.11", "3.13"), ("benchmarks/requirements.txt", "requirements.txt"), True),
    # Colab's package is brought in by each notebook's first cell: that is what the check is about.
    "colab": (".venv-colab", ("3.13",), ("requirements-colab.txt",), False),
}


def version(python):
    """The "major.minor" of an interpreter, or "" where it does not start (a pyenv shim without a version, say)."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find_python(wanted):
    """The first interpreter of a wanted version: the running one, on PATH, of pyenv, of uv."""
    if version(sys.executable) in wanted:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for number in wanted:
        candidates = [shutil.which("python" + number), *sorted(pyenv.glob(number + ".*/bin/python"))]
        if shutil.which("uv"):
            found = subprocess.run(["uv", "python", "find", number], capture_output=True, text=True)
            candidates.append(found.stdout.strip())
        for candidate in filter(None, candidates):
            if version(candidate) == number:
                return candidate
    sys.exit(
        "No Python of version {} was found on PATH, in pyenv or through uv. Remedy: install one, from python.org, "
        "with `uv python install {}`, or with your system's packages.".format(" or ".join(wanted), wanted[0])
    )


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "book"
    folder, wanted, files, package = ENVIRONMENTS[name]
    venv, stamp = ROOT / folder, ROOT / folder / "book-stamp.txt"
    python = venv / BIN / ("python.exe" if os.name == "nt" else "python")
    digest = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest and python.exists():
        return
    start, uv = time.perf_counter(), shutil.which("uv")
    print(
        "==> installing into {} with {} (some minutes the first time)".format(folder, "uv" if uv else "pip"), flush=True
    )
    if not python.exists():
        base = find_python(wanted)
        subprocess.run([uv, "venv", "--seed", "-q", "-p", base, venv] if uv else [base, "-m", "venv", venv], check=True)
    if version(python) not in wanted:
        sys.exit(
            "{} holds Python {}, the book needs {}. Remedy: delete {} and run again.".format(
                folder, version(python) or "(broken)", " or ".join(wanted), folder
            )
        )
    install = [uv, "pip", "install", "-q", "-p", python] if uv else [python, "-m", "pip", "install", "-q"]
    subprocess.run([*install, "-r", files[0]], cwd=ROOT, check=True)
    if package:
        subprocess.run([*install, "--no-deps", "-e", "."], cwd=ROOT, check=True)
    stamp.write_text(digest)
    print(f"==> done in {time.perf_counter() - start:.0f} s: {folder} is ready", flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"The environment could not be made: {error.cmd[0]} ended with status {error.returncode}.")
