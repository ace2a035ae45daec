"""Sphinx extension: buttons that lead to the repository and to Colab, only where a repository is set."""

from __future__ import annotations

from project import repository
from sphinx.application import Sphinx
from sphinx.config import Config


def add_links(app: Sphinx, config: Config) -> None:
    """Give the theme the repository's address; without one, no button is shown."""
    url = repository()
    if not url:
        return
    config.html_theme_options |= {
        "repository_url": url,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_issues_button": True,
        "use_edit_page_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
