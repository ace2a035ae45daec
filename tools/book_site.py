"""Sphinx extension: what the site says of itself, and where its buttons lead.

Buttons to the repository and to Colab, canonical links, the sitemap and the social card need to know where the
repository lives: without an address there are none of them, rather than links that lead nowhere.
"""

from __future__ import annotations

import re

from project import repository, site_address
from sphinx.application import Sphinx
from sphinx.config import Config

SOCIAL_CARD = "_static/social-card.png"
SPECIAL = re.compile(r"(``.*?``)|[|*]")


def add_links(app: Sphinx, config: Config) -> None:
    """Give theme and extensions the addresses of repository and site, where they are known."""
    if url := repository():
        config.html_theme_options |= {
            "repository_url": url,
            "repository_branch": "main",
            "use_repository_button": True,
            "use_issues_button": True,
            "use_edit_page_button": True,
            "launch_buttons": {"colab_url": "https://colab.research.google.com"},
        }
    if site := site_address():
        config.html_baseurl = site
        config.ogp_site_url = site
        config.ogp_image = SOCIAL_CARD
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["search.html", "genindex.html", "py-modindex.html"]


def mend_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep the bars of norms, ``||z||``, and the star of ``*spatial``: reStructuredText has other uses for them."""
    if lines[0].startswith("Alias for field number"):  # of named tuples: says nothing
        lines.clear()
    lines[:] = [SPECIAL.sub(lambda found: found[1] or "\\" + found[0], line) for line in lines]


def mend_signature(app: Sphinx, what: str, name: str, thing: object, options: object, text: str, result: str) -> tuple:
    """Drop a mark that Sphinx leaves in the signatures of dataclasses, ``~typing.Literal``."""
    return text and text.replace("~typing.", ""), result


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", add_links)
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)  # before napoleon, which writes stars
    app.connect("autodoc-process-signature", mend_signature)
    if site_address():
        app.setup_extension("sphinx_sitemap")  # it can't do without an address
    return {"parallel_read_safe": True, "parallel_write_safe": True}
