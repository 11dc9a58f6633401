"""DALL·E and CM3: no token sees a later one, padding changes nothing, and what is written is what was learned."""

import dataclasses
from functools import partial

import pytest
import torch
from testing_tools import close, refused, seeded, shaken

from mmlearn.generation.cache import uncached
from mmlearn.generation.decoding import greedy, sample
from mmlearn.models.image_tokens.cm3 import CM3, CM3Config, predicted_tokens
from mmlearn.models.image_tokens.dall_e import DALLE, DALLEConfig
from mmlearn.models.image_tokens.discrete_vae import DiscreteVAEConfig
from mmlearn.models.image_tokens.vq_vae import VQVAE, VQVAEConfig
from mmlearn.objectives.causal_masked import put_back
from mmlearn.recipes.dall_e import predicted_codes
from mmlearn.recipes.shared.image_codes import token_accuracy

CODEC = dict(image_size=16, width=8, residual_depth=1, num_codes=12, code_width=8)
SIZES = dict(vocab_size=20, max_length=7, width=32, depth=2, num_heads=2, dropout=0.0)
DALLE_CONFIG = DALLEConfig(codec=DiscreteVAEConfig(**CODEC), **SIZES)
CM3_CONFIG = CM3Config(codec=VQVAEConfig(**CODEC), start_token=1, end_token=2, **SIZES)
TOKENS = torch.tensor([[1, 5, 6, 7, 2, 0], [1, 8, 2, 0, 0, 0], [1, 9, 10, 11, 12, 2]])
MASK = TOKENS != 0


def codes(b=3, seed=0):
    return torch.randint(12, (b, 16), generator=seeded(seed))


def dall_e():
    torch.manual_seed(0)
    return shaken(DALLE(DALLE_CONFIG)).eval()


def cm3():
    torch.manual_seed(0)
    return shaken(CM3(CM3_CONFIG)).eval()


def learn(model, read, steps=250):
    """The losses of these documents by heart."""
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.zero_grad()
        sum(model.losses(read(step)).values()).backward()
        optimizer.step()
    return model.eval()


def test_a_whole_text_and_a_whole_image_are_one_sequence():
    model, found = dall_e(), codes()
    sequence = model.read(found, TOKENS, MASK).sequence
    assert sequence.shape == (3, 7 + 16)
    assert sequence[1].tolist() == [1, 8, 2, 23, 24, 25, 26, *(27 + found[1]).tolist()]
    assert DALLE_CONFIG.all_tokens == 20 + 7 + 12
    image = torch.rand(3, 3, 16, 16, generator=seeded())
    assert torch.equal(model(image, TOKENS, MASK).sequence[:, 7:] - 27, model.codec.encode(image))


def test_dall_e_sees_no_later_token():
    model, found = dall_e(), codes()
    before = model.read(found, TOKENS, MASK).token_logits
    for position in (0, 5, 15):
        other = found.clone()
        other[:, position:] = (found[:, position:] + 1) % 12
        after = model.read(other, TOKENS, MASK).token_logits
        same = 7 + position  # logits at i read tokens up to i
        assert torch.equal(after[:, :same], before[:, :same])
        assert position == 15 or not torch.allclose(after[:, same], before[:, same], atol=1e-4)


def test_losses_are_weighted_means_without_padding():
    model, found = dall_e(), codes()
    output = model.read(found, TOKENS, MASK)
    log_p = output.token_logits.log_softmax(-1).gather(2, output.sequence[:, 1:, None])[..., 0]
    words = torch.zeros(3, 22, dtype=torch.bool)
    words[:, :5] = MASK[:, 1:]
    losses = model.losses(output)
    close(losses["words"], -log_p[words].mean() / 8)
    close(losses["codes"], -log_p[:, 6:].mean() * 7 / 8)


def test_positions_are_those_of_rows_and_columns():
    model = dall_e()
    positions = model.positions()
    assert positions.shape == (23, 32)
    close(positions[7 + 4 * 2 + 3], model.rows[2] + model.columns[3])
    close(positions[4], model.text_positions[4])


