"""The built book in a real browser: every page, the search, and the alignment explorer."""

from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book" / "_build" / "html"
SECONDS = 20_000  # in milliseconds: how long to wait for something that should be there at once


def pages():
    """Every page, as its path below the book."""
    return sorted(str(path.relative_to(BOOK)) for path in BOOK.rglob("*.html") if "_static" not in path.parts)


def with_explorer():
    return [page for page in pages() if 'class="alignment-explorer"' in (BOOK / page).read_text(encoding="utf-8")]


# The pictures of an article that cannot be shown.
BROKEN = """() => Promise.all(
  [...document.querySelectorAll("article img")].map(
    (e) => e.decode().then(() => e.naturalWidth > 0, () => false).then((shown) => (shown ? null : e.src.slice(0, 80)))
  )
).then((found) => found.filter(Boolean))"""


def test_every_page_loads_without_an_error_asks_nobody_else_and_fits_a_phone(tab, address):
    assert {"index.html", "references.html", "generated/results/index.html", "search.html"} <= set(pages())
    found = {}
    for page in pages():
        tab.problems.clear()
        tab.set_viewport_size({"width": 1280, "height": 900})
        tab.goto(f"{address}/{page}", wait_until="load")
        tab.wait_for_function(
            "[...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container'))", timeout=SECONDS
        )
        if bad := tab.locator("mjx-merror").count():
            tab.problems.append(f"{bad} equations that MathJax does not understand")
        if not tab.title() or not tab.locator("h1").count():
            tab.problems.append("no title")
        tab.problems += [f"{source} is no picture" for source in tab.evaluate(BROKEN)]
        tab.set_viewport_size({"width": 390, "height": 844})
        if tab.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1"):
            tab.problems.append("wider than the screen of a phone")
        if tab.problems:
            found[page] = list(tab.problems)
    assert found == {}


def test_search_finds_info_nce(tab, address):
    tab.goto(f"{address}/index.html", wait_until="load")
    tab.keyboard.press("Control+k")
    tab.keyboard.type("InfoNCE")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search.html?q=InfoNCE*", timeout=SECONDS)
    results = tab.locator("#search-results li a")
    results.first.wait_for(timeout=SECONDS)
    tab.wait_for_function("document.querySelector('.search-summary')?.innerText.includes('found')", timeout=SECONDS)
    links = [link.get_attribute("href") for link in results.all()]
    assert any("api/objectives.html" in link for link in links)
    results.first.click()
    tab.wait_for_load_state("load")
    assert "InfoNCE" in tab.locator("article").inner_text()
    assert tab.problems == []


def test_search_says_when_nothing_is_found(tab, address):
    tab.goto(f"{address}/search.html?q=xyzzyplugh", wait_until="load")
    tab.wait_for_function(
        "document.querySelector('.search-summary, #search-results p')?.innerText.includes('did not match')",
        timeout=SECONDS,
    )
    assert tab.locator("#search-results li").count() == 0


def found_for(tab, address, query):
    """The pages that a search finds, best first."""
    tab.goto(f"{address}/search.html?q={query}", wait_until="load")
    tab.wait_for_function("/found|did not/.test(document.querySelector('.search-summary')?.innerText)", timeout=SECONDS)
    return [link.get_attribute("href") for link in tab.locator("#search-results li a").all()]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("contrastve", "contrastive"), ("retreival", "retrieval"), ("attenton", "attention"), ("pictuures", "pictures"),
     ("cosime", "cosine")],
)  # fmt: skip
def test_search_tolerates_one_typo(tab, address, typed, meant):
    right = found_for(tab, address, meant)
    assert right
    assert tab.locator(".search-read-as").count() == 0
    assert [link.split("#")[0] for link in found_for(tab, address, typed)] == [link.split("#")[0] for link in right]
    assert tab.locator(".search-read-as").inner_text() == f"No page has “{typed}”; searched for “{meant}”."
    assert tab.problems == []


@pytest.mark.parametrize("query", ["train on my own pictures", "my own images", "train on my own pcitures"])
def test_search_finds_your_own_data(tab, address, query):
    assert found_for(tab, address, query)[0].startswith("your_data.html")


