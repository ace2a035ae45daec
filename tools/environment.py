"""Make the environments of the book.

    python tools/environment.py [book|bench|colab|past|lowest]

`.venv` builds and tests it; the others have the benchmarks' peers, Colab's versions, those of Colab's past, and the
lowest that pyproject.toml allows. Runs on any Python from 3.8. uv does the work; pip installs it where it is missing.
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
BOOK = sys.executable if (3, 11) <= sys.version_info[:2] <= (3, 13) else "3.12"
# name: (folder, Python, what uv is asked to install)
ENVIRONMENTS = {
    "book": (".venv", BOOK, "-r requirements.txt -e ."),
    "bench": (".venv-bench", BOOK, "-r benchmarks/requirements.txt -e ."),
    # Here the package is brought in by each notebook's first cell: that is what the check is about.
    "colab": (".venv-colab", "3.13", "-r requirements-colab.txt"),
    "past": (".venv-past", "3.12", "-r requirements-past.txt -e ."),
    "lowest": (".venv-lowest", "3.11", "--resolution lowest-direct --group tests -e ."),
}


def find_uv():
    """The uv on PATH, else one of our own."""
    own = ROOT / ".venv-uv" / BIN
    if not (shutil.which("uv") or shutil.which("uv", path=own)):
        subprocess.run([sys.executable, "-m", "venv", own.parent], check=True)
        subprocess.run([own / "python", "-m", "pip", "install", "-qq", "uv"], check=True)
    return shutil.which("uv") or shutil.which("uv", path=own)


def main():
    folder, python, install = ENVIRONMENTS[sys.argv[1] if len(sys.argv) > 1 else "book"]
    stamp, words = ROOT / folder / "book-stamp.txt", install.split()
    files = ["pyproject.toml", "requirements.txt", *(word for word in words if word.endswith(".txt"))]
    digest = hashlib.sha256(install.encode() + b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    start, uv = time.perf_counter(), find_uv()
    print(f"==> installing into {folder} (a few minutes the first time)", flush=True)
    # pyenv's stand-ins for versions that are not chosen would stop uv's search.
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("3.*/bin")
    os.environ["PATH"] = os.pathsep.join([*map(str, versions), os.environ["PATH"]])
    if not stamp.parent.exists():
        subprocess.run([uv, "venv", "-q", "--seed", "-p", python, folder], cwd=ROOT, check=True)
    subprocess.run([uv, "pip", "install", "-q", "-p", folder, *words], cwd=ROOT, check=True)
    stamp.write_text(digest)
    print(f"==> done in {time.perf_counter() - start:.0f} s: {folder} is ready", flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"The environment could not be created: {error.cmd[0]} ended with status {error.returncode}.")