def test_dall_e_draws_what_it_learned_and_goes_on_from_what_has_begun():
    model, found = dall_e(), codes()
    learn(model, lambda step: model.read(found, TOKENS, MASK))
    assert torch.equal(model.draw(TOKENS, MASK), found)
    assert torch.equal(model.draw(TOKENS[1:2, :3], MASK[1:2, :3]), found[1:2])  # padding is as long as it is
    assert torch.equal(model.draw(TOKENS, MASK, first_codes=found[:, :9]), found)
    assert torch.equal(model.draw(TOKENS, MASK, first_codes=found), found)
    close(model.codec.decode(found), model.codec.decode(model.draw(TOKENS, MASK)))


def test_with_the_cache_dall_e_writes_what_it_would_write_without():
    model = dall_e()
    text = model.pad_text(TOKENS, MASK)

    def read(now):
        states = model.decoder.states(now.tokens, model.positions()[now.position], now.mask)[:, -1]
        logits = model.decoder.head(states)
        logits[:, :27] = -torch.inf
        return logits

    next_logits = uncached(read, torch.ones_like(text, dtype=torch.bool))
    with torch.no_grad():
        expected = greedy(next_logits, text, end_token=99, max_length=23)[:, 7:] - 27
    assert torch.equal(model.draw(TOKENS, MASK), expected)
    draws = [model.draw(TOKENS, MASK, partial(sample, generator=seeded(seed))) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[2].min() >= 0
    assert draws[2].max() < 12


def test_documents_are_words_and_right_behind_them_codes():
    model, found = cm3(), codes()
    document, length = model.document(found, TOKENS, MASK)
    assert length.tolist() == [21, 19, 22]
    for row in range(3):
        expected = [*TOKENS[row][MASK[row]].tolist(), *(20 + found[row]).tolist()]
        assert document[row, : length[row]].tolist() == expected
    whole, lengths = model.document(found, TOKENS, None)
    assert lengths.tolist() == [22] * 3
    assert torch.equal(whole, torch.cat([TOKENS, 20 + found], 1))


def test_what_cm3_reads_can_be_put_back():
    model, found = cm3(), codes()
    shares = torch.tensor([[[0.1, 0.4], [0.5, 0.7], [0, 0]], [[0, 0]] * 3, [[0.0, 1.0], [0, 0], [0, 0]]])
    output = model.read(found, TOKENS, MASK, shares)
    document, length = model.document(found, TOKENS, MASK)
    for row in range(3):
        moved = output.moved[row][output.moved_mask[row]]
        own = document[row, : length[row]]
        assert torch.equal(put_back(moved, CM3_CONFIG.sentinels, CM3_CONFIG.span_end), own)
        assert torch.equal(moved, own) == (row == 1)


def test_cm3_sees_no_later_token():
    model, found = cm3(), codes()
    before = model.read(found, TOKENS).token_logits
    other = found.clone()
    other[:, 8:] = (found[:, 8:] + 1) % 12
    after = model.read(other, TOKENS).token_logits
    assert torch.equal(after[:, :14], before[:, :14])
    assert not torch.allclose(after[:, 14:22], before[:, 14:22], atol=1e-4)


def test_cm3_draws_infills_and_captions_what_it_learned():
    torch.manual_seed(0)
    model, found = CM3(CM3_CONFIG), codes()
    hidden, words = range(4, 9), MASK.sum(1).float()
    length = words + 16

    def shares(first, last):
        """Spans of these positions, as shares that give them back."""
        ends = torch.stack([first + 0.2, last + 0.2], -1) / length[:, None]
        return torch.cat([ends[:, None], torch.zeros(3, 2, 2)], 1)

    ways = [torch.zeros(3, 3, 2), shares(words + hidden.start, words + hidden.stop), shares(torch.ones(3), words)]
    learn(model, lambda step: model.read(found, TOKENS, MASK, ways[step % 3]), steps=450)
    assert torch.equal(model.draw(TOKENS, MASK), found)
    spoilt = found.clone()
    spoilt[:, 4:9] = 0
    assert torch.equal(model.infill(spoilt, hidden, TOKENS, MASK), found)
    assert model.caption(found, max_length=100).shape[1] <= 7  # a text has no more
    said = model.caption(found)
    for row in range(3):
        assert said[row][: MASK[row].sum()].tolist() == TOKENS[row][MASK[row]].tolist()


def test_a_row_is_written_as_if_it_were_alone():
    model, found = cm3(), codes()
    for together, alone in (
        (model.draw(TOKENS, MASK), lambda i, text: model.draw(text)),
        (model.infill(found, range(3, 6), TOKENS, MASK), lambda i, text: model.infill(found[i], range(3, 6), text)),
    ):
        for i in range(3):
            text = TOKENS[i : i + 1, : MASK[i].sum()]
            assert torch.equal(together[i : i + 1], alone(slice(i, i + 1), text))


@pytest.mark.parametrize("build", [dall_e, cm3])
def test_what_does_not_fit_is_told(build):
    model = build()
    refused("There is no code 12", model.read, torch.full((3, 16), 12), TOKENS)
    refused("An image has 16 codes", model.read, torch.zeros(3, 9, dtype=torch.long), TOKENS)
    refused("There is no word 20", model.read, codes(), TOKENS + 11)
    refused("8 tokens are more than the 7", model.read, codes(), torch.ones(3, 8, dtype=torch.long))
    refused("There is no word -1", model.draw, TOKENS - 1)
    other = VQVAE(VQVAEConfig(**CODEC | dict(num_codes=5)))
    refused("take the codec's configuration", type(model), model.config, other)


def test_what_does_not_fit_into_a_gap_is_told():
    model = cm3()
    for hidden in (range(0, 17), range(5, 5), range(0, 8, 2)):
        refused("a range of positions within 16", model.infill, codes(), hidden, TOKENS)
    refused("more than the 3 sentinels", model.read, codes(), TOKENS, None, torch.zeros(3, 4, 2))


def test_padding_may_stand_at_the_left():
    model, found = cm3(), codes()
    one, two = model.read(found, TOKENS, MASK), model.read(found, TOKENS.flip(1), MASK.flip(1))
    assert torch.equal(one.moved_mask, two.moved_mask)
    turned = [TOKENS[i, : MASK[i].sum()].flip(0).tolist() for i in range(3)]
    assert [row[: len(words)].tolist() for row, words in zip(two.moved, turned)] == turned


class Run:
    """What the measure asks of a run."""

    def __init__(self, system):
        self.system = system

    def plain(self, samples):
        return {"image": torch.stack(samples), "tokens": TOKENS, "mask": MASK}

    def read(self, batch, what):
        return what(self.system(**batch), batch)


@torch.no_grad()
def test_the_likeliest_token_is_counted_where_it_is_asked():
    """By a loop over rows: of DALL·E each code, of CM3 each real token but the first."""
    image = torch.rand(3, 3, 16, 16, generator=seeded())
    for model, asked, skipped in ((dall_e(), predicted_codes, 7), (cm3(), predicted_tokens, 1)):
        found, pairs = model.codec.encode(image), []
        for row in range(3):
            words = TOKENS[row : row + 1, : MASK[row].sum()]
            output = model.read(found[row : row + 1], words)
            true = (output.moved if skipped == 1 else output.sequence)[0, skipped:]
            pairs += zip(output.token_logits[0, skipped - 1 :].argmax(-1).tolist(), true.tolist())
        true = [one for _, one in pairs]
        got = token_accuracy("next", asked)(Run(model), list(image))["next"]
        assert got["obtained"] == pytest.approx(sum(one == two for one, two in pairs) / len(pairs))
        assert got["chance"] == pytest.approx(max(map(true.count, true)) / len(true))


def test_another_codec_of_the_same_size_fits():
    codec = VQVAE(VQVAEConfig(**CODEC))
    model = DALLE(DALLE_CONFIG, codec)
    assert model.codec is codec
    assert model.draw(TOKENS, MASK).shape == (3, 16)
    wider = dataclasses.replace(DALLE_CONFIG, codec=DiscreteVAEConfig(**CODEC | dict(image_size=32)))
    refused("4 in a row; the configuration 12, 8 in a row", DALLE, wider, codec)
