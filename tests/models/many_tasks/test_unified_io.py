"""Unified-IO: its logits are the official code's, its sizes the paper's, and each type of target has its positions."""

import math

import pytest
import torch
from testing_tools import close, count_parameters, refused, shaken

from mmlearn.models import UnifiedIO, UnifiedIOConfig
from mmlearn.models.many_tasks.unified_io import grid_buckets

TINY = UnifiedIOConfig.tiny()
VQGAN = 76_073_859  # parameters of the codec in the official code, ``VAEConfig`` of ``uio/configs.py``


def waves(*shape, rate=1.0):
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * rate).view(shape).float()


def test_logits_are_those_of_the_official_code():
    """Numbers that ``uio/network.py`` gives for these weights and inputs; there, cross_position_* have no effect."""
    sizes = dict(vocab_size=300, bins=100, codes=64, max_length=32, target_length=32)
    blocks = dict(width=48, depth=2, num_heads=4, head_width=16, mlp_width=96)
    system = UnifiedIO(UnifiedIOConfig(image_size=64, patch_size=16, code_size=2, **sizes, **blocks)).eval()
    with torch.no_grad():
        for i, (name, weight) in enumerate(sorted(system.named_parameters())):
            wave = 0.3 * waves(*weight.shape, rate=1 + 0.01 * i)
            weight.copy_(1 + wave if name.endswith("norm.weight") else wave)
    image = waves(2, 3, 64, 64, rate=0.37)
    tokens, mask = (torch.arange(20) * 37 % 398 + 2).view(2, 10), torch.arange(10) < torch.tensor([[10], [7]])
    words, codes = (torch.arange(18) * 53 % 398 + 2).view(2, 9), 400 + (torch.arange(64) * 29 % 64).view(2, 32)
    written = system(image, tokens, words, mask).token_logits
    expected = torch.tensor([[0.81736, 0.89643, 1.13252, 0.88659], [-1.08556, -0.60059, -1.07125, -1.19274]])
    close(written[0, :4, [5, 399]].T, expected, 2e-5)
    close(written[1, 8, [5, 50, 301]], torch.tensor([0.86379, 1.11668, 0.22820]), 2e-5)
    drawn = system(image, tokens, codes, mask).token_logits
    close(drawn[0, [0, 17, 31], 400], torch.tensor([-0.01011, 0.08568, 0.06547]), 2e-5)
    close(drawn[1, [1, 20, 31], 450], torch.tensor([-0.34517, -0.47773, -0.56540]), 2e-5)


@pytest.mark.parametrize(("preset", "millions"), [("small", 71), ("base", 241), ("large", 776), ("xl", 2925)])
def test_sizes_are_the_papers(preset, millions):
    """Paper, table 2. Its count of the largest has the codec as well, and there are eight segments, not two."""
    config = UnifiedIOConfig.preset(preset)
    size = count_parameters(UnifiedIO, config) + 2 * config.width * config.num_heads * config.head_width  # across
    size += VQGAN + 2 * 6 * config.width if preset == "xl" else 0
    assert size // 10**6 == millions


def test_offsets_of_a_grid_have_the_buckets_of_the_official_code():
    """By loops: 3 steps have a bucket each, then 4 to 5, 6 to 8, 9 to 13, and all beyond."""
    along = [0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7]
    buckets = grid_buckets(16, 256)
    for query in range(0, 256, 7):
        for key in range(256):
            x, y = query % 16 - key % 16, query // 16 - key // 16
            direction = 3 if x <= 0 and y < 0 else 2 if x < 0 else 1 if x > 0 and y <= 0 else 0
            assert buckets[query, key] == 64 * direction + along[abs(x)] + 8 * along[abs(y)]


def examples():
    torch.manual_seed(0)
    system = shaken(UnifiedIO(TINY)).eval()
    words = torch.randint(3, TINY.first_code, (2, 12))
    codes = TINY.first_code + torch.randint(0, TINY.codes, (2, 12))
    inputs = torch.randn(2, 3, 64, 64), torch.randint(3, 500, (2, 9))
    return system, inputs, words, codes


def test_codes_know_their_directions_and_words_their_distances():
    system, inputs, words, codes = examples()
    for table, moved, kept in (
        (system.decoder.relative_bias, words, codes),
        (system.target_scores.grid_bias, codes, words),
    ):
        before = [system(*inputs, target).token_logits for target in (moved, kept)]
        with torch.no_grad():
            table.weight.add_(torch.randn_like(table.weight))
        after = [system(*inputs, target).token_logits for target in (moved, kept)]
        assert not torch.allclose(before[0], after[0], atol=1e-3)
        assert torch.equal(before[1], after[1])


def test_each_type_has_a_softmax_of_its_own_also_side_by_side():
    system, (image, tokens), words, codes = examples()
    mixed = system(image, tokens, torch.stack([words[0], codes[1]])).token_logits.softmax(-1)  # (2, 12, v)
    close(mixed[0], system(image, tokens, words).token_logits.softmax(-1)[0])
    close(mixed[1], system(image, tokens, codes).token_logits.softmax(-1)[1])
    assert (mixed[0, :, TINY.first_code :] == 0).all()
    assert (mixed[1, :, : TINY.first_code] == 0).all()


def test_codes_that_are_drawn_are_those_that_the_whole_image_would_give():
    system, inputs, *_ = examples()
    inputs = dict(zip(("image", "tokens"), inputs))
    drawn = system.draw(16, **inputs)
    logits = system(**inputs, target=drawn + TINY.first_code).token_logits[..., TINY.first_code :]
    assert torch.equal(logits.argmax(-1), drawn)
    refused("more than the 16 of an image", system.draw, 18, **inputs)


def test_an_image_ends_by_itself():
    """An end token behind the codes is not learned: nothing changes with it."""
    system, (image, tokens), _, codes = examples()
    batch = {"image": image, "tokens": tokens, "target": codes}
    ended = torch.cat([codes, torch.full((2, 1), TINY.end_token)], 1)
    close(system.loss(batch)["tokens"], system.loss(batch | {"target": ended})["tokens"])


def test_codes_are_of_pixels_of_the_image():
    refused("code_size is 1 to 64 pixels", UnifiedIO, UnifiedIOConfig(image_size=64, code_size=65))
