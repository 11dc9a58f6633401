"""Exercises: what a notebook prints, examples by hand that the library agrees with, notebooks unsolved and solved."""

import dataclasses
import inspect
import json
import logging

import nbformat
import pytest
import torch
from answers import ANSWERS, FOLDERS, TASKS, TASKS_OF, each_folder, is_written_in_the_check, told
from nbclient import NotebookClient
from torchaudio.functional import melscale_fbanks

from mmlearn import evaluation, layers, objectives
from mmlearn.data.batches import rank_batches
from mmlearn.data.mel import whisper_log_mel
from mmlearn.data.synthetic.scene_sound import add_noise
from mmlearn.evaluation.retrieval import ranks
from mmlearn.exercises import NOT_SOLVED, attempt, experiments, load_checks, progress_file, solution, solved
from mmlearn.generation.cache import Cache
from mmlearn.generation.ctc import collapse
from mmlearn.generation.decoding import beam_search, greedy, sampling_probabilities
from mmlearn.layers.gumbel import straight_through
from mmlearn.layers.language import MaskedLanguageHead
from mmlearn.layers.lora import LoRALinear, low_rank
from mmlearn.layers.rotary import rotary_frequencies
from mmlearn.models.align.pair_queue import queue_positions
from mmlearn.models.audiovisual.av_hubert import imposters
from mmlearn.models.bridges.bridge import interleaved_positions
from mmlearn.models.bridges.flamingo import gated
from mmlearn.models.bridges.vlm import VLM, VLMConfig, pixel_shuffle
from mmlearn.models.classic_fusion.gmu import GMU, GMUConfig
from mmlearn.models.classic_fusion.lmf import low_rank_product
from mmlearn.models.classic_fusion.tfn import outer_product
from mmlearn.models.fusion.regions import box_sizes
from mmlearn.models.fusion.streams import co_attention
from mmlearn.models.image_tokens.dall_e import DALLE, DALLEConfig
from mmlearn.models.question_answering.aoa import AttentionOnAttention
from mmlearn.models.question_answering.memory_network import MemoryNetwork, MemoryNetworkConfig, position_encoding
from mmlearn.models.question_answering.san import AttentionHop
from mmlearn.models.recurrent_captions.sca_cnn import ORDERS, ChannelSpatialAttention
from mmlearn.models.recurrent_captions.show_and_tell import ShowAndTell, ShowAndTellConfig
from mmlearn.models.speech.encoder import frame_count, frame_mask
from mmlearn.models.text import llama
from mmlearn.models.text.bert import BERTConfig
from mmlearn.models.text.gpt2 import GPT2, GPT2Config
from mmlearn.models.text.llama import LlamaConfig
from mmlearn.models.trimodal.drop_token import drop_tokens
from mmlearn.models.trimodal.graph_mfn import EDGES, SUBSETS, DynamicFusionGraph
from mmlearn.models.trimodal.mult import read_others
from mmlearn.models.trimodal.sequences import MODALITIES
from mmlearn.models.unified.multiway_blocks import by_modality
from mmlearn.models.unified.sparse import send_to_experts
from mmlearn.objectives import large_batch
from mmlearn.objectives.bridging import last_image_mask, query_text_contrast, query_text_mask, query_text_similarity
from mmlearn.objectives.denoising import Corruption
from mmlearn.objectives.distillation import momentum_update
from mmlearn.objectives.experts import balance, global_entropy
from mmlearn.objectives.generative import response_language_modelling, responses_in_turn
from mmlearn.objectives.masked import smooth_region_regression
from mmlearn.objectives.unpaired import own_gradient
from mmlearn.training import estimates
from mmlearn.training.collectives_demo import gather_backward, ring_all_reduce, to_next_rank
from mmlearn.training.memory import backward_in_chunks
from mmlearn.training.optimizers import scaled_rate


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# Checks.


def test_there_is_enough_to_do():
    names = [
        "01_fusion",
        "02_captioning",
        "03_questions",
        "04_drawing_from_words",
        "05_attention",
        "06_text",
        "07_contrastive",
        "08_one_stream",
        "09_two_streams",
        "11_align_before_fuse",
        "12_learning_from_captions",
        "13a_hearing",
        "13b_speech_without_labels",
        "13c_finding_by_ear",
        "14_seeing_sound",
        "16_three_modalities",
        "19_many_tasks",
        "20_one_encoder",
        "21_pictures_as_tokens",
        "22_bridges",
        "26_many_gpus",
        "27_own_vlm",
    ]
    assert [folder.name for folder in FOLDERS] == names
    assert len(TASKS) >= 12
    for folder in FOLDERS:
        names = [task.name for task in TASKS_OF[folder.name]]
        assert set(ANSWERS[folder.name].MISTAKES) == set(ANSWERS[folder.name].RIGHT) == set(names)
        assert len(experiments(folder)) >= 1
        assert TASKS_OF[folder.name][0].difficulty == 1  # an easy opener


def test_an_input_that_is_right_once_and_of_another_shape_later_is_no_stack_trace():
    calls = []

    def fickle(*arguments, **named):
        calls.append(None)
        return layers.attention(*arguments, **named) if len(calls) < 3 else torch.zeros(7, 1, 2, 1)

    task = next(task for task in TASKS if task.name == "attention")
    assert "cannot be compared" in told(task, fickle)


def test_a_wrong_signature_is_told_without_a_line():
    message = told(TASKS[0], lambda image: image)
    assert message.startswith("It stops with TypeError: ")
    assert "takes 1 positional argument but 2 were given" in message


def test_attempt_prints_and_remembers(capsys):
    task = next(task for task in TASKS if task.name == "same_caption")

    def stub(caption_id):
        raise NotImplementedError

    attempt(task.check, stub)
    assert capsys.readouterr().out == "…  same_caption: not solved yet\n"
    attempt(task.check, lambda ids: ids[:, None] != ids)
    assert capsys.readouterr().out == (
        "✘  same_caption: A caption must fit its own picture: the diagonal is True.\n   Hint: each id equals itself.\n"
        "   By hand: The statement's own example must give [[True, False, True], [False, True, False], "
        "[True, False, True]]; this gives [[False, True, False], [True, False, True], [False, True, False]].\n"
    )
    assert solved() == set()
    attempt(task.check, task.reference)
    assert capsys.readouterr().out == "✔  same_caption: solved\n"
    assert solved() == {"07_contrastive/same_caption"}
    attempt(task.check, stub)
    assert solved() == {"07_contrastive/same_caption"}  # a stub is no answer
    capsys.readouterr()
    attempt(task.check, lambda ids: ids[:, None] != ids)
    assert capsys.readouterr().out.endswith("   It was solved before, and no longer is.\n")
    assert solved() == set()
    progress_file().write_text("{damaged")
    assert solved() == set()
    attempt(task.check, task.reference)
    assert solved() == {"07_contrastive/same_caption"}


