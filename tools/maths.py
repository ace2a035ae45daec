"""Maths set by the build: KaTeX makes HTML, and MathML for screen readers, of each formula; no page needs a script."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util import logging

STYLES = "vendor/katex/dist/katex.min.css"
LOG = logging.getLogger(__name__)


@functools.cache
def katex() -> subprocess.Popen:
    """One process of Node.js for all formulas; it ends with this one, which holds its input open."""
    command = ["node", Path(__file__).with_suffix(".js")]  # finds KaTeX above itself or in NODE_PATH
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


@functools.cache
def typeset(tex: str, display: bool) -> dict[str, str]:
    """What KaTeX makes of a formula: "html", or a "fault"."""
    process = katex()
    print(json.dumps({"tex": tex, "displayMode": display}), file=process.stdin, flush=True)
    if not (answer := process.stdout.readline()):
        raise ExtensionError("KaTeX, which sets the maths, is not here. Remedy: python tools/vendor.py")
    return json.loads(answer)


def visit(self: nodes.NodeVisitor, node: nodes.math | nodes.math_block) -> None:
    """Write a formula into a page; one that KaTeX can't set is a warning, which fails the build."""
    tag = "div" if isinstance(node, nodes.math_block) else "span"
    made = typeset(node.astext(), tag == "div")
    if "fault" in made:
        LOG.warning("a formula can't be set, %s: %s", node.astext(), made["fault"], location=node)
    self.body.append(self.starttag(node, tag, "", CLASS="math") + made.get("html", "") + f"</{tag}>")
    raise nodes.SkipNode
