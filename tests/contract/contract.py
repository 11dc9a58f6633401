"""What every system promises because it has a recipe. Nothing here names a system, or looks inside one.

Each function of ``PROMISES`` takes a system's name and an empty folder, and fails where the promise is broken.
"""

import copy
import dataclasses
import inspect
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from elsewhere import DIFFERENTIATED, NO_BF16_LSTM, Elsewhere, other_device
from ranks import in_ranks
from safetensors.torch import load_file
from testing_tools import fit, unchecked
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset

from mmlearn.data import data_sets
from mmlearn.data.batches import fetch, spread
from mmlearn.data.fields import padded_entries
from mmlearn.generation.decoding import beam_search, greedy
from mmlearn.layers import Attention, record_attention
from mmlearn.recipes import OptimizerStep, Recipe, Stage
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.recipe import Task
from mmlearn.training.checkpoint import save_model
from mmlearn.training.data import load_training_data
from mmlearn.training.evaluate import measure
from mmlearn.training.runs import Run, load_run, new_run, save_run

Batch = dict[str, Tensor]
SEEDS = 4  # of weights and batches, over which a loss at the start is averaged
STEPS = 200  # in which a batch is learned by heart; most systems need ten
CONSTANT = {  # what has no gradient in a loss, though it depends on what is learned
    "adversarial": "its weight, and the choice of codes",
    "pixels": "the choice of codes, past which a gradient is copied",
    "wra": "the plan of transport",
}
APART = {  # turns, or losses of a task, that do not go through ``forward``, and what they train
    "codec_loss": "a codec, by a forward pass of its own",
    "match_loss": "what finds pictures for words",
    "encoder_loss": "readers of captions and pictures, before anything is drawn",
    "self_critical_loss": "what is written by the system itself, of features that are seen once",
    "teacher_loss": "teachers, by forward passes of their own",
    "xmlm": "texts without a picture, where a system reads both",
}


WAITS = {"self_critical_loss": 3}  # for the step, for what is written, and for its reward; all others: 2


# What promises are tried on.


@dataclass(frozen=True)
class Case:
    """One turn of one task of one stage of a recipe, on a batch of random examples."""

    recipe: Recipe
    stage: Stage
    turn: OptimizerStep
    task: Task
    prototype: nn.Module
    batch: Batch

    def system(self) -> nn.Module:
        """A new system, as it is at the start, of which what this turn moves can be trained."""
        system = copy.deepcopy(self.prototype)
        moved = set(self.turn.trained_names(system))
        for name, parameter in system.named_parameters():
            parameter.requires_grad_(name in moved)
        return system.train()

    def settled(self) -> nn.Module:
        """A new system in evaluation mode, of which nothing is 0 or 1 as it is at the start, so that effects show."""
        system, generator = self.system().eval(), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in system.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
            for name, value in system.named_buffers():
                if name.endswith("running_mean"):  # of both signs, so that not all ReLUs behind it fall silent
                    value.add_(0.5 * torch.randn(value.shape, generator=generator))
                elif name.endswith("running_var"):
                    value.add_(0.5 * torch.rand(value.shape, generator=generator))
        return system

    def losses(self, system: nn.Module, batch: Batch | None = None) -> Batch:
        """The losses of this turn."""
        return getattr(system, self.turn.loss)(self.batch if batch is None else batch)

    def padded(self) -> dict[str, tuple[str, int]]:
        """Each entry that may hold padding: its mask, and the axis on which they agree."""
        return {
            name: position for name, position in padded_entries(self.recipe.holds()[0]).items() if name in self.batch
        }

    def __str__(self) -> str:
        return " ".join([self.stage.name, "+".join(one.name for one in self.task), self.turn.loss]).strip()


@lru_cache(maxsize=SEEDS)
def cases(name: str, seed: int = 0) -> list[Case]:
    """All cases of a system. Nothing is dropped at random."""
    recipe, found = find_recipe(name), []
    prototype = with_dropout(recipe, 0.0, seed)
    config = prototype.config
    for stage in recipe.stages:
        for task, batch in zip(stage.tasks(), recipe.examples(config, seed=seed, stage=stage.name)):
            found += [Case(recipe, stage, turn, task, prototype, batch) for turn in stage.optimizer_steps]
    return found


def with_dropout(recipe: Recipe, rate: float, seed: int = 0, only: tuple[str, ...] = ()) -> nn.Module:
    """A system in which all settings of dropout, or ``only`` this one, have this rate, and the others 0."""
    config = recipe.tiny()
    for setting in dropout_settings(config):
        config = with_setting(config, setting, rate if only in ((), setting) else 0.0)
    torch.manual_seed(seed)
    return recipe.make(config)


