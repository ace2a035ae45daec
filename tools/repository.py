"""Write the repository's address into pyproject.toml, the one place that holds it, and let all others follow: the
set-up cells and the README's paragraph.

python tools/repository.py https://github.com/OWNER/NAME
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from project import PYPROJECT, ROOT, URL, recorded_repository, site_address

README = ROOT / "README.md"
PARAGRAPH = re.compile(r"^\*\*The repository.*?(?=\n\n)", re.MULTILINE | re.DOTALL)


def paragraph(url: str, site: str) -> str:
    """What the README says of the repository's address `url`, and of the site's, where it is known."""
    lines = [f"**The repository** is <{url}>."]
    lines += [f"The book is read at <{site}>."] if site else []
    lines += ["Buttons and notebooks take that address from `pyproject.toml`; a fork's build takes the fork's."]
    return "\n".join(lines)


def main() -> int:
    url = sys.argv[1].rstrip("/").removesuffix(".git") if len(sys.argv) == 2 else ""
    if not URL.fullmatch(url):
        print(f"{url!r} is no repository's address. Remedy: make repository URL=https://github.com/OWNER/NAME")
        return 2
    text = PYPROJECT.read_text(encoding="utf-8")
    PYPROJECT.write_text(re.sub(r'^repository = ".*"$', f'repository = "{url}"', text, flags=re.M), encoding="utf-8")
    if recorded_repository() != url:
        raise RuntimeError(f'{PYPROJECT} has no line `repository = "…"` to write {url} into')
    readme, found = PARAGRAPH.subn(paragraph(url, site_address({})), README.read_text(encoding="utf-8"))
    if found != 1:
        raise RuntimeError(f"{README} has {found} paragraphs that begin with `**The repository`: it needs one")
    README.write_text(readme, encoding="utf-8")
    subprocess.run([sys.executable, Path(__file__).with_name("notebooks.py"), "format"], check=True)
    print(f"The repository is {url}. Commit pyproject.toml, README.md and the notebooks.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
