"""What a chapter shows besides figures: the library's own source, and sentences made by the run."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown

__all__ = ["say", "source", "table"]


def source(*things: Callable | type) -> Markdown:
    """Show the source of library functions or classes, as it stands in the library."""
    from IPython.display import Markdown  # only there when a notebook runs

    code = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)
    return Markdown(f"```python\n{code}\n```")


def say(text: str) -> Markdown:
    """Show a sentence about a result, made by the run: plain Markdown without maths, which Colab would not set."""
    from IPython.display import Markdown

    return Markdown(textwrap.dedent(text).strip())


def table(rows: Iterable[Mapping[str, Any]]) -> Markdown:
    """Show rows of named values as one table; a value that a row lacks stays empty. Floats get four figures."""
    from IPython.display import Markdown

    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))

    def text(value: Any) -> str:
        return f"{value:,.4g}" if isinstance(value, float) else str(value)

    lines = [columns, ["---"] * len(columns), *([text(row.get(name, "")) for name in columns] for row in rows)]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))
