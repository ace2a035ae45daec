"""What a chapter shows besides figures: source code, sentences, tables, pages."""

from __future__ import annotations

import inspect
import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import HTML, Markdown

_embedded: Counter[str] = Counter()


def quick(steps: int, fewer: int = 20) -> int:
    """Return ``steps``, but at most ``fewer`` if ``VQVAE_QUICK=1`` is set.

    Quick mode proves that a chapter's code runs; its results are published nowhere.
    """
    return min(steps, fewer) if os.environ.get("VQVAE_QUICK") == "1" else steps


def source(*things: Callable | type) -> Markdown:
    """Show the source of functions or classes, as it stands in the library."""
    sources = (textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)
    return say("```python\n" + "\n\n".join(sources) + "\n```")


def say(text: str) -> Markdown:
    """Show Markdown that the run made. No math: Colab would not render it."""
    from IPython.display import Markdown  # only there when a notebook runs

    return Markdown(textwrap.dedent(text).strip())


def table(rows: Iterable[Mapping[str, Any]]) -> Markdown:
    """Show rows of named values: four digits of a float, blanks for missing values."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        values = (row.get(name, "") for name in columns)
        lines.append([f"{v:,.4g}" if isinstance(v, float) else str(v) for v in values])
    return say("\n".join(f"| {' | '.join(line)} |" for line in lines))


# What an embed's script of class "later" holds: in the page, or in a script that the
# site's build has made of it (which also loads from a disk), fetched when needed.
LATER = """const later = (root, found) => () => found ??= new Promise((done, fail) => {
  const { dataset: { src }, text } = root.querySelector(".later");
  if (!src) return done(JSON.parse(text));
  const script = Object.assign(document.createElement("script"), { src });
  script.onerror = () => fail(found = undefined); // to be asked for again
  script.onload = () => done(script.later);
  document.head.append(script);
});"""


def embed(module: str, *name: str, **values: Any) -> HTML:
    """Show ``x.html``, which lies beside the module ``x.py``, with values filled in.

    ``@DATA@`` in it stands for the value ``DATA``: text as it is, anything else as JSON
    that is safe in a script. ``@ID@`` stands for an id that is unique on the page, so
    that a file can be shown more than once; ``name`` is a part of the id.
    """
    from IPython.display import HTML  # only there when a notebook runs

    page = Path(module).with_suffix(".html")
    _embedded[page.stem] += 1
    values["ID"] = "-".join(["vq", page.stem, *name, str(_embedded[page.stem])])
    values["LATER"] = LATER

    def fill(found: re.Match) -> str:
        if isinstance(value := values[found[1]], str):
            return value
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.replace("<", "\\u003c")

    return HTML(re.sub("@([A-Z]+)@", fill, page.read_text(encoding="utf-8")))