def dropout_settings(config: Any) -> Iterator[tuple[str, ...]]:
    """The path of every setting of a configuration whose name ends in "dropout"."""
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            yield from ((name, *rest) for rest in dropout_settings(value))
        elif name.endswith("dropout"):
            yield (name,)


def with_setting(config: Any, path: tuple[str, ...], value: Any) -> Any:
    """The configuration with one setting changed."""
    first, *rest = path
    return dataclasses.replace(config, **{first: with_setting(getattr(config, first), rest, value) if rest else value})


# What is done to them.


def call(system: nn.Module, batch: Batch) -> Batch:
    """What ``forward`` and every ``encode_…`` return of this batch: tensors of floats with a row each, by name."""
    found: Batch = {}
    for name in ["forward", *(name for name in dir(system) if name.startswith("encode_"))]:
        if not callable(method := getattr(system, name)):
            continue
        wanted = inspect.signature(method).parameters
        if all(one.name in batch for one in wanted.values() if one.default is one.empty):
            output = method(**{key: value for key, value in batch.items() if key in wanted})
            parts = output._asdict() if hasattr(output, "_asdict") else {"": output}
            found |= {f"{name} {key}": value for key, value in parts.items() if isinstance(value, Tensor)}
    b = rows_in(batch)
    return {key: x for key, x in found.items() if x.ndim and len(x) == b and x.is_floating_point()}


def rows_in(batch: Batch) -> int:
    """How many rows a batch has."""
    return len(next(iter(batch.values())))


def take(batch: Batch, index: Any) -> Batch:
    """Some rows of a batch."""
    return {name: value[index] for name, value in batch.items()}


def with_other_padding(case: Case) -> Batch:
    """The batch with NaN and other tokens where nothing is real. Labels say themselves where nothing is asked."""
    batch, generator = dict(case.batch), torch.Generator().manual_seed(9)
    fields = case.recipe.fields([case.task])
    read = {name for field in fields for name in field.holds}
    for name, (mask, axis) in ((name, position) for name, position in case.padded().items() if name in read):
        value = batch[name]
        real = batch[mask].view([len(value), *(n if k == axis else 1 for k, n in enumerate(value.shape) if k)])
        other = torch.randint(0, 4, value.shape, generator=generator)  # special tokens, which every vocabulary has
        batch[name] = torch.where(real, value, torch.nan if value.is_floating_point() else other.to(value.dtype))
    return batch


def without_padding(case: Case, i: int) -> Batch:
    """Row i as a batch of its own, as long as it is. Entries that always have one length keep it."""
    alone, always = take(case.batch, slice(i, i + 1)), case.recipe.holds()[0]
    for name, (mask, axis) in case.padded().items():
        if not always[mask].split()[2].startswith("{"):
            alone[name] = alone[name].narrow(axis, 0, int(case.batch[mask][i].sum()))
            alone[mask] = case.batch[mask][i : i + 1, case.batch[mask][i]]
    return alone


