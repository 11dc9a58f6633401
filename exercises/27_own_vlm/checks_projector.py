"""Train and look: a projector through which a frozen language model writes what a drawing shows."""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn import load_pretrained, load_processor
from mmlearn.data.synthetic.collage_chat import seen_by
from mmlearn.data.synthetic.collage_talk import LIST
from mmlearn.data.synthetic.collages import lay_out
from mmlearn.data.synthetic.cutouts import PAPERS
from mmlearn.exercises import by_hand, expect, expect_whole, task
from mmlearn.models.text.llama import Llama
from mmlearn.models.vision.backbone import BackboneConfig
from mmlearn.pretrained.backbone import load_positions

NAME = "zoo/llama-collages"
NOUNS = ("cat", "horse", "pig", "elephant", "penguin", "turtle", "apple", "banana", "pizza", "bus", "bicycle", "guitar")
STYLE, STEPS = ("noto",), 60


@lru_cache(maxsize=1)
def language_model() -> tuple[Llama, Int[Tensor, "q"], Int[Tensor, "12"]]:
    """The small Llama that comes with the package, the tokens of "what is there?", and one token for each noun."""
    tokenizer = load_processor(NAME).tokenizer
    nouns = torch.cat([tokenizer.prompt(noun) for noun in NOUNS])
    return load_pretrained(NAME), tokenizer.prompt(LIST), nouns


@lru_cache(maxsize=8)
def drawings(styles: Sequence[str], count: int, seed: int) -> tuple[Float[Tensor, "n 1280"], Int[Tensor, "n"]]:
    """What MobileNetV2 makes of drawings of one thing each, of these styles, and the tokens of what they show."""
    rng = np.random.default_rng(seed)
    pictures = [(lay_out(rng, styles, 1, 1, nouns=NOUNS), int(rng.integers(PAPERS))) for _ in range(count)]
    shown = torch.tensor([NOUNS.index(things[0].noun) for things, _ in pictures])
    return seen_by(load_positions(BackboneConfig()), pictures, 128).mean(1), language_model()[2][shown]


def look_at_drawings() -> list[tuple[Float[Tensor, "n 1280"], Int[Tensor, "n"]]]:
    """Those that the check learns from, and those that it asks about: some seconds, the first time."""
    return [drawings(STYLE, 96, 0), drawings(STYLE, 64, 1)]


def train_projector(
    llama: Llama,
    features: Float[Tensor, "n f"],
    answer: Int[Tensor, "n"],
    question: Int[Tensor, "q"],
    unseen: Float[Tensor, "m f"],
    steps: int,
) -> Int[Tensor, "m"]:
    """The likeliest answers about ``unseen``, once a projector has learned from features and their answers."""
    llama.requires_grad_(False)
    width = llama.config.width
    projector = nn.Sequential(nn.Linear(features.shape[1], 256), nn.GELU(), nn.Linear(256, width))
    optimizer = torch.optim.AdamW(projector.parameters(), lr=3e-3)
    tokens = torch.cat([torch.tensor([llama.config.start_token]), question])
    words = llama.embed(tokens[None]).detach()  # (1, 1 + q, d)

    def read(features: Tensor) -> Tensor:
        """The logits of the token that follows the start, the picture and the question."""
        text = words.expand(len(features), -1, -1)
        embeddings = torch.cat([text[:, :1], projector(features)[:, None], text[:, 1:]], dim=1)
        return llama.logits(llama.read(embeddings)[:, -1])

    for _ in range(steps):
        rows = torch.randint(len(features), (24,))
        loss = F.cross_entropy(read(features[rows]), answer[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return read(unseen).argmax(-1)


def example(function: Callable) -> None:
    """Two pictures, each of which is one number: a projector that has seen both names them in any order."""
    llama, question, nouns = language_model()
    features = 4 * torch.eye(2)
    shown = by_hand(llama, features, nouns[:2], question, features.flip(0), 40, gives=nouns[:2].flip(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shown(function)


@task(train_projector, difficulty=4, minutes=40, example=example)
def check_train_projector(function: Callable) -> None:
    """New drawings are named, by a language model that is as it was."""
    llama, question, nouns = language_model()
    once = function(copy.deepcopy(llama), torch.eye(2), nouns[:2].clone(), question.clone(), torch.eye(2)[:1], 1)
    expect_whole(once, (1,), "argmax over the vocabulary gives tokens.")
    (features, answer), (unseen, right) = look_at_drawings()
    learned, asked = torch.randperm(96)[:80], torch.randperm(64)[:24]
    own = copy.deepcopy(llama)
    got = function(own, features[learned], answer[learned], question.clone(), unseen[asked], STEPS)
    got = expect_whole(got, (24,), "argmax over the vocabulary gives tokens.")
    pairs = zip(own.state_dict().values(), llama.state_dict().values())
    frozen = "the optimizer gets projector.parameters(), and nothing else."
    kept = all(torch.equal(a, b) for a, b in pairs)
    expect(kept, "The language model must stay as it is; here its weights changed.", frozen)
    place = "start token, picture, question: three parts of one torch.cat along the positions, in this order."
    same = "Different pictures must get different answers; here all get the same one."
    expect(len(got.unique()) > 1, same, f"does the answer depend on the picture? {place}")
    known = torch.isin(got, answer).float().mean()
    step = "each step: loss of the last position, zero_grad, backward, step; 60 steps of 24 drawings at 3e-3 do."
    expect(known > 0.5, "It must answer with nouns that it has learned; here it answers with other tokens.", step)
    share = float((got == right[asked]).float().mean())
    number = f"It must name at least 70% of new drawings; here it names {share:.0%}"
    chance = f"{number}, about as many as by chance, 8%."
    expect(share > 0.3, chance, "does row i of the logits belong to row i of the answers? It must not be shuffled.")
    expect(share >= 0.7, f"{number}.", f"it needs more steps, or a higher rate: {step}")
