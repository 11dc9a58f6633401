"""ALBEF's embeddings, logits and three losses equal its official code, https://github.com/salesforce/ALBEF.

Its parts are models/model_pretrain.py, vit.py and xbert.py. Wrong pairs are drawn by chance: the odds are compared, and
what was drawn is given to both.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from released import WORDS, albef, faint, released
from restated import bert_attention, bert_guess, bert_mlp, bert_words, dense, learning, norm, weigh
from testing_tools import close

from mmlearn.objectives import matching
from mmlearn.objectives.draws import draw_by_odds

CASES = {  # width, depth, first block that sees the picture, batch, tokens, α
    "two heads": (128, 3, 1, 4, 9, 0.4),
    "three heads": (192, 4, 2, 3, 11, 0.0),
    "one head": (64, 2, 1, 5, 6, 1.0),
}


def see(w, name, image):
    x = F.conv2d(image, w[f"{name}.patch_embed.proj.weight"], w[f"{name}.patch_embed.proj.bias"], stride=4)
    x = torch.cat([w[f"{name}.cls_token"].expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    x = x + w[f"{name}.pos_embed"]
    for i in range(2):
        block = f"{name}.blocks.{i}"
        query, key, value = dense(w, f"{block}.attn.qkv", norm(w, f"{block}.norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + dense(w, f"{block}.attn.proj", weigh(query, key, value, 1))
        inside = F.gelu(dense(w, f"{block}.mlp.fc1", norm(w, f"{block}.norm2", x, 1e-6)))
        x = x + dense(w, f"{block}.mlp.fc2", inside)
    return norm(w, f"{name}.norm", x, 1e-6)


def layers(w, name, x, mask, numbers, image=None):
    for i in numbers:
        layer = f"{name}.bert.encoder.layer.{i}"
        x = bert_attention(w, f"{layer}.attention", x, mask, x.shape[-1] // 64)
        if image is not None:
            x = bert_attention(w, f"{layer}.crossattention", x, None, x.shape[-1] // 64, context=image)
        x = bert_mlp(w, f"{layer}.intermediate", f"{layer}.output", x)
    return x


class Restated:
    """The model on its weights, with or without the ending that those of its slow copy have."""

    def __init__(self, w, depth, first, end=""):
        self.w, self.end, self.before, self.after = w, end, range(first), range(first, depth)

    def see(self, image):
        return see(self.w, f"visual_encoder{self.end}", image)

    def read(self, tokens, mask):
        name = f"text_encoder{self.end}"
        x = norm(self.w, f"{name}.bert.embeddings.LayerNorm", bert_words(self.w, f"{name}.bert.embeddings", tokens))
        return layers(self.w, name, x, mask, self.before)

    def fuse(self, words, mask, patches):
        return layers(self.w, f"text_encoder{self.end}", words, mask, self.after, patches)

    def guess(self, tokens, mask, patches):
        return bert_guess(
            self.w, f"text_encoder{self.end}.cls.predictions", self.fuse(self.read(tokens, mask), mask, patches)
        )

    def embed(self, patches, words):
        image = dense(self.w, f"vision_proj{self.end}", patches[:, 0])
        return F.normalize(image, dim=-1), F.normalize(dense(self.w, f"text_proj{self.end}", words[:, 0]), dim=-1)


def similarities(queries, candidates, queue, temperature):
    return queries @ torch.cat([candidates.T, queue], dim=1) / temperature


def losses(w, online, slow, batch, alpha, wrong_image, text):
    """``wrong_image`` and ``text`` are the wrong pairs. Returns the odds by which they are drawn as well."""
    image, gaps, mask, label = batch["image"], batch["tokens"], batch["mask"], batch["token_label"]
    whole = torch.where(label < 0, gaps, label)
    patches, words = online.see(image), online.read(whole, mask)
    own_image, own_text = online.embed(patches, words)
    with torch.no_grad():
        slow_patches = slow.see(image)
        slow_image, slow_text = slow.embed(slow_patches, slow.read(whole, mask))
        taught = slow.guess(gaps, mask, slow_patches).softmax(-1)
    contrast, odds = [], []
    for mine, slow_mine, slow_other, queue in (
        (own_image, slow_image, slow_text, w["text_queue"]),
        (own_text, slow_text, slow_image, w["image_queue"]),
    ):
        scores = similarities(mine, slow_other, queue, w["temp"])
        with torch.no_grad():
            right = torch.eye(*scores.shape)
            soft = similarities(slow_mine, slow_other, queue, w["temp"]).softmax(1)
            target = alpha * soft + (1 - alpha) * right
            odds.append(scores[:, : len(scores)].softmax(1).fill_diagonal_(0))
        contrast.append(-(scores.log_softmax(1) * target).sum(1).mean())
    right = online.fuse(words, mask, patches)[:, 0]
    wrong = online.fuse(words[text], mask[text], patches[wrong_image])[:, 0]
    logits = dense(w, "itm_head", torch.cat([right, wrong]))
    fits = torch.cat([torch.ones(len(right)), torch.zeros(len(wrong))]).long()
    scores, asked = online.guess(gaps, mask, patches), label >= 0
    soft = -(scores.log_softmax(-1) * taught).sum(-1)[asked].mean()
    mlm = (1 - alpha) * F.cross_entropy(scores[asked], label[asked]) + alpha * soft
    return {"itc": sum(contrast) / 2, "itm": F.cross_entropy(logits, fits), "mlm": mlm}, odds


@pytest.fixture(params=CASES)
def setting(request, convert_released, monkeypatch):
    """Weights, both restated models, our system, a batch, α, and what our system draws: odds and numbers."""
    width, depth, first, b, t, alpha = CASES[request.param]
    torch.manual_seed(0)
    weights = learning(released(albef(width, depth, first)))
    for name, tensor in weights.items():
        if "_queue" in name:
            tensor.requires_grad_(False).copy_(F.normalize(tensor, dim=0))
        elif "encoder_m." in name or "proj_m." in name:
            tensor.requires_grad_(False)
    model = convert_released(weights)
    model.config = dataclasses.replace(model.config, alpha=alpha)
    model.steps.fill_(model.config.alpha_ramp)  # from where α is whole
    mask = torch.arange(t) < t - torch.arange(b)[:, None]
    hidden = (torch.rand(b, t) < 0.4) & mask
    hidden[:, 1] = True
    batch = {
        "image": torch.randn(b, 3, 12, 12),
        "tokens": torch.randint(1, WORDS, (b, t)) * mask,
        "mask": mask,
        "token_label": torch.randint(1, WORDS, (b, t)).masked_fill(~hidden, -100),
    }
    drawn = []

    def listen(odds, generator):
        drawn.append((odds, draw_by_odds(odds, generator)))
        return drawn[-1][1]

    monkeypatch.setattr(matching, "draw_by_odds", listen)
    both = Restated(weights, depth, first), Restated(weights, depth, first, "_m")
    return weights, both, model, batch, alpha, drawn


def test_embeddings_and_logits(setting):
    weights, (online, _), model, batch, *_ = setting
    tokens, mask = batch["tokens"], batch["mask"]
    output = model(batch["image"], tokens, mask)
    patches, words = online.see(batch["image"]), online.read(tokens, mask)
    states = online.fuse(words, mask, patches)
    close(output.patches, patches)
    close(output.words[mask], words[mask])
    close(output.tokens[mask], states[mask])
    for got, expected in zip(output[:2], online.embed(patches, words)):
        close(got, expected)
    close(output.match_logits, dense(weights, "itm_head", states[:, 0]))
    close(output.token_logits[mask], online.guess(tokens, mask, patches)[mask])


def test_epsilons(convert_released):
    weights = faint(released(albef()), "_embeddings.weight", "cls_token", "pos_embed", "patch_embed")
    image, tokens = torch.randn(3, 3, 12, 12), torch.randint(1, WORDS, (3, 7))
    output, restated = convert_released(weights)(image, tokens), Restated(weights, 3, 1)
    close(output.patches, restated.see(image))
    close(output.words, restated.read(tokens, torch.ones_like(tokens)))


def test_losses_and_gradients(setting, assert_gradients_as_released):
    weights, restated, model, batch, alpha, drawn = setting
    ours = model.loss(batch)
    rows = torch.arange(len(batch["image"]))
    (odds_of_texts, text), (odds_of_images, image) = drawn
    pairs = torch.cat([image, rows]), torch.cat([rows, text])
    theirs, odds = losses(weights, *restated, batch, alpha, *pairs)
    for got, expected in zip((odds_of_texts, odds_of_images), odds):
        close(got, expected / expected.sum(1, keepdim=True))
    assert set(ours) == set(theirs)
    for name in theirs:
        close(ours[name], theirs[name])
    sum(ours.values()).backward()
    sum(theirs.values()).backward()
    assert not assert_gradients_as_released(weights, model, but=("logit_scale",))
    close(model.logit_scale.grad, -weights["temp"].grad * weights["temp"].detach())  # theirs is τ, ours ln(1/τ)


def test_the_queue_after_a_step(setting):
    """The slow copy's embeddings of whole texts lie where the pointer was, and behind."""
    weights, (_, slow), model, batch, *_ = setting
    model.training = True  # of itself alone: its parts still drop nothing
    model.loss(batch)
    whole = torch.where(batch["token_label"] < 0, batch["tokens"], batch["token_label"])
    expected = slow.embed(slow.see(batch["image"]), slow.read(whole, batch["mask"]))
    first, b = int(weights["queue_ptr"]), len(whole)
    for queue, name, own in zip((model.queue.image, model.queue.text), ("image_queue", "text_queue"), expected):
        close(queue, torch.cat([weights[name].T[:first], own, weights[name].T[first + b :]]))
    assert int(model.queue.pointer) == (first + b) % 8
