"""Patches and positions where they belong, also off size, and words at theirs."""

import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused

from mmlearn.layers import ImageEmbedding, TextEmbedding, sinusoidal_grid, sinusoidal_positions


def as_is(height, width, patch, **settings):
    """An embedding that returns the pixels of each patch: identity projection, no positions."""
    embedding = ImageEmbedding((height, width), patch, 3 * patch**2, **settings)
    with torch.no_grad():
        embedding.patches.weight.copy_(torch.eye(3 * patch**2))
        embedding.patches.bias.zero_()
        embedding.positions.zero_()
    return embedding


def numbered(height, width):
    """Every pixel says where it is: 100 · channel + 10 · row + column."""
    channel, row, column = torch.meshgrid(torch.arange(3), torch.arange(height), torch.arange(width), indexing="ij")
    return (100 * channel + 10 * row + column).float()[None]


def test_pixels_beyond_the_last_whole_patch_are_left_out():
    embedding = as_is(5, 7, 2, class_token=False)
    assert embedding.grid == (2, 3)
    close(embedding(numbered(5, 7)), as_is(4, 6, 2, class_token=False)(numbered(4, 6)), 0)


def test_the_class_token_stands_first_and_every_token_gets_its_own_position():
    embedding, plain = ImageEmbedding((4, 6), 2, 10), ImageEmbedding((4, 6), 2, 10, class_token=False)
    plain.patches.load_state_dict(embedding.patches.state_dict())
    plain.positions.data.zero_()
    image = torch.randn(2, 3, 4, 6)
    tokens = embedding(image)
    assert tokens.shape == (2, 7, 10)
    for row in tokens:
        close(row[0], embedding.class_token + embedding.positions[0], 1e-6)
    close(tokens[:, 1:], plain(image) + embedding.positions[1:], 1e-6)
    assert plain.class_token is None
    assert plain.positions.shape == (6, 10)
    assert ImageEmbedding(8, 2, 10, bias=False).patches.bias is None
    assert ImageEmbedding(8, 2, 10).grid == (4, 4)


def bicubic(learned, rows, columns):
    """Interpolation of a grid (row, column) of vectors, one feature at a time."""
    planes = [
        F.interpolate(learned[None, None, ..., i], (rows, columns), mode="bicubic", align_corners=False)[0, 0]
        for i in range(learned.shape[-1])
    ]
    return torch.stack(planes, -1)


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (4, 6), (2, 2), (6, 4), (2, 12)])
def test_positions_are_interpolated_off_size_only(height, width, class_token):
    """Also where another grid has as many patches: 3 × 2 and 1 × 6 are not 2 × 3. The class token keeps its own."""
    embedding = as_is(4, 6, 2, class_token=class_token)
    with torch.no_grad():
        embedding.positions.normal_()
    rows, columns = height // 2, width // 2
    image = torch.zeros(1, 3, height, width)
    patches = embedding(image)[0, int(class_token) :]
    learned = embedding.positions[int(class_token) :].view(2, 3, -1)
    if (rows, columns) == (2, 3):
        assert torch.equal(patches, learned.flatten(0, 1))
    else:
        close(patches, bicubic(learned, rows, columns).flatten(0, 1), 1e-6)
    if class_token:
        close(embedding(image)[0, 0], embedding.class_token + embedding.positions[0], 1e-6)