def test_progress_that_cannot_be_saved_stops_nothing(tmp_path, monkeypatch, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("MMLEARN_HOME", str(blocked))
    task = next(task for task in TASKS if task.name == "same_caption")
    attempt(task.check, task.reference)
    out = capsys.readouterr().out
    assert out.startswith("✔  same_caption: solved\n")
    assert "progress was not saved" in out


def test_an_unknown_exercise_is_answered_with_what_there_is():
    with pytest.raises(ValueError, match=r"no exercise '05_atention'.*did you mean '05_attention'.*07_contrastive"):
        load_checks("05_atention")


# What the statements work out by hand is what the library says.


def rows(*values):
    return torch.tensor(values, dtype=torch.float32)


def test_worked_examples_of_exercise_01():
    of = {task.name: task.reference for task in TASKS if task.exercise == "01_fusion"}
    alike = objectives.pair_similarity(rows([3, 4], [3, 4], [1, 0]), rows([2, 0], [-3, -4], [0, 5]))
    assert alike.tolist() == pytest.approx([0.8, 0, 0.5])
    pairs = objectives.similarity_of_pairs(rows([0.5, 0.25])[0], torch.tensor([1, 0]))
    assert pairs.item() == pytest.approx(0.490, abs=5e-4)
    two = rows([2], [5])[None]
    assert outer_product(two).tolist() == [[10, 2, 5, 1]]
    factors = rows([[1, 0], [0, 1]], [[1, 0], [0, 3]])[..., None]
    assert low_rank_product(two, factors).tolist() == [[13]]
    three, one = torch.tensor(3.0).log(), torch.ones(1, 1)
    unit = of["gated_unit"](one, one, torch.tensor([[0.5]]).atanh(), 0 * one, three * rows([1, 0]))
    assert unit.item() == pytest.approx(0.375)
    x, chance = rows([5, 6, 7, 8]), rows([0.9, 0.1, 0.4, 0.3])
    assert objectives.destroy_numbers(x, chance, 0.5).tolist() == [[5, 0, 7, 0]]
    said, cues, first = rows([1, 1], [7, 7])[None], rows([0, 3], [0, 0])[None], torch.tensor([[True, False]])
    assert objectives.cue_reconstruction(said, cues, first).item() == 2.5
    there = torch.tensor([[True, True], [True, True], [True, False]])
    kept = objectives.keep_modalities(there, rows([0.1, 0.7], [0.2, 0.3], [0.1, 0.4]), 0.5)
    assert kept.int().tolist() == [[0, 1], [0, 1], [1, 0]]
    xor = of["most_right_by_votes"](torch.eye(2) == 0, rows([0.4, 0.1], [0.3, 0.2]))
    assert xor == pytest.approx(0.9)


def test_the_gated_unit_of_exercise_01_is_that_of_the_library():
    (unit,) = (task.reference for task in TASKS if task.name == "gated_unit")
    gmu, cues = GMU(GMUConfig(features=3, width=5)), torch.randn(4, 2, 3)
    fused = unit(*cues.unbind(1), *(one.weight for one in gmu.projections), gmu.gate.weight)
    torch.testing.assert_close(gmu.classifier(fused), gmu(cues).logits)


def test_worked_examples_of_exercise_02():
    of = {task.name: task.reference for task in TASKS if task.exercise == "02_captioning"}
    assert of["until_end"](torch.tensor([[5, 2, 7, 2]]), 2).tolist() == [[True, True, False, False]]
    three, zero, one = torch.tensor(3.0).log(), torch.zeros(1, 1), torch.ones(1, 1)
    logits = torch.stack([rows(9, 0), three * rows(1, 0), rows(0, 9)])[None]
    cost = of["caption_loss"](logits, torch.tensor([[1, 0]]), torch.ones(1, 2).bool())
    assert cost.item() == pytest.approx(0.288, abs=5e-4)
    image, score = torch.stack([three * rows(0, 1), rows(0, 0)])[None, :, None], 2 * three[None]
    assert of["channel_attention"](image, zero, one[0], zero[0], one, score).tolist() == [pytest.approx([0.75, 0.25])]
    positions = torch.stack([0.5 * three * rows(1, 0), rows(5, 5)])[None, :, None]
    look = of["spatial_attention"](positions, zero, rows([1, 0]), zero[0], one, score)
    assert look.tolist() == [pytest.approx([0.75, 0.25])]
    ways = lambda x: x.sum((2, 3)) / x.sum(), lambda x: x.sum((1, 2)) / x.sum()
    left, where = of["in_order"](rows([1, 1], [2, 0])[None, :, None], "channel-spatial", *ways)
    assert (left.flatten().tolist(), where.tolist()) == ([1.5, 0.5, 3, 0], [[0.75, 0.25]])
    there = torch.tensor([[[1, 0, 0], [1, 1, 0]], [[0, 3, 0], [0, 0, 0]]])
    rare = of["tf_idf"](torch.tensor([[2, 1, 1]]), there)
    assert rare.tolist() == [pytest.approx([1.386, 0, 0.693], abs=5e-4)]
    assert of["bleu"](["a b c d e"], [["a b c d f"]]) == pytest.approx(0.2**0.25)
    assert of["cider_d"](["a", "b"], [["a"], ["b"]]) == pytest.approx(2.5)
    logs, written = rows([-1, -2, -9], [-0.5, -0.5, -9]), torch.tensor([[True, True, False]] * 2)
    assert of["self_critical"](logs, written, *rows([3, 1], [1, 2])).item() == 2.5
    given = zero, zero, 5 * one, 9 * one, 0.5 * three * one, rows([0, 1, 0, 0]), 2 * three * rows([1], [0])
    goal, state, said = of["worker_step"](*given, torch.tensor([True]))
    assert (goal.item(), state.item()) == (pytest.approx(0.549, abs=5e-4), pytest.approx(0.5))
    assert said.tolist() == [pytest.approx([-0.288, -1.386], abs=5e-4)]


def test_attention_and_loss_of_exercise_02_are_those_of_the_library():
    of = {task.name: task.reference for task in TASKS if task.exercise == "02_captioning"}
    features, hidden = torch.randn(2, 5, 2, 3), torch.randn(2, 4)
    for order in ORDERS[:2]:
        both = ChannelSpatialAttention(order, 5, 4, 6)
        looks = []
        for name, one in (("channel", both.channel.attention), ("spatial", both.spatial.attention)):
            key = one.key.weight[:, 0] if name == "channel" else one.key.weight
            weights = key, one.key.bias, one.query.weight, one.score.weight[0]
            looks.append(lambda x, name=name, weights=weights: of[f"{name}_attention"](x, hidden, *weights))
        for got, wanted in zip(of["in_order"](features, order, *looks), both(features, hidden)):
            torch.testing.assert_close(got, wanted)
    system, image, tokens = (
        ShowAndTell(ShowAndTellConfig.tiny()).eval(),
        torch.rand(2, 3, 64, 64),
        torch.tensor([[1, 5, 2, 0]] * 2),
    )
    batch = {"image": image, "tokens": tokens, "mask": tokens > 0}
    after = system(image, tokens, tokens > 0).token_logits
    cost = of["caption_loss"](torch.cat([after[:, :1], after], 1), tokens, tokens > 0)
    torch.testing.assert_close(cost, system.loss(batch)["lm"])


def test_worked_examples_of_exercise_03():
    of = {task.name: task.reference for task in TASKS if task.exercise == "03_questions"}
    one, three = torch.ones(1, 1), torch.tensor(3.0).log()
    fused = of["pointwise_fusion"](one, one, rows([0.5]).atanh(), rows([0.8]).atanh())
    assert fused.item() == pytest.approx(0.4)
    asked = ["colour", "shape", "size"], ["colour"] * 3 + ["shape"] * 2, torch.tensor([0, 2, 2, 4, 3])
    assert evaluation.prior_guesses(*asked).tolist() == [2, 3, 2]
    weight = rows([0.5]).atanh()
    where = of["region_weights"](one, rows([0], [-1])[None], weight, weight, torch.zeros(1), 2 * three[None])
    assert where.tolist() == [pytest.approx([0.75, 0.25])]
    looks = [lambda u, v: ((u[:, None] * v)[..., 0] * three / 4).softmax(-1)] * 2
    u, maps = of["several_looks"](0 * one, rows([1], [3])[None], looks)
    assert (u.item(), maps.tolist()) == (pytest.approx(4.5), [[[0.5, 0.5], pytest.approx([0.25, 0.75])]])
    order = position_encoding(torch.tensor([[True, True, False]]), 2)
    assert order.tolist() == [[[0.5, 0.5], [0.5, 1], [0, 0]]]
    memory = torch.stack([three, 0 * three, 5 + 0 * three])[None, :, None], rows([4], [0], [9])[None]
    u, p = of["memory_hop"](one, *memory, torch.tensor([[True, True, False]]))
    assert (u.item(), p.tolist()) == (pytest.approx(4), [pytest.approx([0.75, 0.25, 0])])
    gated_twice = of["attention_gate"](one[None], one[None], rows([2, 1]), three * rows([1, 0]))
    assert gated_twice.item() == pytest.approx(2.25)
    vertex = of["weighed_vertex"](rows([2], [1])[None], three * rows([0, 1]), rows([1, -1]))
    assert vertex.item() == pytest.approx(0.245, abs=5e-4)
    members = torch.tensor([[True, False], [False, True], [True, True]])
    table = of["graph_efficacies"](three * rows([0, 1]), members)
    assert table.flatten().tolist() == pytest.approx([0, 0, 0.5, 0, 0, 0.75, 0, 0, 0])


def test_parts_of_exercise_03_are_those_of_the_library():
    of = {task.name: task.reference for task in TASKS if task.exercise == "03_questions"}
    u, v, same = torch.randn(2, 4), torch.randn(2, 5, 4), torch.testing.assert_close
    parts = [AttentionHop(4, 3), AttentionHop(4, 3)]

    def look(u, v, part):
        weights = (
            part.image_projection.weight,
            part.question_projection.weight,
            part.question_projection.bias,
            part.score.weight[0],
        )
        return of["region_weights"](u, v, *weights)

    same(look(u, v, parts[0]), parts[0](u, v)[1])
    looks = [lambda u, v, part=part: look(u, v, part) for part in parts]
    wanted, first = parts[0](u, v)
    wanted, second = parts[1](wanted, v)
    for got, right in zip(of["several_looks"](u, v, looks), (wanted, torch.stack([first, second], 1))):
        same(got, right)
    gate = AttentionOnAttention(4, 2).eval()
    for layer in (gate.information, gate.gate):
        torch.nn.init.zeros_(layer.bias)
    query = torch.randn(2, 3, 4)
    found = gate.attention(query, v, None)
    same(of["attention_gate"](query, found, gate.information.weight, gate.gate.weight), gate(query, v))


def test_the_memory_of_exercise_03_is_that_of_the_library():
    (hop,) = (task.reference for task in TASKS if task.name == "memory_hop")
    system = MemoryNetwork(dataclasses.replace(MemoryNetworkConfig.tiny(), memory="facts", hops=1)).eval()
    tokens, facts = torch.tensor([[1, 5, 6, 2]]), torch.tensor([[[7, 8], [0, 0], [9, 0]]])
    (m, c), real = system.build_memory(None, facts)
    u, p = hop(system.encode_sentence(tokens, tokens > 0, system.words), m, c, real)
    wanted = system(None, tokens, facts=facts)
    torch.testing.assert_close(system.answer_head(u), wanted.answer_logits)
    torch.testing.assert_close(p, wanted.maps[:, 0])


def test_the_graph_of_exercise_03_is_that_of_the_library():
    of = {task.name: task.reference for task in TASKS if task.exercise == "03_questions"}
    graph, singles = DynamicFusionGraph(4, 4), {name: torch.randn(2, 4) for name in MODALITIES}
    logits = graph.efficacy(torch.cat([singles[name] for name in MODALITIES], -1))
    members = torch.tensor([[name in subset for name in MODALITIES] for subset in SUBSETS])
    table = of["graph_efficacies"](logits[:, :12], members)
    for (part, whole), strength in zip(EDGES[:12], graph(singles)[1].unbind(-1)):
        assert torch.equal(table[:, SUBSETS.index(part), SUBSETS.index(whole)], strength)
    assert (table != 0).sum() == 2 * 12
    values = torch.stack(list(singles.values()), 1)
    for subset in SUBSETS[3:]:  # each vertex in turn, as the last one reads all of them
        into = [i for i, edge in enumerate(EDGES) if edge[1] == subset]
        read = values[:, [SUBSETS.index(EDGES[i][0]) for i in into]]
        layer = graph.vertices["+".join(subset)]
        torch.nn.init.zeros_(layer.bias)
        new = of["weighed_vertex"](read, logits[:, into], layer.weight)
        values = torch.cat([values, new[:, None]], 1)
    torch.nn.init.zeros_(graph.vertices["fusion"].bias)
    fused = of["weighed_vertex"](values, logits[:, 12:], graph.vertices["fusion"].weight)
    torch.testing.assert_close(fused, graph(singles)[0])


def test_worked_examples_of_exercise_05():
    image = torch.arange(8.0).view(1, 1, 2, 4)
    assert layers.patchify(image, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    positions = layers.sinusoidal_positions(2, 4)
    assert positions.round(decimals=3).tolist() == rows([0, 1, 0, 1], [0.841, 0.54, 0.01, 1]).tolist()
    x = torch.randn(2, 3, 5)
    assert torch.equal(layers.select_tokens(x, torch.tensor([2, 0])), torch.stack([x[0, 2], x[1, 0]]))
    query, key = torch.ones(1, 1, 1, 1), torch.tensor([0, 0, 2]).clamp(min=1).log().view(1, 1, 3, 1)
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(layers.attention_weights(query, key), rows(0.25, 0.25, 0.5).view(1, 1, 1, 3))
    torch.testing.assert_close(layers.attention_weights(query, key, mask), rows(0.5, 0.5, 0).view(1, 1, 1, 3))
    value = rows([4, 0], [0, 4], [2, 2]).view(1, 1, 3, 2)
    torch.testing.assert_close(layers.attention(query, key, value), rows(2, 2).view(1, 1, 1, 2))
    masks = torch.tensor([[[1, 1, 1, 0], [0, 1, 0, 0]]]).bool()
    assert evaluation.on_grid(masks, (1, 2)).tolist() == [[0.75, 0.25]]
    region = rows([0.9, 0.05, 0, 0.2])
    for row, wanted in (([0.1, 0.7, 0.1, 0.1], 0), ([0.1, 0.2, 0.3, 0.4], 1), ([0.4, 0.4, 0.1, 0.1], 0.5)):
        assert evaluation.pointing_accuracy(rows(row), region) == wanted
    assert evaluation.entropy(rows([2, 2, 0, 0])) == pytest.approx(0.5)
    assert evaluation.mass_ratio(rows([3, 1, 1, 1]), rows([0.3, 0, 0, 0])) == pytest.approx(2)


def test_worked_examples_of_exercise_06():
    assert objectives.shifted_right(torch.tensor([[7, 8, 9]]), 1).tolist() == [[1, 7, 8]]
    assert objectives.inheritance_rate(30, 120, 0.8) == pytest.approx(0.6)
    seen = objectives.prefix_mask(torch.tensor([[True, True, False, False]]))
    assert seen.int().tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]]
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = torch.tensor(3.0).log()
    cost = objectives.causal_language_modelling(logits, torch.tensor([[0, 2, 1]]))
    assert cost.item() == pytest.approx(1.040, abs=5e-4)
    first_two = torch.tensor([[True, True, False]])
    cost = objectives.replaced_token_detection(rows([1.0986, 0, 5]), torch.tensor([[True, False, True]]), first_two)
    assert cost.item() == pytest.approx(0.490, abs=5e-4)
    cost = objectives.inherit_knowledge(torch.tensor(2.0), torch.zeros(1, 2), rows([1.0986, 0]), 0.25)
    assert cost.item() == pytest.approx(1.533, abs=5e-4)
    row, kind, real = torch.tensor([[1, 5, 6, 2, 7, 2, 0]]), torch.tensor([[0, 0, 0, 0, 1, 1, 0]]), torch.arange(7) < 6
    swapped = objectives.swap_segments(row, kind, real[None], torch.tensor([True]))
    assert [part.tolist() for part in swapped] == [[[1, 7, 2, 5, 6, 2, 0]], [[0, 0, 0, 1, 1, 1, 0]]]
    text, hidden = torch.arange(11, 17), torch.tensor([False, False, True, True, False, True])
    gaps, spans = objectives.hide_spans(text, hidden, 99)
    assert (gaps.tolist(), spans.tolist()) == ([11, 12, 99, 15, 98], [99, 13, 14, 98, 16, 97])
    assert objectives.fill_spans(gaps, spans, 99).tolist() == text.tolist()
    spoilt = Corruption(torch.tensor([7, 4, 9]), torch.tensor([0, -1, 3]), 4)
    assert objectives.restore(spoilt, torch.tensor([5, 6])).tolist() == [7, 5, 6, 9]
    odds = rows([0.5, 0.25, 0.15, 0.1]).log()
    assert sampling_probabilities(odds, top_p=0.7)[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])
    even = rows([0.2] * 5, [0, 0, 0, 0.6, 0.4], [0.2] * 5, [0, 0, 0.3, 0.4, 0.3], [0, 0, 1, 0, 0]).log()
    start, more = torch.tensor([[1]]), dict(end_token=2, max_length=4)
    assert beam_search(lambda tokens: even[tokens[:, -1]], start, beams=2, **more).tolist() == [[1, 4, 2]]
    assert greedy(lambda tokens: even[tokens[:, -1]], start, **more).tolist() == [[1, 3, 3, 3]]
    of = {task.name: task.reference for task in TASKS if task.exercise == "06_text"}
    tied = of["tied_logits"](rows([1, 0], [0, 2], [1, 1]), rows(0, 0, 1), torch.tensor([[1]]), lambda x: 2 * x)
    assert tied.tolist() == [[[0, 8, 5]]]
    new, kept = rows(1, 1.0986, 8).view(3, 1, 1, 1, 1), rows(0, 4).view(2, 1, 1, 1, 1)
    output, *grown = of["cached_attention"](*new, *kept)
    assert output.item() == pytest.approx(7, abs=5e-4)
    assert [one.flatten().tolist() for one in grown] == [pytest.approx([0, 1.0986]), [4, 8]]
    assert of["swiglu_width"](4096, 256) == LlamaConfig().mlp_width == 11_008
    values = rows([2, 4], [10, 20])[None, ..., None]
    shared = of["grouped_attention"](torch.zeros(1, 4, 1, 1), torch.ones(1, 2, 2, 1), values)
    assert shared.flatten().tolist() == [3, 3, 15, 15]
    assert of["window_mask"](2, 4, 2).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
    turned = layers.rotate(rows([1, 2, 3, 4])[None, None], rows([0.5, 1]) * torch.pi)
    assert turned.flatten().tolist() == pytest.approx([-3, -2, 1, -4], abs=1e-5)
    output, *cut = of["window_step"](*new, *rows([5, 0], [9, 4])[:, None, None, :, None], 2)
    assert output.item() == pytest.approx(7, abs=5e-4)
    assert [one.flatten().tolist() for one in cut] == [pytest.approx([0, 1.0986]), [4, 8]]
    there, back, scale = of["rms_norm_backward"](rows([1, 7]), rows(1, 2), rows([1, 0]), 0.0)
    assert there[0].tolist() == pytest.approx([0.2, 2.8])
    assert (back[0].tolist(), scale.tolist()) == (pytest.approx([0.196, -0.028]), pytest.approx([0.2, 0]))


