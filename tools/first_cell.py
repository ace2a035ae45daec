# Set-up: brings in the book's library where it is missing, in Colab for example.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("vqvae_lib") is None:
    source = os.environ.get("VQVAE_SOURCE") or "@REPOSITORY@"
    if not source:
        raise ModuleNotFoundError(
            "The package vqvae_lib is missing, and this copy of the book names no repository to get it from. "
            "Remedy: clone the book's repository and run `pip install -e .` in it, "
            "or set VQVAE_SOURCE to a source that pip understands."
        )
    print(f"Installing vqvae_lib from {source}; nothing else is installed or changed.")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", source], check=True)
    importlib.invalidate_caches()
