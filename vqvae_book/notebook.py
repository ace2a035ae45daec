"""What a chapter shows besides figures: source code, sentences, tables."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown


def quick(steps: int, fewer: int = 20) -> int:
    """Return ``steps``, at most ``fewer`` where the environment has ``VQVAE_QUICK=1``.

    Quick mode proves that a chapter's code runs; its results are published nowhere.
    """
    return min(steps, fewer) if os.environ.get("VQVAE_QUICK") == "1" else steps


def source(*things: Callable | type) -> Markdown:
    """Show the source of functions or classes, as it stands in the library."""
    sources = (textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)
    return say("```python\n" + "\n\n".join(sources) + "\n```")


def say(text: str) -> Markdown:
    """Show Markdown that the run made; without maths, which Colab would not set."""
    from IPython.display import Markdown  # only there when a notebook runs

    return Markdown(textwrap.dedent(text).strip())


def table(rows: Iterable[Mapping[str, Any]]) -> Markdown:
    """Show rows of named values; floats get four figures, what lacks stays empty."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        values = (row.get(name, "") for name in columns)
        lines.append([f"{v:,.4g}" if isinstance(v, float) else str(v) for v in values])
    return say("\n".join(f"| {' | '.join(line)} |" for line in lines))
