"""One encoder for any modality: what each part must do, told one property at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_constant,
    expect_not,
    expect_tensor,
    expect_trains,
    expect_zero,
    near,
    over,
    task,
)
from mmlearn.exercises.inputs import between, evenly, numbers, some_of, uniform
from mmlearn.models.unified.multiway_blocks import by_modality
from mmlearn.objectives.masked_image import masked_pixels, normalised_patches, restore_order
from mmlearn.objectives.self_distillation import contextual_targets
from mmlearn.objectives.unpaired import own_gradient

# Masked pictures.


@task(
    normalised_patches,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([[[1.0, 3.0]]]), gives=torch.tensor([[[-0.7071, 0.7071]]])),
)
def check_normalised_patches(function: Callable) -> None:
    """Each patch by itself at mean 0 and variance 1, flat ones too."""
    p, n = between(4, 6), between(7, 9)
    patches = uniform(2, 4) * torch.arange(1, p + 1)[:, None] * numbers(2, p, n) + 5
    got = expect_tensor(function(patches), (2, p, n))
    own = "mean(-1, keepdim=True): over the pixels of a patch."
    centred, mean = patches - patches.mean(-1, keepdim=True), patches.mean((1, 2), keepdim=True)
    together = (patches - mean) / patches.var((1, 2), keepdim=True).sqrt()
    expect_not(got, together, "Each patch must be at mean 0; here it is the whole picture.", own, tolerance=1e-4)
    expect_not(got, centred, "Each patch must have variance 1; here only its mean is gone.", "divide, too.")
    variance = patches.var(-1, keepdim=True)
    expect_not(got, centred / variance, "Divide by the deviation, not by the variance.", "its root.", tolerance=1e-4)
    of_n = centred / patches.var(-1, keepdim=True, unbiased=False).sqrt()
    expect_not(got, of_n, "The variance must be the sum over n - 1; here it is over n.", "var() does.", tolerance=1e-4)
    same = agreement(function, normalised_patches)
    same((patches,), "It must be (x - mean) / sqrt(variance + 1e-6).", own)
    with case("Of a patch of one colour"):
        same((torch.full((1, 2, n), 0.25),), "It must give 0.", "add 1e-6 to the variance, so that it is never 0.")
    with case("Of a patch with hardly any contrast"):
        faint = 2e-4 * numbers(1, 2, n).clamp(-2, 2)
        same((faint,), "The 1e-6 must be added to the variance, before the root.", "(variance + 1e-6).sqrt().")


@task(
    masked_pixels,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([[[1.0, 1.0], [5.0, 5.0]]]), torch.tensor([[[0.0, 3.0], [9.0, 9.0]]]),
        torch.tensor([[True, False]]), gives=2.5,
    ),
)  # fmt: skip
def check_masked_pixels(function: Callable) -> None:
    """The mean squared error of hidden patches, all pictures together."""
    b, p, n = 3, between(7, 9), between(5, 6)
    masked = some_of(b, p, real=[1, 3, p - 2])
    draws = [(numbers(b, p, n), numbers(b, p, n), masked) for _ in range(3)]
    got = over(draws, function)

    def cost(of: Callable) -> Tensor:
        return torch.stack([of((said - wanted).square()) for said, wanted, _ in draws])

    hidden = "masked is True where a patch is hidden: (error * masked).sum() / masked.sum()."
    expect_not(got, cost(Tensor.mean), "Visible patches must cost nothing; here all patches count.", hidden)
    seen = cost(lambda error: error[~masked].mean())
    expect_not(got, seen, "Hidden patches must count; here the visible ones do.", "masked, not ~masked.")
    diluted = cost(lambda error: (error * masked[..., None]).mean())
    expect_not(got, diluted, "Divide by the hidden patches alone; here it is by all.", hidden)
    total = cost(lambda error: error[masked].sum())
    expect_not(got, total, "It must be a mean; here it is the sum.", hidden)
    pixels = cost(lambda error: error[masked].sum(-1).mean())
    expect_not(got, pixels, "It must be a mean over pixels, too; here they are added.", "mean(-1) of each patch.")
    apart = cost(lambda error: torch.stack([each[m].mean() for each, m in zip(error, masked)]).mean())
    expect_not(got, apart, "Each hidden patch must count alike; here each picture does.", "one mean over all of them.")
    straight = torch.stack([(said - wanted).abs()[masked].mean() for said, wanted, _ in draws])
    expect_not(got, straight, "The error must be squared.", "square(), not abs().")
    agreement(function, masked_pixels)(draws, "It must be the mean of squares over hidden patches.", hidden)
    expect_trains(function, draws[0][0], like=masked_pixels, fixed=draws[0][1:])
    with case("With nothing hidden"):
        expect_zero(function, draws[0][0], draws[0][1], torch.zeros_like(masked))


# Words and patches in one row.


@task(
    by_modality,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([[[1.0], [2.0], [3.0]]]), 1, lambda x: 2 * x, lambda x: x + 10,
        gives=torch.tensor([[[2.0], [12.0], [13.0]]]),
    ),
)  # fmt: skip
def check_by_modality(function: Callable) -> None:
    """Words go one way, patches another, and each sees its own alone; a pair has a third way, where there is one."""
    words, patches = between(3, 4), between(5, 6)
    x = numbers(2, words + patches, 4)

    def way(factor: float) -> Callable:
        return lambda x: factor * x + x.sum(1, keepdim=True)  # which tells what it has seen

    text, image, pair = way(2.0), way(-3.0), way(5.0)
    got = expect_tensor(function(x, words, text, image), x.shape)
    cut = "text(x[:, :words]) and image(x[:, words:])."
    mistaken = torch.cat([text(x)[:, :words], image(x)[:, words:]], 1)
    expect_not(got, mistaken, "Each way must see its own tokens alone; here each sees all of them.", cut)
    mistaken = torch.cat([image(x[:, :words]), text(x[:, words:])], 1)
    expect_not(got, mistaken, "Words must go the way of text; here they go that of the image.", cut)
    mistaken = torch.cat([text(x[:, -words:]), image(x[:, :-words])], 1)
    expect_not(got, mistaken, "Words must stand before patches; here the last tokens count as words.", cut)
    mistaken = torch.cat([image(x[:, words:]), text(x[:, :words])], 1)
    expect_not(got, mistaken, "The order of tokens must stay; here patches come first.", "cat words, then patches.")
    same = agreement(function, by_modality)
    same((x, words, text, image), "It must be each way of its own tokens.", cut)
    both = expect_tensor(function(x, words, text, image, pair), x.shape)
    expect(not near(both, got), "A pair must go its own way where there is one; here it is not asked.", "pair(x).")
    with case("With a way for pairs"):
        same((x, words, text, image, pair), "All tokens must go it together.", "pair(x), and nothing else.")
    for count, what in ((0, "picture"), (words + patches, "text")):
        with case(f"A {what} alone"):
            same((x, count, text, image, pair), "It is no pair: it must go its own way.", "0 < words < all tokens.")
    expect_trains(function, x, like=by_modality, fixed=(words, text, image))


@task(
    restore_order,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[[1.0], [2.0]]]), torch.tensor([[2, 0]]), torch.tensor([9.0]), 3,
        gives=torch.tensor([[[2.0], [9.0], [1.0]]]),
    ),
)  # fmt: skip
def check_restore_order(function: Callable) -> None:
    """Each token at its own position, in each picture, and the mask token at all others."""
    b, p, kept, d = 3, between(8, 9), 4, 5
    tokens, mask_token = numbers(b, kept, d), numbers(d)
    visible = evenly(b, p).argsort(1)[:, :kept]
    visible[:, :2] = visible[:, :2].sort(descending=True).values  # so that they never rise
    got = expect_tensor(function(tokens, visible, mask_token, p), (b, p, d))
    rows = torch.arange(b)[:, None]
    position = "token k of row b belongs to place visible[b, k]."
    first = torch.cat([tokens, mask_token.expand(b, p - kept, d)], 1)
    expect_not(got, first, "Tokens must go back to their positions; here they stand in front.", position)
    rising = mask_token.repeat(b, p, 1)
    rising[rows, visible.sort(1).values] = tokens
    expect_not(got, rising, "visible need not rise: the first token belongs to the first number in it.", position)
    one = mask_token.repeat(b, p, 1)
    one[:, visible[0]] = tokens
    expect_not(got, one, "Each picture has patches of its own; here all have those of the first.", position)
    nothing = torch.zeros(b, p, d)
    nothing[rows, visible] = tokens
    expect_not(
        got, nothing, "The mask token must stand at hidden positions; here 0 does.", "start with the mask token."
    )
    added = nothing + mask_token
    expect_not(got, added, "At a visible position its token must stand alone; here the mask token is added.", position)
    expect_close(got[rows, visible], tokens, "Each visible token must be back at its position.", position)
    whole = restore_order(tokens, visible, mask_token, p)
    expect_close(got, whole, "The mask token must stand at all other positions.", "expand it to (b, patches, d).")

    def learned(of: Callable) -> Callable:
        return lambda tokens, mask_token, visible, patches: of(tokens, visible, mask_token, patches)

    expect_trains(learned(function), tokens, mask_token, like=learned(restore_order), fixed=(visible, p))


# Who learns from what.


def _two_weights(function: Callable) -> None:
    """Of the weights 2 and 3 only the first learns: its square has the derivative 4."""
    weight, mask = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([True, False])
    got = function(weight, mask)
    expect(near(got.detach(), torch.tensor([2.0, 3.0])), "The example's weights must come back as 2 and 3.", "as is.")
    if got.requires_grad:
        slope = torch.autograd.grad(got.square().sum(), weight)[0]
        expect(near(slope, torch.tensor([4.0, 0.0])), "The example's gradient must be 4 and 0.", "work it out.")


@task(own_gradient, difficulty=2, minutes=10, example=_two_weights)
def check_own_gradient(function: Callable) -> None:
    """The weight going forward, and a gradient only where the mask is True; two losses do not disturb each other."""
    weight, mask = numbers(4, 6), some_of(4, 6, real=3)
    leaf = weight.clone().requires_grad_()
    got = expect_tensor(function(leaf, mask), (4, 6))
    zeroed = "Going forward the weight must be whole; here it is 0 where it must not learn."
    expect_not(got, weight * mask, zeroed, "torch.where(mask, weight, the weight as a constant).")
    expect_close(got, weight, "Going forward it must be the weight as it is.", "only the gradient differs.")
    if got.requires_grad:
        slope = torch.autograd.grad(got.sum(), leaf, retain_graph=True)[0]
        other = "mask is True where the weight learns."
        expect_not(slope, (~mask).float(), "The gradient must pass where mask is True; here it stops there.", other)
        expect_not(slope, 1.0, "The gradient must be stopped where mask is False; here all of it passes.", "detach().")
    expect_trains(function, weight, fixed=(mask,), like=own_gradient)
    with case("With two losses that share the weight"):
        leaf = weight.clone().requires_grad_()
        (2 * function(leaf, mask) + 3 * function(leaf, ~mask)).sum().backward()
        share = torch.where(mask, 2.0, 3.0)
        property = "Each entry must get the gradient of its own loss, and of no other."
        expect_close(leaf.grad, share, property, "make a new tensor; a hook on the weight itself stays there for all.")


@task(
    contextual_targets,
    difficulty=2,
    minutes=15,
    example=by_hand(
        [torch.tensor([[[7.0, 8.0, 0.0]]]), torch.tensor([[[0.0, 2.0, 4.0]]]), torch.tensor([[[3.0, 0.0, 0.0]]])], 2,
        gives=torch.tensor([[[0.0948, -0.3536, 0.2588]]]),
    ),
)  # fmt: skip
def check_contextual_targets(function: Callable) -> None:
    """The mean of the last layers, each token of each layer normalised first, as a constant."""
    depth, top, n, d = between(5, 6), 3, between(6, 7), 5
    layers = [4.0**i * numbers(2, n, d) + i for i in range(depth)]
    got = expect_tensor(function(list(layers), top), (2, n, d))

    def normal(x: Tensor, *axes: int, unbiased: bool = False) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (x.var(axes, keepdim=True, unbiased=unbiased) + 1e-5).sqrt()

    def mean(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).mean(0)

    last, each = layers[-top:], [normal(x, -1) for x in layers]
    raw, late = mean(last), normal(mean(last), -1)
    before = "normalise each layer over its features, then take the mean: the largest layer would outweigh all others."
    expect_not(got, raw, "Each layer must be normalised; here none is.", before)
    expect_not(got, late, "Each layer must be normalised before the mean; here the mean is.", before, tolerance=1e-4)
    which = "the last ones: layers[-top:]."
    expect_not(got, mean(each[:top]), "It must be the last layers; here it is the first.", which, tolerance=1e-4)
    expect_not(got, mean(each), "Only the last layers must count; here all do.", which, tolerance=1e-4)
    one = "Several layers must count; here only the last does."
    expect_not(got, (each[-1], each[-1] / top), one, which, tolerance=1e-4)
    expect_not(got, each[-top], "Several layers must count; here only one does.", which, tolerance=1e-4)
    expect_not(got, sum(each[-top:]), "It must be their mean; here it is their sum.", "divide by top.", tolerance=1e-4)
    time = mean([normal(x, 1) for x in last])
    features = "over the last axis: F.layer_norm(x, x.shape[-1:])."
    expect_not(got, time, "Each token must be normalised over its features; here it is over tokens.", features)
    spread = mean([normal(x, -1, unbiased=True) for x in last])
    expect_not(got, spread, "The variance must be the sum over d; here it is over d - 1.", features, tolerance=1e-4)
    agreement(function, contextual_targets, tolerance=1e-4)(
        (layers, top), "It must be the mean of the normalised layers.", before
    )
    expect_constant(function([x.clone().requires_grad_() for x in layers], top))
