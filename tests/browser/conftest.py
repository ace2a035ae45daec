"""What the tests in a browser share: Chromium where there is one, and a small built book."""

from __future__ import annotations

import os
from collections.abc import Iterator

import chromium
import pytest
import vendor

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make env")


def browser_path() -> str:
    """The browser that the tests drive; without one they are left out, unless one is named."""
    path = chromium.find()
    if path is None:
        pytest.skip(f"no browser. {chromium.REMEDY}")
    return path


@pytest.fixture(scope="package")
def scripts() -> None:
    """The site's own scripts, and axe-core."""
    if not vendor.complete():
        pytest.skip("the site's scripts are not here: python tools/vendor.py, which needs npm")
    os.environ["NODE_PATH"] = str(vendor.MODULES)  # for finish.js of a book that lies elsewhere


@pytest.fixture(scope="package")
def browser() -> Iterator[sync_api.Browser]:
    """Headless Chromium; each test opens its own page, with a fresh profile."""
    with chromium.launch(browser_path()) as browser:
        yield browser


@pytest.fixture
def page(browser) -> Iterator[sync_api.Page]:
    """An empty page, 1280 px wide; a script's error fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(chromium.PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors, errors
