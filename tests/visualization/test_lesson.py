"""What lessons draw: the picture under a map, where the map points, and the numbers beside it."""

import matplotlib.pyplot as plt
import pytest
import torch
from testing_tools import refused

from mmlearn.data import load
from mmlearn.visualization import answered, captions, lesson_models, lesson_sounds
from mmlearn.visualization import lesson as draw
from mmlearn.visualization.answered import dialogue_board


def spot(row, column, grid=6):
    weights = torch.zeros(grid, grid)
    weights[row, column] = 1.0
    return weights


def test_what_is_attended_keeps_its_colours_and_the_rest_fades():
    image = torch.zeros(3, 96, 96)
    image[0] = 1.0  # red
    shown = draw.spotlight(image, spot(1, 4))
    middle, far = shown[:, 24, 72], shown[:, 88, 8]
    torch.testing.assert_close(middle, image[:, 24, 72], atol=0.05, rtol=0)
    assert far.min() > 0.7  # pale
    assert far.max() - far.min() < 0.02  # grey


def test_a_map_that_is_the_same_everywhere_is_no_error():
    assert draw.spotlight(torch.rand(3, 32, 32), torch.ones(2, 2)).isfinite().all()


@pytest.mark.parametrize(("row", "column", "inside"), [(1, 4, True), (1, 3, False), (0, 4, False)])
def test_pointing_is_the_peak_in_a_box(row, column, inside):
    box = [4 / 6, 1 / 6, 5 / 6, 2 / 6]  # of row 1, column 4
    assert draw.points_inside(spot(row, column), [box]) == inside
    assert draw.points_inside(spot(row, column), [[0, 0, 0, 0], box]) == inside


def test_scores_and_their_chance():
    boxes = [[[0, 0, 0.5, 0.5]], [[0, 0, 0.5, 1.0]]]
    assert draw.pointing_score([spot(0, 0), spot(0, 5)], boxes) == 0.5
    assert draw.box_share(boxes) == pytest.approx((0.25 + 0.5) / 2)
    assert draw.score_line("right", 0.5, chance=0.25, untrained=0.1) == "right: 50% (untrained 10%, chance 25%)"
    assert draw.score_line("right", 0.5) == "right: 50%"


def test_an_overlay_has_a_panel_a_word_and_names_it():
    caption = "a cat above a dog"
    spans = [(2, 5), (14, 17)]
    maps = torch.stack([spot(0, 0), spot(5, 5)])
    figure = draw.overlay(torch.rand(3, 96, 96), caption, spans, maps, boxes=[[[0, 0, 0.2, 0.2]]] * 2, title="$x$")
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "cat", "dog"]
    figure.savefig("/dev/null", format="png")
    plt.close(figure)
    refused("give one of each", draw.overlay, torch.rand(3, 96, 96), caption, spans[:1], maps)
    refused("does not fit a picture", draw.overlay, torch.rand(3, 96, 48), caption, spans, maps)


