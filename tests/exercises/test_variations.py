"""What each check tries beside its own inputs, on functions of a few lines."""

import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from mmlearn.exercises import CheckFailed
from mmlearn.exercises.variations import expect_varied


def double(x: Float[Tensor, "b d"], mask: Bool[Tensor, "b d"] | None = None, by: float = 2.0) -> Float[Tensor, "b d"]:
    return by * x if mask is None else by * x * mask


def picked(logits: Float[Tensor, "*n v"], weight: Float[Tensor, "v"]) -> Float[Tensor, ""]:
    return (logits.softmax(-1) * weight).sum(-1).mean()


X, MASK = torch.randn(4, 3), torch.rand(4, 3) > 0.5
CALL = (X, MASK), {"by": 3.0}


def told(function, reference=double, call=CALL, scores=()):
    with pytest.raises(CheckFailed) as failure:
        expect_varied(function, reference, call, scores)
    return str(failure.value)


def test_the_reference_and_the_same_in_other_words_pass():
    expect_varied(double, double, CALL)
    expect_varied(lambda x, m=None, by=2.0: x * (by if m is None else by * m), double, CALL)


def test_a_batch_of_one_is_cut_out_of_all_that_has_a_batch():
    message = told(lambda x, mask=None, by=2.0: double(x, mask, by).squeeze())
    assert message.startswith(
        "For a batch of one: Its result must have shape (1, 3); this one has (3,). Hint: squeeze()"
    )
    seen = []
    expect_varied(
        lambda *given, **named: seen.append([len(one) for one in given]) or double(*given, **named), double, CALL
    )
    assert [1, 1] in seen


def test_what_is_left_open_may_be_what_it_was_among_the_others():
    def masked(x: Float[Tensor, "b d"], mask: Bool[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return x * mask

    def marked(x, mask):
        return torch.where(mask, x, 7.0)

    expect_varied(marked, masked, ((X, MASK), {}))
    assert "For a batch of one" in told(lambda x, mask: marked(x, mask) + (len(x) == 1), masked, ((X, MASK), {}))


def test_defaults_are_those_of_the_reference():
    message = told(lambda x, mask=None, by=1.0: double(x, mask, by))
    assert "Called without mask, by: It must be what the statement says." in message
    assert "mask = None, by = 2.0" in message


def test_logits_are_of_any_size_and_all_negative():
    def overflows(x, w):
        return ((x.exp() / x.exp().sum(-1, keepdim=True)) * w).sum(-1).mean()

    def cut(x, w):
        return picked(x.clamp(min=0) if x.max() < 0 else x, w)

    call = (torch.zeros(2, 5, 3), torch.rand(3)), {}
    expect_varied(picked, picked, call)
    assert told(overflows, picked, call).startswith("With logits in the thousands: Its result must be finite")
    assert told(cut, picked, call).startswith("With logits all of which are negative: It must be what the statement")
    assert "With x in the" in told(lambda x, *rest, **named: double(x.clamp(max=9), *rest, **named), scores=("x",))


def test_what_the_reference_refuses_is_not_asked():
    def several(x: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        if len(x) < 2:
            raise ValueError("too few")
        return x

    expect_varied(several, several, ((torch.arange(3),), {}))


def test_of_what_is_drawn_the_shape_alone_is_compared():
    def drawn(x: Float[Tensor, "b d"], generator: Generator) -> Float[Tensor, "b d"]:
        return x + torch.rand(x.shape, generator=generator)

    call = (X, Generator()), {}
    expect_varied(drawn, drawn, call)
    assert "For a batch of one" in told(lambda x, generator: drawn(x, generator).squeeze(), drawn, call)
