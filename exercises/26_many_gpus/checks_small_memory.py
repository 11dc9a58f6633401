"""A batch that is larger than memory: what each function must do, told one property at a time."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_close,
    expect_not,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    over,
    task,
)
from mmlearn.exercises.inputs import between, unit
from mmlearn.objectives import info_nce
from mmlearn.objectives.large_batch import chunked_info_nce, local_info_nce
from mmlearn.training.counting import Live
from mmlearn.training.memory import backward_in_chunks

# The whole loss without its matrix.


ALL = torch.tensor([[1.0, 0.0]]).repeat(4, 1)


class _Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made within."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        output = function(*args, **options or {})
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(output) if isinstance(x, Tensor))])
        return output


class _Kept:
    """What is kept for the backward pass now of all that is computed within, each storage once, but no parameters."""

    def __init__(self):
        self.storages: dict[int, tuple[int, int]] = {}  # bytes, and how many tensors hold them
        self.hooks = saved_tensors_hooks(self.keep, lambda held: held.x if isinstance(held, _Held) else held)

    def __enter__(self) -> "_Kept":
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)

    def keep(self, x: Tensor) -> "Tensor | _Held":
        """What stands for a tensor that is kept."""
        of_parameter = isinstance(x if x._base is None else x._base, nn.Parameter)
        return x if of_parameter else _Held(self, x)

    def numbers(self) -> int:
        """How many float32 numbers these are."""
        return sum(size for size, _ in self.storages.values()) // 4


class _Held:
    """One tensor that is kept, until its graph is gone."""

    def __init__(self, kept: _Kept, x: Tensor):
        self.storages, self.key = kept.storages, x.untyped_storage()._cdata
        self.x = x.detach()  # whose graph would hold this one, for ever
        size, holders = self.storages.get(self.key, (x.untyped_storage().nbytes(), 0))
        self.storages[self.key] = size, holders + 1

    def __del__(self) -> None:
        size, holders = self.storages.pop(self.key)
        if holders > 1:
            self.storages[self.key] = size, holders - 1


@task(chunked_info_nce, difficulty=4, minutes=35, example=by_hand(ALL, ALL, torch.tensor(3.0), 2, gives=math.log(4)))
def check_chunked_info_nce(function: Callable) -> None:
    """The same loss and gradients, of which no more than a chunk's logits are ever made, and none kept."""
    size, scale = between(2, 3), torch.tensor(4.0)
    b = 3 * size + 1  # the last chunk is short
    draws = [(unit(b, 8), unit(b, 8), scale, size) for _ in range(3)]
    expect_tensor(function(*draws[0]), ())
    got, same = over(draws, function), agreement(function, chunked_info_nce)

    def chunks(u: Tensor, v: Tensor, s: Tensor, size: int) -> list[Tensor]:
        return [info_nce(*pair, s) for pair in zip(u.split(size), v.split(size))]

    apart = (
        over(draws, lambda *draw: torch.stack(chunks(*draw)).mean()),
        over(draws, lambda u, v, s, size: sum(size * one for one in chunks(u, v, s, size)) / b),
        over(draws, lambda u, v, s, size: sum(len(x) * y for x, y in zip(u.split(size), chunks(u, v, s, size))) / b),
    )
    words = "A chunk must be asked against all b rows; here each is a batch of its own."
    expect_not(got, apart, words, "logits of a chunk are (size, b); its right answers begin at its first row.")
    locals_ = [
        torch.stack([local_info_nce(u[i : i + size], v[i : i + size], u, v, s, i) for i in range(0, b, size)]).mean()
        for u, v, s, size in draws
    ]
    words = "Every pair must count the same; here a pair of the short last chunk counts more."
    expect_not(got, torch.stack(locals_), words, "a chunk's mean times its rows over b; or add up sums, divide by b.")
    one_way = over(draws, lambda u, v, s, size: F.cross_entropy(s * u @ v.T, torch.arange(b)))
    words = "Texts must be asked as well as pictures; here only pictures pick."
    expect_not(got, one_way, words, "a chunk of texts by all pictures, too.")
    for chunk in (size, 1, b, b + 2):
        with case(f"In chunks of {chunk} of {b} rows"):
            words = "It must be InfoNCE of the whole batch, exactly."
            same([(*draw[:3], chunk) for draw in draws], words, "each row's softmax is over all b.")
    expect_trains(function, *draws[0][:3], fixed=(size,), like=chunked_info_nce)
    sure = draws[0][0], draws[0][0].roll(1, 0), torch.tensor(200.0)
    with case("At logit_scale 200, where the wrong ones are nearest"):
        expect_sure_and_wrong(function, *sure, fixed=(size,), like=chunked_info_nce)
    _check_memory(function)


