"""Hands on dials, read from their artists."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle, Wedge

from mmlearn.visualization.lesson_language import (
    COLOURS,
    KEY,
    KINDS,
    QUERY,
    STATES,
    bars_at_a_gap,
    dots_with_columns,
    loss_by_position,
    objectives_on_tokens,
    power_of_ten,
    rotating_hands,
    scores_in_cells,
    scores_over_work,
    word_similarities,
)

matplotlib.use("agg")


def test_a_dial_shades_the_angle_from_key_to_query_and_says_what_it_adds():
    query, key = torch.tensor([0.0, 3.0, 2.0, 0.0]), torch.tensor([1.0, -0.5, 0.0, 0.0])
    figure = rotating_hands({"near": (query, key), "far": (key, key)}, ["fast", "slow"], title="hands")
    figure.canvas.draw()
    assert plt.get_fignums() == []
    first, second = figure.axes[:2]
    wedges = [axis.findobj(Wedge)[0] for axis in (first, second)]
    assert [(round(each.theta1), round(each.theta2)) for each in wedges] == [(0, 90), (0, 180)]
    hands = {line.get_color(): (list(line.get_xdata()), list(line.get_ydata())) for line in first.lines[:2]}
    assert hands[QUERY] == ([0, 0.0], [0, 1.0])
    assert hands[KEY] == ([0, 1.0], [0, 0.0])
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts[:3] == ["+0.00", "near: score -1.50", "-1.50"]
    assert {"far: score +1.25", "fast", "slow"} <= set(texts)


def test_each_pair_needs_a_name():
    with pytest.raises(ValueError, match="2 pairs of features need 2 names, got 1"):
        rotating_hands({"a": (torch.ones(4), torch.ones(4))}, ["fast"])


def test_losses_are_means_of_so_many_positions_and_later_ones_are_shaded():
    lines = {"one": torch.arange(8.0), "one, window": torch.ones(8), "two": torch.zeros(8)}
    lines["one, cropped"] = torch.full((8,), 2.0)
    figure = loss_by_position({"short": lines, "long": {"one": torch.full((8,), 9.0)}}, trained=4, every=2,
                              floors={"knows little": 3.0})  # fmt: skip
    figure.canvas.draw()
    axis, other = figure.axes
    assert axis.get_ylim() == other.get_ylim()
    assert (axis.get_title(), other.get_title()) == ("short", "long")
    drawn = {line.get_label(): line for line in axis.lines}
    assert list(drawn["one"].get_ydata()) == [0.5, 2.5, 4.5, 6.5]
    assert list(drawn["one"].get_xdata()) == [1, 3, 5, 7]
    assert drawn["one"].get_color() == drawn["one, window"].get_color() != drawn["two"].get_color()
    assert (drawn["one"].get_linestyle(), drawn["one, window"].get_linestyle()) == ("--", "-")
    assert drawn["one, cropped"].get_linestyle() == ":"
    assert len({drawn[name].get_marker() for name in ("one", "one, window", "one, cropped")}) == 3
    assert [text.get_text() for text in axis.texts] == ["longer than in training", "knows little"]
    level = [line for line in axis.lines if line.get_label().startswith("_") and line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in level] == [3.0]
    assert axis.get_ylabel().endswith(", nats")
    shaded = axis.patches[0].get_extents().transformed(axis.transData.inverted())
    assert (round(shaded.x0), round(shaded.x1)) == (4, 8)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines)


def test_a_row_has_both_runs_and_its_columns():
    results, longer = {"first": 0.4, "second": 0.3}, {"first": 0.25, "second": 0.2, "third": 0.1}
    columns = {"bytes": ["12", "6", "3"]}
    figure = dots_with_columns(results, columns, label="loss", longer=longer, floors={"bigram": 0.5}, title="changes")
    figure.canvas.draw()
    axis, table = figure.axes
    texts = [text.get_text() for text in table.texts]
    assert table.get_ylim() == axis.get_ylim()  # rows side by side
    assert [text.get_text() for text in axis.texts] == ["bigram"]
    assert texts[:9] == ["0.40", "0.25", "12", "0.30", "0.20", "6", "–", "0.10", "3"]
    assert texts[9:] == ["your\nrun", "trained\nfor\nlonger", "bytes"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["first", "second", "third"]
    for marker, run in (("D", results), ("o", longer)):
        found = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_marker() == marker]
        assert found == [(value, row) for row, value in enumerate(run.values())]
    dashed = [line for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert [line.get_xdata()[0] for line in dashed] == [0.4, 0.25]
    assert [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"] == [0.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["your run", "trained for longer", "at first"]
    alone = dots_with_columns(results, {}, label="loss")
    assert [text.get_text() for text in alone.axes[1].texts] == ["0.40", "0.30", "your\nrun"]


def test_an_objective_shows_what_is_read_and_only_what_is_asked():
    rows = [("reads", ["the", "<mask>", "ran"], {"hidden": (1,)}), ("predicts", ["the", "dog", "ran"], {"asked": [1]})]
    figure = objectives_on_tokens({"BERT": rows}, title="one")
    figure.canvas.draw()
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["BERT", "reads", "the", "<mask>", "ran", "predicts", "dog"]
    faces = [to_hex(patch.get_facecolor()) for patch in axis.patches if isinstance(patch, Rectangle)]
    assert faces == [STATES[state] for state in ("", "hidden", "", "asked")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["hidden", "what it learns to predict"]


def test_bars_at_a_gap_have_the_colour_of_their_kind_and_its_sum_or_mean():
    kinds = {"for animals": ["fed", "freed"], "for food": ["fried"]}
    rows = {"BERT": [torch.tensor([0.5, 0.3, 0.1])], "ELECTRA": [torch.tensor([0.9, 0.7, 0.2])]}
    before = {"BERT": [torch.tensor([0.2, 0.2, 0.2])]}
    figure = bars_at_a_gap(rows, kinds, ["they ▢ it"], untrained=before, means=["ELECTRA"], title="gap")
    figure.canvas.draw()
    bert, electra = figure.axes
    assert [text.get_text() for text in bert.texts] == ["80%", "10%"]
    assert [text.get_text() for text in electra.texts] == ["80%", "20%"]  # means
    assert [to_hex(bar.get_facecolor()) for bar in bert.patches] == [KINDS[0], KINDS[0], KINDS[1]]
    assert bert.lines[0].get_ydata().tolist() == pytest.approx([0.2, 0.2, 0.2])
    assert len(electra.lines) == 0
    assert [label.get_text() for label in electra.get_xticklabels()] == ["fed", "freed", "fried"]
    assert bert.get_title() == "they ▢ it"
    assert [text.get_text() for text in bert.get_yticklabels()] == ["0", "50%"]
    assert bert.get_yticks().tolist() == [0, 0.5]


def test_scores_over_work_name_single_points_and_draw_chance():
    panels = {
        "paper": {"BERT-Base": ([10.0], [0.8])},
        "here": {"BERT": ([1.0, 10.0], [0.5, 0.9]), "T5": ([1, 9], [0.4, 1])},
    }
    figure = scores_over_work(
        panels, names=["BERT", "T5"], across=["work", "steps"], up=["GLUE", "right"], floors={"here": 0.5}
    )
    figure.canvas.draw()
    paper, here = figure.axes
    assert [text.get_text() for text in paper.texts] == ["BERT-Base"]
    assert [text.get_text() for text in here.texts] == []
    assert [line.get_color() for line in here.lines[:2]] == list(COLOURS[:2])
    assert here.lines[2].get_ydata() == [0.5, 0.5]
    assert (here.get_xscale(), here.get_xlabel(), len(paper.lines)) == ("log", "steps", 1)
    assert [axis.get_ylabel() for axis in figure.axes] == ["GLUE", "right"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["BERT", "T5", "chance"]


def test_a_curve_may_begin_before_the_first_step():
    panels = {"here": {"BERT": ([0, 10, 100], [0.5, 0.6, 0.9])}}
    figure = scores_over_work(panels, names=["BERT"], across=["steps"], up=["right"])
    figure.canvas.draw()
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()][:3] == ["0", "10", "100"]
    places = axis.transData.transform([(step, 0.5) for step in (0, 10, 100, 1000)])[:, 0]
    assert places[0] == pytest.approx(axis.bbox.x0)
    assert places[0] < places[1] < places[2]
    assert places[2] - places[1] == pytest.approx(places[3] - places[2])  # powers of ten from the first step on


def test_words_of_one_kind_are_compared_with_each_other_and_with_the_other_kind():
    kinds = {"for animals": ["fed", "freed"], "for food": ["fried"]}
    panels = {"trained": torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), "untrained": torch.ones(3, 2)}
    figure = word_similarities(panels, kinds, title="verbs")
    figure.canvas.draw()
    trained, untrained = figure.axes[:2]
    cosine = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(torch.tensor(trained.images[0].get_array()), cosine)
    assert trained.get_title() == "trained\nsame kind +1.00, other kind +0.00"
    assert untrained.get_title() == "untrained\nsame kind +1.00, other kind +1.00"
    assert trained.images[0].get_clim() == untrained.images[0].get_clim() == (-0.5, 1)
    assert [label.get_text() for label in trained.get_yticklabels()] == ["fed", "freed", "fried"]
    assert [label.get_color() for label in trained.get_xticklabels()] == [KINDS[0], KINDS[0], KINDS[1]]
    drawn = [path.vertices.tolist() for lines in trained.collections for path in lines.get_paths()]
    assert drawn == [[[-0.5, 1.5], [2.5, 1.5]], [[1.5, -0.5], [1.5, 2.5]]]


def test_a_cell_has_the_score_and_what_the_untrained_model_gets():
    scores = {"BERT": {"first, here": 0.9, "last": 0.5}, "counts": {"first, here": 0.7, "last": 1.0}}
    figure = scores_in_cells(scores, {"BERT": {"first, here": 0.6, "last": 0.4}}, chance=0.5, title="where")
    figure.canvas.draw()
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["90%", "untrained 60%", "50%", "untrained 40%", "70%", "100%"]
    assert [(text.get_position()[0], round(text.get_position()[1])) for text in axis.texts[-2:]] == [(0, 1), (1, 1)]
    assert axis.images[0].get_array().tolist() == [[0.9, 0.5], [0.7, 1.0]]
    assert axis.images[0].get_clim() == pytest.approx((0.5, 1.3))  # as pale at chance as can be
    assert [label.get_text() for label in axis.get_xticklabels()] == ["first,\nhere", "last"]
    assert axis.get_xlabel().startswith("chance 50%")


def test_a_large_number_is_a_power_of_ten():
    assert [power_of_ten(value) for value in (0, 10, 1000, 1e5, 1e17)] == ["0", "10", "1,000", "10⁵", "10¹⁷"]
