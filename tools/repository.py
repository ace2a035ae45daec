"""Write the repository's address into pyproject.toml, the one place that holds it, and into the set-up cells.

python tools/repository.py https://github.com/OWNER/NAME
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from project import PYPROJECT, URL, recorded_repository


def main() -> int:
    url = sys.argv[1].rstrip("/").removesuffix(".git") if len(sys.argv) == 2 else ""
    if not URL.fullmatch(url):
        print(f"{url!r} is no repository's address. Remedy: make repository URL=https://github.com/OWNER/NAME")
        return 2
    text = PYPROJECT.read_text(encoding="utf-8")
    PYPROJECT.write_text(re.sub(r'^repository = ".*"$', f'repository = "{url}"', text, flags=re.M), encoding="utf-8")
    if recorded_repository() != url:
        raise RuntimeError(f'{PYPROJECT} has no line `repository = "…"` to write {url} into')
    subprocess.run([sys.executable, Path(__file__).with_name("notebooks.py"), "format"], check=True)
    print(f"The repository is {url}. Commit pyproject.toml and the notebooks.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