def test_boards_are_drawn():
    images, maps = [torch.rand(3, 48, 48)] * 5, [spot(0, 0)] * 5
    figure = draw.pointing_board(images, ["cat"] * 5, maps, [[[0, 0, 0.3, 0.3]]] * 4 + [[[0.5, 0.5, 1, 1]]], title="t")
    colours = [axis.title.get_color() for axis in figure.axes[:5]]
    assert colours == [draw.RIGHT] * 4 + [draw.WRONG]
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    shown = draw.dimmed(torch.eye(3)[0][:, None, None].expand(3, 8, 8), boxes, torch.tensor([0.1, 0.9]))
    torch.testing.assert_close(shown[:, 6, 6], torch.tensor([1.0, 0.0, 0.0]))
    assert shown[1, 1, 1] > 0.6
    looks, captions = [torch.tensor([0.1, 0.9])] * 2, ["<start> a<mask> cat<end><pad>"] * 2
    figure = draw.looking_board(
        images[:2], [boxes] * 2, looks, captions, ["red", "blue"], ["blue"] * 2, [1] * 2, columns=1, rows=["one", "two"]
    )
    assert [axis.get_title() for axis in figure.axes] == ["answer: blue", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["one", "two"]
    assert {"10%", "90%"} <= {text.get_text() for text in figure.axes[0].texts}
    figure = draw.looking_board(images[:1], [boxes], looks[:1], captions[:1], ["red"], ["blue"], [1], least=0.5)
    assert "90%" in (shares := {text.get_text() for text in figure.axes[0].texts})
    assert "10%" not in shares
    plt.close("all")


def test_models_are_compared_on_one_scale_of_colours():
    true, poor = torch.eye(3) - 0.04, torch.full((3, 3), 0.2)
    poor[:, 1] = 0.5
    figure = lesson_models.similarity_matrices(
        {"one": true, "other": poor}, ["a", "b", "$c$"], [torch.rand(3, 8, 8)] * 3
    )
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == [
        "one\n3 of 3 pictures find their caption", "other\n1 of 3 pictures find their caption"
    ]  # fmt: skip
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim() == pytest.approx((-0.04, 0.96))
    assert [text.get_text() for text in panels[0].texts[:2]] == ["1.0", "0.0"]
    framed = [[round(patch.get_x() + 0.47) for patch in axis.patches] for axis in panels]  # the column of each row
    assert framed == [[0, 1, 2], [1, 1, 1]]
    assert panels[0].get_xlabel() == "1  a\n2  b\n3  $c$"
    figure.savefig("/dev/null", format="png")


def test_bars_of_models_have_their_floors():
    results = {"one": {"seen": 0.5, "unseen": 0.25}, "other": {"seen": 0.75, "unseen": 0.5}}
    figure = lesson_models.bars_of_models(
        results, label="hits", chance={"seen": 0.1, "unseen": 0.2}, untrained={"seen": 0.05}
    )
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [0.5, 0.25, 0.75, 0.5]
    assert [text.get_text() for text in axis.texts] == ["50%", "25%", "75%", "50%"]
    assert [line.get_xdata()[0] for line in axis.lines] == [0.05, 0.1, 0.2]  # none where nothing untrained was asked
    assert [line.get_label() for line in axis.lines[:2]] == ["untrained", "chance"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["seen", "unseen"]
    assert axis.get_xlim()[1] > 1
    more = {"random thing": {"seen": 0.15, "unseen": 0.3}}
    (axis,) = lesson_models.bars_of_models(results, label="hits", chance=0.1, floors=more).axes
    assert [line.get_xdata()[0] for line in axis.lines] == [0.1, 0.15, 0.1, 0.3]
    assert axis.lines[1].get_label() == "random thing"
    seeds = {"one": {"seen": [0.2, 0.4], "unseen": 0.25}}
    (axis,) = lesson_models.bars_of_models(seeds, label="hits", chance=0.1).axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.3, 0.25])
    assert list(axis.lines[0].get_xdata()) == [0.2, 0.4]
    assert [text.get_text() for text in axis.texts] == ["30%", "25%"]
    plt.close("all")


def test_answers_mark_what_fits():
    figure = draw.answers([[torch.rand(3, 8, 8)] * 2] * 2, ["a", "b"], [[True, False], [False] * 2], [0.25, 0.0])
    assert [axis.texts[0].get_text() for axis in figure.axes[::2]] == [
        "“a”: 1 of 2 fit (of all pictures 25.0%)", "“b”: 0 of 2 fit (of all pictures 0.0%)"
    ]  # fmt: skip
    figure = draw.answers([[torch.rand(3, 8, 8)]], ["a"], [[True]], [0.25], models=["mine"])
    assert figure.axes[0].texts[0].get_text() == "“a”, mine: 1 of 1 fit (of all pictures 25.0%)"
    plt.close("all")


def test_pictures_that_are_found_are_the_most_similar():
    similar = torch.eye(4) + 0.1 * torch.arange(4.0)[:, None]
    similar[:, 2] = torch.tensor([0.9, 0.1, 0.8, 0.2])  # caption 2 finds picture 0 first, and then its own
    images = [torch.full((3, 8, 8), k / 8) for k in range(4)]
    figure = lesson_models.own_pictures({"one": similar}, list("abcd"), images, [2])
    shown = [float(axis.images[0].get_array().ravel()[0]) for axis in figure.axes]
    assert shown == pytest.approx([0, 2 / 8, 3 / 8, 1 / 8], abs=0.01)
    assert "one 75% (chance 25.0%)" in figure.get_suptitle()
    assert any("“c”, one: 1 of 4 are its own" in text.get_text() for axis in figure.axes for text in axis.texts)
    plt.close(figure)