def test_the_tied_table_of_exercise_06_is_that_of_the_library():
    (tied,) = (task.reference for task in TASKS if task.name == "tied_logits")
    tokens = torch.tensor([[5, 3, 9], [4, 4, 2]])
    gpt = GPT2(GPT2Config.tiny()).eval()
    table = gpt.embedding.tokens.weight
    logits = tied(table, torch.zeros(len(table)), tokens, lambda x: gpt.read(x + gpt.embedding.positions[:3]))
    torch.testing.assert_close(logits, gpt(tokens).token_logits)
    head, table = MaskedLanguageHead(BERTConfig.tiny()), torch.randn(512, 64)
    torch.nn.init.normal_(head.bias)
    logits = tied(table, head.bias, tokens, lambda x: head.norm(head.activation(head.dense(x))))
    torch.testing.assert_close(logits, head(table[tokens], table))


def test_the_cached_attention_of_exercise_06_is_that_of_the_library():
    """A prompt of three tokens, two more, and then one that goes on from rows in another order."""
    (step,) = (task.reference for task in TASKS if task.name == "cached_attention")
    layer, cache, x = layers.Attention(8, 2), Cache(), torch.randn(3, 6, 8)
    layer.cache = cache.extend
    kept = torch.zeros(2, 3, 2, 0, 4)
    for begin, end, order in ((0, 3, None), (3, 5, None), (5, 6, torch.tensor([2, 0, 0]))):
        new, cache.rows = x[:, begin:end], order
        wanted = layer(new, causal=True)
        query = layer.query(new).unflatten(2, (2, 4)).transpose(1, 2)
        output, *kept = step(query, *layer.keys_and_values(new), *kept, order)
        torch.testing.assert_close(layer.output(output.transpose(1, 2).flatten(2)), wanted)
        for one, other in zip(kept, cache.kept[layer]):
            assert torch.equal(one, other)


