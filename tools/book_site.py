"""Sphinx extension: how pages look beyond their style sheet, what the site says of itself, where its buttons lead.

Buttons to the repository and to Colab, canonical links, the sitemap and the social card need to know where the
repository lives: without an address there are none of them, rather than links that lead nowhere.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
from html import escape
from pathlib import Path

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput
from PIL import Image
from project import STATIC, repository, site_address
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms import SphinxTransform

# Of pages that have no text of their own, the index and the search.
DESCRIPTION = "The vector-quantized variational autoencoder, from its equations to a trained codebook, in PyTorch."
NOTEBOOK_LINK = re.compile(r'href="([\w./-]+)\.ipynb(?=["#])')
SPECIAL = re.compile(r"(``.*?``)|[|*]")
CAPTION = re.compile(r"((Figure|Table) (\w+)\.(\w+))\.")


class Captions(SphinxTransform):
    """Give a paragraph that begins with a strong "Figure 5.1." or "Table 5.1." its style, and an id for links to it."""

    default_priority = 870  # before MyST asks where links lead

    def apply(self) -> None:
        # What pages' links to each other can name, and (Markdown in outputs has overwritten it) a page's to itself.
        places = self.document.myst_slugs = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        for strong in self.document.findall(nodes.strong):
            found, paragraph = CAPTION.fullmatch(strong.astext()), strong.parent
            if found and isinstance(paragraph, nodes.paragraph) and paragraph.astext().startswith(found[0]):
                name = "-".join(found.groups()[1:]).lower()
                paragraph["ids"].append(name)
                paragraph["classes"].append("caption")
                places[name] = (strong.line, name, found[1])


def seconds(node: nodes.Node) -> float:
    """What a page, or a part of one, takes to read: 170 words per minute, 4 s per line of code, 30 s per figure."""
    if isinstance(node, (HideCodeCellNode, nodes.raw, nodes.comment)):
        return 0
    if isinstance(node, nodes.image):
        return 30
    if isinstance(node, nodes.literal_block) and "python" in node.get("language", ""):
        return 4 * sum(bool(line.strip()) for line in node.astext().splitlines())
    return len(node.split()) * 60 / 170 if isinstance(node, nodes.Text) else sum(map(seconds, node.children))


def fold(self: nodes.NodeVisitor, node: HideCodeCellNode) -> None:
    """Begin the folded part of a cell: a small word to click, where MyST-NB would have a bar."""
    code, kind = node.astext(), "code" if "above-input" in node["classes"] else "output"
    kind = "setup" if code.startswith("# Setup") else "imports" if code.startswith(("import ", "from ")) else kind
    of = " of this figure" if node.parent and any(node.parent.findall(nodes.image)) else ""
    start = f'<details class="hide {" ".join(node["classes"])}">'
    self.body.append(f'{start}<summary aria-label="Show the {kind}{of}">{kind}</summary>\n')


def write_tex(self: nodes.NodeVisitor, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as its TeX, for finish.js."""
    tag = "div" if isinstance(node, nodes.math_block) else "span"
    self.body.append(self.starttag(node, tag, self.encode(node.astext()), CLASS="math") + f"</{tag}>")
    raise nodes.SkipNode


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Set the math of finished pages, and cut what they load to what they use; a fault of finish.js is the build's."""
    if app.builder.format == "html" and not exception:
        for path in Path(app.outdir, "_images").glob("*.png"):  # as WebP the same pixels take a quarter less
            with Image.open(path) as picture:
                picture.save(path.with_suffix(".webp"), lossless=True)
            path.unlink()
        subprocess.run(["node", Path(__file__).with_name("finish.js"), app.outdir], check=True)


def add_links(app: Sphinx, config: Config) -> None:
    """Give theme and extensions the addresses of repository and site, where they are known."""
    if url := repository():
        buttons = ("use_repository_button", "use_issues_button", "use_edit_page_button")
        config.html_theme_options |= {"repository_url": url, "repository_branch": "main"} | dict.fromkeys(buttons, True)
    if site := site_address():
        config.html_theme_options["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
        config.html_baseurl = config.ogp_site_url = site
        config.ogp_image = "_static/social-card.png"
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["search.html", "genindex.html"]


def mend_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Mend links; say how long a chapter takes to read; describe a page that nothing else describes; link the PDF."""

    def mend(found: re.Match) -> str:  # a link to a notebook that a cell has printed becomes one to its page
        page = posixpath.normpath(posixpath.join(posixpath.dirname(pagename), found[1]))
        return f'href="{found[1]}.html' if page in app.env.found_docs else found[0]

    context["body"] = NOTEBOOK_LINK.sub(mend, context.get("body", ""))
    if doctree and re.fullmatch(r"chapters/[^/]+\.ipynb", app.env.doc2path(pagename, base=False)):
        time = f'<p class="reading-time">About {max(5, 5 * round(seconds(doctree) / 300))} minutes to read.</p>'
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{time}", 1)
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
    app.add_transform(Captions)
    app.add_html_math_renderer("katex", (write_tex, None), (write_tex, None))
    app.add_node(HideCodeCellNode, override=True, html=(fold, depart_HideCellInput))
    app.connect("config-inited", add_links)
    app.connect("html-page-context", mend_page, priority=502)  # after the theme, which makes the menu of downloads
    app.connect("build-finished", finish, priority=900)  # after the theme, which writes the colors of code
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)  # before napoleon, which writes stars
    if site_address():
        app.setup_extension("sphinx_sitemap")  # it can't do without an address
    return {"parallel_read_safe": True, "parallel_write_safe": True}