def test_what_a_caption_mentions_has_its_boxes():
    samples = load("collages", "test").__getitems__(range(8))
    for number in (0, 1):
        phrases, boxes = draw.mentioned(samples, number)
        for sample, phrase, each in zip(samples, phrases, boxes):
            thing = sample.things[sample.links[number].object]
            assert phrase in sample.caption
            assert len(each) == sum(other.name == thing.name for other in sample.things)
            for left, top, right, bottom in each:
                assert 0 <= left < right <= 1
                assert 0 <= top < bottom <= 1
                centres = [other.centre for other in sample.things if other.name == thing.name]
                assert [(x, y) for x, y in centres if left <= x < right and top <= y < bottom]


def test_curves_and_bars_show_their_floors():
    figure = draw.training_curve({"one": [3.0, 2.0, 1.0], "two": [3.0]}, {"knows nothing": 2.5})
    assert "knows nothing" in [text.get_text() for text in figure.axes[0].texts]
    assert draw.training_curve({"one": [3.0, 2.0]}, bottom=1.5, top=2.5).axes[0].get_ylim() == (1.5, 2.5)
    smooth = draw.training_curve({"falls": [float(k) for k in range(200, 0, -1)]}).axes[0].lines[0]
    assert smooth.get_xydata()[0].tolist() == [2.5, 198.5]  # each mean is in the middle of its steps
    figure = draw.progress({"one": [0.1, 0.9]}, every=10, floors={"chance": 0.25})
    assert list(figure.axes[0].lines[0].get_xdata()) == [10, 20]
    figure = draw.progress({"one": [0.1, 0.9]}, every=10, beside={"one": [0.2, 0.5, 0.8]})
    mine, other = figure.axes[0].lines
    assert (list(other.get_xdata()), other.get_color()) == ([10, 20, 30], mine.get_color())
    figure = draw.seeds_as_dots({"a": 0.5, "b": [0.2, 0.4]}, label="R@1", chance=0.1, untrained={"a": 0.05})
    assert [text.get_text() for text in figure.axes[0].texts] == ["50%", "30%"]
    plt.close("all")


def test_rows_of_a_report_are_lines_of_a_title():
    row = dict(here=0.5, zoo=0.9, untrained=0.1, chance=0.125)
    said = "t\nright: yours 50%, trained for longer 90% (untrained 10%, chance 12%)"
    assert draw.report_lines("t", {"right": row}) == said


def test_recorded_seeds_are_dots_at_the_bar_of_this_run():
    figure = draw.seeds_as_dots({"a": 0.5, "b": 0.3}, label="R@1", recorded={"a": [0.4, 0.45, 0.55], "b": []})
    (dots,) = figure.axes[0].lines
    assert dots.get_xdata().tolist() == [0.4, 0.45, 0.55]
    assert set(dots.get_ydata()) == {0}
    assert [text.get_text() for text in figure.axes[0].texts] == ["50%", "30%"]  # of this run
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["3 recorded seeds"]
    plt.close("all")


def test_small_tables_escape_and_align():
    table = draw.paper_table([("a|b", "1", "2", "<b>")])
    assert "a\\|b" in table._repr_markdown_()
    assert "<b>" not in table._repr_markdown_()
    assert str(table).splitlines()[0].split() == ["paper", "here", "why", "they", "differ"]


def test_letters_are_written_over_their_sound():
    mels, spans = [torch.rand(40, 100)] * 2, [[(0, 60, "un si")], []]
    written = [[(6, "u"), (9, "m"), (12, " "), (15, "s"), (18, " ")], []]
    figure = lesson_sounds.written_over_sound(mels, written, spans, titles=["a", "b"])
    shown = [(text.get_text(), text.get_color()) for text in figure.axes[0].texts]
    right = [("␣", draw.RIGHT), ("s", draw.RIGHT), ("␣", draw.WRONG)]  # nothing is said after the last letter
    assert shown == [("un si", "white"), ("u", draw.RIGHT), ("m", draw.WRONG), *right]
    assert len(figure.axes[0].patches) == 1
    figure.savefig("/dev/null", format="png")
    (axis,) = lesson_sounds.written_over_sound(mels[:1], [[(6, "u")]], check=False).axes
    assert axis.texts[0].get_color() == draw.MUTED
    plt.close("all")


