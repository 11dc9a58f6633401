"""ViLBERT equals its official code, https://github.com/facebookresearch/vilbert-multi-task, vilbert/vilbert.py."""

import pytest
import torch
import torch.nn.functional as F
from released import vilbert
from restated import bert_block, bert_guess, bert_mlp, bert_words, count_blocks, dense, norm, only, weigh
from testing_tools import close

CASES = {  # width, depth, meetings, batch, tokens, regions
    "two heads": (128, 3, 2, 4, 9, 6),
    "three heads": (192, 2, 1, 3, 7, 5),
    "one head": (64, 3, 2, 2, 5, 7),
}


def read_image(w, batch, hide):
    """The picture's own vector, the mean of its regions, before theirs; and which are real."""
    real = batch["region_mask"]
    features = batch["regions"] * real[..., None]
    if hide:
        features = features * ~batch["masked_regions"][..., None]
    own = features.sum(1, keepdim=True) / real.sum(1)[:, None, None]
    sides = batch["boxes"][..., 2:] - batch["boxes"][..., :2]
    positions = torch.cat([batch["boxes"], sides.prod(-1, keepdim=True)], dim=-1)
    whole = torch.tensor([0.0, 0, 1, 1, 1]).expand(len(real), 1, 5)
    x = dense(w, "bert.v_embeddings.image_embeddings", torch.cat([own, features], 1))
    x = x + dense(w, "bert.v_embeddings.image_location_embeddings", torch.cat([whole, positions], 1))
    return norm(w, "bert.v_embeddings.LayerNorm", x), torch.cat([torch.ones_like(real[:, :1]), real], 1)


def meet(w, name, visual, seen, text, read):
    """Each stream asks the other; 1 is the visual one."""
    asked = {
        f"{part}{i}": dense(w, f"{name}.biattention.{part}{i}", x)
        for i, x in ((1, visual), (2, text))
        for part in ("query", "key", "value")
    }
    of_regions = weigh(asked["query2"], asked["key1"], asked["value1"], 3, seen)
    of_words = weigh(asked["query1"], asked["key2"], asked["value2"], 3, read)
    visual = norm(w, f"{name}.biOutput.LayerNorm1", visual + dense(w, f"{name}.biOutput.dense1", of_words))
    text = norm(w, f"{name}.biOutput.LayerNorm2", text + dense(w, f"{name}.biOutput.dense2", of_regions))
    visual = bert_mlp(w, f"{name}.v_intermediate", f"{name}.v_output", visual)
    return visual, bert_mlp(w, f"{name}.t_intermediate", f"{name}.t_output", text)


def encode(w, batch, hide=False):
    """Words, regions with the picture before them, and the product of what both streams' first tokens become.

    The visual blocks meet from their first one on, the last blocks of words meet them.
    """
    read, (visual, seen) = batch["mask"], read_image(w, batch, hide)
    text = norm(w, "bert.embeddings.LayerNorm", bert_words(w, "bert.embeddings", batch["tokens"]))
    depth = count_blocks(w, "bert.encoder.layer")
    meetings = count_blocks(w, "bert.encoder.c_layer")
    t = v = 0
    for i in range(meetings + 1):
        t_end, v_end = (depth - meetings + i, i) if i < meetings else (depth, 2)
        for j in range(t, t_end):
            text = bert_block(w, f"bert.encoder.layer.{j}", text, read, text.shape[-1] // 64)
        for j in range(v, v_end):
            visual = bert_block(w, f"bert.encoder.v_layer.{j}", visual, seen, 2)
        if i < meetings:
            visual, text = meet(w, f"bert.encoder.c_layer.{i}", visual, seen, text, read)
        t, v = t_end, v_end
    pooled = dense(w, "bert.t_pooler.dense", text[:, 0]).relu() * dense(w, "bert.v_pooler.dense", visual[:, 0]).relu()
    return text, visual, pooled


def losses(w, batch):
    """All three of one pass, where matching has 0 for a text that belongs to its picture."""
    text, visual, pooled = encode(w, batch, hide=True)
    transform = "cls.imagePredictions.transform"
    named = norm(w, f"{transform}.LayerNorm", F.gelu(dense(w, f"{transform}.dense", visual[:, 1:])))
    named = dense(w, "cls.imagePredictions.decoder", named).log_softmax(-1)
    apart = F.kl_div(named, batch["region_classes"], reduction="none")
    hidden = batch["masked_regions"]
    guessed = bert_guess(w, "cls.predictions", text).flatten(0, 1)
    return {
        "mlm": F.cross_entropy(guessed, batch["token_label"].flatten(), ignore_index=-100),
        "itm": F.cross_entropy(dense(w, "cls.bi_seq_relationship", pooled), 1 - batch["match_label"]),
        "mrc_kl": (apart * hidden[..., None]).sum() / hidden.sum(),
    }


@pytest.fixture(params=CASES)
def pair(request, released_pair):
    """Weights, our system of them, and a batch."""
    width, depth, meetings, *sizes = CASES[request.param]
    return released_pair(vilbert(width, depth, meetings), sizes, 9)


def test_states_and_logits(pair):
    weights, model, batch = pair
    for hide in (False, True):
        output = model(**only(batch, *(["masked_regions"] if hide else [])))
        text, visual, pooled = encode(weights, batch, hide)
        close(output.tokens[batch["mask"]], text[batch["mask"]])
        close(output.image, visual[:, 0])
        close(output.regions[batch["region_mask"]], visual[:, 1:][batch["region_mask"]])
        close(output.pooled, pooled)
        close(output.match_logits, dense(weights, "cls.bi_seq_relationship", pooled).flip(1))
        close(
            model.token_logits(output.tokens)[batch["mask"]],
            bert_guess(weights, "cls.predictions", text)[batch["mask"]],
        )


def test_epsilons(released_pair):
    weights, model, batch = released_pair(vilbert(), (3, 7, 5), 9, "_embeddings.weight", "_embeddings.bias")
    output, (text, visual, _) = model(**only(batch)), encode(weights, batch)
    close(output.tokens[batch["mask"]], text[batch["mask"]])
    close(output.regions[batch["region_mask"]], visual[:, 1:][batch["region_mask"]])


def test_losses_and_gradients(pair, assert_gradients_as_released):
    weights, model, batch = pair
    labels = ("token_label", "match_label", "masked_regions", "region_classes")
    ours, theirs = model.loss(only(batch, *labels)), losses(weights, batch)
    assert set(ours) == set(theirs)
    for name in theirs:
        close(ours[name], theirs[name])
    sum(ours.values()).backward()
    sum(theirs.values()).backward()
    assert all(".q_dense" in name for name in assert_gradients_as_released(weights, model))
