"""The model on the landing page: JavaScript's scores beside PyTorch's, and what a reader sees as he types."""

import sys
from pathlib import Path

import pytest
import torch

from mmlearn.data.synthetic.collages import Collages
from mmlearn.pretrained.zoo import load_zoo

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book" / "_build" / "html"
sys.path.insert(0, str(ROOT / "book"))  # as conf.py has it

import live  # noqa: E402

SENTENCES = [
    "a purple shirt",
    "two hammers with an octopus",
    "a sailboat to the left of a purple balloon and to the right of a carrot",
    "an elephant below a bus and above a butterfly and a telephone and a watermelon and a bicycle with two trumpets",
]
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def model():
    """The zoo's CLIP, its tokenizer, and its embeddings of the pictures on the page."""
    clip, tokenizer, _ = load_zoo(live.ZOO)
    images = torch.stack([sample.image for sample, _ in live.samples({**live.COLLAGES, **live.PHOTOGRAPHS})])
    grid = live.grid_features(images, keep=False).mT.unflatten(2, (6, 6))
    return clip, tokenizer, grid


@pytest.fixture
def page(tab, address):
    tab.goto(f"{address}/index.html", wait_until="load")
    tab.wait_for_function("window.livePage?.ready", timeout=60_000)
    yield tab
    assert tab.problems == []


def typed(page, text):
    field = page.get_by_label("find a picture with a sentence")
    field.fill(text[:-1])
    field.press("End")
    field.press_sequentially(text[-1:])


def rings(page):
    return page.locator("#live-clip figure .rings i").evaluate_all("all => all.map(e => e.style.left + e.style.top)")


@torch.no_grad()
def test_scores_and_shares_are_those_of_pytorch(page, model):
    clip, tokenizer, grid = model
    found, shares = page.evaluate(
        """texts => {
            const { clip } = livePage, words = text => clip.split(text).map(part => part.word);
            const vectors = texts.map(text => clip.encode(words(text)));
            return [
                vectors.map(vector => clip.pictures.map(one => dot(one.embedding, vector))),
                vectors.map(vector => clip.pictures.map(one => [...clip.shares(one, vector)])),
            ];
        }""",
        SENTENCES,
    )
    vectors = clip.encode_text(*tokenizer(SENTENCES))
    assert (torch.tensor(found) - vectors @ clip.encode_image(grid).T).abs().max() < 1e-4
    for vector, share in zip(vectors, shares):
        expected = clip.contributions(grid, vector.expand(len(grid), -1))
        assert (torch.tensor(share) - expected).abs().max() < 1e-4


def test_every_word_of_captions_is_known(page):
    captions = [sample.caption for split in Collages.splits for sample in Collages(split).__getitems__(range(150))]
    words = sorted({word for caption in captions for word in caption.split()})
    assert page.evaluate("words => words.filter(word => !livePage.clip.words.has(word))", words) == []


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_typing_ranks_the_pictures_and_moves_the_maps(page, model, width):
    page.set_viewport_size({"width": width, "height": 844})
    clip, tokenizer, grid = model
    for text, things in (
        ("a pink balloon", ["pink balloon"]),
        ("two crabs above a blue dress", ["two crabs", "blue dress"]),
    ):
        before = page.locator("#live-clip figure canvas").evaluate("e => e.toDataURL()")
        typed(page, text)
        with torch.no_grad():
            cosine = clip.encode_image(grid) @ clip.encode_text(*tokenizer([text]))[0]
        order = [f"picture {i + 1}" for i in cosine.argsort(descending=True).tolist()]
        labels = page.locator("#live-clip li button").evaluate_all("all => all.map(e => e.ariaLabel)")
        assert [label.split(",")[0] for label in labels] == order
        assert page.locator("#live-clip .chip").all_inner_texts() == things
        assert len(rings(page)) == len(things)
        assert page.locator("#live-clip figure canvas").evaluate("e => e.toDataURL()") != before
        assert f"cosine {cosine.max():.2f}" in page.locator("#live-clip figcaption").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_word_alone_shows_its_own_map_and_a_position_its_words(page):
    typed(page, "an elephant and a violin")
    both = page.locator("#live-clip figure canvas").evaluate("e => e.toDataURL()")
    page.locator(".chip").first.hover()
    assert len(rings(page)) == 1
    assert page.locator("#live-clip figure canvas").evaluate("e => e.toDataURL()") != both
    page.mouse.move(2, 2)
    at = page.locator("#live-clip figure .rings i").first.bounding_box()
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    assert page.locator(".chip").first.evaluate("e => e.style.getPropertyValue('--share')") == "100%"


def test_unknown_words_are_named_and_left_out(page):
    typed(page, "a giraffe and a shirt")
    assert page.locator("#live-clip .unknown").inner_text() == "does not know giraffe"
    with_it = page.locator("#live-clip li .score").all_inner_texts()
    typed(page, "a and a shirt")
    assert page.locator("#live-clip li .score").all_inner_texts() == with_it
    typed(page, "a shirt and a trum")  # one who types on may mean a trumpet
    assert page.locator("#live-clip .unknown").count() == 0
    typed(page, "<b>zebra</b> giraffe ")
    assert page.locator("#live-clip .unknown").inner_text() == "does not know b, zebra, b, giraffe"


def test_an_empty_sentence_scores_nothing(page):
    for text in ("x", " ", "giraffe ", "?!"):
        page.get_by_label("find a picture with a sentence").fill("" if text == "x" else text)
        assert set(page.locator("#live-clip li .score").all_inner_texts()) == {""}
        assert rings(page) == []
        assert "cosine" not in page.locator("#live-clip figcaption").inner_text()


def test_it_runs_from_a_disk(new_tab, address):
    page = new_tab("file:")
    page.goto((BOOK / "index.html").as_uri(), wait_until="load")
    page.wait_for_function("window.livePage?.ready", timeout=60_000)
    assert page.locator("#live-clip li").count() == 60
    assert page.problems == []


def test_photographs_are_a_file_of_their_own_with_their_licence(address):
    drawings, photographs = ((BOOK / "_static" / f"live_{name}.js").read_text() for name in ("clip", "photographs"))
    assert photographs.startswith("/* Pictures: composed of Tux Paint Stamps")
    assert "GPL-2.0-or-later" in photographs[:200]
    assert (BOOK / "_static" / live.GPL).is_file()
    assert photographs.count('"style":"photographs"') == 20
    assert drawings.count('"style":') == 40
    assert '"photographs"' not in drawings
    assert len(drawings) + len(photographs) < 1_000_000
    assert not any(path in drawings + photographs for path in ("/home", "/root", "/tmp", "/Users", "C:\\"))