def test_what_changed_since_gpt_2_in_exercise_06_is_that_of_the_library():
    of, same = {task.name: task.reference for task in TASKS if task.exercise == "06_text"}, torch.testing.assert_close
    config = dataclasses.replace(LlamaConfig.tiny(), window=3)
    layer, x = llama.GroupedQueryAttention(config), torch.randn(2, 6, config.width)
    query = layer.query(x).unflatten(2, (config.num_heads, -1)).transpose(1, 2)
    key, value = layer.keys_and_values(x)
    same(layer.output(of["grouped_attention"](query, key, value).transpose(1, 2).flatten(2)), layer(x))
    seen = llama.in_window(6, 6, 3, None, x.device)
    assert torch.equal(of["window_mask"](6, 6, 3), seen[0].tril())
    group, kept = layer.group, (torch.zeros(2, config.num_heads, 0, key.shape[-1]),) * 2
    wide = [one.repeat_interleave(group, dim=1) for one in (key, value)]
    for i in range(6):
        output, *kept = of["window_step"](*(one[:, :, i : i + 1] for one in (query, *wide)), *kept, 3)
    same(layer.output(output.transpose(1, 2).flatten(2)), layer(x, mask=seen, causal=True)[:, -1:])
    norm = llama.RMSNorm(config.width, config.norm_epsilon)
    torch.nn.init.normal_(norm.weight)
    upstream, leaf = torch.randn_like(x), x.clone().requires_grad_()
    wanted = norm(leaf)
    gradients = torch.autograd.grad(wanted, [leaf, norm.weight], upstream)
    same(of["rms_norm_backward"](x, norm.weight.detach(), upstream, config.norm_epsilon), (wanted.detach(), *gradients))


def test_worked_examples_of_exercise_07():
    alike = rows([1, 0], [1, 0])
    assert objectives.info_nce(alike, alike, torch.tensor(5.0)).item() == pytest.approx(0.693, abs=5e-4)
    ids = torch.tensor([7, 3, 7])
    assert objectives.same_caption(ids).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    flat, positives = torch.zeros(4, 4), torch.eye(4).bool()
    positives[0, 1] = True
    assert objectives.pair_cross_entropy(flat, flat, positives).item() == pytest.approx(torch.tensor(4.0).log().item())
    nothing = torch.tensor(0.0)
    assert objectives.pairwise_sigmoid(alike, alike, nothing, nothing).item() == pytest.approx(1.386, abs=5e-4)
    by_image, by_text = objectives.late_interaction(rows([[1, 0]]), rows([[1, 0], [0, 1]]))
    assert (by_image.item(), by_text.item()) == (1, 0.5)
    similarity = rows([0.9, 0.8], [0.1, 0.5])
    assert objectives.ranking_hinge(similarity, torch.eye(2)).item() == pytest.approx(0.3)
    assert evaluation.modality_gap(torch.eye(2), torch.eye(2).flip(0)) == 0
    images = torch.eye(3)[[0, 2, 2]]
    assert evaluation.zero_shot(images, torch.eye(3), torch.tensor([0, 1, 2])) == pytest.approx(2 / 3)
    right = torch.tensor([[False, True, True, False]])
    assert [part.item() for part in ranks(rows([5, 3, 3, 9]), right)] == [2, 0, 2]
    assert evaluation.recall_at(1, torch.zeros(1, 4)) == 0.25
    assert evaluation.recall_at(2, torch.zeros(1, 4)) == pytest.approx(0.5)
    below = torch.arange(50) < torch.tensor([0, 1, 4, 39])[:, None]  # so many items are above the right one, the last
    right = torch.zeros(4, 50).bool()
    right[:, -1] = True
    assert evaluation.median_rank(below.float().masked_fill(right, 0.5), right) == 3.5


def test_worked_examples_of_exercise_08():
    tokens, seeds = torch.tensor([[1, 7, 2, 0]]), [torch.Generator().manual_seed(seed) for seed in range(400)]
    settings = {"vocab_size": 9, "mask_token": 3, "special": [0, 1, 2]}
    hidden = [objectives.mask_tokens(tokens, tokens > 0, generator=seed, **settings) for seed in seeds]
    assert all(label.tolist() == [[-100, 7, -100, -100]] for _, label in hidden)
    assert sum(read.tolist() == [[1, 3, 2, 0]] for read, _ in hidden) / 400 == pytest.approx(0.8, abs=0.08)
    label = torch.tensor([-100, 2, -100])
    assert objectives.masked_cross_entropy(torch.zeros(3, 4), label).item() == pytest.approx(1.386, abs=5e-4)
    masked = torch.tensor([[True, False]])
    assert objectives.masked_region_regression(rows([[3, 4], [1, 1]]), torch.zeros(1, 2, 2), masked).item() == 25
    one, two = rows([[0.5, 0.3, 0.2]]), rows([[0.5, 0.5]])
    classification = objectives.masked_region_classification(torch.zeros(1, 1, 3), one, masked[:, :1])
    assert classification.item() == pytest.approx(1.099, abs=5e-4)
    quarters = rows([[0.25, 0.75]])
    for model, detector, wanted in ((quarters, two, 0.144), (two, quarters, 0.131)):
        kl = objectives.masked_region_kl(model.log(), detector, masked[:, :1])
        assert kl.item() == pytest.approx(wanted, abs=5e-4)
    drawn = torch.stack([objectives.random_negatives(torch.tensor([7, 7, 3]), seed) for seed in seeds])
    assert (drawn[:, :2] == 2).all()
    assert drawn[:, 2].float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert objectives.cosine_cost(rows([[2, 0]]), rows([[1, 0], [0, 3], [-1, 0]])).tolist() == [[[0, 1, 2]]]
    cost, real = rows([[0, 1], [1, 0], [0, 0]]), torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(objectives.ipot(cost[:, :2], real, real), rows([[0.5, 0], [0, 0.5]]))
    padded = torch.tensor([[True, True, False]])
    torch.testing.assert_close(objectives.ipot(cost, padded, real), rows([[0.5, 0], [0, 0.5], [0, 0]]))
    axes = torch.eye(2)[None]
    assert objectives.word_region_alignment(axes[:, :1], axes, real[:, :1], real).item() == pytest.approx(0.5)


