"""Padding is taken out and put back, and nothing looks at it in between."""

import pytest
import torch
from testing_tools import close

from mmlearn.layers import NO_PADDING, Attention, Padding, Transformer

B, N, D = 4, 7, 12


def random_mask(seed):
    """Any places, not only the last ones; one row is all padding and one has none."""
    mask = torch.rand(B, N, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[0], mask[1] = False, True
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_there_and_back(seed):
    mask = random_mask(seed)
    padding, x = Padding(mask), torch.randn(B, N, D, requires_grad=True)
    packed = padding.remove(x)
    assert torch.equal(packed, x[mask])
    back = padding.restore(packed)
    assert torch.equal(back, x.masked_fill(~mask[..., None], 0))
    weight = torch.randn(B, N, D)
    (gradient,) = torch.autograd.grad((back * weight).sum(), x)
    assert torch.equal(gradient, weight.masked_fill(~mask[..., None], 0))


@pytest.mark.parametrize("padding", [NO_PADDING, Padding(), Padding(torch.ones(B, N, dtype=torch.bool))])
def test_where_there_is_none_nothing_is_copied(padding):
    x = torch.randn(B, N, D)
    assert padding.mask is None
    assert padding.remove(x) is x
    assert padding.restore(x) is x


def test_all_of_it_may_be_padding():
    padding = Padding(torch.zeros(B, N, dtype=torch.bool))
    packed = padding.remove(torch.randn(B, N, D))
    assert packed.shape == (0, D)
    assert torch.equal(padding.restore(packed), torch.zeros(B, N, D))


@pytest.mark.usefixtures("unchecked")
def test_masks_that_cannot_be():
    with pytest.raises(ValueError, match=r"A mask is boolean, .* this one is torch\.int64\. Use mask\.bool\(\)"):
        Padding(torch.ones(B, N, dtype=torch.long))
    for mask in (torch.ones(B, N, dtype=torch.bool), random_mask(0)):
        for shape in ((B, N - 1), (B, N + 1), (B + 1, N)):
            with pytest.raises(ValueError, match=r"A mask of \(4, 7\) does not fit \(\d, \d\) tokens"):
                Padding(mask).remove(torch.randn(*shape, D))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("context_width", [None, 9])
@pytest.mark.parametrize("read", [None, [1, 2, 1, 3]])
def test_a_transformer_never_looks_at_it(norm_first, causal, context_width, read):
    """NaN where there is padding reaches no output and no gradient; a mask of three dimensions removes nothing."""
    torch.manual_seed(0)
    model = Transformer(D, 3, 3, norm_first=norm_first, context_width=context_width)
    x, mask = torch.randn(B, N, D), torch.arange(N) < torch.tensor([7, 5, 3, 4])[:, None]
    context = None if context_width is None else torch.randn(B, 5, context_width)
    read = None if read is None else torch.tensor(read)
    given = dict(causal=causal, context=context, read=read)
    whole = model(x, mask[:, None].expand(B, N, N) if read is None else mask, **given)
    got = model(x.masked_fill(~mask[..., None], torch.nan), mask, **given)
    assert got.isfinite().all()
    real = mask if read is None else torch.ones(B, 1, dtype=torch.bool)
    close(got[real], whole[real])
    got.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_tokens_that_are_read_are_computed_where_they_are_padding_as_well():
    """SigLIP reads the last place of every text."""
    torch.manual_seed(0)
    model, x = Transformer(D, 2, 3), torch.randn(B, N, D)
    mask = torch.arange(N) < torch.tensor([7, 5, 3, 4])[:, None]
    last = torch.full((B,), N - 1)
    close(model(x, mask, read=last)[:, 0], model(x, mask[:, None].expand(B, N, N))[:, -1])


@pytest.mark.parametrize("seed", range(3))
def test_attention_between_packed_streams(seed):
    torch.manual_seed(seed)
    layer, x, context = Attention(D, 3, context_width=8), torch.randn(B, N, D), torch.randn(B, 5, 8)
    mask, context_mask = random_mask(seed), torch.rand(B, 5) < 0.6
    one, other = Padding(mask), Padding(context_mask)
    expected = layer(x, context, context_mask)
    for own, others in ((one, other), (one, NO_PADDING), (NO_PADDING, other)):
        got = layer(own.remove(x), others.remove(context), context_mask, padding=own, context_padding=others)
        close(own.restore(got)[mask], expected[mask])
    close(layer(one.remove(x), other.remove(context), padding=one, context_padding=other), expected[mask])
