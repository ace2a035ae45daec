"""Sphinx extension: what the site says of itself, and where its buttons lead.

Buttons to the repository and to Colab, canonical links, the sitemap and the social card need to know where the
repository lives: without an address there are none of them, rather than links that lead nowhere.
"""

from __future__ import annotations

import posixpath
import re
from html import escape

from project import repository, site_address
from sphinx.application import Sphinx
from sphinx.config import Config

SOCIAL_CARD = "_static/social-card.png"
# Of pages that have no text of their own, the index and the search.
DESCRIPTION = "The vector-quantized variational autoencoder, from its equations to a trained codebook, in PyTorch."
NOTEBOOK_LINK = re.compile(r'href="([\w./-]+)\.ipynb(?=["#])')
PLAIN_CODE = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')  # names, punctuation, spaces
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
        config.sitemap_excludes = ["search.html", "genindex.html"]


def add_to_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Describe a page that nothing else describes; link the whole book as a PDF where the build makes one."""
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


def mend_links(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Turn links to notebooks that a cell has printed, `02_quantizer.ipynb`, into links to their pages."""

    def mend(found: re.Match) -> str:
        page = posixpath.normpath(posixpath.join(posixpath.dirname(pagename), found[1]))
        return f'href="{found[1]}.html' if page in app.env.found_docs else found[0]

    context["body"] = NOTEBOOK_LINK.sub(mend, context.get("body", ""))


def lighten_code(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Take the marks off that part of code which is coloured like all text: a third of a chapter's bytes."""
    context["body"] = PLAIN_CODE.sub(r"\1", context.get("body", ""))


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
    app.add_config_value("book_pdf", "", "html")  # its path in the site; set by build.py, which makes it afterwards
    app.connect("html-page-context", mend_links)
    app.connect("html-page-context", lighten_code)
    app.connect("html-page-context", add_to_page, priority=502)  # after the theme, which makes the menu of downloads
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)  # before napoleon, which writes stars
    app.connect("autodoc-process-signature", mend_signature)
    if site_address():
        app.setup_extension("sphinx_sitemap")  # it can't do without an address
    return {"parallel_read_safe": True, "parallel_write_safe": True}