def test_worked_examples_of_exercise_09():
    boxes = rows([0.2, 0.5, 0.6, 1])
    torch.testing.assert_close(box_sizes(boxes[None]), rows([0.4, 0.5, 0.2])[None])
    words, regions = torch.tensor([[[1.0]]]), torch.tensor([[[10.0]]])
    looks = [lambda x, context, mask: x + context.sum(1, keepdim=True)] * 2
    got = co_attention(words, regions, None, None, *looks)
    assert [one.item() for one in got] == [11, 11]  # and not 21, as where regions see words that have looked
    off, masked = rows([0.5, 3], [7, 7])[None], torch.tensor([[True, False]])
    assert smooth_region_regression(off, torch.zeros(1, 2, 2), masked).item() == pytest.approx(1.3125)
    box, other = rows([0, 0, 0.4, 0.4], [0, 0, 0.4, 0.4]), rows([0.2, 0, 0.6, 0.4], [0.5, 0.5, 1, 1])
    assert evaluation.iou(box, other).tolist() == pytest.approx([1 / 3, 0])
    three = torch.stack([box[0], other[0], other[1]])[None]
    real = torch.tensor([[True, True, False]])
    assert torch.equal(evaluation.best_region(rows([-3, -1, 2]), three), other[1:])
    assert torch.equal(evaluation.best_region(rows([-3, -1, 2]), three, real), other[:1])
    assert evaluation.soft_scores(torch.tensor([7, 2, 1, 0])).tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    guess, label = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 1, 0])
    assert evaluation.nlvr_accuracy(guess, label, ["a", "a", "b", "b"]) == {"accuracy": 0.75, "consistency": 0.5}


def test_worked_examples_of_exercise_11():
    assert momentum_update(rows([0, 4]), rows([8, 4]), 0.75).tolist() == [[2, 4]]
    logits = rows([3, 1]).log()
    assert objectives.soft_cross_entropy(logits, rows([0.5, 0.5])).item() == pytest.approx(0.837, abs=5e-4)
    assert objectives.soft_cross_entropy(logits, rows([0.75, 0.25])).item() == pytest.approx(0.562, abs=5e-4)
    fits = torch.tensor([[True, False, True, False]])
    target = objectives.distilled_targets(torch.zeros(1, 4), fits, 0.4)
    torch.testing.assert_close(target, rows([0.4, 0.1, 0.4, 0.1]))
    positions, pointer = queue_positions(torch.tensor([3]), 4, 5)
    assert (positions.tolist(), pointer.tolist()) == ([3, 4, 0, 1], [2])
    similarity, own = rows([5, 2, 1]).log().expand(900, 3), torch.tensor([True, False, False]).expand(900, 3)
    drawn = objectives.hard_negatives(similarity, own, torch.Generator().manual_seed(0))
    assert (drawn > 0).all()
    assert (drawn == 1).float().mean().item() == pytest.approx(2 / 3, abs=0.05)
    weights = rows([0.2, 0.3, 0.5]).view(1, 1, 1, 3).requires_grad_()
    maps = evaluation.gradient_maps({"layer": weights}, (weights * rows([2, -1, 0])).sum((1, 2, 3)))
    torch.testing.assert_close(maps["layer"], rows([0.4, 0, 0]).view(1, 1, 1, 3))
    heat = rows([0.1, 0.6, 0, 0.7, 0, 1, 0, 0])
    assert evaluation.box_of_map(heat, (2, 4)).tolist() == [[0.25, 0, 0.5, 1]]


def test_worked_examples_of_exercise_12():
    of = {task.name: task.reference for task in TASKS if task.exercise == "12_learning_from_captions"}
    row, real = torch.tensor([[1, 7, 8, 2, 0]]), torch.arange(5)[None] < 4
    assert objectives.backwards(row, real).tolist() == [[2, 8, 7, 1, 0]]
    three, two = torch.tensor(3.0).log(), torch.ones(1, 2, dtype=torch.bool)
    there, back = torch.tensor([[[0.0, three], [9, 0]]]), rows([0, 0], [5, 5])[None]
    both = of["bicaptioning"](there, back, torch.tensor([[0, 1]]), two)
    assert both.item() == pytest.approx(0.981, abs=5e-4)
    logits = torch.tensor([[[three, 0.0], [0, 0]]])
    cost = objectives.caption_language_modelling(logits, torch.tensor([[1, 0]]), label_smoothing=0.2)
    assert cost.item() == pytest.approx(0.398, abs=5e-4)
    seen = of["seq2seq_mask"](torch.tensor([True]), two[:, :1], two)
    assert seen.int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]
    tokens, mask = rows([4, 0], [0, 2], [9, 9])[None], torch.tensor([[True, True, False]])
    assert of["pool_by_attention"](torch.zeros(1, 2), tokens, mask).tolist() == [[[2, 1]]]
    alike, texts = torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]])
    cost = of["contrast_and_caption"](alike, alike, torch.zeros(2, 2, 3), texts, two.expand(2, 2), 5.0)
    assert cost.item() == pytest.approx(2.890, abs=5e-4)
    kept = of["forget_gate"](rows([2])[None], rows([4])[None], torch.tensor([[three / 2, 0]]), torch.zeros(1))
    assert kept.item() == pytest.approx(3)
    assert of["what_learns"](torch.arange(4), 2).tolist() == [False, False, True, True]
    sources, targets = of["leave_one_out"](torch.tensor([[5], [6], [7]]))
    assert (sources[..., 0].tolist(), targets.flatten().tolist()) == ([[6, 7], [5, 7], [5, 6]], [5, 6, 7])


def test_worked_examples_of_exercise_13a():
    bank = melscale_fbanks(7, 0.0, 2100.0, 1, 4200)
    torch.testing.assert_close(bank, rows([0, 0.5, 1, 0.75, 0.5, 0.25, 0]).T, atol=1e-4, rtol=0)
    assert frame_count(12, [4], [2]) == 5
    assert frame_count(12, [4, 2], [2, 2]) == 2
    real = torch.arange(12) < torch.tensor([9, 10])[:, None]
    assert frame_mask(real, [4, 2], [2, 2]).tolist() == [[True, False], [True, True]]
    assert collapse(torch.tensor([0, 3, 3, 0, 3, 5, 0])).tolist() == [3, 3, 5]
    even = torch.full((1, 3, 2), 0.5).log()
    likely = objectives.ctc_log_likelihood(even[:, :2], torch.tensor([[1]]))
    assert likely.item() == pytest.approx(-0.288, abs=5e-4)
    torch.testing.assert_close(objectives.ctc_log_likelihood(even, torch.tensor([[1, 1]])).exp(), torch.tensor([0.125]))
    torch.testing.assert_close(whisper_log_mel(torch.zeros(1, 480)), torch.full((1, 80, 3), -1.5))
    may_follow = {task.name: task.reference for task in TASKS}["may_follow"]
    assert may_follow(torch.tensor([4, 0]), 3, 4).tolist() == [True] * 4 + [False] + [True] * 3


def test_worked_examples_of_exercise_13b():
    seven, seeds = torch.ones(1, 7).bool(), [torch.Generator().manual_seed(seed) for seed in range(60)]
    hidden = torch.cat([objectives.mask_spans(seven, generator=seed, probability=0, length=3) for seed in seeds])
    assert (hidden.sum(1) == 3).all()
    assert set(hidden.int().argmax(1).tolist()) == {0, 1, 2, 3, 4}
    most = torch.cat([objectives.mask_spans(seven, generator=seed, probability=1, length=3) for seed in seeds])
    assert most.sum(1).max() == 6
    masked = torch.tensor([[False, True, False, True, True]])
    drawn = objectives.sample_distractors(masked, 900, generator=seeds[0])[0, 3]
    assert set(drawn.tolist()) == {1, 4}
    assert (drawn == 1).float().mean().item() == pytest.approx(0.5, abs=0.06)
    logits = rows([0, 1.0986123]).requires_grad_()
    chosen = straight_through(logits, torch.zeros(1, 2), 1.0)
    assert chosen.tolist() == [[0, 1]]
    torch.testing.assert_close(torch.autograd.grad(chosen[0, 1], logits)[0], rows([-3 / 16, 3 / 16]))
    alike, codes, positions = torch.ones(1, 4, 2), torch.arange(4).view(1, 4, 1), torch.tensor([[[1, 2, 3]] * 4])
    first = torch.tensor([[True, False, False, False]])
    for same, wanted in ((codes, 4), (torch.tensor([[[0], [0], [1], [2]]]), 3)):
        cost = objectives.distractor_contrast(alike, alike, same, positions, first)
        assert cost.item() == pytest.approx(torch.tensor(float(wanted)).log().item())
    cluster = torch.tensor([[3, 1, 0, -100]])
    for alpha in (0.0, 0.4, 1.0):
        nothing = objectives.masked_cluster(torch.zeros(1, 4, 8), cluster, first, alpha)
        assert nothing.item() == pytest.approx(2.079, abs=5e-4)


