"""Facts about the project that more than one tool needs."""

from __future__ import annotations

import os
import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
URL = re.compile(r"https://[\w.-]+(/[\w.-]+)+")


def repository(environment: dict[str, str] | None = None) -> str:
    """The repository's web address without a trailing slash, or "" where none is set.

    `GITHUB_REPOSITORY` ("owner/name", set by GitHub Actions) goes before pyproject.toml, so that a fork's site points
    at the fork.
    """
    environment = os.environ if environment is None else environment
    if fork := environment.get("GITHUB_REPOSITORY"):
        return f"{environment.get('GITHUB_SERVER_URL', 'https://github.com')}/{fork}"
    return recorded_repository()


def recorded_repository() -> str:
    """The address as pyproject.toml has it: the one place where it is written."""
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["vqvae-book"]["repository"]


def site_address(environment: dict[str, str] | None = None) -> str:
    """Where GitHub Pages shows the site, with a trailing slash, or "" where the repository is not on GitHub."""
    found = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", repository(environment))
    if not found:
        return ""
    owner, name = found[1].lower(), found[2]
    own = f"{owner}.github.io"
    return f"https://{own}/" if name.lower() == own else f"https://{own}/{name}/"


def install_source(environment: dict[str, str] | None = None) -> str:
    """What a published notebook's set-up cell hands to pip, or "": in a build of GitHub's, the very commit built."""
    environment = os.environ if environment is None else environment
    url, commit = repository(environment), environment.get("GITHUB_SHA", "")
    return f"git+{url}@{commit}".rstrip("@") if url else ""


def chapters(root: Path = ROOT) -> list[Path]:
    """Every notebook of the book below `root`, solutions included, in reading order."""
    found = (root / "chapters").glob("**/*.ipynb")
    kept = [path for path in found if ".ipynb_checkpoints" not in path.parts]
    return sorted(kept, key=lambda path: (len(path.parts), path.as_posix()))


def toc_pages(root: Path = ROOT) -> list[str]:
    """Every page of the book below `root`, without its suffix, in the order of the table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))

    def walk(entry: dict) -> Iterator[str]:
        yield from (entry[key] for key in ("root", "file") if key in entry)
        for children in ("parts", "chapters", "sections"):
            for child in entry.get(children) or []:
                yield from walk(child)

    return list(walk(toc))


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what a long step does and, at its end, how long it took."""
    print(f"==> {what}", flush=True)
    start = time.perf_counter()
    yield
    print(f"==> done in {time.perf_counter() - start:.1f} s: {what}", flush=True)
