"""UNITER equals its official code, https://github.com/ChenRocks/UNITER: model/model.py, pretrain.py and ot.py."""

import pytest
import torch
import torch.nn.functional as F
from released import uniter
from restated import bert_block, bert_guess, bert_words, compact, count_blocks, dense, norm, only, taken_apart
from testing_tools import close

from mmlearn.objectives.masked import masked_region_classification

CASES = {  # width, depth, batch, tokens, regions
    "two heads": (128, 3, 4, 9, 6),
    "three heads": (192, 2, 3, 11, 5),
    "one head": (64, 1, 2, 5, 7),
}


def encode(w, batch, hide=False):
    """The states of all elements, and the lengths of texts and pictures."""
    features, corners, masked = batch["regions"], batch["boxes"], batch["masked_regions"]
    if hide:
        features = features.masked_fill(masked[..., None], 0) + w["img_embeddings.mask_embedding.weight"][masked.long()]
    sides = corners[..., 2:] - corners[..., :2]
    positions = torch.cat([corners, sides, sides.prod(-1, keepdim=True)], dim=-1)
    image = norm(w, "img_embeddings.img_layer_norm", dense(w, "img_embeddings.img_linear", features))
    image = image + norm(w, "img_embeddings.pos_layer_norm", dense(w, "img_embeddings.pos_linear", positions))
    image = norm(w, "img_embeddings.LayerNorm", image + w["embeddings.token_type_embeddings.weight"][1])
    text = norm(w, "embeddings.LayerNorm", bert_words(w, "embeddings", batch["tokens"]))
    lengths = batch["mask"].sum(1).tolist(), batch["region_mask"].sum(1).tolist()
    x, filled = compact(text, lengths[0], image, lengths[1])
    depth = count_blocks(w, "encoder.layer")
    for i in range(depth):
        x = bert_block(w, f"encoder.layer.{i}", x, filled, x.shape[-1] // 64)
    return x, *lengths


def pooled(w, x):
    return dense(w, "pooler.dense", x[:, 0]).tanh()


def transport(x, texts, images):
    """The distance of each pair: 50 proximal steps (β = 0.5) over real words and regions alone, row by row."""
    found = []
    for row, n, m in zip(x, texts, images):
        cost = 1 - F.normalize(row[:n], dim=-1, eps=1e-5) @ F.normalize(row[n : n + m], dim=-1, eps=1e-5).T
        with torch.no_grad():
            near, plan, sigma = torch.exp(-cost.T / 0.5), torch.ones(m, n), torch.full((n,), 1 / n)
            for _ in range(50):
                now = near * plan
                delta = 1 / (m * now @ sigma)
                sigma = 1 / (n * delta @ now)
                plan = delta[:, None] * now * sigma
        found.append((cost @ plan).trace())
    return torch.stack(found)


def losses(w, batch):
    """Those of the official code, each as its training script averages it."""
    plain = {name.removeprefix("uniter."): tensor for name, tensor in w.items()}
    states = encode(plain, batch)
    words, _ = taken_apart(*states)
    label = batch["token_label"][batch["mask"]]
    asked, matching = label >= 0, batch["match_label"]
    distance = transport(*states)
    apart = distance[matching == 1].sum() - distance[matching == 0].sum()
    _, regions = taken_apart(*encode(plain, batch, hide=True))
    hidden = batch["masked_regions"][batch["region_mask"]]
    target, classes = (batch[name][batch["region_mask"]][hidden] for name in ("region_target", "region_classes"))
    write = norm(w, "feat_regress.net.2", F.gelu(dense(w, "feat_regress.net.0", regions[hidden])))
    name = norm(w, "region_classifier.net.2", F.gelu(dense(w, "region_classifier.net.0", regions[hidden])))
    named = dense(w, "region_classifier.net.3", name)
    return {
        "mlm": F.cross_entropy(bert_guess(w, "cls.predictions", words[asked]), label[asked]),
        "itm": F.cross_entropy(dense(w, "itm_output", pooled(plain, states[0])), matching),
        "wra": 0.1 * apart / len(matching),
        "mrfr": F.mse_loss(write @ w["feat_regress.weight"] + w["feat_regress.bias"], target),
        "mrc_kl": F.kl_div(named.log_softmax(-1), classes, reduction="none").mean(),
        "mrc": F.cross_entropy(named, classes[:, 1:].argmax(-1) + 1),
    }


@pytest.fixture(params=CASES)
def pair(request, released_pair):
    """Weights, our system of them, and a batch."""
    width, depth, *sizes = CASES[request.param]
    return released_pair(uniter(width, depth), sizes, 7)


def test_states_and_logits(pair):
    weights, model, batch = pair
    plain = {name.removeprefix("uniter."): tensor for name, tensor in weights.items()}
    for hide in (False, True):
        output = model(**only(batch, *(["masked_regions"] if hide else [])))
        states = encode(plain, batch, hide)
        words, regions = taken_apart(*states)
        close(output.tokens[batch["mask"]], words)
        close(output.regions[batch["region_mask"]], regions)
        close(output.pooled, pooled(plain, states[0]))
        close(output.match_logits, dense(weights, "itm_output", pooled(plain, states[0])))
        close(model.token_logits(output.tokens[batch["mask"]]), bert_guess(weights, "cls.predictions", words))


def test_epsilons(released_pair):
    parts = "_embeddings.weight", "img_linear", "pos_linear"
    weights, model, batch = released_pair(uniter(), (3, 7, 5), 7, *parts)
    plain = {name.removeprefix("uniter."): tensor for name, tensor in weights.items()}
    output = model(**only(batch))
    words, regions = taken_apart(*encode(plain, batch))
    close(output.tokens[batch["mask"]], words)
    close(output.regions[batch["region_mask"]], regions)


def test_losses_and_gradients(pair, assert_gradients_as_released):
    """The official code trains one task a batch, and takes means over features and classes where ours are sums."""
    weights, model, batch = pair
    ours = {}
    for labels in (["token_label"], ["match_label"], ["masked_regions", "region_target", "region_classes"]):
        ours |= model.loss(only(batch, *labels))
    theirs = losses(weights, batch)
    for name, scale in (("mlm", 1), ("itm", 1), ("wra", 1), ("mrfr", 20), ("mrc_kl", 7)):
        close(ours[name], scale * theirs[name])
        (ours[name] / scale).backward(retain_graph=True)
        theirs[name].backward(retain_graph=True)
    assert not assert_gradients_as_released(weights, model)


def test_the_likeliest_class_where_it_is_not_the_background(pair):
    weights, model, batch = pair
    batch["region_classes"][..., 0] = 0
    regions = model(**only(batch, "masked_regions")).regions
    mrc = masked_region_classification(
        model.region_classifier(regions), batch["region_classes"], batch["masked_regions"]
    )
    close(mrc, losses(weights, batch)["mrc"])