def test_worked_examples_of_exercise_13c():
    of = {task.name: task.reference for task in TASKS if task.exercise == "13c_finding_by_ear"}
    assert of["question_of"](rows([1, 0], [0, 1])).tolist() == pytest.approx([0.707, 0.707], abs=5e-4)
    styles = of["without_style"](rows([1, 0], [3, 0], [0, 5], [0, 9]), torch.tensor([0, 0, 1, 1]))
    assert styles.tolist() == [[-1, 0], [1, 0], [0, -1], [0, 1]]
    right = torch.tensor([[True, False, False, False], [False, True, False, True]])
    for which, wanted in ((right[:1], 1 / 2), (right[1:], 5 / 6), (right, 2 / 3)):
        assert of["recall_by_chance"](which, 2) == pytest.approx(wanted)
        assert evaluation.recall_at(2, torch.zeros(which.shape), which) == pytest.approx(wanted)
    drawn = of["draw_pairs"](torch.tensor([0.0, 2, 0]), torch.tensor([5, 6, 7]), 2, torch.Generator())
    assert [part.tolist() for part in drawn] == [[1, 1], [6, 6]]
    assert evaluation.edit_rate(["kat", "dog"], ["cats", "dog"]) == 2 / 7
    likely = evaluation.length_scores(rows([10, 1], [100, 10]), torch.tensor([50.0]), torch.tensor([5.0, 10]))
    torch.testing.assert_close(likely, rows([0, -0.693]), atol=5e-4, rtol=0)
    scales = torch.tensor(3.0).log(), torch.tensor(0.0)
    assert of["clap_loss"](torch.eye(2), torch.eye(2), *scales, torch.tensor([7, 7])).item() == pytest.approx(
        0.765, abs=5e-4
    )
    fit = evaluation.ctc_scores([torch.full((3, 2), 0.5).log()], [torch.tensor([1]), torch.tensor([1, 1])])
    torch.testing.assert_close(fit, rows([-0.288, -1.040]), atol=5e-4, rtol=0)


def test_worked_examples_of_exercise_14():
    sound = rows([1, -1, 1, -1])
    noise = add_noise(sound, 20.0, torch.Generator().manual_seed(0)) - sound
    assert noise.square().sum().item() == pytest.approx(0.04, rel=1e-4)
    magnitude = rows([3, 1, 0], [0, 0, 0]).T.view(1, 3, 2, 1)
    assert objectives.ratio_masks(magnitude)[0, :, 0, 0].tolist() == [0.75, 0.25, 0]
    assert objectives.ratio_masks(magnitude)[0, :, 1, 0].tolist() == pytest.approx([1 / 3] * 3)
    for estimate in (rows([2, -1, 0, -1]), rows([7, 4, 5, 4])):
        assert evaluation.si_sdr(estimate, sound).item() == pytest.approx(3.01, abs=5e-3)
    near = evaluation.frames_near(torch.tensor([0.05, 0.13]), 5, 25)
    assert near.tolist() == [[True, True, True, False, False], [False, False, True, True, True]]
    real = torch.ones(4000, 1, dtype=torch.bool)
    heard, seen = objectives.modality_dropout(real, generator=torch.Generator().manual_seed(0))
    shares = [(heard & seen).float().mean().item(), (~seen).float().mean().item(), (~heard).float().mean().item()]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.03)
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = 99
    hidden = torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])
    loss = objectives.masked_multimodal_cluster(logits, torch.tensor([[0, 2, 1]]), *hidden, real[:3].T)
    assert loss.item() == pytest.approx(0.693, abs=5e-4)
    masked = (torch.arange(9) < 3).expand(400, 9)
    shown = imposters(masked, torch.ones(400, 9, dtype=torch.bool), generator=torch.Generator().manual_seed(0))
    assert {tuple(row) for row in shown[:, :3].tolist()} == {(k, k + 1, k + 2) for k in (3, 4, 5, 6)}


def test_worked_examples_of_exercise_16():
    six = torch.arange(6) < torch.tensor([5, 1])[:, None]
    kept = drop_tokens(torch.randn(2, 6, 3), six, 0.5, torch.Generator().manual_seed(0))
    assert kept.mask.tolist() == [[True, True, True], [True, False, False]]
    corner, three = torch.eye(2), torch.tensor(3.0).log()
    for texts, wanted in ((corner[:, None], 0.511), (corner.expand(2, 2, 2), 1.099)):
        assert objectives.mil_nce(corner, texts, three).item() == pytest.approx(wanted, abs=5e-4)
    alike, present = rows([1, 0], [1, 0], [1, 0]), torch.tensor([True, False, True])
    assert objectives.binding_loss(alike, alike, three, present).item() == pytest.approx(0.693, abs=5e-4)
    looks = [lambda x, source, mask: x + (source * mask[..., None]).sum(1, keepdim=True)] * 2
    sources, real = [rows([10], [20])[None], rows([100])[None]], torch.ones(1, 1, dtype=torch.bool)
    read = read_others(torch.ones(1, 1, 1), sources, [torch.tensor([[True, False]]), real], looks)
    assert read.tolist() == [[[11, 101]]]
    for moments, wanted in ((3, 0.25), (4, 0.3125)):
        apart = objectives.central_moment_discrepancy(rows([0, 1]).T, rows([0.5, 0.5]).T, moments)
        assert apart.item() == pytest.approx(wanted)
    for other, wanted in ((rows([5, 9]), 4), (rows([5, 5]), 0)):
        assert objectives.difference_loss(rows([3, 1]).T, other.T).item() == pytest.approx(wanted)


def test_worked_examples_of_exercise_19():
    of = {task.name: task.reference for task in TASKS if task.exercise == "19_many_tasks"}
    assert of["quantise"](torch.tensor([0, 0.44, 1]), 11).tolist() == [0, 4, 10]
    assert of["dequantise"](torch.tensor([0, 4, 10]), 11).tolist() == pytest.approx([0, 0.4, 1])
    assert of["one_vocabulary"](torch.tensor([3, 3, 3]), torch.arange(3), 10, 4).tolist() == [3, 13, 17]
    may = of["next_of_box"](torch.tensor([[4, 3]]), range(3, 6), 1, 7)
    assert may.nonzero()[:, 1].tolist() == [4, 5]
    steps = rows([0, 0, 1, 4, 2, 9], [0, 0, 3, 1, 2, 9], [0, 0, 5, 1, 4, 9], [0, 0, 1, 7, 2, 9])
    box = of["write_box"](lambda tokens: steps[[tokens.shape[1] - 1]], torch.tensor([[0]]), range(2, 5))
    assert box.tolist() == [[0.5, 0, 1, 0.5]]
    near, far = rows([0, 0, 0.4, 0.4], [0, 0, 0.2, 0.2]), rows([0.2, 0, 0.6, 0.4], [0.8, 0.8, 1, 1])
    assert of["generalised_iou"](near, far).tolist() == pytest.approx([1 / 3, -0.92])
    assert of["hungarian"](rows([1, 2], [2, 9])[None], torch.ones(1, 2).bool()).tolist() == [[1, 0]]
    logits, first = rows([0, 0], [0, 1.0986])[None], torch.tensor([[0]])
    assert of["set_cross_entropy"](logits, first, first).item() == pytest.approx(0.656, abs=5e-4)
    asks = [rows([1], [5]), rows([2])], torch.tensor([1, 0]), torch.add, [lambda x: x, torch.neg]
    assert [part.tolist() for part in of["solve_by_task"](rows([[10]], [[20]]), *asks)] == [[[21]], [[-12]]]
    one, two = torch.ones(1, 1).bool(), torch.ones(1, 2).bool()
    sees = of["three_encodings"](two, 1, one, two)
    assert sees.int().tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]]
    likely = rows([0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.9, 0.1])
    expert, weight = of["route_to_one"](likely, torch.ones(4).bool(), 2)
    assert (expert.tolist(), weight.tolist()) == ([0, 0, 1, -1], pytest.approx([0.6, 0.7, 0.8, 0]))
    groups = rows([[1.0986, 0], [1.0986, 0]], [[1.0986, 0], [0, 1.0986]])
    assert of["balance_of_prototypes"](groups, two[0]).item() == pytest.approx(1.25, abs=5e-4)
    assert of["mixing_rates"](torch.tensor([100, 10000]), 2.0, 2500).tolist() == pytest.approx([1 / 6, 5 / 6])
    text, hidden = torch.arange(11, 17), torch.tensor([False, False, True, True, False, True])
    source, target = of["infilling_task"](torch.tensor([90, 91]), text, hidden, 3, 2)
    assert (source.tolist(), target.tolist()) == ([90, 91, 11, 12, 3, 15, 3, 2], [11, 12, 13, 14, 15, 16, 2])


