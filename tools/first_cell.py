# Setup: installs the book's library if it is missing, for example in Colab.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("vqvae_lib") is None:
    source = os.environ.get("VQVAE_SOURCE") or "@REPOSITORY@"
    if not source:
        raise ModuleNotFoundError(
            "vqvae_lib is missing, and this copy of the book names no repository to "
            "get it from. Remedy: name a source that pip understands, with %env "
            "VQVAE_SOURCE=git+https://github.com/OWNER/NAME in a cell, and run this "
            "one again. Or run `pip install -e .` in a clone of the book, and restart."
        )
    print(f"Installing vqvae_lib from {source}; nothing else is installed or changed.")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", source]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()
