"""Facts about the project that more than one tool needs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
# For pages that are read with no kernel behind them: no progress bars. tqdm's bars for notebooks ignore TQDM_DISABLE;
# where a variable begins with SPYDER, tqdm.auto takes plain ones.
STATIC = {"TQDM_DISABLE": "1", "SPYDER_PLAIN_BARS": "1"}


def recorded_repository() -> str:
    """The repository's web address as pyproject.toml has it, the one place where it is written by hand, or ""."""
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["vqvae-book"]["repository"]


def web_address(remote: str) -> str:
    """The web address of a repository that git reaches at `remote`, or "": known of github.com and gitlab.com alone."""
    start, path = r"(?:https://(?:[^/@]+@)?|ssh://git@|git@)(github|gitlab)\.com[:/]", r"([\w.-]+(?:/[\w.-]+)+)"
    found = re.fullmatch(start + path, remote.removesuffix("/").removesuffix(".git"))
    return f"https://{found[1]}.com/{found[2]}" if found else ""


def origin() -> str:
    """The web address of what this clone was made from, or "", also where git is missing."""
    return web_address(subprocess.getoutput(f'git -C "{ROOT}" remote get-url origin'))  # noqa: S605 (our own path)


def repository(environment: Mapping[str, str] = os.environ) -> str:
    """The repository's web address, or "": on GitHub that of the repository that is built, a fork's for a fork."""
    built = environment.get("GITHUB_REPOSITORY")
    return f"https://github.com/{built}" if built else recorded_repository() or origin()


def site_address(environment: Mapping[str, str] = os.environ) -> str:
    """Where GitHub Pages shows the site, with a trailing slash, or "" where the repository is not on GitHub."""
    if not (found := re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", repository(environment))):
        return ""
    own = f"{found[1].lower()}.github.io"
    return f"https://{own}/" if found[2].lower() == own else f"https://{own}/{found[2]}/"


def install_source(environment: Mapping[str, str] = os.environ) -> str:
    """What a published notebook's setup cell hands to pip, or "": in a build of GitHub's, the very commit built."""
    url, commit = repository(environment), environment.get("GITHUB_SHA", "")
    return f"git+{url}@{commit}".rstrip("@") if url else ""


def chapters(root: Path = ROOT) -> list[Path]:
    """Every notebook of the book below `root`, solutions included, in reading order."""
    found = [path for path in (root / "chapters").glob("**/*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    return sorted(found, key=lambda path: (len(path.parts), path.as_posix()))


def toc_pages(root: Path = ROOT) -> list[str]:
    """Every page of the book below `root`, without its suffix, in the order of the table of contents."""
    text = (root / "_toc.yml").read_text(encoding="utf-8")
    return re.findall(r"^[ -]*(?:root|file): (\S+)", text, re.MULTILINE)


def imports(source: str, package: str = "") -> set[str]:
    """Full names of the modules that Python source imports, relative to `package`, and of what it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found