@pytest.mark.parametrize(
    ("written", "said", "kept"),
    [("ab", "ba", 1), ("una", "una", 3), ("xuna", "una", 3), ("abc", "xyz", 0), ("", "si", 0), ("si", "", 0)],
)
def test_letters_that_fit_are_those_of_the_fewest_edits(written, said, kept):
    assert sum(lesson_sounds._belongs(written, said)) == kept


def test_an_alignment_has_a_row_for_each_aligner_and_letters_at_their_peaks():
    share = torch.eye(5)[:, [0, 2, 3]]
    figure = lesson_sounds.aligned_over_sound(torch.rand(40, 24), "a b", {"one": share, "two": share}, title="t")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["one", "two"]
    written = {text.get_text(): round(text.get_position()[0], 2) for text in figure.axes[0].texts}
    assert written == {"a": 0.06, "␣": 0.12, "b": 0.15}
    figure.savefig("/dev/null", format="png")
    plt.close(figure)


def test_a_lattice_has_a_row_for_each_state_and_its_moves():
    figure = lesson_sounds.ctc_lattice(torch.rand(4, 5), "–ss–i", [0, 1, 3, 3], label="share")
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [*"–ss–i"]
    assert axis.lines[-1].get_ydata().tolist() == [0, 1, 3, 3]
    assert len(axis.texts) == 20
    figure.savefig("/dev/null", format="png")
    plt.close(figure)


def test_a_choice_of_two_captions_shows_the_words_that_differ_and_the_better_model_in_green():
    true, exchanged = "a red car above a blue book", "a blue car above a red book"
    figure = captions.caption_choices(
        [torch.rand(3, 48, 48)] * 3, [true] * 3, [exchanged] * 3, {"CLIP": [0.4, 0.6, 0.5]}
    )
    figure.savefig("/dev/null", format="png")
    bars = [[bar.get_facecolor()[:3] for bar in axis.patches] for axis in figure.axes[4:7]]
    red, green, undecided = (colours[0] for colours in bars)
    assert red == undecided != green
    assert captions._differing(true, exchanged) == [(2, 5), (18, 22)]
    refused("longer than", captions._differing, "a car", "a red car")


def test_names_that_were_written_are_right_or_wrong():
    written, true = [["cat", "red car", "cat"], ["dog"]], [["cat"], ["dog", "owl"]]
    assert answered.name_precision(written, true) == pytest.approx(2 / 3)
    assert answered.name_recall([["cat", "dog"], ["dog"]], true) == pytest.approx(2 / 3)  # the owl is left out
    line = answered.lists_line("yours", [["cat", "dog"], ["dog"]], true)
    assert line == "yours: 67% of the names it writes are there; it writes 67% of those that are there"
    figure = answered.answer_board([torch.rand(3, 8, 8)] * 2, "what is there?", written, true, title="t", wide=8)
    below = [axis.artists[0].get_child().get_children() for axis in figure.axes[:2]]
    lines = [[area.get_text() for area in line.get_children()] for line in below[0][1:]]
    assert lines == [["cat,"], ["red car"]]
    colours = [area._text.get_color() for line in below[0][1:] for area in line.get_children()]
    assert colours == [draw.RIGHT, draw.WRONG]
    plt.close("all")


def test_a_strip_has_a_panel_for_each_word():
    images, words = [torch.rand(3, 24, 24)] * 2, [["a duck", "above", "a pear"], ["a lion", "below", "a key"]]
    figure = answered.word_strip(
        images, words, [[True, False, True]] * 2, [torch.stack([spot(0, 5)] * 3)] * 2, title="t"
    )
    panels = figure.axes[:4]
    assert [axis.get_xlabel() for axis in panels] == ["", *words[0]]
    assert [axis.xaxis.label.get_color() for axis in panels[1:]] == [draw.RIGHT, draw.WRONG, draw.RIGHT]
    assert [line.get_xydata().tolist() for line in panels[1].lines] == [[[21.5, 1.5]]] * 2  # the ring, and its halo
    plain = answered.word_strip(images, words)
    assert [text.get_text() for text in plain.axes[1].texts] == words[1]
    with pytest.raises(ValueError, match="shorter"):
        answered.word_strip(images, words[:1])
    plt.close("all")


