"""The model in the page of chapter 00: JavaScript's tokens and embeddings beside PyTorch's, and what a reader does."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Engine

from mmlearn.data.synthetic import drawing, layouts, scenes
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models import CLIP, CLIPConfig
from mmlearn.visualization.in_browser import read_for_browser

BOOK = Path(__file__).parents[2] / "book" / "_build" / "html"
LESSON = "chapters/00-lab_from_pixels.html"
WIDTHS = {"desktop": 1280, "phone": 390}
TEXTS = [
    "a small striped red heart left of a large dotted blue star",
    "The LARGE solid green ring is Above the small solid white moon",
    "",
    " ",
    "  two  spaces   and three ",
    "don't you'll they've I'm he'd it's we're 'S 's's '",
    "ΟΔΟΣ ΣΑΣ, İstanbul ẞ ß ǅ ﬁ Å",
    "e\u0301 is é, \u1100\u1161 is 가, ＡＢＣ ½ ² Ⅷ",
    "日本語の文 नमस्ते שלום العربية",
    "🦊 👩‍👩‍👧 🇨🇭 \U0001f9ff",
    "<end> <pad><start> </s> <mask>",
    "tab\tline\nreturn\r\n next\u0085line no\u00a0break mark\ufeff zero\u200bwidth separator\u2028 wide\u3000",
    "\x00\x07 nothing to see \x7f",
    "1,000.50 € ±3° #7 @home a_b a-b (c)",
    "red " * 60,
    "a" * 300,
    "x",
]


@pytest.fixture(scope="module")
def model():
    """The same weights, tokenizer and pictures in PyTorch."""
    path = BOOK / "_static" / "clip_weights.js"
    if not path.is_file():
        pytest.skip("the book is not built: make book")
    read = read_for_browser(path)
    system = CLIP(CLIPConfig.from_dict(read["config"])).eval()
    system.load_state_dict(read["weights"])
    engine = Engine.from_str(json.dumps(read["tokenizer"]))
    return system, Tokenizer(engine, engine.truncation["max_length"]), read


def as_read(model, images):
    """Bytes as the model reads pictures."""
    mean, std = (torch.tensor(model[2][name])[:, None, None] for name in ("mean", "std"))
    return (images / 255 - mean) / std


def opened(page):
    """The model starts when a reader comes near it."""
    page.locator("#clip-in-page").scroll_into_view_if_needed()
    page.wait_for_function("window.clipPage !== undefined", timeout=120_000)  # on a machine that is busy


@pytest.fixture
def lesson(tab, address):
    tab.goto(f"{address}/{LESSON}", wait_until="load")
    opened(tab)
    yield tab
    assert tab.problems == []


@pytest.fixture(scope="module")
def computing(window, address):
    """The page for tests that ask the model and change nothing that is shown."""
    page = window.new_page()
    page.goto(f"{address}/{LESSON}", wait_until="load")
    opened(page)
    yield page
    page.close()


def test_tokens_are_those_of_the_library(computing, model):
    _, tokenizer, _ = model
    found = computing.evaluate("texts => texts.map(text => clipPage.clip.tokenizer.encode(text))", TEXTS)
    tokens, mask = tokenizer(TEXTS)
    for text, ids, expected, real in zip(TEXTS, found, tokens, mask):
        assert ids == expected[real].tolist(), repr(text)


def test_sentences_have_the_embeddings_of_pytorch(computing, model):
    system, tokenizer, _ = model
    found = torch.tensor(computing.evaluate("texts => texts.map(text => [...clipPage.clip.encodeText(text)])", TEXTS))
    with torch.no_grad():
        assert (found - system.encode_text(*tokenizer(TEXTS))).abs().max() < 1e-3


def test_images_have_the_embeddings_and_contributions_of_pytorch(computing, model):
    system, tokenizer, read = model
    noise = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    flat = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    images = torch.cat([torch.stack([entry["image"] for entry in read["gallery"]]), noise, flat])
    embeddings, shares = computing.evaluate(
        """([pictures, text]) => {
            const { clip } = clipPage, encoded = pictures.map(picture => clip.encodeImage(Uint8Array.from(picture)));
            const vector = clip.encodeText(text);
            return [encoded.map(one => [...one.embedding]), encoded.map(one => [...clip.contributions(one, vector)])];
        }""",
        [images.flatten(1).tolist(), TEXTS[0]],
    )
    read_images = as_read(model, images)
    with torch.no_grad():
        text = system.encode_text(*tokenizer(TEXTS[:1])).expand(len(images), -1)
        assert (torch.tensor(embeddings) - system.encode_image(read_images)).abs().max() < 1e-3
        assert (torch.tensor(shares) - system.contributions(read_images, text)).abs().max() < 1e-3
    assert computing.evaluate("clipPage.clip.scale") == pytest.approx(
        float(system.logit_scale.detach().exp()), rel=1e-6
    )


def test_a_scene_is_drawn_as_the_data_set_draws_it(computing, model):
    objects = model[2]["objects"]
    found = computing.evaluate("all => all.map(objects => [...clipPage.scenes.draw(objects)])", objects)
    layout = layouts.scene_layout("test", np.arange(len(objects)), 0)
    ground = (drawing.grounds(64) * 255).round()
    number = int(np.abs(ground - model[2]["scenes"]["ground"].numpy()).max((1, 2, 3)).argmin())
    middle = np.full_like(layout.jitter, drawing.JITTER)
    layout = replace(layout, jitter=middle, ground=np.full_like(layout.ground, number))
    expected = scenes.draw(layout, 64).reshape(len(objects), -1) * 255
    assert np.abs(np.array(found) - expected).max() < 2  # of 255: three roundings


def number(text):
    return float(text.replace("−", "-"))


def ranking(tab):
    """The pictures in the order in which they are shown, with the cosines that stand below them."""
    titles = [button.get_attribute("title") for button in tab.locator("#clip-in-page ol button").all()]
    numbers = tab.locator("#clip-in-page ol span").all_inner_texts()
    return [title.split(", ")[0].split(". ")[1] for title in titles], [number(text) for text in numbers]


def expected_ranking(model, text):
    system, tokenizer, read = model
    images = as_read(model, torch.stack([entry["image"] for entry in read["gallery"]]))
    with torch.no_grad():
        cosine = system.encode_image(images) @ system.encode_text(*tokenizer([text]))[0]
    return [f"picture {i + 1}" for i in cosine.argsort(descending=True).tolist()]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_typed_sentence_changes_the_ranking_and_the_patches(lesson, model, width):
    lesson.set_viewport_size({"width": width, "height": 844})
    captions = [entry["caption"] for entry in model[2]["gallery"]]
    sentence, patches = lesson.get_by_label("Type a sentence"), lesson.locator("#clip-in-page .view .grid b")
    before = {}
    for text in (captions[3], captions[8]):
        sentence.fill(text[:-4])
        sentence.press("End")
        sentence.press_sequentially(text[-4:])
        names, numbers = ranking(lesson)
        assert [name for name in names if name != "your scene"] == expected_ranking(model, text)
        assert numbers == sorted(numbers, reverse=True)
        shares = patches.all_inner_texts()
        assert len(shares) == 16
        total = sum(number(share) for share in shares)
        assert total == pytest.approx(numbers[0], abs=17 * 0.005)  # each is rounded to two digits
        assert (names, shares) not in before.values()
        before[text] = names, shares
    chosen = lesson.locator("#clip-in-page ol button").nth(5)
    chosen.click()
    assert chosen.get_attribute("aria-pressed") == "true"
    assert patches.all_inner_texts() != shares
    assert "number 6 of 25" in lesson.locator("#clip-in-page .view figcaption").inner_text()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_built_scene_is_scored_against_sentences(lesson, width):
    lesson.set_viewport_size({"width": width, "height": 844})
    page = lesson.locator("#clip-in-page")
    page.get_by_role("button", name="Clear the scene").click()
    rows = page.locator(".sentence")
    for row, text in zip(rows.all(), ["a red heart", "a blue star", "a green ring", "a white moon"]):
        row.locator("textarea").fill(text)
    cells = page.locator(".builder .grid button")
    for name in ("red", "heart", "solid", "large"):
        page.locator(".palette").get_by_role("button", name=name, exact=True).click()
    for cell in (0, 5, 10):
        cells.nth(cell).click()
    assert cells.nth(5).get_attribute("title") == "row 2, column 2: large solid red heart"
    assert page.locator(".sentence.best textarea").input_value() == "a red heart"
    bets = [int(text.split(", ")[1].removesuffix(" %")) for text in rows.locator("span").all_inner_texts()]
    assert sum(bets) == pytest.approx(100, abs=2)
    assert "Your scene" in page.locator(".view figcaption").inner_text()
    cells.nth(5).click()  # the same once more takes it away
    assert cells.nth(5).get_attribute("title") == "row 2, column 2: nothing"
    scores = rows.locator("span").all_inner_texts()
    rows.first.locator("textarea").fill("a purple cross")
    assert rows.locator("span").all_inner_texts() != scores
    rows.nth(1).get_by_role("button", name="show patches").click()
    assert page.get_by_label("Type a sentence").input_value() == "a blue star"
    assert lesson.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_a_image_can_be_taken_over_and_changed(lesson, model):
    page = lesson.locator("#clip-in-page")
    page.get_by_label("Type a sentence").fill(model[2]["gallery"][3]["caption"])
    seen = lesson.evaluate("clipPage.seen.objects.filter(Boolean).length")
    page.get_by_role("button", name="Change this picture below").click()
    titles = [cell.get_attribute("title") for cell in page.locator(".builder .grid button").all()]
    assert sum(not title.endswith("nothing") for title in titles) == seen >= 8


def test_it_runs_from_a_disk(new_tab, address):
    page = new_tab("file:")
    page.goto((BOOK / LESSON).as_uri(), wait_until="load")
    opened(page)
    assert page.locator("#clip-in-page ol button").count() == 25
    assert page.problems == []


def test_no_other_page_loads_it(address):
    holding = [page for page in BOOK.rglob("*.html") if "clip_weights.js" in page.read_text(encoding="utf-8")]
    assert [page.relative_to(BOOK).as_posix() for page in holding] == [LESSON]
