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


def test_every_page_loads_without_an_error_and_asks_nobody_else(tab, address):
    assert {"index.html", "references.html", "generated/results.html", "search.html"} <= set(pages())
    found = {}
    for page in pages():
        tab.problems.clear()
        tab.goto(f"{address}/{page}", wait_until="load")
        tab.wait_for_function(
            "[...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container'))", timeout=SECONDS
        )
        if bad := tab.locator("mjx-merror").count():
            tab.problems.append(f"{bad} equations that MathJax does not understand")
        if not tab.title() or not tab.locator("h1").count():
            tab.problems.append("no title")
        for image in tab.locator("article img").all():
            if not image.evaluate("e => e.decode().then(() => e.naturalWidth > 0, () => false)"):
                tab.problems.append(f"{(image.get_attribute('src') or '')[:80]} is no picture")
        if tab.problems:
            found[page] = list(tab.problems)
    assert found == {}


def test_pages_fit_the_screen_of_a_phone(tab, address):
    tab.set_viewport_size({"width": 390, "height": 844})
    wide = []
    for page in pages():
        tab.goto(f"{address}/{page}", wait_until="load")
        if tab.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1"):
            wide.append(page)
    assert wide == []


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_map_lies_exactly_on_its_picture(tab, address, scheme):
    if not (found := with_explorer()):
        pytest.skip("no chapter has an alignment explorer yet")
    tab.emulate_media(color_scheme=scheme)  # in the dark, themes like to frame pictures
    for page in found:
        tab.goto(f"{address}/{page}", wait_until="load")
        for picture in tab.locator(".alignment-explorer .picture").all():
            image = picture.locator("img").first
            assert image.evaluate("e => getComputedStyle(e).padding") == "0px"
            assert image.bounding_box() == visible(picture, 0).bounding_box()


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


def test_the_table_of_an_explorer_changes_the_map(tab, address):
    found = [page for page in with_explorer() if 'class="heads"' in (BOOK / page).read_text(encoding="utf-8")]
    assert found
    for page in found:
        tab.goto(f"{address}/{page}", wait_until="load")
        explorer = tab.locator(".alignment-explorer", has=tab.locator(".heads")).first
        figure, seen = explorer.locator("figure").first, set()
        for choice in explorer.locator(".heads input").all():
            choice.check()
            seen.add(visible(figure, 1).get_attribute("src"))
        assert len(seen) == explorer.locator(".heads input").count()
        assert tab.problems == []


def test_a_hovered_word_shows_where_it_looks(tab, address):
    if not (found := with_explorer()):
        pytest.skip("no chapter has an alignment explorer yet")
    for page in found:
        tab.goto(f"{address}/{page}", wait_until="load")
        figure = tab.locator(".alignment-explorer figure").first
        words = figure.locator(".words label")
        count = words.count()
        assert count >= 2

        def shown(figure=figure, count=count):
            return [float(visible(figure, k).evaluate("e => getComputedStyle(e).opacity")) for k in range(count)]

        def settles(expected, shown=shown, page=page):
            for _ in range(100):  # it fades in
                if shown() == expected:
                    return
                tab.wait_for_timeout(50)
            assert shown() == expected, page

        assert shown() == [0.0] * count
        for k in (count - 1, 0):
            words.nth(k).hover()
            settles([float(i == k) for i in range(count)])
            assert visible(figure, k).evaluate(SHADES) > 1, f"{page}: the map of word {k} is one flat colour"
        tab.mouse.move(2, 2)
        settles([0.0] * count)
        words.nth(1).click()  # and what was clicked stays
        tab.mouse.move(2, 2)
        settles([float(i == 1) for i in range(count)])
        assert tab.problems == []
