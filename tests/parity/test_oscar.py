"""OSCAR and VinVL equal BertImgForPreTraining of https://github.com/microsoft/Oscar, on Transformers' BERT.

The official class puts projected regions behind BERT's embeddings, and reads both by BERT's encoder and heads.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from published import TEXTS, to_guess
from released import renamed
from testing_tools import assert_gradients, close
from torch import nn
from transformers import BertConfig, BertForPreTraining

from mmlearn.models.fusion.oscar import OSCAR, OSCARConfig
from mmlearn.models.fusion.vinvl import VinVL, VinVLConfig
from mmlearn.pretrained.bert import FAMILY, config

CASES = {  # of texts; then features, regions
    "odd": (7, 5),
    "relu": (48, 20),
    "batch of one": (16, 1),
}
SYSTEMS = {"oscar": (OSCAR, OSCARConfig), "vinvl": (VinVL, VinVLConfig)}


class Published(nn.Module):
    """Modules under the names of the official code."""

    def __init__(self, settings, region_width, classes, layer_norm):
        super().__init__()
        whole = BertForPreTraining(settings)
        self.bert, self.cls = whole.bert, whole.cls
        self.cls.seq_relationship = nn.Linear(settings.hidden_size, classes)
        self.bert.img_embedding = nn.Linear(region_width + 6, settings.hidden_size)
        if layer_norm:
            self.bert.LayerNorm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)

    def forward(self, batch):
        """The states of all tokens, the scores of words, and those of what is polluted."""
        sides = batch["boxes"][..., 2:] - batch["boxes"][..., :2]
        image = self.bert.img_embedding(torch.cat([batch["regions"], batch["boxes"], sides], -1))
        image = self.bert.LayerNorm(image) if hasattr(self.bert, "LayerNorm") else image
        text = self.bert.embeddings(input_ids=batch["tokens"], token_type_ids=batch["token_type"])
        real = torch.cat([batch["mask"], batch["region_mask"]], 1)
        hidden = -10_000.0 * (1 - real[:, None, None].float())
        states = self.bert.encoder(torch.cat([text, image], 1), attention_mask=hidden)[0]
        return states, *self.cls(states, self.bert.pooler(states))


@pytest.fixture(params=[(name, case) for name in SYSTEMS for case in CASES], ids=" ".join)
def pair(request):
    """The published model with noise on every parameter, ours with its weights, and a batch."""
    name, case = request.param
    torch.manual_seed(1)
    sizes = dict(TEXTS[case])
    (f, p), b, t = CASES[case], sizes.pop("batch"), sizes["max_position_embeddings"]
    settings = BertConfig(**sizes, attn_implementation="eager")
    model, ours = SYSTEMS[name]
    published = Published(settings, f, 1 + len(model.POLLUTED), name == "vinvl").eval()
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    wanted = vars(config(settings.to_dict(), set()))
    made = ours(region_width=f, **{key: wanted[key] for key in vars(ours()).keys() & wanted.keys() - {"pooler"}})
    model = model(replace(made)).eval()
    model.load_state_dict(as_ours(published.state_dict()))
    tokens = torch.randint(sizes["vocab_size"], (b, t))
    mask = torch.arange(t) <= torch.arange(b)[:, None] + 2
    corners = torch.rand(b, p, 2, 2).sort(2).values.flatten(2) * 0.9
    batch = {
        "tokens": tokens,
        "mask": mask,
        "token_type": torch.randint(2, (b, t)),
        "token_label": to_guess(tokens, mask),
        "regions": torch.randn(b, p, f),
        "boxes": corners + torch.tensor([0, 0, 0.1, 0.1]),
        "region_mask": torch.arange(p) <= torch.arange(b)[:, None] % p,
        "polluted": torch.arange(b) % (1 + len(model.POLLUTED)),
    }
    return published, model, batch


def as_ours(tensors):
    """Tensors of the published model under our names."""
    own = (
        (r"^bert\.img_embedding", "region_projection"),
        (r"^bert\.LayerNorm", "region_norm"),
        (r"^cls\.seq_relationship", "contrast_head"),
    )
    unread = ("position_ids", "token_type_ids", "predictions.decoder.weight", "predictions.decoder.bias")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(unread)}
    return renamed(kept, (*own, *FAMILY.renames), {})


def test_states_and_scores(pair):
    published, ours, batch = pair
    states, words, polluted = published(batch)
    output = ours(**{name: batch[name] for name in batch if name not in ("token_label", "polluted")})
    real = torch.cat([batch["mask"], batch["region_mask"]], 1)
    close(torch.cat([output.tokens, output.regions], 1)[real], states[real])
    t = batch["tokens"].shape[1]
    close(ours.token_logits(output.tokens)[batch["mask"]], words[:, :t][batch["mask"]])
    close(ours.contrast_head(output.pooled), polluted)


def test_losses_and_gradients(pair):
    published, ours, batch = pair
    _, words, polluted = published(batch)
    t = batch["tokens"].shape[1]
    expected = {
        "mlm": F.cross_entropy(words[:, :t].flatten(0, 1), batch["token_label"].flatten()),
        "contrastive": F.cross_entropy(polluted, batch["polluted"]),
    }
    losses = ours.loss(batch)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        close(loss, expected[name])
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    assert_gradients(ours, as_ours({name: x.grad for name, x in published.named_parameters()}))