def test_words_are_drawn_over_the_positions_that_they_belong_to():
    grid = [["", "red"], ["dog", "paper"]]
    figure = answered.words_over([torch.rand(3, 8, 8)], [grid], [["red car", "cat"]], title="t")
    found = [(text.get_text(), text.get_position(), text.get_color()) for text in figure.axes[0].texts]
    assert answered.fitting_words([grid], [["red car", "cat"]]) == 0.5
    assert answered.fitting_words([[["", ""]]], [["cat"]]) == 0
    assert found[:2] == [("red", (0.75, 0.75), draw.RIGHT), ("dog", (0.25, 0.25), draw.WRONG)]
    assert found[2][2] not in (draw.RIGHT, draw.WRONG)
    with pytest.raises(ValueError, match="2 pictures, 1 grids, names of 1"):
        answered.words_over([torch.rand(3, 8, 8)] * 2, [grid], [["cat"]])
    plt.close("all")


def test_what_parameters_buy_has_its_floors():
    figure = answered.bought({"one": (100, 0.5), "two": (1000, 0.9)}, {"chance": 0.2}, label="right", title="t")
    assert [text.get_text() for text in figure.axes[0].texts] == ["one: 50%", "two: 90%", " chance"]
    crowded = answered.bought({"one": (100, 0.5), "two": (1000, 0.55), "three": (1e4, 0.9)}, {}, label="right")
    assert [text.xyann for text in crowded.axes[0].texts] == [(-10, 0), (10, -12), (10, 0)]  # below its neighbour's
    plt.close("all")


def test_a_dialogue_is_below_its_picture():
    turns = [[("what is this?", "A cat that is on a mat.", True), ("", "No.", False)], [("why?", "", None)]]
    figure = dialogue_board([torch.rand(3, 8, 8)] * 2, turns, title="t", wide=12)
    below = [axis.artists[0].get_child().get_children() for axis in figure.axes[:2]]
    lines = [[(area.get_text(), area._text.get_color()) for area in each] for each in below]
    assert lines[0][2:] == [("A cat that", draw.RIGHT), ("is on a mat.", draw.RIGHT), ("No.", draw.WRONG)]
    assert [text for text, _ in lines[1]] == ["why?", "(nothing)"]
    with pytest.raises(ValueError, match="2 pictures and turns of 1"):
        dialogue_board([torch.rand(3, 8, 8)] * 2, turns[:1])
    plt.close("all")


def test_first_pictures_are_of_the_captions_whose_first_is_among_some():
    rankings = {"one": torch.arange(6).roll(1).expand(4, 6), "other": torch.arange(6).expand(4, 6)}
    fits, among = torch.eye(4, 6).bool(), torch.zeros(4, 6, dtype=torch.bool)
    among[2, 5] = among[3, 5] = True  # picture 5 is the first of "one"
    captions, images = list("abcd"), list(torch.rand(6, 3, 8, 8))
    figure = lesson_models.first_pictures(rankings, captions, images, fits, among=among)
    told = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert [line.split(":")[0] for line in told] == ["“c”, one", "“c”, other", "“d”, one", "“d”, other"]
    assert all("1 of 5 fit" in line for line in told)
    assert "one 0%, other 25%" in figure.get_suptitle()
    assert torch.equal(torch.tensor(figure.axes[0].images[0].get_array()), images[5].permute(1, 2, 0))


def test_changed_pictures_have_a_row_for_each_sentence():
    pictures = [list(torch.rand(3, 3, 8, 8)) for _ in range(2)]
    notes = [["1", "2", "3"], ["4", "5", "6"]]
    figure = lesson_models.changed_pictures(pictures, ["a cat", "a dog"], notes, columns="xyz")
    assert [axis.get_xlabel() for axis in figure.axes] == list("123456")
    assert [axis.get_title() for axis in figure.axes[:3]] == list("xyz")
    assert figure.axes[3].get_ylabel() == "a dog"
    with pytest.raises(ValueError, match="shorter"):
        lesson_models.changed_pictures(pictures, ["a cat"], notes, columns="xyz")
