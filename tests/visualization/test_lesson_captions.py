"""Figures of lesson 11b: what is dark, what is struck out, and where the threshold is."""

import torch

from mmlearn.visualization.lesson_captions import judged_captions, score_histograms, who_sees_what


def test_the_picture_is_the_last_column():
    cells = torch.tensor([[True, False, True], [True, True, False]])
    (axis,) = who_sees_what({"decoder": cells}, ["<first>", "owl"]).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["<first>", "owl", "picture"]
    assert axis.images[0].get_array().tolist() == cells.tolist()


def test_each_heap_sums_to_one_and_the_threshold_is_drawn_where_scores_are():
    scores, true = torch.linspace(-2, 2, 50), torch.arange(50) > 30
    figure = score_histograms({"narrow": scores / 100, "wide": scores}, true, threshold=0.7)
    for axis, lines in zip(figure.axes, (0, 1)):
        heights = [sum(bar.get_height() for bar in heap) for heap in axis.containers]
        assert [round(height, 6) for height in heights] == [1, 1]
        assert len(axis.lines) == lines
    right = figure.axes[1].containers[1]
    assert min(bar.get_x() for bar in right if bar.get_height()) > 0.3


def test_refused_captions_are_struck_out_and_mistakes_named():
    captions = [{"web": ("owl", False, False), "BLIP": ("key", True, True)}, {"web": ("pig", False, True)}]
    captions[1]["BLIP"] = ("cow", True, False)
    figure = judged_captions([torch.rand(3, 8, 8)] * 2, captions)
    texts = [each.get_text() for each in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    for text in ("o\u0336w\u0336l\u0336", "key", "web (true, but refused)", "BLIP (wrong, but kept)"):
        assert text in texts
    assert {"owl", "web (wrong, but kept)"}.isdisjoint(texts)
