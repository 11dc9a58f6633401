"""Recurrent captioners: each against a second way to write it down, and what they write against reading anew."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, overfit, refused, seeded, shaken
from torch import nn

from mmlearn.evaluation.captions import cider_d
from mmlearn.generation.cache import cached, pad_left, start_prompts, uncached
from mmlearn.generation.decoding import beam_search, greedy, sample
from mmlearn.models import SCACNN, SCST, SCACNNConfig, SCSTConfig, ShowAndTell, ShowAndTellConfig
from mmlearn.models.recurrent_captions.recurrent import add_coordinates
from mmlearn.models.recurrent_captions.sca_cnn import ChannelSpatialAttention
from mmlearn.recipes.scst import CIDErReward
from mmlearn.recipes.shared.recurrent_captions import maps_before_words

SYSTEMS = {
    "show-and-tell": (ShowAndTell, ShowAndTellConfig.tiny()),
    "channel-spatial": (SCACNN, SCACNNConfig.tiny()),
    "spatial-channel": (SCACNN, replace(SCACNNConfig.tiny(), order="spatial-channel", layers=2)),
    "channel": (SCACNN, replace(SCACNNConfig.tiny(), order="channel")),
    "scst": (SCST, SCSTConfig.tiny()),
}
START, END = 1, 2
DECODERS = {
    "greedy": lambda: greedy,
    "beams": lambda: partial(beam_search, beams=4, length_penalty=0.7),
    "draws": lambda: partial(sample, temperature=1.5, generator=seeded()),
}


def build(name, seed=0, **changes):
    system, config = SYSTEMS[name]
    torch.manual_seed(seed)
    return shaken(system(replace(config, **changes)), 0.2).eval()


def given(b=6, t=9, seed=0):
    generator = seeded(seed)
    image = torch.randn(b, 3, 32, 32, generator=generator)
    tokens = torch.randint(3, 48, (b, t), generator=generator)
    end = 3 + torch.arange(b) % (t - 3)
    tokens[:, 0], tokens[torch.arange(b), end] = START, END
    mask = torch.arange(t) <= end[:, None]
    return {"image": image, "tokens": tokens.masked_fill(~mask, 0), "mask": mask}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_texts_are_those_that_are_read_anew_for_each_word(name, decoder):
    """With the state that is kept, and without; prompts of unequal length are padded at their left."""
    system, image = build(name), given()["image"]
    prompt, mask = pad_left([[5], [6, 7, 8], [9, 10], [11, 12, 13], [14], [15, 16]])
    start, real = start_prompts(START, prompt, mask)
    with torch.no_grad():
        read = system.step_function(image)
        settings = dict(end_token=END, max_length=12)
        anew = DECODERS[decoder]()(uncached(read, real), start, **settings)
        with cached(system, read, real) as next_logits:
            assert torch.equal(DECODERS[decoder]()(next_logits, start, **settings), anew)
        assert len(anew.unique(dim=0)) > 3
        alone = system.generate(image[1:2], DECODERS["greedy"](), prompt=prompt[1:2], max_length=11)
        rows = system.generate(image, DECODERS["greedy"](), prompt=prompt, prompt_mask=mask, max_length=11)
        assert torch.equal(rows[1][: alone.shape[1]], alone[0])
        short = system.generate(image[:1], greedy, prompt=prompt[:1, 2:], max_length=9)
        assert torch.equal(rows[0, 2:][: short.shape[1]], short[0])


@pytest.mark.parametrize("name", SYSTEMS)
def test_padding_is_passed_over_at_either_side(name):
    system, batch = build(name), given()
    rows = [batch["tokens"][i, real] for i, real in enumerate(batch["mask"])]
    t = batch["tokens"].shape[1]
    left = torch.stack([F.pad(row, (t - len(row), 0), value=3) for row in rows])
    mask = torch.stack([torch.arange(t) >= t - len(row) for row in rows])
    with torch.no_grad():
        right = system(**batch).token_logits
        moved = system(batch["image"], left, mask).token_logits
    for i, row in enumerate(rows):
        close(moved[i, t - len(row) :], right[i, : len(row)])


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_word_is_seen_before_it_is_written(name):
    system, batch = build(name), given(t=9)
    other = batch["tokens"].clone()
    other[:, 4] = 40
    with torch.no_grad():
        one, two = (system(batch["image"], tokens).token_logits for tokens in (batch["tokens"], other))
    apart = (one - two).abs().amax((0, 2))
    assert (apart[:4] == 0).all()
    assert (apart[4:] > 1e-4).all()


def test_show_and_tell_is_an_lstm_whose_first_word_is_the_image():
    system, batch = build("show-and-tell"), given()
    lstm = nn.LSTM(64, 64, batch_first=True)
    with torch.no_grad():
        for name, value in system.lstm.named_parameters():
            getattr(lstm, f"{name}_l0").copy_(value)
        first = system.image_projection(system.image_encoder(batch["image"]).mean((2, 3)))
        hidden, _ = lstm(torch.cat([first[:, None], system.embedding(batch["tokens"])], 1))
        expected = system.language_head(hidden[:, 1:])
        close(system(**batch).token_logits[batch["mask"]], expected[batch["mask"]])


def softmax(x):
    x = [math.exp(value - max(x)) for value in x]
    return [value / sum(x) for value in x]


@pytest.mark.parametrize("order", ["channel-spatial", "spatial-channel", "spatial", "channel"])
def test_channels_and_positions_by_hand(order):
    """Number by number, for a map of 3 channels and 2 × 2 positions."""
    torch.manual_seed(0)
    layer = shaken(ChannelSpatialAttention(order, 3, 5, 4), 0.5).double()
    features = torch.randn(2, 3, 2, 2, generator=seeded(), dtype=torch.double)
    hidden = torch.randn(2, 5, generator=seeded(1), dtype=torch.double)
    with torch.no_grad():
        found, where = layer(features, hidden)

    def weights(attention, rows, h):
        query = (attention.query.weight @ h).tolist()
        scores = []
        for row in rows:
            key = (attention.key.weight @ torch.tensor(row, dtype=torch.double) + attention.key.bias).tolist()
            scores.append(sum(w * math.tanh(k + q) for w, k, q in zip(attention.score.weight[0].tolist(), key, query)))
        return softmax(scores)

    for i in range(2):
        v = features[i].flatten(1).tolist()  # channels of positions
        for kind in order.split("-"):
            if kind == "channel":
                beta = weights(layer.channel.attention, [[sum(row) / 4] for row in v], hidden[i])
                v = [[3 * b * x for x in row] for b, row in zip(beta, v)]
            else:
                alpha = weights(layer.spatial.attention, [list(position) for position in zip(*v)], hidden[i])
                v = [[4 * a * x for a, x in zip(alpha, row)] for row in v]
                close(where[i], torch.tensor(alpha, dtype=torch.double), 1e-9)
        close(found[i].flatten(1), torch.tensor(v, dtype=torch.double), 1e-9)
    assert (where is None) == (order == "channel")


def test_even_weights_leave_a_map_as_it_is():
    layer = ChannelSpatialAttention("channel-spatial", 8, 5, 4)
    for part in (layer.channel, layer.spatial):
        nn.init.zeros_(part.attention.score.weight)
    features = torch.randn(2, 8, 3, 3, generator=seeded())
    found, where = layer(features, torch.randn(2, 5, generator=seeded(1)))
    close(found, features)
    close(where, torch.full((2, 9), 1 / 9))


def test_layers_are_run_anew_from_what_attention_left():
    system, image = build("spatial-channel"), given()["image"]
    hidden = torch.randn(6, 64, generator=seeded(4))
    word = torch.randn(6, 64, generator=seeded(5))
    with torch.no_grad():
        (features,), (zero, cell) = system.init_decoder(system.features(image))
        close(features, system.image_encoder[:-1](image))
        assert not zero.any()
        x, _ = system.attentions[0](features, hidden)
        x, where = system.attentions[1](add_coordinates(system.image_encoder[-1](x)), hidden)
        expected = system.lstm(torch.cat([word, x.mean((2, 3))], 1), (hidden, cell))
        state, found = system.step(word, (features,), (hidden, cell))
    close(state[0], expected[0])
    close(found, where)


def test_att2in_by_hand():
    system = build("scst")
    word, h, c = (torch.randn(1, 64, generator=seeded(k)) for k in range(3))
    z = torch.randn(1, 66, generator=seeded(4))
    lstm = system.lstm
    with torch.no_grad():
        wx, uh, zz = lstm.word.weight @ word[0] + lstm.word.bias, lstm.hidden.weight @ h[0], lstm.context.weight @ z[0]
        i, f, o = (1 / (1 + torch.exp(-(wx + uh)[64 * k : 64 * (k + 1)])) for k in range(3))
        one, two = (wx + uh)[192:256] + zz[:64], (wx + uh)[256:] + zz[64:]
        cell = i * torch.where(one > two, one, two) + f * c[0]
        state = lstm(word, z, (h, c))
    close(state[1][0], cell)
    close(state[0][0], o * torch.tanh(cell))


def test_what_is_looked_at_is_the_mean_of_positions_by_their_weights():
    system, image = build("scst"), given()["image"]
    with torch.no_grad():
        seen, state = system.init_decoder(system.features(image))
        word = torch.randn(6, 64, generator=seeded(4))
        (_, _), where = system.step(word, seen, state)
        close(where.sum(1), torch.ones(6))
        z = torch.stack(
            [(w[:, None] * x.flatten(1).T).sum(0) for w, x in zip(where, add_coordinates(system.image_encoder(image)))]
        )
        close(system.step(word, seen, state)[0][0], system.lstm(word, z, state)[0])


def test_positions_know_where_they_are():
    features = torch.randn(2, 3, 2, 3, generator=seeded())
    found = add_coordinates(features)
    assert torch.equal(found[:, :3], features)
    assert found[1, 3].tolist() == [[-1, -1, -1], [1, 1, 1]]
    assert found[1, 4].tolist() == [[-1, 0, 1], [-1, 0, 1]]


def test_a_map_is_of_the_word_that_is_written_after_it():
    maps = torch.arange(24.0).view(2, 4, 3)
    assert torch.equal(maps_before_words(maps)[:, 1:], maps[:, :-1])


@pytest.mark.parametrize("name", ["show-and-tell", "spatial-channel"])
def test_a_batch_is_written_by_heart(name):
    torch.manual_seed(0)
    system, config = SYSTEMS[name]
    system, batch = system(config), given(b=3)
    overfit(system, batch, 60, 3e-3)
    said = system.generate(batch["image"], max_length=9)  # norms as in training: of this batch
    for row, tokens, real in zip(said, batch["tokens"], batch["mask"]):
        assert torch.equal(row[: int(real.sum()) - 1], tokens[real][1:])


# The second stage.


def test_the_loss_is_that_of_what_was_drawn_and_of_what_was_rewarded():
    """Drawn and read once more here; what stands behind the end is not given to the reward."""
    system, batch, asked = build("scst"), given(), []

    def reward(captions, true):
        asked.append((captions, true))
        return [float(len(caption)) for caption in captions]

    system.reward = reward
    with torch.no_grad():
        loss = system.self_critical_loss(batch)["self_critical"]
    (drawn, true), (best, _) = asked
    assert true == [row[real][1:].tolist() for row, real in zip(batch["tokens"], batch["mask"])]
    greedily = system.generate(batch["image"], max_length=system.config.max_length)
    total = 0.0
    for i, text in enumerate(drawn):
        assert END not in text[:-1]
        assert text[-1] == END or len(text) == system.config.max_length
        assert best[i] == greedily[i, : len(best[i])].tolist()
        assert best[i][-1] == END or len(best[i]) == system.config.max_length
        tokens = torch.tensor([[START, *text]])
        with torch.no_grad():
            odds = system(batch["image"][i : i + 1], tokens[:, :-1]).token_logits.log_softmax(-1)[0]
        total -= (len(text) - len(best[i])) * odds[torch.arange(len(text)), tokens[0, 1:]].sum()
    assert len({len(text) for text in drawn}) > 1
    close(loss, total / 6, 1e-4)


def test_draws_go_by_the_seed_and_the_step():
    batch = given()

    def drawn(system):
        texts = []
        system.reward = lambda captions, true: texts.append(captions) or [0.0] * len(captions)
        assert system.self_critical_loss(batch)["self_critical"] == 0  # equal rewards teach nothing
        return texts[0]

    system = build("scst")
    first = drawn(system)
    assert drawn(system) == first
    system.after_step()
    assert drawn(system) != first
    assert drawn(build("scst", seed=0)) == first
    other = build("scst")
    other.config = replace(other.config, seed=1)
    assert drawn(other) != first


def test_a_reward_of_one_word_is_learned():
    """What is rewarded becomes likelier, though no text has it: the share of token 7."""
    torch.manual_seed(0)
    system, batch = SCST(replace(SCSTConfig.tiny(), max_length=6)), given(t=6)
    system.reward = lambda captions, true: [text.count(7) / len(text) for text in captions]
    optimizer = torch.optim.Adam(system.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        system.self_critical_loss(batch)["self_critical"].backward()
        optimizer.step()
        system.after_step()
    assert (system.generate(batch["image"], max_length=6) == 7).float().mean() > 0.9


def test_the_reward_is_cider_d_with_the_end_as_a_word():
    true = [[5, 6, 7, END], [5, 8, 9, 10, END], [11, 6, END]]
    said = [[5, 6, 7, END], [5, 8, 9], [6, 6, END]]

    def words(text):
        return " ".join(f"w{token}" for token in text)

    expected = cider_d([words(text) for text in said], [[words(text)] for text in true])
    found = CIDErReward()(said, true)
    assert sum(found) / 3 == pytest.approx(expected)
    assert found[0] > found[1] > found[2] >= 0
    assert found[0] == pytest.approx(10)
    assert CIDErReward()([[5, 6, 7]], [[5, 6, 7, END]]) == [0]  # one picture alone says nothing of what is rare
    rare = CIDErReward(true)
    assert rare(said, true) == pytest.approx(found)
    assert rare(said[:1], true[:1]) == pytest.approx(found[:1])  # not those of the batch


# What is wrong.


@pytest.mark.parametrize("name", ["show-and-tell", "scst"])
def test_a_caption_longer_than_the_decoder_allows_is_refused(name):
    system, batch = build(name, max_length=8), given(t=9)
    says = "A caption of 9 tokens is longer than the 8 that this decoder writes"
    refused(says, system, batch["image"], batch["tokens"])
    refused(says, system.loss, batch)
    if name == "scst":
        refused(says, system.self_critical_loss, batch)
    system.language_head.bias.data[END] = -1e4  # no text ends
    assert system.generate(batch["image"], max_length=8).shape[1] == 8
    refused(says, system.generate, batch["image"], max_length=9)


def test_rewards_that_are_no_numbers_are_refused():
    system = build("scst")
    system.reward = lambda captions, true: [math.nan] * len(captions)
    refused("Rewards are finite numbers; text 0 has nan", system.self_critical_loss, given())


def test_settings_that_cannot_be_are_refused():
    tiny = SCACNNConfig.tiny()
    refused("order is one of channel-spatial, spatial-channel", SCACNN, replace(tiny, order="both"))
    for layers in (0, 3):
        refused(f"layers is from 1 to the 2 stages; got {layers}", SCACNN, replace(tiny, layers=layers))