def _check_memory(function: Callable) -> None:
    b, size = 128, 4
    embeddings = [unit(b, 4).requires_grad_() for _ in range(2)]
    with Live() as live, _Largest() as largest, _Kept() as kept:
        loss = function(*embeddings, torch.tensor(4.0, requires_grad=True), size)
        held = kept.numbers()
        words = "The matrix of all b² logits must never be made."
        hint = f"in chunks of {size} of {b} rows no tensor has more than {size * b} logits."
        expect(largest.numbers < b * b, words, hint)
        words = "Logits must not be kept for the backward pass: all chunks together are the b² that were to be saved."
        expect(held < b * b, words, "torch.utils.checkpoint.checkpoint(loss_of_a_chunk, …, use_reentrant=False).")
        loss.backward()
    words = "Going back, logits of all chunks must not be there at once either."
    expect(live.most < 4 * b * b, words, "a checkpoint for each chunk, not one around all of them.")


# The gradient of a batch that fits nowhere.


class _Encoder(nn.Module):
    """Keeps ``HIDDEN`` numbers a row, and notes how many rows come and what is kept when they do."""

    HIDDEN = 200

    def __init__(self, kept: _Kept | None = None):
        super().__init__()
        self.first, self.second = nn.Linear(4, self.HIDDEN), nn.Linear(self.HIDDEN, 3)
        self.kept, self.rows, self.held = kept, [], []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        self.held.append(self.kept.numbers() if self.kept else 0)
        return self.second(self.first(x).tanh())


@task(
    backward_in_chunks,
    difficulty=5,
    minutes=40,
    example=by_hand(nn.Identity(), lambda x: x.sum() ** 2, torch.ones(3, 1, requires_grad=True), 2, gives=9.0),
)
def check_backward_in_chunks(function: Callable) -> None:
    """The loss and the gradients of all rows, with one chunk's graph at a time."""
    size = between(2, 3)
    b = 3 * size + 1
    x, target = torch.randn(b, 4), unit(b, 3)
    kept = _Kept()
    encoder, scale = _Encoder(kept), nn.Parameter(torch.tensor(2.0))

    def loss(embedding: Tensor) -> Tensor:
        return info_nce(F.normalize(embedding, dim=-1), target[: len(embedding)], scale)

    learned = [*encoder.parameters(), scale]
    wanted = loss(_copy_of(encoder)(x))
    right = torch.autograd.grad(loss(encoder(x)), learned)
    for one in learned:
        one.grad = torch.ones_like(one)  # of an earlier batch
    encoder.rows.clear(), encoder.held.clear()
    with kept:
        got = function(encoder, loss, x, size)
    expect_close(
        expect_tensor(got).detach(),
        wanted.detach(),
        "It must return the loss of all rows together.",
        "loss(…) is called once, with the embeddings of all rows in one tensor.",
    )
    expect(
        max(encoder.rows, default=0) <= size,
        f"No more than size rows must be encoded at once, here {size}; this encodes {max(encoder.rows, default=0)}.",
        "x.split(size).",
    )
    expect(
        max(encoder.held) <= 1.5 * size * _Encoder.HIDDEN,
        "No more than the graph of one chunk must be kept; here those of several are, when the next is encoded.",
        "torch.no_grad() the first time, and backward() of each chunk at once the second time.",
    )
    _expect_gradients(learned, right)


def _copy_of(encoder: _Encoder) -> _Encoder:
    copy = _Encoder()
    copy.load_state_dict(encoder.state_dict())
    return copy


def _expect_gradients(learned: list[nn.Parameter], right: tuple[Tensor, ...]) -> None:
    *weights, scale = [parameter.grad for parameter in learned]
    *of_weights, of_scale = right
    none = all(got is not None and torch.equal(got, torch.ones_like(got)) for got in weights)
    expect(
        not none,
        "The encoder must learn; here no gradient comes to its parameters.",
        "encode every chunk once more, and call backward(gradient of its embeddings) on what comes out.",
    )
    replaced = all(got is not None and torch.allclose(got, one, atol=1e-5) for got, one in zip(weights, of_weights))
    expect(not replaced, "Gradients must be added to those of earlier batches, not replace them.", "no zero_grad().")
    expect_close(
        scale,
        of_scale + 1,
        "What the loss itself learns, such as a temperature, must get its gradient once.",
        "backward() of the loss is called once; chunks go backward from their embeddings' gradient alone.",
    )
    for got, one in zip(weights, of_weights):
        words = "The encoder's gradient must be that of loss(encode(x)).backward()."
        expect_close(
            got, one + 1, words, "each chunk goes backward from its own rows of embedding.grad.", tolerance=1e-4
        )
