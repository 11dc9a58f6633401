"""Graph-MFN: the graph's 19 edges, each vertex by hand, parts of equal length, and the gated memory."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from batches import talk
from testing_tools import close, refused, shaken

from mmlearn.models.trimodal.graph_mfn import EDGES, DynamicFusionGraph, GraphMFN, GraphMFNConfig, equal_parts

CONFIG = dataclasses.replace(
    GraphMFNConfig.tiny(), vocab_size=50, text_width=12, audio_width=10, video_width=3 * 4 * 4, lstm_width=8, width=6,
    memory_width=5, steps=4,
)  # fmt: skip


def test_parts_of_equal_length_are_pytorchs_adaptive_mean():
    x = torch.randn(4, 9, 3)
    mask = torch.arange(9) < torch.tensor([[9], [4], [2], [0]])
    got = equal_parts(x, mask, 4)
    for row, length in enumerate((9, 4, 2)):
        close(got[row], F.adaptive_avg_pool1d(x[row, :length].T[None], 4)[0].T)
    assert (got[3] == 0).all()
    close(equal_parts(x.roll(2, 1), mask.roll(2, 1), 4)[1:], got[1:])


def test_the_graph_has_eight_vertices_and_nineteen_edges():
    assert len(EDGES) == len(set(EDGES)) == 19
    into = [whole for _, whole in EDGES]
    assert sorted(into.count(whole) for whole in set(into)) == [2, 2, 2, 6, 7]
    for part, whole in EDGES:
        assert whole == "fusion" or set(part) < set(whole)


def test_the_graph_vertex_by_vertex():
    graph = shaken(DynamicFusionGraph(3, 4), 0.3)
    l, a, v = (torch.randn(2, 3) for _ in range(3))
    got, efficacy = graph({"text": l, "audio": a, "video": v})
    first, _, last = graph.efficacy
    hidden = torch.relu(F.linear(torch.cat([l, a, v], -1), first.weight, first.bias))
    alpha = torch.sigmoid(F.linear(hidden, last.weight, last.bias))
    close(efficacy, alpha)
    w = {edge: alpha[:, [i]] for i, edge in enumerate(EDGES)}
    t, s, f = ("text",), ("audio",), ("video",)
    ts, tf, sf, tsf = (*t, *s), (*t, *f), (*s, *f), (*t, *s, *f)

    def vertex(name, parts, whole):
        return torch.tanh(graph.vertices[name](torch.cat([w[part, whole] * x for part, x in parts], -1)))

    la = vertex("text+audio", [(t, l), (s, a)], ts)
    lv = vertex("text+video", [(t, l), (f, v)], tf)
    av = vertex("audio+video", [(s, a), (f, v)], sf)
    parts = [(t, l), (s, a), (f, v), (ts, la), (tf, lv), (sf, av)]
    lav = vertex("text+audio+video", parts, tsf)
    close(got, vertex("fusion", [*parts, (tsf, lav)], "fusion"))


def test_an_efficacy_of_zero_cuts_an_edge():
    graph = shaken(DynamicFusionGraph(3, 4), 0.3)
    with torch.no_grad():  # all edges out of video
        graph.efficacy[2].weight.zero_()
        graph.efficacy[2].bias.copy_(torch.tensor([-1e4 if part == ("video",) else 3.0 for part, _ in EDGES]))
    x = {name: torch.randn(2, 3) for name in ("text", "audio", "video")}
    assert torch.equal(graph(x)[0], graph(x | {"video": torch.randn(2, 3)})[0])
    assert not torch.equal(graph(x)[0], graph(x | {"audio": torch.randn(2, 3)})[0])


def test_the_memory_step_by_step():
    torch.manual_seed(0)
    system, batch = shaken(GraphMFN(CONFIG)).eval(), talk(3)
    inputs = {name: value for name, value in batch.items() if name != "label"}
    output = system(**inputs)
    found = system.sequences(*(inputs.get(k) for k in ("video", "mel", "tokens", "video_mask", "mel_mask", "mask")))
    x = {name: equal_parts(*found[name], 4) for name in found}
    h = {name: torch.zeros(3, 8) for name in x}
    c, u = dict(h), torch.zeros(3, 5)
    for step in range(4):
        new = {name: system.cells[name](x[name][:, step], (h[name], c[name])) for name in x}
        graph, efficacy = system.graph({name: torch.cat([c[name], new[name][1]], -1) for name in x})
        close(output.efficacies[:, step], efficacy)
        u = torch.sigmoid(system.retain_gate(graph)) * u + torch.sigmoid(system.update_gate(graph)) * torch.tanh(
            system.update(graph)
        )
        h, c = ({name: new[name][k] for name in x} for k in (0, 1))
    read = torch.cat([h["text"], h["audio"], h["video"], u], -1)
    close(output.logits, system.prediction(torch.relu(system.hidden(read))))


@pytest.mark.parametrize("outputs", [1, 4])
def test_scores_and_classes(outputs):
    torch.manual_seed(0)
    system, batch = shaken(GraphMFN(dataclasses.replace(CONFIG, outputs=outputs))).eval(), talk(3)
    label = torch.tensor([0.5, -1.0, 2.0]) if outputs == 1 else torch.tensor([0, 3, 1])
    logits = system(**{k: v for k, v in batch.items() if k != "label"}).logits
    expected = (logits[:, 0] - label).abs().mean() if outputs == 1 else F.cross_entropy(logits, label)
    close(system.loss(batch | {"label": label})["task"], expected)


def test_what_is_wrong_is_told(unchecked):
    system, batch = GraphMFN(CONFIG), talk(3)
    refused("GraphMFN needs label", system.loss, {k: v for k, v in batch.items() if k != "label"})
    refused("labels are 0 to 3", system.loss, batch | {"label": torch.tensor([0, 9, 1])})
