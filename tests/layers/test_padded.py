"""Padding is taken out and put back, and nothing looks at it in between."""

import pytest
import torch
from testing_tools import close

from mmlearn.layers.padded import NO_PADDING, Attention, Padding, Transformer, TransformerBlock

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
@pytest.mark.parametrize("read", [None, [[0, 3, 6], [1, 2, 3], [6, 5, 4], [2, 2, 0]]])
@pytest.mark.parametrize("holes", [False, True])
def test_a_transformer_never_looks_at_it(norm_first, causal, context_width, read, holes):
    """NaN where there is padding reaches no output and no gradient; a mask of three dimensions removes nothing."""
    torch.manual_seed(0)
    model = Transformer(D, 3, 3, norm_first=norm_first, context_width=context_width)
    x, mask = torch.randn(B, N, D), torch.arange(N) < torch.tensor([7, 5, 3, 4])[:, None]
    mask = random_mask(1) if holes else mask
    context = None if context_width is None else torch.randn(B, 5, context_width)
    given = dict(causal=causal, context=context)
    whole = model(x, mask[:, None].expand(B, N, N), **given).masked_fill(~mask[..., None], 0)
    if read is not None:
        given["read"] = torch.tensor(read)
        whole = whole.gather(1, given["read"][..., None].expand(-1, -1, D))
    got = model(x.masked_fill(~mask[..., None], torch.nan), mask, **given)
    close(got, whole)
    got.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_hides_what_was_removed(causal):
    """Without a mask as well."""
    block, x, mask = TransformerBlock(D, 3), torch.randn(B, N, D), random_mask(2)
    padding, read = Padding(mask), torch.tensor([[0, 6], [1, 2], [6, 3], [2, 5]])
    whole = padding.restore(block(padding.remove(x), causal=causal, padding=padding))
    close(whole[mask], block(x, mask, causal)[mask])
    some = block(padding.remove(x), causal=causal, padding=padding, read=read)
    close(some, whole.gather(1, read[..., None].expand(-1, -1, D)))


def test_tokens_that_are_read_are_computed_where_they_are_padding_as_well():
    """SigLIP reads the last place of every text."""
    torch.manual_seed(0)
    model, x = Transformer(D, 2, 3), torch.randn(B, N, D)
    mask = torch.arange(N) < torch.tensor([7, 5, 3, 4])[:, None]
    last = torch.full((B,), N - 1)
    close(model(x, mask, read=last)[:, 0], model(x, mask[:, None].expand(B, N, N))[:, -1])


@pytest.mark.parametrize("seed", range(3))
def test_attention_between_packed_streams(seed):
    """Few queries or many."""
    torch.manual_seed(seed)
    queries = 1 if seed == 2 else N
    layer, x, context = Attention(D, 3, context_width=8), torch.randn(B, queries, D), torch.randn(B, 5, 8)
    mask, context_mask = random_mask(seed)[:, :queries], torch.rand(B, 5) < 0.6
    one, other = Padding(mask), Padding(context_mask)
    expected = layer(x, context, context_mask)
    for own, others in ((one, other), (one, NO_PADDING), (NO_PADDING, other)):
        got = layer(own.remove(x), others.remove(context), context_mask, padding=own, context_padding=others)
        close(own.restore(got)[mask], expected[mask])
    close(layer(one.remove(x), other.remove(context), padding=one, context_padding=other), expected[mask])
