"""Scene graphs of captions against what scenes say of themselves; sentence trees against the figure of the paper."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import refused

from mmlearn.data import Tokenizer
from mmlearn.data.fields import MaskedTokens, MatchLabel, Tokens
from mmlearn.data.fields.graphs import GraphTokens, KnowledgeTokens, MaskedNodes, MaskedSentence, inject
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.models.fusion.kvl_bert import KVLBERTConfig
from mmlearn.objectives.masked import ROLES

KNOWN = {"red": [("is", "warm")], "circle": [("has", "a round edge"), ("rolls", "away")]}


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=32).__getitems__(range(100))


@pytest.fixture(scope="module", params=[280, 1000], ids=["few tokens", "many tokens"])
def tokenizer(request, scenes):
    """Of few tokens, words have several."""
    return Tokenizer.train([scene.caption for scene in scenes], vocab_size=request.param, max_length=90)


def labelled(batch, *labels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for label in labels:
        batch = label(batch, generator, {"vocab_size": 280}.__getitem__)
    return batch


def said(tokenizer, tokens):
    return tokenizer.decode(tokens).split()


# Scene graphs.


def test_roles_and_nodes_are_those_that_the_scene_knows(scenes, tokenizer):
    batch = GraphTokens(tokenizer)(scenes)
    for scene, tokens, role, node in zip(scenes, batch["tokens"], batch["role"], batch["node"]):
        names = [scene.caption[link.start : link.end].split() for link in scene.links]
        expected = [(0, [name[-1]]) for name in names] + [(1, [word]) for name in names for word in name[:-1]]
        expected.append((2, scene.stated.split()))
        found = [(role[node == k].unique().item(), said(tokenizer, tokens[node == k])) for k in range(9)]
        assert sorted(found) == sorted(expected)
        assert int(node.max()) == 8
        assert torch.equal(role < 0, node < 0)
        assert set(said(tokenizer, tokens[role < 0])) <= {"a", "the", "is"}


def test_nodes_come_in_the_order_of_the_text_and_phrases_are_whole_words():
    field = GraphTokens(phrases=(("cat", "cat food"), ("red",), ()))
    text = "Cat food, a RED cat, scattered reds"
    found = [(text[start:end], role) for start, end, role in field.parse(text)]
    assert found == [("Cat food", 0), ("RED", 1), ("cat", 0)]


def test_graphs_stay_beside_their_tokens(scenes, tokenizer):
    trimmed, whole = (GraphTokens(tokenizer, whole=each)(scenes) for each in (False, True))
    plain = Tokens(tokenizer)(scenes)
    for name in ("role", "node"):
        assert torch.equal(whole[name][:, : plain["tokens"].shape[1]], trimmed[name])
        assert (trimmed[name][~plain["mask"]] == -1).all()
    assert all(torch.equal(trimmed[name], value) for name, value in plain.items())
    short = GraphTokens(Tokenizer(tokenizer.engine, 5))(scenes)  # what was cut has no node
    tokenizer.engine.enable_truncation(90)
    tokenizer.engine.enable_padding(length=90, pad_id=0, pad_token="<pad>")
    assert short["role"].shape == short["tokens"].shape


@pytest.mark.parametrize("role", ROLES)
def test_a_label_hides_words_of_its_role(scenes, tokenizer, role):
    plain = GraphTokens(tokenizer)(scenes)
    batch = labelled(plain, MaskedNodes(role))
    hidden = batch[f"{role}_label"] != -100
    assert hidden.any(1).all()
    assert (plain["role"][hidden] == ROLES.index(role)).all()
    assert torch.equal(batch["tokens"].where(~hidden, batch[f"{role}_label"]), plain["tokens"])
    every = labelled(plain, MaskedNodes(role, probability=1.0))[f"{role}_label"]
    assert torch.equal(every != -100, plain["role"] == ROLES.index(role))


def test_labels_of_one_batch_keep_apart_and_move_with_their_text(scenes, tokenizer):
    plain = GraphTokens(tokenizer)(scenes)
    batch = labelled(plain, MatchLabel(), MaskedTokens(0.5), *map(MaskedNodes, ROLES))
    labels = torch.stack([batch[name] for name in ("token_label", *(f"{role}_label" for role in ROLES))])
    assert ((labels != -100).sum(0) <= 1).all()
    true = torch.where((labels != -100).any(0), labels.amax(0), batch["tokens"])
    source = [int((plain["tokens"] == row).all(1).int().argmax()) for row in true]
    assert all(torch.equal(plain["tokens"][k], row) for k, row in zip(source, true))
    assert source != list(range(100))
    assert torch.equal(batch["role"], plain["role"][source])
    assert torch.equal(batch["node"], plain["node"][source])
    after = labelled(plain, MaskedNodes("object"), MatchLabel())
    shown = after["object_label"] == -100
    assert (after["role"][~shown] == 0).all()


# Sentence trees.


def test_a_tree_is_flattened_as_in_the_paper():
    """Liu et al. 2020 (K-BERT), figure 2, with a token for each word."""
    graph = {"Cook": [("CEO", "Apple")], "Beijing": [("capital", "China"), ("is_a", "City")]}
    names = [
        "[CLS]",
        "Tim",
        "Cook",
        "is",
        "visiting",
        "Beijing",
        "now",
        "CEO",
        "Apple",
        "capital",
        "China",
        "is_a",
        "City",
    ]
    token = {name: (i,) for i, name in enumerate(names)}
    coded = {token[word]: [(token[one], token[other]) for one, other in known] for word, known in graph.items()}
    tree = inject([token[word] for word in names[:7]], coded)
    text = " ".join(names[i] for i in tree.tokens)
    assert text == "[CLS] Tim Cook CEO Apple is visiting Beijing capital China is_a City now"
    assert tree.position.tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 6, 7, 6]
    assert tree.entity.tolist() == [0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5, 6]
    assert tree.branch.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 3, 3, 0]


def test_words_relations_and_tails_of_several_tokens():
    tree = inject([(1,), (7, 8), (9,), (7,)], {(7, 8): [((20, 21), (22,)), ((), (23,))], (9,): [((24,), (25,))]})
    assert tree.tokens.tolist() == [1, 7, 8, 20, 21, 22, 23, 9, 24, 25, 7]
    assert tree.position.tolist() == [0, 1, 2, 3, 4, 5, 3, 3, 4, 5, 4]
    assert tree.entity.tolist() == [0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3]
    assert tree.branch.tolist() == [0, 0, 0, 1, 1, 1, 2, 0, 3, 3, 0]


@pytest.mark.parametrize("words", [[(1,), (7, 8), (2,)], []])
def test_without_knowledge_a_tree_is_its_sentence(words):
    tree = inject(words, {(5,): [((6,), (7,))]})
    n = sum(map(len, words))
    assert tree.tokens.tolist() == [token for word in words for token in word]
    assert tree.position.tolist() == list(range(n))
    assert tree.branch.tolist() == [0] * n
    assert all(part.dtype == torch.int64 for part in tree)


def known(tokenizer, graph=KNOWN):
    return KnowledgeTokens(tokenizer, graph=graph)


def test_the_field_puts_knowledge_behind_words_and_pads(tokenizer):
    samples = [SimpleNamespace(caption=text) for text in ("a Red bar", "red circle, redder", "a bar")]
    batch, plain = known(tokenizer)(samples), Tokens(tokenizer)(samples)
    texts = [" ".join(said(tokenizer, row)) for row in batch["tokens"]]
    assert texts == ["a red is warm bar", "red is warm circle has a round edge rolls away, redder", "a bar"]
    for i in range(3):
        real, sentence = batch["mask"][i], batch["branch"][i] == 0
        assert torch.equal(batch["tokens"][i][real & sentence], plain["tokens"][i][plain["mask"][i]])
        assert torch.equal(batch["position"][i][real & sentence], torch.arange(int(plain["mask"][i].sum())))
        assert (batch["entity"][i][real] >= 0).all()
        assert (batch["entity"][i][~real] == -1).all()
        assert (batch["branch"][i][~real] == 0).all()
        assert real[: int(real.sum())].all()
    assert batch["branch"].amax(1).tolist() == [1, 3, 0]
    assert torch.equal(batch["caption_id"], plain["caption_id"])


def test_an_empty_graph_changes_no_token(scenes, tokenizer):
    batch, plain = known(tokenizer, {})(scenes), Tokens(tokenizer)(scenes)
    assert all(torch.equal(batch[name], value) for name, value in plain.items())
    assert (batch["branch"] == 0).all()


def test_the_vocabulary_has_the_words_of_the_graph_and_positions_suffice():
    data = Scenes("train", size=32, length=300)
    field, plain = (one.fitted(data, KVLBERTConfig.tiny(), 0) for one in (KnowledgeTokens(graph=KNOWN), Tokens()))
    assert field.tokenizer.max_length == plain.tokenizer.max_length
    for word in ("warm", "round", "rolls"):
        assert len(field.tokenizer.engine.encode(word, add_special_tokens=False).tokens[:2]) == 2  # padded
        assert int(field.tokenizer([word])[1].sum()) == 3
    samples = [SimpleNamespace(caption="circle " * 60)]
    assert int(field(samples)["position"].max()) < field.sizes()["max_length"]
    assert field.sizes()["max_length"] == plain.sizes()["max_length"] + 4  # "has a round edge"
    assert KnowledgeTokens(plain.tokenizer).sizes() == plain.sizes()


def test_what_is_known_of_a_hidden_word_hangs_on_nothing(scenes, tokenizer):
    plain = known(tokenizer)(scenes)
    batch = labelled(plain, MaskedSentence(0.2))
    hidden = batch["token_label"] != -100
    assert (plain["branch"][hidden] == 0).all()
    assert torch.equal(batch["tokens"].where(~hidden, batch["token_label"]), plain["tokens"])
    cut = kept = 0
    for i in range(100):
        of_hidden = set(plain["entity"][i][hidden[i]].tolist())
        rows = (plain["entity"][i].tolist(), plain["branch"][i].tolist(), batch["entity"][i].tolist())
        for entity, branch, now in zip(*rows):
            gone = branch > 0 and entity in of_hidden
            assert now == (-1 if gone else entity)
            cut, kept = cut + gone, kept + (branch > 0 and not gone)
    assert min(cut, kept) > 20
    assert all(torch.equal(batch[name], plain[name]) for name in ("position", "branch", "mask"))


def test_what_a_tree_has_not_is_refused():
    for options in ({"words": True}, {"maskable": ["red"]}, {"grounded": True}, {"whole": True}):
        refused("KnowledgeTokens have no words, maskable, grounded or whole", KnowledgeTokens, **options)