def test_worked_examples_of_exercise_20():
    first, both = torch.tensor([[True, False]]), torch.tensor([True, True])
    assert objectives.normalised_patches(rows([1, 3])[None]).flatten().tolist() == pytest.approx(
        [-0.707, 0.707], abs=5e-4
    )
    said, hidden = rows([1, 1], [5, 5])[None], rows([0, 3], [9, 9])[None]
    assert objectives.masked_pixels(said, hidden, first).item() == 2.5
    row = by_modality(rows([1], [2], [3])[None], 1, lambda x: 2 * x, lambda x: x + 10)
    assert row.flatten().tolist() == [2, 12, 13]
    whole = objectives.restore_order(rows([1], [2])[None], torch.tensor([[2, 0]]), torch.tensor([9.0]), 3)
    assert whole.flatten().tolist() == [2, 9, 1]
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    total = own_gradient(weight, first[0]).square().sum()
    assert (total.item(), torch.autograd.grad(total, weight)[0].tolist()) == (13, [4, 0])
    layers = [rows(numbers)[None] for numbers in ([7, 8, 0], [0, 2, 4], [3, 0, 0])]
    wanted = [0.095, -0.354, 0.259]
    assert objectives.contextual_targets(layers, 2).flatten().tolist() == pytest.approx(wanted, abs=5e-4)
    weights, choice, real = rows([0.5], [1], [1]), torch.tensor([[0], [1], [1]]), torch.tensor([True, True, False])
    experts = [lambda x: 10 * x, lambda x: x + 1]
    answers = send_to_experts(rows([1], [2], [3]), weights, choice, experts, real)
    assert answers.flatten().tolist() == [5, 3, 0]
    assert balance(rows([0.6, 0.4], [0.8, 0.2]), both).item() == pytest.approx(1.4)
    assert global_entropy(torch.eye(3)[:2], both, 3.0).item() == pytest.approx(0.405, abs=5e-4)
    alike, scale = rows([1, 0], [1, 0]), torch.tensor(3.0).log()
    contrast = objectives.matched_info_nce(alike, torch.eye(2), scale, first[0])
    assert contrast.item() == pytest.approx(0.490, abs=5e-4)


def test_the_two_masks_of_exercise_21_are_those_of_the_library():
    """Of CM3, whose padding nobody sees, and of DALL·E, whose padding is tokens."""
    (two,) = (task.reference for task in TASKS if task.name == "words_then_codes")
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    q, k, v = torch.randn(3, 2, 1, 9, 4)
    real = torch.cat([mask, torch.ones(2, 4, dtype=torch.bool)], 1)
    seen, by_library = (layers.attention(q, k, v, two(mask, 4, 6, 3)[0]), layers.attention(q, k, v, real, causal=True))
    torch.testing.assert_close(seen[:, 0][real], by_library[:, 0][real])
    system = DALLE(DALLEConfig.tiny()).eval()
    words, codes = system.config.first_code, system.codec.config.num_codes
    image = torch.randint(codes, (2, system.codec.config.side**2))
    sequence = system.read(image, torch.tensor([[5, 6], [7, 8]])).sequence
    may = two(sequence[:, : system.config.max_length] < words, image.shape[1], words, codes)[1]
    assert may.gather(1, sequence[:, 1:].T).all()  # what does follow may follow
    asked = []
    system.draw(torch.tensor([[5, 6]]), decode=lambda score, start, **rest: asked.append(score(start)) or start)
    assert torch.equal(asked[0][0].isfinite(), may[system.config.max_length - 1])


def test_worked_examples_of_exercise_22():
    assert gated(rows([1, 2])[None], rows([10, 0])[None], torch.tensor(0.5).atanh()).tolist() == [[[6, 2]]]
    thin = low_rank(rows([1, 2]), rows([1, 1]), rows([1], [0], [2]), 2.0)
    assert thin.tolist() == [[6, 0, 12]]
    logits, answers = rows([0, 0], [torch.tensor(3.0).log(), 0], [0, 9])[None], torch.tensor([[False, False, True]])
    cost = response_language_modelling(logits, torch.tensor([[1, 0, 0]]), answers)
    assert cost.item() == pytest.approx(0.288, abs=5e-4)
    fits = query_text_similarity(rows([1, 0], [0.6, 0.8])[None], rows([0, 1], [1, 0]))
    assert fits.tolist() == rows([0.8, 1]).tolist()
    seen = last_image_mask(torch.tensor([[0, 1, 1, 2]]), 2, 1)
    assert seen.int().tolist() == [[[0, 0], [1, 0], [1, 0], [0, 1]]]
    seen = query_text_mask("writing", 1, torch.ones(1, 2, dtype=torch.bool))
    assert seen.int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]
    two = torch.tensor([[[True, True, False], [True, False, False]]])
    assert interleaved_positions(two, 1, True).tolist() == [[0, 1, 2, -1, 3, 4, -1, -1]]
    alike = query_text_contrast(torch.ones(2, 1, 1), torch.ones(2, 1), 5.0, torch.eye(2).bool())
    assert alike.item() == pytest.approx(0.693, abs=5e-4)
    assert responses_in_turn(torch.tensor([[3, 1, 2, 1]]), 8).int().tolist() == [[0, 0, 0, 1, 0, 0, 1, 0]]
    others = evaluation.shuffled_labels(torch.tensor([[5, 8, 5]]), torch.Generator().manual_seed(0))
    assert others.tolist() == [[8, 5, 8]]


def test_worked_examples_of_exercise_26():
    order, two = torch.tensor([4, 2, 0, 5, 1, 3, 6]), rows([1, 2], [10, 20])
    alike, three = rows([1, 0]).expand(8, 2), torch.tensor(3.0)
    local = large_batch.local_info_nce(alike[:2], alike[:2], alike, alike, three, 2)
    x = torch.ones(3, 1, requires_grad=True)
    examples = [
        (round(estimates.utilisation(35e9, 1000, 312e12), 3), 0.337),
        (estimates.sharded_bytes(1e9, 8, 1), 9e9),
        (estimates.block_flops(3, 2, 8), 360),
        (estimates.recomputed_bytes(12, 3, 1.0, 16.0), 52),
        ([estimates.kept_by_block(3, 2, 1, 8, fused) for fused in (False, True)], [117, 111]),
        (scaled_rate(50, 0.1, 1024, 256, 100, "linear"), 0.25),
        (scaled_rate(100, 0.1, 1024, 256, 100, "root"), 0.2),
        *((rank_batches(order, rank, 2, 2), [[[4], [0], [1]], [[2], [5], [3]]][rank]) for rank in range(2)),
        (round(large_batch.accumulated_info_nce(alike, alike, three, 4).item(), 3), 0.693),
        (round(local.item(), 3), 2.079),
        (round(large_batch.chunked_info_nce(alike, alike, three, 3).item(), 3), 2.079),
        (gather_backward(two), [[11], [22]]),
        (ring_all_reduce(two, to_next_rank), [[11, 22], [11, 22]]),
        (backward_in_chunks(lambda x: x, lambda x: x.sum() ** 2, x, 2), 9),
        (x.grad, [[6]] * 3),
    ]
    for example in examples:
        got, wanted = (torch.as_tensor(value, dtype=torch.float64) for value in example)
        torch.testing.assert_close(got, wanted, atol=0, rtol=1e-7)


