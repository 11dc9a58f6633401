"""The alignment explorer, read as the HTML that a browser gets."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from testing_tools import refused

from mmlearn import escaping
from mmlearn.visualization import Explorer, alignment_explorer
from mmlearn.visualization.figures import SHADE

VOID = {"img", "input", "meta", "br"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</label></style><b>",
    "a&b",
    "it's",
    "{0}{id}",
    "</div>" * 5,
    "\x00",
    "日本語",
]


class Page(HTMLParser):
    """Every element with its attributes and text; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": [item["tag"] for item in self.open]}
        element["parents"] = list(self.open)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def find(self, tag, name=None):
        """Elements with this tag and class."""
        return [
            item
            for item in self.elements
            if item["tag"] == tag and (name is None or name in (item["attrs"].get("class") or "").split())
        ]


def example(words=("a", "red", "ring"), regions=True, **options):
    """Two pictures of 6 × 4 on a grid of 2 × 3; word 1 names what fills patch 4 and a bit of 5."""
    images = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    maps = [torch.rand(len(words), 6, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    region = torch.tensor([0.0, 0.05, 0, 0, 1, 0.2])
    known = [[region if k == 1 else None for k in range(len(words))] for _ in range(2)] if regions else None
    return images, maps, alignment_explorer(images, [list(words)] * 2, maps, (2, 3), regions=known, **options)


def opacities(element):
    """The fourth channel of a map, 0 to 1, in reading order."""
    with Image.open(io.BytesIO(base64.b64decode(element["attrs"]["src"].split(",")[1]))) as image:
        assert image.size == (3, 2)
        values = torch.frombuffer(bytearray(image.convert("RGBA").tobytes()), dtype=torch.uint8).view(6, 4)
    assert (values[:, :3] == 0).all()  # black: no colour is added
    return values[:, 3] / 255


def test_each_word_has_a_map_of_all_patches():
    _, maps, explorer = example()
    page = Page(explorer.html)
    assert len(page.find("figure")) == 2
    assert [label["text"] for label in page.find("label")] == ["a", "red", "ring"] * 2
    assert len(page.find("img", "map")) == 6
    for element, weights in zip(page.find("img", "map"), torch.stack(maps).flatten(0, 1)):
        share = (weights - weights.min()) / (weights.max() - weights.min())  # the strongest patch is clear
        assert (opacities(element) - SHADE * (1 - share)).abs().max() < 0.6 / 255
    for grid in page.find("div", "position"):
        assert "repeat(2,1fr)/repeat(3,1fr)" in grid["attrs"]["style"]


def with_heads(start=(0, 0), **options):
    """One picture with two words, three layers of two heads."""
    maps = torch.rand(3, 2, 2, 6, generator=torch.Generator().manual_seed(2))
    known = [[None, torch.tensor([0.0, 0, 0, 0, 1, 0])]]
    names, image = ["text.0", "<i>", "text.2"], torch.zeros(1, 3, 4, 6)
    explorer = alignment_explorer(
        image, [["a", "ring"]], [maps], (2, 3), regions=known, layers=names, start=start, **options
    )
    return maps, explorer


def test_a_table_chooses_layer_and_head():
    scores = torch.arange(6).view(3, 2) / 10
    maps, explorer = with_heads(start=(1, 0), scores=scores)
    page = Page(explorer.html)
    assert [cell["text"] for cell in page.find("th")] == ["", "head 0", "head 1", "text.0", "<i>", "text.2"]
    (table,) = page.find("table")
    choices = [item for item in page.find("input") if table in item["parents"]]
    assert [item["attrs"]["class"] for item in choices] == [f"c{v}" for v in range(6)]
    assert ["checked" in item["attrs"] for item in choices] == [v == 2 for v in range(6)]
    assert len({item["attrs"]["name"] for item in choices}) == 1
    assert [cell["text"].strip() for cell in page.find("td")] == ["0.00", "0.10", "0.20", "0.30", "0.40", "0.50"]
    name, (style,) = page.elements[0]["attrs"]["id"], page.find("style")
    for v, weights in enumerate(maps.flatten(0, 1)):
        assert f"#{name}:not(:has(.c{v}:checked)) .v{v} {{ display: none !important; }}" in style["text"]
        for k, shown in enumerate(page.find("img", f"v{v}")):
            assert f"m{k}" in shown["attrs"]["class"].split()
            assert int(opacities(shown).argmin()) == int(weights[k].argmax())
        (_, note, _) = page.find("div", f"v{v}")  # of two words, and of all shown words together
        assert ("is on its object" in note["text"]) == (int(weights[1].argmax()) == 4)


def test_each_word_can_be_hovered_clicked_and_reached_by_keyboard():
    page = Page(example()[2].html)
    (style,) = page.find("style")
    name = page.elements[0]["attrs"]["id"]
    for k in range(3):
        assert f"#{name} figure:has(label.l{k}:hover) .m{k}" in style["text"]
        assert f"#{name} figure:has(.w{k}:checked):not(:has(label:hover)) .m{k}" in style["text"]
        for label in page.find("label", f"l{k}"):
            (entry,) = [item for item in page.find("input") if label in item["parents"]]
            assert entry["attrs"]["type"] == "radio"
            assert f"w{k}" in entry["attrs"]["class"].split()
    groups = {item["attrs"]["name"] for item in page.find("input")}
    assert len(groups) == 2  # a choice for each picture
    selectors = [part for rule in style["text"].split("}")[:-1] for part in rule.split("{")[0].split(",")]
    assert all(part.strip().startswith(f"#{name}") for part in selectors)  # nothing else on the page changes


def test_the_outline_is_where_the_object_is():
    page = Page(example()[2].html)
    positions = page.find("div", "position")
    assert ["m1" in grid["attrs"]["class"].split() for grid in positions] == [True, True]
    for grid in positions:
        cells = [cell for cell in page.find("i") if grid in cell["parents"]]
        assert [p for p, cell in enumerate(cells) if cell["attrs"].get("class") == "region"] == [4, 5]
    assert [label["text"] for label in page.find("label", "named")] == ["red", "red"]
    assert not Page(example(regions=False)[2].html).find("i", "region")


@pytest.mark.parametrize(("peak", "expected"), [(4, "is on its object"), (5, "is on its object"), (1, "is not on its")])
def test_the_note_says_whether_a_word_points_at_its_object(peak, expected):
    maps = torch.zeros(1, 6)
    maps[0, peak] = 1
    region = torch.tensor([0.0, 0.05, 0, 0, 1, 0.2])
    explorer = alignment_explorer(torch.zeros(1, 3, 4, 6), [["ring"]], [maps], (2, 3), regions=[[region]])
    (note,) = Page(explorer.html).find("div", "note")
    assert note["text"].startswith("“ring”: the strongest patch ")
    assert expected in note["text"]


def pointing_at(peaks, patches=6):
    """Maps with their whole weight on one patch each."""
    return torch.eye(patches)[list(peaks)]


def test_each_map_is_told_with_chance_and_with_the_untrained_one():
    region = torch.tensor([0.0, 0.05, 0, 0, 1, 0.2])  # patches 4 and 5 of six
    explorer = alignment_explorer(
        torch.zeros(2, 3, 4, 6),
        [["a", "ring"], ["cup", "red"]],
        [pointing_at([0, 4]), pointing_at([5, 3])],
        (2, 3),
        regions=[[None, region], [region, region]],
        untrained=[pointing_at([4, 0]), pointing_at([1, 5])],
    )
    notes = [note["text"] for note in Page(explorer.html).find("div", "note")]
    assert notes == [
        "“a” names no object; strongest patch 0",
        "“ring”: the strongest patch is on its object (untrained not on, chance 33%)",
        "“cup”: the strongest patch is on its object (untrained not on, chance 33%)",
        "“red”: the strongest patch is not on its object (untrained on, chance 33%)",
    ]
    (shown,) = Page(explorer.html).find("div", "shown")
    assert shown["text"] == "3 shown words that name an object point at it: 67% (untrained 33%, chance 33%)"


def test_each_layer_and_head_has_its_own_score_chance_and_untrained():
    region = torch.tensor([0.0, 0, 0, 0, 1, 0])
    maps, untrained = (torch.stack([pointing_at([a]), pointing_at([b])])[None] for a, b in ((4, 0), (1, 4)))
    explorer = alignment_explorer(
        torch.zeros(1, 3, 4, 6), [["ring"]], [maps], (2, 3), regions=[[region]], layers=["one"], untrained=[untrained]
    )
    for head, expected in enumerate(("100% (untrained 0%, chance 17%)", "0% (untrained 100%, chance 17%)")):
        (shown,) = [each for each in Page(explorer.html).find("div", "shown") if f"v{head}" in each["attrs"]["class"]]
        assert shown["text"].endswith(expected)


def test_without_regions_nothing_is_scored():
    assert not Page(example(regions=False)[2].html).find("div", "shown")


@pytest.mark.usefixtures("unchecked")
def test_untrained_maps_of_another_shape_are_refused():
    expected = r"same maps, but they have shapes \[\(2, 6\)\] and those of the trained one \[\(1, 6\)\]"
    wrong = dict(untrained=[torch.rand(2, 6)])
    refused(expected, alignment_explorer, torch.rand(1, 3, 4, 6), [["a"]], [torch.rand(1, 6)], (2, 3), **wrong)


def test_a_word_that_names_nothing_says_so():
    notes = Page(example()[2].html).find("div", "note")
    assert notes[0]["text"].startswith("“a” names no object; strongest patch ")


def test_images_are_inside_and_whole():
    images, _, explorer = example()
    elements = [item for item in Page(explorer.html).find("img") if "class" not in item["attrs"]]
    for element, image in zip(elements, images, strict=True):
        kind, data = element["attrs"]["src"].split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
            assert shown.size == (6, 4)
            got = torch.frombuffer(bytearray(shown.convert("RGB").tobytes()), dtype=torch.uint8).view(4, 6, 3)
        assert (got.permute(2, 0, 1) / 255 - image).abs().max() < 0.51 / 255


def test_the_image_keeps_its_proportions():
    style = Page(example(width=300)[2].html).find("style")[0]["text"]
    assert "width: 300px; height: 200px" in style


@pytest.mark.parametrize("words", [HOSTILE[i : i + 3] for i in range(0, 9, 3)])
def test_words_are_text_and_nothing_else(words):
    _, _, explorer = example(words=words, total="<script>x</script> & so on")
    page, plain = Page(explorer.html), Page(example(total="total")[2].html)
    assert [item["tag"] for item in page.elements] == [item["tag"] for item in plain.elements]
    assert [label["text"] for label in page.find("label")] == [*map(escaping.plain, words)] * 2
    assert page.find("div", "total")[0]["text"] == "<script>x</script> & so on"
    for element in page.elements:
        assert set(element["attrs"]) <= {"id", "class", "style", "alt", "src", "type", "name"}


def test_no_script_and_nothing_from_outside():
    for words in (("a", "red", "ring"), HOSTILE):
        explorer = example(words=words, total="total")[2]
        page = Page(explorer.html)
        assert not page.find("script") + page.find("link") + page.find("iframe") + page.find("object")
        for element in page.elements:
            assert not any(name.startswith("on") for name in element["attrs"])
            for name in ("src", "href", "srcset", "action"):
                assert element["attrs"].get(name, "data:").startswith("data:")
        styles = " ".join(
            [*(item["text"] for item in page.find("style")), *(str(e["attrs"].get("style")) for e in page.elements)]
        )
        assert not re.search(r"url\(|@import|https?:|//", styles)


def test_two_explorers_on_one_page_have_names_of_their_own():
    one, other = (Page(example()[2].html).elements[0]["attrs"]["id"] for _ in range(2))
    assert one != other


def test_a_notebook_shows_it_and_it_saves_as_a_page(tmp_path):
    explorer = example(words=("日本語", "red", "ring"))[2]
    assert isinstance(explorer, Explorer)
    assert explorer._repr_html_() == explorer.html
    explorer.save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert explorer.html in text
    assert Page(text).find("label")[0]["text"] == "日本語"


def test_the_line_below_is_there_only_if_given():
    assert Page(example(total="0.98 of 512 words")[2].html).find("div", "total")[0]["text"] == "0.98 of 512 words"
    assert not Page(example()[2].html).find("div", "total")


@pytest.mark.parametrize(
    ("words", "maps", "regions", "expected"),
    [
        ([["a", "b"]], [torch.rand(3, 6)], None, "Picture 0 has 2 words on a grid of 2 × 3; its maps have shape"),
        ([["a", "b"]], [torch.rand(2, 5)], None, r"shape \(2, 5\)"),
        ([["a"], ["b"]], [torch.rand(1, 6)], None, "1 pictures and words, maps and regions of 2, 1 and 2"),
        ([["a"], ["b"]], [torch.rand(1, 6)] * 2, None, "1 pictures and words, maps and regions of 2, 2 and 2"),
        ([["a"]], [torch.rand(1, 6)], [], "1 pictures and words, maps and regions of 1, 1 and 0"),
        ([["a", "b"]], [torch.rand(2, 6)], [[None]], r"Picture 0 has 2 words .* and its regions \(1, 6\)"),
        ([["a"]], [torch.rand(1, 6)], [[torch.rand(5)]], r"Picture 0 has 1 words .* and its regions \(1, 5\)"),
        ([["a"]], [torch.rand(2, 2, 1, 6)], None, r"maps have shape \(2, 2, 1, 6\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_match_is_refused(words, maps, regions, expected):
    refused(expected, alignment_explorer, torch.rand(1, 3, 4, 6), words, maps, (2, 3), regions=regions)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layers": ["one"]}, r"maps of 1 layers have shape \(2, 2, 1, 6\)"),
        (
            {"layers": ["one", "two"], "scores": torch.rand(2, 3)},
            r"2 layers with 2 heads, but scores of shape \(2, 3\)",
        ),
        ({"layers": ["one", "two"], "start": (2, 0)}, r"the first to show is \(2, 0\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_layers_and_heads_that_do_not_match_are_refused(options, expected):
    maps = torch.rand(2, 2, 1, 6)
    refused(expected, alignment_explorer, torch.rand(1, 3, 4, 6), [["a"]], [maps], (2, 3), **options)
