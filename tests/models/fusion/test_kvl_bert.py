"""KVL-BERT: VL-BERT where nothing is known; knowledge moves nothing, and reaches its own word first."""

import dataclasses

import pytest
import torch
from testing_tools import close, shaken

from mmlearn.data import Collate, Tokenizer
from mmlearn.data.fields import MaskedRegions, MaskedTokens, Regions, Tokens
from mmlearn.data.fields.graphs import KnowledgeTokens, MaskedSentence
from mmlearn.data.synthetic.layouts import COLOURS, SHAPES
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.layers import record_attention
from mmlearn.models.fusion.kvl_bert import KNOWLEDGE, KVLBERT, KVLBERTConfig, visible_matrix
from mmlearn.models.fusion.vl_bert import VLBERT, VLBERTConfig

SIZES = dict(vocab_size=1024, max_length=48, visual_scale=1.0)
OF_A_TREE = ("tokens", "mask", "position", "entity", "branch")
OF_A_TEXT = ("tokens", "mask", "regions", "boxes", "region_mask")


@pytest.fixture(scope="module")
def samples():
    return Scenes("train", size=32).__getitems__(range(12))


@pytest.fixture(scope="module")
def tokenizer(samples):
    more = [f"{word} {one} {other}" for word, triples in KNOWLEDGE.items() for one, other in triples]
    return Tokenizer.train([*(sample.caption for sample in samples), *more], vocab_size=1024)


@pytest.fixture
def batch(samples, tokenizer):
    return Collate((KnowledgeTokens(tokenizer, graph=KNOWLEDGE), Regions()))(samples)


def models(**changes):
    """A KVL-BERT and a VL-BERT with the same weights."""
    model = shaken(KVLBERT(dataclasses.replace(KVLBERTConfig.tiny(), **SIZES | changes))).eval()
    plain = VLBERT(dataclasses.replace(VLBERTConfig.tiny(), **SIZES | changes)).eval()
    plain.load_state_dict(model.state_dict())
    return model, plain


def read(model, batch, names=(*OF_A_TEXT, *OF_A_TREE)):
    with torch.no_grad():
        return model(**{name: batch[name] for name in dict.fromkeys(names)})


def same(one, other, mask):
    assert torch.equal(one.tokens[mask], other.tokens[mask])
    assert torch.equal(one.regions, other.regions)
    assert torch.equal(one.pooled, other.pooled)


# Without knowledge.


def test_with_an_empty_graph_it_is_vl_bert(samples, tokenizer):
    """Outputs and losses, bit for bit; also of a batch that knows nothing of trees."""
    model, plain = models()
    labels, seeds = (MaskedTokens(), MaskedRegions()), dict(seed=3)
    text = Collate((Tokens(tokenizer), Regions()), labels, **seeds)(samples)
    tree = Collate((KnowledgeTokens(tokenizer), Regions()), (MaskedSentence(), MaskedRegions()), **seeds)(samples)
    assert torch.equal(tree["tokens"], text["tokens"])
    expected = read(plain, text, OF_A_TEXT)
    same(read(model, tree), expected, text["mask"])
    same(read(model, text, OF_A_TEXT), expected, text["mask"])
    losses = plain.loss(text)
    for batch in (tree, text):
        assert {name: value.item() for name, value in model.loss(batch).items()} == {
            name: value.item() for name, value in losses.items()
        }
    assert losses.keys() == {"mlm", "mrc"}


def test_knowledge_that_hangs_on_nothing_changes_no_word_and_no_region(batch, samples, tokenizer):
    """So neither the sentence nor the picture is moved by what stands between."""
    model, plain = models()
    expected = read(plain, Collate((Tokens(tokenizer), Regions()))(samples), OF_A_TEXT)
    sentence, real = batch["mask"] & (batch["branch"] == 0), Tokens(tokenizer)(samples)["mask"]
    cut = read(model, batch | {"entity": torch.where(batch["branch"] > 0, -1, batch["entity"])})
    close(cut.tokens[sentence], expected.tokens[real])
    close(cut.regions[batch["region_mask"]], expected.regions[batch["region_mask"]])
    close(cut.pooled, expected.pooled)
    known = read(model, batch)
    assert (known.tokens[sentence] - expected.tokens[real]).abs().max() > 0.01


# With knowledge.


def see_each_other(entity, branch):
    """Whether two tokens lie on one path: the sentence, or a branch with its word."""
    paths = [{i for i, b in enumerate(branch) if b == 0}]
    for number in set(branch) - {0}:
        own = {i for i, b in enumerate(branch) if b == number}
        words = {entity[i] for i in own} - {-1}
        paths.append(own | {i for i, b in enumerate(branch) if b == 0 and entity[i] in words})
    n = range(len(branch))
    return torch.tensor([[any({i, j} <= path for path in paths) for j in n] for i in n])