def test_worked_examples_of_exercise_27():
    of = {task.name: task.reference for task in TASKS if task.exercise == "27_own_vlm"}
    squares = pixel_shuffle(torch.arange(1.0, 9).view(1, 8, 1), 2, 2)
    assert squares.tolist() == [[[1, 2, 5, 6], [3, 4, 7, 8]]]
    here = torch.tensor([[False, True, False, True]])
    placed = of["place_images"](rows([1], [2], [3], [4])[None], rows([10], [20])[None], here)
    assert placed.flatten().tolist() == [1, 10, 3, 20]
    chat, opens = torch.tensor([[1, 3, 7, 2, 1, 4, 8, 9, 2, 0]]), torch.tensor([1, 4])
    assert of["assistant_tokens"](chat, opens, 2).nonzero()[:, 1].tolist() == [6, 7, 8]
    states, answers = rows([5], [1.0986], [7])[None], torch.tensor([[False, False, True]])
    cost = of["answer_loss"](states, rows([1], [0]), torch.tensor([[1, 0, 0]]), answers)
    assert cost.item() == pytest.approx(0.288, abs=5e-4)
    assert of["merged_lora"](torch.eye(2), rows([1, 2]), rows([3], [0]), 2.0).tolist() == [[7, 12], [0, 1]]
    mask, position = of["packed"](torch.tensor([[4, 4, 9, -1]]))
    assert mask.int().tolist() == [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]
    assert position.tolist() == [[0, 1, 0, 0]]
    won = of["dpo"](*(torch.tensor([number]) for number in (-1.0, -2, -2.0986, -2)), 1.0)
    assert [part.item() for part in won] == pytest.approx([0.288, -0.25, 0.25], abs=5e-4)


def test_parts_of_exercise_27_are_those_of_the_library():
    of, same = (
        {task.name: task.reference for task in TASKS if task.exercise == "27_own_vlm"},
        torch.testing.assert_close,
    )
    system = VLM(VLMConfig.tiny()).eval()
    llama, k = system.language_model, system.config.num_image_tokens
    tokens = torch.randint(4, 9, (2, 2 * k + 6))
    is_image = torch.rand(tokens.shape).argsort(1).argsort(1) < torch.tensor([[2 * k], [k]])
    images, words = torch.randn(2, 2 * k, llama.config.width), llama.embed(tokens)
    same(of["place_images"](words, images, is_image), system.embed(images, tokens, is_image))
    states, table = llama.read(words), llama.embedding.weight
    cost = response_language_modelling(llama.logits(states), tokens, is_image)
    same(of["answer_loss"](states, table, tokens, is_image), cost)
    layer = LoRALinear(torch.nn.Linear(6, 5), 2, 3.0)
    torch.nn.init.normal_(layer.up)
    merged = of["merged_lora"](layer.linear.weight, layer.down, layer.up, 3.0)
    same(merged, layer.merged().weight)
    chats = [torch.randint(4, 9, (length,)) for length in (4, 3, 5)]
    mask, position = of["packed"](torch.arange(3).repeat_interleave(torch.tensor([4, 3, 5]))[None])
    x, rotary = (
        llama.embed(torch.cat(chats)[None]),
        position[..., None] * rotary_frequencies(llama.head_width, llama.config.rotary, position.device),
    )
    for block in llama.blocks:
        x = block(x, mask, rotary)
    apart = torch.cat([llama.read(llama.embed(chat[None]))[0] for chat in chats])
    same(llama.norm(x)[0], apart)


# Notebooks.


def printed(notebook):
    """What the code cells print, each cell in one piece; anything but print is a failure."""
    outputs = [list(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert {output.output_type for cell in outputs for output in cell} <= {"stream"}
    assert {output.name for cell in outputs for output in cell} <= {"stdout"}
    return [text for cell in outputs if (text := "".join(output.text for output in cell))]


def read(folder):
    return nbformat.read(folder / "exercise.ipynb", as_version=4)


@each_folder
def test_a_notebook_is_committed_unsolved_and_complete(folder):
    raw = json.loads((folder / "exercise.ipynb").read_text(encoding="utf-8"))
    assert (raw["nbformat"], raw["nbformat_minor"]) == (4, 5)
    assert raw["metadata"]["kernelspec"]["name"] == "python3"
    assert raw["metadata"]["language_info"]["name"] == "python"
    notebook = read(folder)
    nbformat.validate(notebook)
    *checked, observed = printed(notebook)
    assert checked == [f"…  {task.name}: {NOT_SOLVED}\n" for task in TASKS_OF[folder.name]]
    (one,) = experiments(folder)
    assert observed.endswith(f"\n…  {one.name}: {NOT_SOLVED}\n")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    every = [*TASKS_OF[folder.name], *experiments(folder)]
    assert raw["metadata"]["mmlearn"]["minutes"] == sum(one.minutes for one in every)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    easy = sorted(TASKS_OF[folder.name], key=lambda task: task.difficulty)
    assert f"From easy to hard: {', '.join(f'`{task.name}`' for task in easy)}." in text
    for number, task in enumerate(TASKS_OF[folder.name], 1):
        assert f"| {number} | `{task.name}` | {'★' * task.difficulty} | {task.minutes} |" in text
        assert f"`{task.name}` · {'★' * task.difficulty} · {task.minutes} minutes" in text
        own = f"mmlearn exercises solution {task.name}"
        assert (own if is_written_in_the_check(task) else f"{task.reference.__module__}.{task.name}") in text


@each_folder
def test_stubs_have_the_arguments_of_the_library(folder):
    """A stub may leave out trailing arguments, but neither rename nor reorder them, nor change a default."""
    cells = {cell.id: cell.source for cell in read(folder).cells if cell.cell_type == "code"}
    for task in TASKS_OF[folder.name]:
        scope = {}
        exec(cells["imports"].split("from mmlearn")[0] + cells[f"{task.name.replace('_', '-')}-stub"], scope)
        stub = inspect.signature(scope[task.name])
        library = inspect.signature(task.reference)
        described = [[(p.name, p.default) for p in signature.parameters.values()] for signature in (stub, library)]
        assert described[0] == described[1][: len(described[0])], task.name
        left_out = list(library.parameters.values())[len(described[0]) :]
        assert all(p.default is not p.empty for p in left_out)
        assert scope[task.name].__doc__


def with_solutions(folder):
    """The notebook as a student leaves it, who solved every task and foretold every experiment."""
    notebook = read(folder)
    stubs = {cell.id: cell for cell in notebook.cells if cell.id.endswith("-stub")}
    for one in experiments(folder):
        about = ANSWERS[folder.name].EXPERIMENTS[one.name]
        (cell,) = [cell for cell in notebook.cells if cell.id == f"{one.name.replace('_', '-')}-experiment"]
        for old, new in (("prediction = ...", f"prediction = {about['answer']!r}"), (about["line"], about["changed"])):
            assert cell.source.count(old) == 1
            cell.source = cell.source.replace(old, new)
    for task in TASKS_OF[folder.name]:
        stub = stubs.pop(f"{task.name.replace('_', '-')}-stub")
        assert "raise NotImplementedError" in stub.source
        imported = f"from {task.reference.__module__} import {task.reference.__name__} as {task.name}"
        stub.source = solution(task.exercise, task.name) if is_written_in_the_check(task) else imported
    assert not stubs
    return notebook


@pytest.fixture(scope="module")
def kernel():
    """One for all notebooks, because each loads PyTorch: ``kernel(notebook, home)`` has no names, and a seed as new."""
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=120, kernel_name="python3")

    def anew(notebook, home):
        client.nb = notebook
        client.reset_execution_trackers()
        client.execute_cell(nbformat.v4.new_code_cell(ANEW.format(home=str(home))), -1)
        return client

    with client.setup_kernel():
        yield anew


ANEW = """\
import os
import torch
torch.manual_seed(torch.Generator().initial_seed())
os.environ["MMLEARN_HOME"] = {home!r}
os.makedirs({home!r}, exist_ok=True)
os.chdir({home!r})
%reset -f"""


@each_folder
def test_a_notebook_runs_through_unsolved_and_then_passes_every_check(folder, kernel, home):
    """As a student has it: first as it is committed, then all cells with their solutions."""
    unsolved, answered = read(folder), with_solutions(folder)
    for cell in answered.cells:
        cell.id += "-again"
    both = nbformat.v4.new_notebook(cells=[*unsolved.cells, *answered.cells])
    client = kernel(both, home)
    for index, cell in enumerate(both.cells):
        if index == len(unsolved.cells):
            assert solved() == set()
        client.execute_cell(cell, index)
    assert printed(unsolved) == printed(read(folder))
    *checked, observed = printed(answered)
    assert checked == [f"✔  {task.name}: solved\n" for task in TASKS_OF[folder.name]]
    (one,) = experiments(folder)
    assert f"✔  {one.name}: observed {ANSWERS[folder.name].EXPERIMENTS[one.name]['answer']!r}, as you" in observed
    assert one.why in observed
    assert solved() == {f"{folder.name}/{one.name}" for one in (*TASKS_OF[folder.name], *experiments(folder))}
