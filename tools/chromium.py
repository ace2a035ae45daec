"""Headless Chromium, and a server for it: what the PDF, the check of the site and the tests in a browser share."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
PATIENCE = 120_000  # ms, for a page on a busy machine
REMEDY = "Remedy: install Chromium (Debian: apt-get install chromium) or give a browser's path in VQVAE_BROWSER"
QuietHandler = type("QuietHandler", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})


class PackingHandler(QuietHandler):
    """A server that compresses text, as those of published sites do."""

    def send_head(self) -> io.BytesIO | io.BufferedReader | None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in {".html", ".css", ".js", ".json", ".svg"} or not path.is_file():
            return super().send_head()
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        for name, value in (("Type", self.guess_type(path)), ("Encoding", "gzip"), ("Length", len(body))):
            self.send_header(f"Content-{name}", str(value))
        self.end_headers()
        return io.BytesIO(body)


def find() -> str | None:
    """The browser that `VQVAE_BROWSER` names, which has to be there, else the first on PATH, else None."""
    if named := os.environ.get("VQVAE_BROWSER"):
        Path(named).stat()
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launch(path: str) -> Iterator[Browser]:
    """The browser at a path, started headless; each page that it opens by itself has a fresh profile."""
    from playwright.sync_api import sync_playwright  # imported only where a browser is used

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


@contextmanager
def serve(folder: Path, port: int = 0, handler: type = QuietHandler) -> Iterator[str]:
    """The address, without a slash at its end, under which a server of this machine shows a folder; port 0: any."""
    handler = functools.partial(handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