def test_interpolation_keeps_directions():
    """Positions that grow to the right still do in a larger picture, and stay the same downwards."""
    embedding = as_is(4, 6, 2, class_token=False)
    with torch.no_grad():
        embedding.positions.copy_(torch.arange(3.0).repeat(2)[:, None].expand(6, 12))
    grown = embedding(torch.zeros(1, 3, 8, 20))[0, :, 0].view(4, 10)
    assert (grown.diff(dim=1) >= -0.1).all()
    assert grown[:, -1].min() - grown[:, 0].max() > 1.5
    close(grown, grown[:1].expand(4, 10), 1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"float tensors .*; got torch.uint8 \(2, 3, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"\(b, 3, height, width\); got torch.float32 \(3, 8, 8\)"),
        (torch.zeros(2, 8, 8, 3), r"\(b, 3, height, width\); got torch.float32 \(2, 8, 8, 3\)"),
        (torch.zeros(2, 1, 8, 8), r"got torch.float32 \(2, 1, 8, 8\)"),
        (torch.zeros(2, 3, 8, 3), r"\(8, 3\) pixels is smaller than one 4-pixel patch"),
        (torch.zeros(2, 3, 0, 8), r"\(0, 8\) pixels is smaller than one 4-pixel patch"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    refused(message, ImageEmbedding(8, 4, 6), image)


def test_an_empty_batch_stays_empty():
    assert ImageEmbedding(8, 4, 6)(torch.zeros(0, 3, 8, 8)).shape == (0, 5, 6)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_text_is_token_plus_position(length):
    embedding, tokens = TextEmbedding(20, 6, 7), torch.randint(20, (3, length))
    got = embedding(tokens)
    for b, row in enumerate(tokens.tolist()):
        for t, token in enumerate(row):
            close(got[b, t], embedding.tokens.weight[token] + embedding.positions[t], 1e-6)


def test_a_text_that_is_too_long_is_refused():
    refused("8 tokens are more than the 7 positions", TextEmbedding(20, 6, 7), torch.zeros(1, 8, dtype=torch.long))


@pytest.mark.parametrize("token", [20, 21, 2**40, -1])
def test_a_token_outside_the_vocabulary_is_named(token):
    tokens = torch.tensor([[3, 19, 0], [0, token, 5]])
    refused(rf"^There is no token {token}: .* has 20, from 0\.$", TextEmbedding(20, 6, 7), tokens)


@pytest.mark.parametrize(("length", "width"), [(1, 2), (7, 6), (50, 16)])
def test_sinusoidal_positions_equal_the_formula(length, width):
    expected = [
        [(math.sin if i % 2 == 0 else math.cos)(pos / 10_000 ** ((i - i % 2) / width)) for i in range(width)]
        for pos in range(length)
    ]
    close(sinusoidal_positions(length, width), torch.tensor(expected))


def test_sinusoidal_similarity_depends_on_the_distance_only():
    positions = sinusoidal_positions(30, 12)
    for distance in (0, 1, 7):
        pairs = (positions[distance:] * positions[: 30 - distance]).sum(-1)
        close(pairs, pairs[:1].expand(30 - distance))


def test_sines_and_cosines_come_in_pairs():
    refused("width must be even, got 5", sinusoidal_positions, 3, 5)


def test_a_convolutional_stem_gives_a_token_a_patch():
    """With its positions, in reading order, and each from its own surroundings only."""
    embedding = ImageEmbedding((32, 48), 8, 16, class_token=False, convolutions=True)
    image = torch.randn(2, 3, 32, 48)
    before = embedding(image)
    assert before.shape == (2, 4 * 6, 16)
    stem = embedding.patches(image)
    close(before - embedding.positions, stem.flatten(2).transpose(1, 2))
    image[:, :, :8, :8] = 0  # the first patch
    moved = (embedding(image) - before).abs().amax((0, 2)).reshape(4, 6) > 0
    assert moved[0, 0]
    assert not moved[2:].any()
    assert not moved[:, 2:].any()
    assert [layer.stride for layer in embedding.patches if isinstance(layer, torch.nn.Conv2d)] == [(2, 2)] * 3


@pytest.mark.parametrize(("patch_size", "width"), [(1, 16), (6, 16), (16, 12)])
def test_a_stem_that_cannot_halve_is_refused(patch_size, width):
    refused("power of two", ImageEmbedding, 32, patch_size, width, convolutions=True)


def test_tokens_may_stand_at_any_positions():
    """As when a text is written on: only its new tokens are read, and padding at the left does not count."""
    embedding = TextEmbedding(10, 8, 6)
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 1]])
    whole = embedding(tokens)
    assert torch.equal(embedding(tokens, torch.arange(4).expand(2, 4)), whole)
    assert torch.equal(embedding(tokens[:, 2:], torch.tensor([[2, 3], [2, 3]])), whole[:, 2:])
    late = embedding(tokens, torch.tensor([[0, 0, 0, 1], [2, 3, 4, 5]]))
    assert torch.equal(late[0, 3], embedding(torch.tensor([[0, 6]]))[0, 1])
    refused("7 tokens are more than the 6 positions", embedding, tokens[:, :1], torch.tensor([[0], [6]]))
    assert embedding(tokens[:0], torch.zeros(0, 4, dtype=torch.long)).shape == (0, 4, 8)


def test_a_grid_of_sines_tells_columns_and_rows_by_their_halves():
    grid = sinusoidal_grid(3, 5, 16).view(3, 5, 16)
    rate = 10_000 ** -(torch.arange(4) / 4)
    for row, column in ((0, 0), (2, 1), (1, 4)):
        expected = [wave(position * rate) for position in (column, row) for wave in (torch.sin, torch.cos)]
        close(grid[row, column], torch.cat(expected))
    with pytest.raises(ValueError, match="a multiple of 4, got 18"):
        sinusoidal_grid(2, 2, 18)


def test_pictures_of_other_sizes_are_resized_to_whole_patches_and_not_cut():
    image = torch.rand(2, 3, 7, 9, requires_grad=True)
    assert ImageEmbedding(8, 4, 6).whole(image).shape == (2, 3, 8, 8)
    assert ImageEmbedding(8, 4, 6).whole(torch.rand(1, 3, 8, 4)).shape == (1, 3, 8, 4)
    ImageEmbedding(8, 4, 6)(image).square().sum().backward()
    assert (image.grad != 0).all()  # also the last column
    as_published = torch.rand(2, 3, 10, 10, requires_grad=True)  # such as SigLIP's 384 pixels in patches of 14
    ImageEmbedding(10, 4, 6)(as_published).square().sum().backward()
    assert (as_published.grad[..., 8:] == 0).all()
