"""What the tests in a browser share: Chromium where there is one, and a small built book."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make env")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser_path() -> str:
    """The browser that `VQVAE_BROWSER` names, else the first Chromium on PATH."""
    named = os.environ.get("VQVAE_BROWSER")
    if named:
        assert Path(named).exists(), f"VQVAE_BROWSER is {named}, and no file is there"
        return named
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser: install Chromium (Debian: apt-get install chromium) or name one in VQVAE_BROWSER")
    return found


@pytest.fixture(scope="package")
def browser() -> Iterator[sync_api.Browser]:
    """Headless Chromium; each test opens its own page, with a fresh profile."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser) -> Iterator[sync_api.Page]:
    """An empty page, 1280 px wide; a script's error fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors, errors
