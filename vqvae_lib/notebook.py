"""What a chapter shows besides figures: the library's own source, and sentences made by the run."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import Markdown

__all__ = ["say", "source"]


def source(*things: Callable | type) -> Markdown:
    """Show the source of library functions or classes, as it stands in the library."""
    from IPython.display import Markdown  # only there when a notebook runs

    code = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)
    return Markdown(f"```python\n{code}\n```")


def say(text: str) -> Markdown:
    """Show a sentence about a result, made by the run: plain Markdown without maths, which Colab would not set."""
    from IPython.display import Markdown

    return Markdown(textwrap.dedent(text).strip())
