"""A browser, and the built book to open in it."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book" / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def browser():
    """One for all tests; it finds no machine but this one."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no browser on this machine; looked for {', '.join(BROWSERS)}")
    with sync.sync_playwright() as playwright:
        alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        opened = playwright.chromium.launch(executable_path=program, args=[alone])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def window(browser):
    """What its tabs share: a cache, so that scripts of the book are read once."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def new_tab(window):
    """Opens pages that write down what goes wrong, and what they ask that begins with none of ``own``."""
    opened = []

    def open_tab(*own):
        page = window.new_page()
        opened.append(page)
        page.problems = []
        page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("response", lambda got: got.status >= 400 and page.problems.append(f"{got.status} {got.url}"))
        local = (*own, "data:", "blob:")
        page.on("request", lambda asked: asked.url.startswith(local) or page.problems.append(f"asks {asked.url}"))
        return page

    yield open_tab
    for page in opened:
        page.close()


@pytest.fixture
def tab(new_tab, address):
    """A page of the book."""
    return new_tab(f"{address}/")
