"""Sphinx extension: what the site says of itself, and where its buttons lead.

Buttons to the repository and to Colab, canonical links, the sitemap and the social card need to know where the
repository lives: without an address there are none of them, rather than links that lead nowhere.
"""

from __future__ import annotations

import os
import posixpath
import re
from html import escape

from project import STATIC, repository, site_address
from sphinx.application import Sphinx
from sphinx.config import Config

# Of pages that have no text of their own, the index and the search.
DESCRIPTION = "The vector-quantized variational autoencoder, from its equations to a trained codebook, in PyTorch."
NOTEBOOK_LINK = re.compile(r'href="([\w./-]+)\.ipynb(?=["#])')
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
        config.html_baseurl = config.ogp_site_url = site
        config.ogp_image = "_static/social-card.png"
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["search.html", "genindex.html"]


def mend_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Describe a page that nothing else describes; link the book as a PDF where the build makes one; mend links."""

    def mend(found: re.Match) -> str:  # a link to a notebook that a cell has printed becomes one to its page
        page = posixpath.normpath(posixpath.join(posixpath.dirname(pagename), found[1]))
        return f'href="{found[1]}.html' if page in app.env.found_docs else found[0]

    context["body"] = NOTEBOOK_LINK.sub(mend, context.get("body", ""))
    tags = context.get("metatags", "")
    if 'name="description"' not in tags:
        text = escape(f"{context.get('title', 'Search')}. {DESCRIPTION}")
        context["metatags"] = f'{tags}\n<meta name="description" content="{text}" />'
    if not app.config.book_pdf:
        return
    url, text = context["pathto"](app.config.book_pdf, 1), "The whole book as a PDF"
    context["theme_extra_footer"] += f'<p><a href="{url}">{text}</a></p>'
    for group in context["header_buttons"]:
        if group.get("label") == "download-buttons":
            link = {"type": "link", "url": url, "text": "book.pdf", "tooltip": text, "icon": "fas fa-book"}
            group["buttons"].append(link)


def mend_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep the bars of norms, ``||z||``, and the star of ``*spatial``: reStructuredText has other uses for them."""
    if lines[0].startswith("Alias for field number"):  # of named tuples: says nothing
        lines.clear()
    lines[:] = [SPECIAL.sub(lambda found: found[1] or "\\" + found[0], line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    os.environ |= STATIC  # for kernels, where Jupyter Book executes the notebooks itself
    app.add_config_value("book_pdf", "", "html")  # its path in the site; set by build.py, which makes it afterwards
    app.connect("config-inited", add_links)
    app.connect("html-page-context", mend_page, priority=502)  # after the theme, which makes the menu of downloads
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)  # before napoleon, which writes stars
    if site_address():
        app.setup_extension("sphinx_sitemap")  # it can't do without an address
    return {"parallel_read_safe": True, "parallel_write_safe": True}