# Of a figure of an explorer: the maps of a word that belong to the chosen layer and head, one by word.
CHOSEN = """(figure) => [...figure.querySelectorAll(".words label")].map((_, k) =>
  [...figure.querySelectorAll(`.map.m${k}`)].filter((e) => e.getClientRects().length))"""

# Every picture of a page whose frame, or whose first map, is not exactly where it is.
MISPLACED = """() => [...document.querySelectorAll(".alignment-explorer figure")].filter((figure) => {
  const image = figure.querySelector(".picture img"), maps = (CHOSEN)(figure)[0];
  const position = (e) => JSON.stringify(e.getBoundingClientRect());
  return maps.length !== 1 || getComputedStyle(image).padding !== "0px" || position(maps[0]) !== position(image);
}).length""".replace("CHOSEN", CHOSEN)


def test_a_map_lies_exactly_on_its_image(tab, address):
    found = with_explorer()
    assert found
    for page in found:
        tab.goto(f"{address}/{page}", wait_until="load")
        for scheme in ("light", "dark"):  # in the dark, themes like to frame pictures
            tab.emulate_media(color_scheme=scheme)
            tab.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'", timeout=SECONDS)
            assert tab.evaluate(MISPLACED) == 0, (page, scheme)


# How many opacities the picture of a map has.
SHADES = """e => {
  const canvas = Object.assign(document.createElement("canvas"), { width: e.naturalWidth, height: e.naturalHeight });
  canvas.getContext("2d").drawImage(e, 0, 0);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(data.filter((_, i) => i % 4 == 3)).size;
}"""


def visible(figure, word):
    """The map of a word that belongs to the chosen layer and head."""
    (found,) = [item for item in figure.locator(f".map.m{word}").all() if item.is_visible()]
    return found


# The maps of all words that belong to the chosen layer and head. A word alone may have equal ones, such as the first.
MAPS = (
    """figure => [...figure.querySelectorAll(".map")].filter(map => map.checkVisibility()).map(map => map.src).join()"""
)


def test_the_table_of_an_explorer_changes_the_map(tab, address):
    found = [page for page in with_explorer() if 'class="heads"' in (BOOK / page).read_text(encoding="utf-8")]
    assert found
    for page in found:
        tab.goto(f"{address}/{page}", wait_until="load")
        explorer = tab.locator(".alignment-explorer", has=tab.locator(".heads")).first
        figure, seen = explorer.locator("figure").first, set()
        for choice in explorer.locator(".heads input").all():
            choice.check()
            seen.add(figure.evaluate(MAPS))
        assert len(seen) == explorer.locator(".heads input").count()
        assert tab.problems == []


# Whether these are the opacities of the maps of a figure's words.
SHOWN = """([figure, expected]) => JSON.stringify((CHOSEN)(figure).map(([map, ...more]) =>
  more.length ? null : Number(getComputedStyle(map).opacity))) === JSON.stringify(expected)""".replace("CHOSEN", CHOSEN)


def test_a_hovered_word_shows_where_it_looks(tab, address):
    found = with_explorer()
    assert found
    for page in found:
        tab.goto(f"{address}/{page}", wait_until="load")
        figure = tab.locator(".alignment-explorer figure").first
        element = figure.element_handle()
        words = figure.locator(".words label")
        count = words.count()
        assert count >= 2

        def settles(word=None, figure=element, count=count):
            expected = [int(k == word) for k in range(count)]
            tab.wait_for_function(SHOWN, arg=[figure, expected], timeout=SECONDS)  # it fades in

        assert tab.evaluate(SHOWN, [element, [0] * count])
        for k in (count - 1, 0):
            words.nth(k).hover()
            settles(k)
            assert visible(figure, k).evaluate(SHADES) > 1, f"{page}: the map of word {k} is one flat colour"
        tab.mouse.move(2, 2)
        settles()
        words.nth(1).click()  # and what was clicked stays
        tab.mouse.move(2, 2)
        settles(1)
        assert tab.problems == []