def test_tokens_see_each_other_on_one_path():
    """Of the sentence in figure 2 of Liu et al. 2020, and of branches of which one hangs on nothing."""
    trees = [
        ([0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5, 6], [0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 3, 3, 0]),
        ([0, 1, 1, 1, -1, -1, 2, 2, -1, -1, 2, -1, -1], [0, 0, 0, 1, 2, 2, 0, 0, 3, 3, 4, 0, 0]),
    ]
    entity, branch = torch.tensor(trees).unbind(1)
    got = visible_matrix(entity, branch)
    for one, tree in zip(got, trees):
        assert torch.equal(one, see_each_other(*tree))
    cook, apple, china, city, now = 2, 4, 9, 11, 12
    assert got[0, cook, apple]
    assert got[0, cook, now]
    assert not got[0, apple, now]
    assert not got[0, china, city]


def test_attention_is_on_what_is_visible_and_real(batch):
    model, _ = models()
    with record_attention(model) as maps:
        read(model, batch)
    b, p = batch["regions"].shape[:2]
    assert len(maps) == 3
    assert int(batch["branch"].max()) > 2
    for i in range(b):
        more = p + 2  # regions, the whole picture and [END], all of the sentence
        visible = see_each_other(batch["entity"][i].tolist() + [-1] * more, batch["branch"][i].tolist() + [0] * more)
        real = torch.cat([batch["mask"][i], batch["region_mask"][i], torch.tensor([True, True])])
        for weights in maps.values():
            assert torch.equal(weights[i, :, real] > 0, (visible & real)[real].expand(4, -1, -1))


@pytest.mark.parametrize(("depth", "everywhere"), [(1, False), (2, True)])
def test_knowledge_reaches_its_word_and_through_it_the_rest(batch, depth, everywhere):
    model, _ = models(depth=depth)
    before = read(model, batch)
    row, position = (batch["branch"] == 1).nonzero()[0].tolist()
    other = batch["tokens"].clone()
    other[row, position] = 5
    after = read(model, batch | {"tokens": other})
    moved = (after.tokens - before.tokens).abs().amax(-1) > 1e-6
    entity, branch = batch["entity"][row], batch["branch"][row]
    near = (branch == 1) | ((branch == 0) & (entity == entity[position]))
    assert torch.equal(moved[row] & batch["mask"][row], batch["mask"][row] & ((branch < 2) if everywhere else near))
    assert not moved[[i for i in range(len(moved)) if i != row]].any()
    assert ((after.regions - before.regions).abs().amax(-1)[row] > 1e-6).any() == everywhere
    assert ((after.pooled - before.pooled).abs().amax(-1)[row] > 1e-6) == everywhere


def test_where_a_branch_stands_does_not_matter(batch):
    """Only its positions, and what it sees: here all branches stand behind the text."""
    model, _ = models()
    order = (batch["branch"] > 0).int().argsort(dim=1, stable=True)
    order = order.gather(1, (~batch["mask"]).gather(1, order).int().argsort(dim=1, stable=True))
    moved = read(model, batch | {name: batch[name].gather(1, order) for name in OF_A_TREE})
    before, real = read(model, batch), batch["mask"]
    assert not torch.equal(order, torch.arange(order.shape[1]).expand_as(order))
    close(moved.tokens[real], before.tokens.gather(1, order[..., None].expand_as(before.tokens))[real])
    close(moved.regions, before.regions)
    soft = read(model, batch | {"position": torch.arange(order.shape[1]).expand_as(order)})
    assert (soft.pooled - before.pooled).abs().max() > 1e-3


def test_what_is_known_of_a_hidden_word_is_not_seen(batch):
    model, _ = models()
    generator = torch.Generator().manual_seed(0)
    masked = MaskedSentence(0.5)(batch, generator, {"vocab_size": 1024}.__getitem__)
    gone = masked["entity"] != batch["entity"]
    assert gone.any()
    other = masked | {"tokens": masked["tokens"].masked_fill(gone, 7)}
    losses = (model.loss(each | {"mask": batch["mask"]})["mlm"] for each in (masked, other))
    assert torch.equal(*losses)


def test_the_table_is_about_words_of_scenes():
    assert set(KNOWLEDGE) <= {*COLOURS, *SHAPES}
    assert set(COLOURS) - set(KNOWLEDGE) == {"white"}
    assert set(SHAPES) <= set(KNOWLEDGE)
