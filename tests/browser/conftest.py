"""A browser, and the built book to open in it."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book" / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def address():
    """Where a plain file server shows the book."""
    if not (BOOK / "index.html").is_file():
        pytest.skip("the book is not built: make book")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(BOOK)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no browser on this machine; looked for {', '.join(BROWSERS)}")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program)
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, address):
    """A page that writes down what goes wrong, and lets no request leave this machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.problems = []
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("response", lambda got: got.status >= 400 and page.problems.append(f"{got.status} {got.url}"))

    def guard(route):
        if route.request.url.startswith(f"{address}/"):
            route.continue_()
        else:
            page.problems.append(f"asks {route.request.url}")
            route.abort()

    page.route(lambda url: not url.startswith(("data:", "blob:")), guard)
    yield page
    context.close()