def comparable(case: Case, alone: Batch, whole: Batch, found: Batch) -> list[str]:
    """The outputs of a row alone that are as long as those among others, or as much shorter as an input is.

    Where there is none, all: frames of a sound are fewer than its samples. A grid of patches is in another order.
    """
    lengths = {(case.batch[name].shape[axis], alone[name].shape[axis]) for name, (_, axis) in case.padded().items()}

    def fits(one: Tensor, two: Tensor) -> bool:
        return all(n == m or (n, m) in lengths for n, m in zip(one.shape[1:], two.shape[1:]))

    return [key for key in whole if fits(whole[key], found[key])] or list(whole)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal but for rounding."""
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def train(case: Case, system: nn.Module, steps: int) -> Iterator[Batch]:
    """The losses of so many steps of AdamW on the one batch.

    As in training, long gradients are cut and the rate falls: detectors do not settle otherwise.
    """
    trained = [p for p in system.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3, weight_decay=0)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = case.losses(system)
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        falling.step()
        yield {name: loss.detach() for name, loss in losses.items()}


def still(system: nn.Module) -> list[nn.Module]:
    """The parts of a system of which nothing learns, and that have a loss of their own."""
    parts = [part for part in system.children() if hasattr(part, "loss")]
    return [part for part in parts if not any(parameter.requires_grad for parameter in part.parameters())]


def learn_alone(part: nn.Module, batch: Batch) -> None:
    """Train a part on what it reads of a batch, and leave it as it was otherwise. A T5 says again what it reads."""
    batch = {"target": batch["tokens"], "target_mask": batch["mask"]} | batch
    part.requires_grad_(True)
    optimizer = torch.optim.AdamW(part.parameters(), lr=3e-3, weight_decay=0)
    for _ in range(120):
        optimizer.zero_grad()
        sum(part.loss(batch).values()).backward()
        optimizer.step()
    part.zero_grad()
    part.requires_grad_(False)


def chances(case: Case) -> dict[str, Any]:
    """The losses of a task, by name, and what each costs before anything is learned."""
    return {name: chance for one in case.task for name, chance in one.chance.items()}


# The promises.


def presets_survive_json(name: str, folder: Path) -> None:
    recipe = find_recipe(name)
    assert "tiny" in recipe.config.PRESETS
    for preset in recipe.config.PRESETS:
        config = recipe.config.preset(preset)
        assert recipe.config.from_dict(json.loads(json.dumps(config.to_dict()))) == config, preset


def losses_are_those_of_the_recipe_and_start_at_chance(name: str, folder: Path) -> None:
    """Less would be a leak; more is that guesses at random differ. Each seed has its own weights and its own batch."""
    total: dict[str, list[tuple[float, float]]] = {}
    for seed in range(SEEDS):
        named: dict[Task, set[str]] = {}
        for case in cases(name, seed):
            with torch.no_grad():
                losses, chance = case.losses(case.system()), chances(case)
            named[case.task] = named.get(case.task, set()) | losses.keys()
            assert all(loss.isfinite() for loss in losses.values())
            for key in (key for key in losses if chance.get(key)):
                total.setdefault(key, []).append((losses[key].item(), chance[key](case.prototype.config, case.batch)))
        for task, found in named.items():
            assert found == {key for one in task for key in one.chance}
    for key, pairs in total.items():
        loss, chance = (sum(numbers) / len(pairs) for numbers in zip(*pairs))
        assert 0.95 * chance < loss < 1.5 * chance, key


def loss_is_written_on_forward(name: str, folder: Path) -> None:
    """What is read is what trains: where ``forward`` says something else, a loss is another. All but APART."""

    def otherwise(x: Any) -> Any:
        floats = isinstance(x, Tensor) and x.is_floating_point()
        return x + torch.linspace(0, 1, x.numel()).view_as(x) if floats else x

    for case in cases(name):
        system = case.system()
        system.register_forward_hook(lambda part, inputs, output: tree_map(otherwise, output))
        with torch.no_grad():
            before, after = case.losses(case.system()), case.losses(system)
        changed = any(not torch.equal(before[key], after[key]) for key in before)
        apart = {case.turn.loss, *before} & APART.keys()
        assert changed != bool(apart), f"{case} does{'' if changed else ' not'} go by what forward says"


def one_batch_is_learned_by_heart(name: str, folder: Path) -> None:
    """All losses together, and each that starts at chance. What is drawn goes by the step, which stays the first.

    A part that stays as it is has learned before, if it has a loss of its own, as a language model has.
    """
    for case in cases(name):
        first, learned, system = None, False, case.system()
        for part in still(system):
            learn_alone(part, case.batch)
        for losses in train(case, system, STEPS):
            first = first or losses
            each = all(losses[key] < 0.75 * first[key] for key in losses if chances(case).get(key))
            learned = each and sum(losses.values()) < 0.5 * sum(first.values())
            if learned:
                break
        assert learned, f"{case}: from {first} to {losses}"


def what_padding_holds_changes_nothing(name: str, folder: Path) -> None:
    for case in cases(name):
        for training in (False, True):
            one, two = (case.settled().train(training) for _ in range(2))
            before, after = case.losses(one), case.losses(two, with_other_padding(case))
            for key in before:
                assert torch.equal(before[key], after[key]), f"{case}: {key}, training={training}"


def a_padded_row_is_the_row_alone(name: str, folder: Path) -> None:
    for case in cases(name):
        system = case.settled()
        with torch.no_grad():
            whole = call(system, case.batch)
            for i in range(4):
                batch = without_padding(case, i)
                found = call(system, batch)
                for key in comparable(case, batch, whole, found):
                    close(whole[key][i][tuple(slice(n) for n in found[key].shape[1:])], found[key][0])


def processes_together_learn_what_one_learns_of_all(name: str, folder: Path) -> None:
    """With half of the rows each: the mean of their losses and gradients is that of one process with all rows.

    So what compares rows gathers them first. The halves are the same rows under other captions' numbers, so that as
    many words are hidden in each. What a system draws is left out, because each process draws for its own rows.
    """
    for case in cases(name):
        both, half = twice(case), rows_in(case.batch) // 2
        work = partial(learned, case, undrawn(case))
        whole, parts = work(both), in_ranks(work, [take(both, slice(half)), take(both, slice(half, None))])
        for key in whole:
            close((parts[0][key] + parts[1][key]) / 2, whole[key])


def equal_captions_are_no_negatives(name: str, folder: Path) -> None:
    """Captions with one ``caption_id``, in every loss that compares rows; which number it is does not matter.

    A loss compares rows where it is another when each row is there twice, as if they were other pairs. Only those count
    whose chance the recipe knows: others may compare features of a batch, whatever its rows say.
    """
    objectives = [one for stage in find_recipe(name).stages for one in stage.objectives().values()]
    known = {key for one in objectives for key, chance in one.chance.items() if chance is not None}
    for case in cases(name):
        if "caption_id" not in case.batch:
            continue
        numbers, chosen = torch.arange(rows_in(case.batch)), undrawn(case)
        once, again = (
            case.losses(case.settled().train(), take(twice(case), slice(n))) for n in (len(numbers) // 2, None)
        )
        others, renumbered, same = (
            case.losses(case.settled().train(), case.batch | {"caption_id": ids})
            for ids in (numbers, 7 * numbers + 3, numbers // numbers[-1])  # one caption for all rows but the last
        )
        for key, loss in others.items():
            assert torch.equal(loss, renumbered[key]), f"{case}: {key} takes a caption_id for more than a name"
            compares = key in chosen & known and not torch.isclose(once[key], again[key], rtol=1e-4)
            assert not compares or not torch.isclose(loss, same[key]), f"{case}: equal captions are negatives in {key}"


def twice(case: Case) -> Batch:
    """Half of the rows, and the same once more as if they were others."""
    half = take(case.batch, slice(0, rows_in(case.batch) // 2))
    both = {key: torch.cat([value, value]) for key, value in half.items()}
    return both | ({"caption_id": torch.arange(rows_in(both))} if "caption_id" in both else {})


class OtherDraws(torch.Generator):
    """A generator that draws otherwise than one that is seeded alike."""

    def manual_seed(self, seed: int) -> "OtherDraws":
        return super().manual_seed(seed + 1)


def undrawn(case: Case) -> set[str]:
    """The losses of this turn that do not depend on what the system draws for a step."""
    one, two = (case.settled().train() for _ in range(2))
    with torch.no_grad():
        before = case.losses(one)
        with patch("torch.Generator", OtherDraws):
            after = case.losses(two)
    return {key for key in before if torch.equal(before[key], after[key])}


def learned(case: Case, chosen: set[str], batch: Batch) -> Batch:
    """The chosen losses of a settled system in training, and the gradients of their sum."""
    system = case.settled().train()
    losses = {key: loss for key, loss in case.losses(system, batch).items() if key in chosen}
    if (total := sum(losses.values(), torch.zeros(()))).requires_grad:
        names = [key for key, parameter in system.named_parameters() if parameter.requires_grad]
        losses |= {f"gradient of {key}": x for key, x in zip(names, gradients(total, system))}
    return losses


def rows_do_not_depend_on_each_other(name: str, folder: Path) -> None:
    """The first row stays as it is, bit for bit, when all others change places; and they do differ."""
    for case in cases(name):
        system, b = case.settled(), rows_in(case.batch)
        with torch.no_grad():
            whole = call(system, case.batch)
            mixed = call(system, take(case.batch, torch.tensor([0, *range(b - 1, 0, -1)])))
        assert whole
        for key in whole:
            assert torch.equal(whole[key][0], mixed[key][0]), key
            assert not torch.allclose(whole[key][1], mixed[key][1], atol=1e-4), key


def what_is_written_is_that_of_the_row_alone(name: str, folder: Path) -> None:
    """Texts are no longer than asked, the same once more, the same one by one, and with several beams."""
    case = cases(name)[0]
    if not case.recipe.writes:
        return
    system, takes = case.settled(), inspect.signature(case.recipe.system.generate).parameters
    given = {key: case.batch[key] for key in takes if key in case.batch}
    if "prompt" in takes:
        words = case.batch["response"].any(0).int().argmax() if "response" in case.batch else 1  # behind image tokens
        given["prompt"] = case.batch["tokens"][:, words : words + 2]
    for decode in (greedy, partial(beam_search, beams=3)):
        with torch.no_grad():
            written = system.generate(**given, decode=decode, max_length=9)
            assert torch.equal(written, system.generate(**given, decode=decode, max_length=9))
            assert written.dtype == torch.int64
            assert written.shape[1] <= 9
            for i, row in enumerate(written):
                own = {key: value[i : i + 1] for key, value in given.items()}
                alone = system.generate(**own, decode=decode, max_length=9)[0]
                assert torch.equal(row[: len(alone)], alone)
        assert len(written.unique(dim=0)) > 1


def a_gradient_reaches_every_parameter_and_only_what_moves_moves(name: str, folder: Path) -> None:
    """Over a few steps, because a head that starts at 0 lets nothing through at first; of all tasks together."""
    reached: dict[tuple[str, OptimizerStep], set[str]] = {}
    for case in cases(name):
        system, seen = case.system(), reached.setdefault((case.stage.name, case.turn), set())
        before = {key: value.clone() for key, value in system.named_parameters()}
        for _ in train(case, system, steps=3):
            seen |= {key for key, value in system.named_parameters() if value.grad is not None and value.grad.any()}
        for key, value in system.named_parameters():
            assert value.requires_grad or torch.equal(before[key], value), f"{case} moves {key}"
    for case in cases(name):
        wanted = {key for key, value in case.system().named_parameters() if value.requires_grad}
        # A key's bias moves all scores of a query alike, which softmax does not see.
        missed = {key for key in wanted - reached[case.stage.name, case.turn] if not key.endswith("key.bias")}
        assert not missed, f"No gradient reaches {sorted(missed)[:3]}."


def each_loss_teaches_all_that_it_depends_on(name: str, folder: Path) -> None:
    """A step in any direction changes each loss as its gradient says, so nothing is cut off from what it should learn.

    In double precision and evaluation mode. The size of the step is the one that suits best: in a large one a maximum
    may move to another position, and of a small one little is left where a system rounds.
    """
    for case in cases(name):
        system = case.system()
        for key, loss in case.losses(system).items():
            assert any(one.any() for one in gradients(loss, system)), f"{case}: {key} teaches nothing"
        system, generator = case.settled().double(), torch.Generator().manual_seed(2)
        batch = {key: x.double() if x.is_floating_point() else x for key, x in case.batch.items()}
        way = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in moved(system)]
        slope, size = {}, {}
        for key, loss in case.losses(system, batch).items():
            found = gradients(loss, system)
            slope[key] = sum((one * step).sum() for one, step in zip(found, way))
            size[key] = sum(one.square().sum() for one in found).sqrt()
        wrong = set(slope) - CONSTANT.keys()
        for step in (1e-6, 1e-5, 1e-7, 1e-8, 1e-9):
            if wrong:
                with torch.no_grad():
                    more, less = (case.losses(stepped(system, way, sign * step), batch) for sign in (1, -1))
                off = {key: (more[key] - less[key]) / (2 * step) - slope[key] for key in wrong}
                wrong = {key for key in wrong if not off[key].abs() <= 1e-3 * size[key]}
        assert not wrong, f"{case}: {wrong} do not change as their gradients say"


def moved(system: nn.Module) -> list[nn.Parameter]:
    """The parameters that can be trained."""
    return [parameter for parameter in system.parameters() if parameter.requires_grad]


def gradients(loss: Tensor, system: nn.Module) -> tuple[Tensor, ...]:
    """The gradient of a loss for each parameter that can be trained: 0 where there is none."""
    if not loss.requires_grad:  # as of codes that are not drawn
        return tuple(torch.zeros_like(parameter) for parameter in moved(system))
    return torch.autograd.grad(loss, moved(system), retain_graph=True, allow_unused=True, materialize_grads=True)


def stepped(system: nn.Module, way: list[Tensor], size: float) -> nn.Module:
    """A copy of the system, so far along a direction."""
    system = copy.deepcopy(system)
    for parameter, step in zip(moved(system), way):
        parameter.data.add_(step, alpha=size)
    return system


def nothing_is_drawn_from_a_global_state(name: str, folder: Path) -> None:
    """Where nothing is dropped. In evaluation mode, nothing is changed either."""
    for case in cases(name):
        system = case.system()
        for training in (True, False):
            system.train(training)
            state = {key: value.clone() for key, value in system.state_dict().items()}
            with unchecked():  # whoever checks annotations draws, too
                before = torch.get_rng_state(), random.getstate()
                case.losses(system)
            assert torch.equal(torch.get_rng_state(), before[0])
            assert random.getstate() == before[1]
        for key, value in system.state_dict().items():
            assert torch.equal(value, state[key]), f"{key} changes in evaluation"


def dropout_acts_in_training_only(name: str, folder: Path) -> None:
    """Each setting that is called so, by itself; nothing of a part of the same name that stays as it is."""

    def differs(case: Case, training: bool) -> bool:
        total = []
        for seed in (0, 1):
            system = case.settled().train(training)
            torch.manual_seed(seed)
            with torch.no_grad():
                total.append(sum(case.losses(system).values()))
        return not torch.equal(*total)

    recipe = find_recipe(name)
    if not (settings := list(dropout_settings(recipe.tiny()))):
        return
    dropping = with_dropout(recipe, 0.5)
    for case in cases(name):
        assert not differs(dataclasses.replace(case, prototype=dropping), False), f"{case} drops in evaluation"
    for setting in settings:
        acts, learns, dropping = False, False, with_dropout(recipe, 0.5, only=setting)
        for case in cases(name):
            case = dataclasses.replace(case, prototype=dropping)
            part = getattr(case.system(), setting[0], None) if len(setting) > 1 else None  # of which it is a setting
            here = any(p.requires_grad for p in part.parameters()) if isinstance(part, nn.Module) else True
            if here and acts:
                continue
            acted = differs(case, True)
            assert here or not acted, f"{'.'.join(setting)} acts in a part that stays as it is"
            acts, learns = acts or acted, learns or here
        assert acts or not learns, f"{'.'.join(setting)} does nothing"


class Parts(Dataset):
    """Four rows of a batch at a time, again and again."""

    def __init__(self, batch: Batch):
        self.parts = [take(batch, slice(k, k + 4)) for k in range(rows_in(batch) - 3)]

    def __len__(self) -> int:
        return 10_000  # no queue is longer

    def __getitem__(self, index: int) -> Batch:
        return self.parts[index % len(self.parts)]


class Stop(Exception):
    """Ends a run after a step."""


def a_resumed_run_ends_as_one_never_stopped(name: str, folder: Path) -> None:
    """With another seed, and with dropout, whose state of chance is part of a checkpoint."""

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 3:
            raise Stop

    def run(case: Case, output: Path, seed: int, **options: Any) -> Batch:
        torch.manual_seed(seed)
        system = case.recipe.make(config)
        settings = dict(steps=4, batch_size=1, warmup=1, checkpoint_every=2, optimizer="muon", progress=False)
        fit(
            system,
            Parts(case.batch),
            lambda one: one[0],
            optimizer_steps=case.stage.optimizer_steps,
            output=output,
            **settings,
            **options,
        )
        return system.state_dict()

    for number, case in enumerate({case.stage: case for case in cases(name)}.values()):
        config = case.prototype.config
        for setting in dropout_settings(config):
            config = with_setting(config, setting, 0.1)
        whole = run(case, folder / f"whole-{number}", 0)
        with pytest.raises(Stop):
            run(case, folder / f"stopped-{number}", 0, on_step=stop)
        resumed = run(case, folder / f"stopped-{number}", 5, resume=True)
        kept = load_file(folder / f"whole-{number}" / "model.safetensors")
        assert kept.keys() == whole.keys()
        for key, value in whole.items():
            assert torch.equal(value, kept[key]), f"{key} in model.safetensors"
            assert torch.equal(value, resumed[key]), f"{key} after resuming"


class Named:
    """A sample with another caption."""

    def __init__(self, sample: Any, caption: str):
        self.sample, self.caption = sample, caption

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sample, name)


class Few(Dataset):
    """48 samples of a data set, spread through it, with their captions or with one of these."""

    def __init__(self, data: Dataset, captions: tuple[str, ...]):
        self.samples = fetch(data, spread(len(data), 48))
        if captions:
            self.samples = [Named(sample, captions[i % len(captions)]) for i, sample in enumerate(self.samples)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def run_on_packaged_data(name: str) -> tuple[Run, list[Any]]:
    """A new run of a system on a little of the first packaged data that has what it reads, and the samples."""
    recipe, reasons = find_recipe(name), []
    for known in data_sets(apart=False):
        data = load_training_data(name, known)
        for captions in ((), ("low", "high", "loud")):  # a classifier needs examples of each
            try:
                for field in recipe.reads:
                    field.check_sample(sets_of(data)[None][0], name)
                sets = {source: Few(part, captions) for source, part in sets_of(data).items()}
                return new_run(name, sets), sets[None].samples
            except ValueError as error:
                reasons.append(f"{known}: {error}")
    raise AssertionError("; ".join(reasons))


def sets_of(data: Any) -> dict[str | None, Dataset]:
    """Several data sets by their names, or one that has none."""
    return dict(data) if isinstance(data, dict) else {None: data}


def data_becomes_what_the_recipe_says_and_a_run_comes_back(name: str, folder: Path) -> None:
    """Sizes are the data's; saved and loaded, the same batch has the same loss; each measure gives a number.

    And it asks nothing of a tensor on the wrong device.
    """
    run, samples = run_on_packaged_data(name)
    save_run(run, folder)
    save_model(run.system, folder / "model.safetensors")
    back = load_run(folder)
    for step in range(6 if len(run.tasks) > 1 else 1):  # of which each may serve another task
        batch, again = (collated(each, samples[:8], step) for each in (run, back))
        run.recipe.check(batch, run.system.config)
        assert batch.keys() == again.keys()
        assert all(torch.equal(batch[key], again[key]) for key in batch)
        with torch.no_grad():
            one, two = (getattr(each.system.eval(), run.stage.optimizer_steps[0].loss)(batch) for each in (run, back))
        assert one == two
        assert all(loss.isfinite() for loss in one.values())
    objectives = list(dict.fromkeys(one for task in run.tasks for one in task))
    for label, row in measure(back, samples[:24], objectives).items():
        assert math.isfinite(row["obtained"]), label
    with other_device(back.system, {}):  # whose numbers are not always those of a real one
        measure(back, samples[:12], objectives)


def collated(run: Run, samples: list[Any], step: int) -> Batch:
    """The batch of these samples at a step of training."""
    collate = run.collate(seed=3)
    return (collate.at(step) if hasattr(collate, "at") else collate)(samples)


def broken(case: Case) -> Iterator[tuple[str, Batch]]:
    """What is wrong with a batch, and the batch, for all that people get wrong."""
    holds, optional = case.recipe.holds()
    batch = case.batch
    yield "no row", take(batch, slice(0, 0))
    for name, value in batch.items():
        if name not in optional:
            yield f"no {name}", {key: other for key, other in batch.items() if key != name}
        yield (
            f"{name} of another type",
            batch | {name: value.to(torch.uint8 if value.is_floating_point() else torch.float32)},
        )
        yield f"{name} without its first axis", batch | {name: value[0]}
        yield f"{name} with an axis too many", batch | {name: value[..., None]}
        if len(batch) > 1:  # else it is a batch with a row less
            yield f"{name} with a row less", batch | {name: value[:-1]}
        if value.ndim > 1:
            yield f"{name} one shorter", batch | {name: value[:, :-1]}
        if " < " in holds[name]:
            for number in (10**6, -1):
                wrong = value.clone()
                wrong[1] = number
                yield f"{name} with {number}", batch | {name: wrong}


def what_is_wrong_is_told_in_one_line(name: str, folder: Path) -> None:
    """As a user sees it: annotations are not checked."""
    for case in cases(name):
        assert refusal(case, case.batch) is None
        for what, batch in broken(case):
            told = refusal(case, batch)
            assert told, f"{case}: {what} is taken"
            assert "\n" not in told


def refusal(case: Case, batch: Batch) -> str | None:
    """What a user is told of a batch, or None where its losses have finite gradients."""
    with unchecked():
        try:
            case.recipe.check(batch, case.prototype.config)
            system = case.system()
            sum(case.losses(system, batch).values()).backward()
        except ValueError as error:
            return str(error)
    assert all(p.grad.isfinite().all() for p in system.parameters() if p.grad is not None)
    return None


def unusual(case: Case) -> Iterator[tuple[str, Batch]]:
    """What is rare and right, or too long for a system."""
    yield "one row", take(case.batch, slice(0, 1))
    for mask in sorted({mask for mask, _ in case.padded().values()}):
        for what, rows in (("a row", slice(0, 1)), ("rows", slice(None))):
            real = case.batch[mask].clone()
            real[rows] = False
            yield f"{what} without {mask}", case.batch | {mask: real}


def what_is_unusual_is_finite_or_told_in_one_line(name: str, folder: Path) -> None:
    """NaN would spoil a run in which one sample of a million shows or says nothing."""
    for case in cases(name):
        for what, batch in unusual(case):
            assert "\n" not in (refusal(case, batch) or ""), f"{case}: {what}"


def bf16_is_finite(name: str, folder: Path) -> None:
    for case in cases(name):
        system = case.system()
        try:
            with torch.autocast("cpu", torch.bfloat16):
                losses = case.losses(system)
        except RuntimeError as error:
            if NO_BF16_LSTM not in str(error):
                raise
            continue
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert all(p.grad.isfinite().all() for p in system.parameters() if p.grad is not None)


def recorded_maps_are_well_formed(name: str, folder: Path) -> None:
    """Of every layer that learns; and neither losses nor outputs change."""
    for case in cases(name):
        system = case.settled()
        layers = {
            key
            for key, part in system.named_modules()
            if isinstance(part, Attention) and any(p.requires_grad for p in part.parameters())
        }
        if not layers:
            return
        with torch.no_grad():
            plain = call(system, case.batch), case.losses(system)
            with record_attention(system) as maps:
                recorded = call(system, case.batch), case.losses(system)
        for one, two in zip(plain, recorded):
            for key in one:
                close(one[key], two[key])
        assert {key.partition("#")[0] for key in maps} >= layers
        for key, weights in maps.items():
            assert weights.ndim == 4, key
            sums = weights.sum(-1)
            assert (((sums - 1).abs() < 1e-4) | (sums.abs() < 1e-4)).all(), key


def nothing_is_on_the_wrong_device(name: str, folder: Path) -> None:
    """On a device that others take for a GPU. A step makes the CPU wait for it at most twice, or as ``WAITS`` says.

    Every wait leaves a GPU idle, because the CPU only then goes on to queue work for it. Where a step writes texts,
    each word is waited for, because the text may end there.
    """
    for case in cases(name):
        system = case.system()
        with other_device(system, case.batch) as batch:
            losses = case.losses(system, batch)
            sum(losses.values()).backward()
            if hasattr(system, "after_step"):
                system.after_step()
            waits = [where for where in Elsewhere.waits if " in generation/" not in where]
        assert len(waits) <= WAITS.get(case.turn.loss, 2), f"{case} waits for its device: {waits}"
        for key, loss in case.losses(case.system()).items():
            close(losses[key].here, loss)


def forward_is_one_graph(name: str, folder: Path) -> None:
    """``torch.compile`` finds nothing in a forward pass that it has to leave to Python, such as a look at a value.

    The graph is run as it was found, and computes the same. Cases with the same entries have one graph. A
    system that leaves the graph in evaluation does not in training. PyTorch's own recurrent layers always leave it.
    Of systems in DIFFERENTIATED PyTorch traces the backward pass as well, and gradients are the same too.
    """
    seen, backend = set(), "aot_eager" if name in DIFFERENTIATED else "eager"
    for case in cases(name):
        system = case.settled()
        wanted = inspect.signature(system.forward).parameters
        given = {key: value for key, value in case.batch.items() if key in wanted}
        entries = frozenset((key, value.ndim, value.dtype) for key, value in given.items())
        if entries in seen or any(isinstance(part, nn.RNNBase) for part in system.modules()):
            continue
        seen.add(entries)
        try:
            outputs = plainly_and_compiled(system, given, backend)
        except torch._dynamo.exc.Unsupported:
            outputs = plainly_and_compiled(system.train(), given, backend)
        for one, two in zip(*outputs, strict=True):
            if isinstance(one, Tensor):
                close(two, one)
        if name in DIFFERENTIATED:
            for one, two in zip(*(gradients(weighed(output), system) for output in outputs)):
                close(two, one)


def plainly_and_compiled(system: nn.Module, given: Batch, backend: str) -> list[tuple[Any, ...]]:
    """What a system says without ``torch.compile`` and with it."""
    torch._dynamo.reset()
    with unchecked():
        outputs = [system(**given), torch.compile(system, backend=backend, fullgraph=True)(**given)]
    return [output if isinstance(output, tuple) else (output,) for output in outputs]


def weighed(output: tuple[Any, ...]) -> Tensor:
    """A sum of all numbers of an output, of which no two weigh the same."""
    parts = [x for x in output if isinstance(x, Tensor) and x.requires_grad]
    return sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in parts)


# In these, annotations are checked as well, which takes a quarter of the time.
ANNOTATED = {losses_are_those_of_the_recipe_and_start_at_chance, rows_do_not_depend_on_each_other}
ANNOTATED |= {what_is_written_is_that_of_the_row_alone}
PROMISES = [
    presets_survive_json,
    losses_are_those_of_the_recipe_and_start_at_chance,
    loss_is_written_on_forward,
    one_batch_is_learned_by_heart,
    what_padding_holds_changes_nothing,
    a_padded_row_is_the_row_alone,
    processes_together_learn_what_one_learns_of_all,
    equal_captions_are_no_negatives,
    rows_do_not_depend_on_each_other,
    what_is_written_is_that_of_the_row_alone,
    a_gradient_reaches_every_parameter_and_only_what_moves_moves,
    each_loss_teaches_all_that_it_depends_on,
    nothing_is_drawn_from_a_global_state,
    dropout_acts_in_training_only,
    a_resumed_run_ends_as_one_never_stopped,
    data_becomes_what_the_recipe_says_and_a_run_comes_back,
    what_is_wrong_is_told_in_one_line,
    what_is_unusual_is_finite_or_told_in_one_line,
    bf16_is_finite,
    recorded_maps_are_well_formed,
    nothing_is_on_the_wrong_device,
    forward_is_one_graph,
]


def keeps(promise: Callable[[str, Path], None], name: str, folder: Path) -> None:
    """Fails where a system breaks a promise."""
    with unchecked(promise not in ANNOTATED):
        promise(name, folder)
