"""What a plan says is what a training takes: numbers of papers, sums by hand, and memory as it is measured."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from testing_tools import refused
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import StackDataset, default_collate
from torch.utils.flop_counter import FlopCounterMode

from mmlearn.recipes import OptimizerStep
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training import counting, fit
from mmlearn.training.counting import Count, Polynomial, Saved, count, count_training, grown
from mmlearn.training.measuring import EXACT
from mmlearn.training.memory import recompute_blocks
from mmlearn.training.plan import DEVICES, GIB, card_named, memory, plan

PEAK = Path(__file__).parent.parent / "tools" / "peak.py"


@cache
def counted(name, preset="tiny", **options):
    recipe = find_recipe(name)
    return count(recipe, recipe.config.preset(preset), **options)


@pytest.fixture(scope="module")
def clip():
    return counted("clip", "ViT-B/16", precision="bf16")


def test_parameters_are_those_of_the_published_models(clip):
    found = counted("gpt2", "small", text_length=16)
    assert clip.parameters == clip.trained == 149_620_737
    assert found.parameters == found.trained == 124_439_808
    # In no block are both tables, and the last norm.
    assert (found.block, found.outside) == (12 * 768**2 + 13 * 768, (50_257 + 1024 + 2) * 768)


def blocks(d, n, depth):
    """Multiplications with additions of a forward pass: 12 d² weights for each token, 2 d for each two of them."""
    return depth * (12 * n * d**2 + 2 * n**2 * d)


def test_operations_of_a_vision_transformer_are_those_counted_by_hand():
    patches, d, classes = 196, 768, 7  # as many as random examples have
    patching, head = patches * (3 * 16 * 16) * d, d * classes
    # Twice for a multiplication and its addition, three times for the backward pass; pictures have no gradient.
    by_hand = 2 * (3 * (blocks(d, patches + 1, 12) + head) + 2 * patching)
    assert counted("vit", "B/16").flops == Polynomial(0, by_hand, 0)


def test_operations_of_bert_are_those_counted_by_hand():
    t, d, vocabulary = 128, 768, 30_522
    head = t * d**2 + t * d * vocabulary
    assert counted("bert", "base", text_length=t).flops == Polynomial(0, 6 * (blocks(d, t, 12) + head), 0)


def test_a_count_is_the_same_with_several_threads():
    """With several, attention over 77 tokens is computed in another way, which keeps its weights."""
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(counted.__wrapped__("clip", "ViT-B/32"))  # not the one that is kept
            assert torch.get_num_threads() == threads  # as before
        finally:
            torch.set_num_threads(1)
    assert found[0] == found[1]


def test_pairs_of_samples_are_counted_apart(clip):
    width = 512  # of the embeddings; the matrix is one product, and its gradient two
    assert clip.flops.square == 3 * 2 * width
    assert clip.flops.constant == 0
    # The logits, half as wide as float32, and both softmaxes of them, in float32.
    assert 2 * 4 <= clip.saved.total.square <= 4 * 4


def test_memory_is_what_a_process_of_its_own_takes():
    cases = ("vit", 256, 1), ("gpt2", 512, 32), ("clap", 96, 16)
    command = [sys.executable, str(PEAK), *(str(word) for case in cases for word in case)]
    done = subprocess.run(command, env=os.environ | EXACT, capture_output=True, text=True, check=True)
    for (name, b, t), measured in zip(cases, done.stdout.split(), strict=True):
        planned = memory(counted(name, text_length=t), b)["plain"]["all"]
        assert planned == pytest.approx(int(measured), rel=0.15), name


def test_a_polynomial_goes_through_its_points():
    wanted = Polynomial(5, 7, 3)
    points = {b: 5 + 7 * b + 3 * b * b for b in (8, 16, 32)}
    assert Polynomial.through(points) == wanted
    assert wanted.shared(64, 4) == 5 + 7 * 16 + 3 * 64**2


def test_batches_grow_in_samples_and_in_tokens():
    recipe = find_recipe("clip")
    batch = grown(next(recipe.examples(recipe.tiny(), 2)), recipe.holds()[0], 5, 9)
    assert {name: tuple(x.shape) for name, x in batch.items()} == {
        "image": (5, 3, 64, 64), "tokens": (5, 9), "mask": (5, 9), "caption_id": (5,),
    }  # fmt: skip


def test_a_plan_by_hand(clip):
    made = plan(clip, samples=1e6, batch=4096, device="a100", devices=8, utilisation=0.5)
    a_step = clip.flops.linear * 512 + clip.flops.rows * 512 * 4096  # on each device
    assert made.steps == 245  # of which the last is not full
    assert made.flops == 8 * a_step
    assert made.hours == pytest.approx(245 * a_step / 156e12 / 3600)
    assert made.device_hours == pytest.approx(8 * made.hours)
    assert made.samples_per_second == pytest.approx(4096 * 156e12 / a_step)
    # A picture of 224 × 224 in float32; 77 tokens and which caption it is as int64, and a mask.
    assert made.bytes_per_second == pytest.approx(made.samples_per_second * (4 * 3 * 224**2 + 8 * 77 + 8 + 77))
    assert made.fits == [way for way, held in made.memory.items() if held["all"] <= 80 * GIB]
    assert "plain" in made.fits
    assert plan(clip, samples=1e6, batch=32_768, device="t4", devices=8, precision="fp16").fits == []


def test_each_way_saves_what_it_says(clip):
    ways = memory(clip, 8192, 8, chunk=256)
    plain, chunks, again, parts = (ways[way] for way in ("plain", "in chunks", "recomputed", "sharded"))
    assert all(sum(held.values()) == pytest.approx(2 * held["all"]) for held in ways.values())
    always = clip.saved.total.constant  # weights in half precision
    assert chunks["activations"] - always == pytest.approx((plain["activations"] - always) / 4)
    assert chunks["loss matrix"] == plain["loss matrix"]
    assert again["activations"] < plain["activations"] / 4
    assert parts["optimiser"] == plain["optimiser"] / 8
    assert parts["gradients"] == plain["gradients"] / 8
    assert plain["optimiser"] == pytest.approx(2 * plain["weights"], rel=1e-3)  # AdamW's two moments


def test_what_is_counted_as_recomputed_is_what_is_kept_then():
    recipe = find_recipe("gpt2")
    config = replace(recipe.tiny(), depth=12)
    found, kept = count(recipe, config, text_length=32), []
    system, batch = recipe.make(config), next(recipe.examples(config, 16))

    def keep(x):
        kept.append(x)
        return x

    with recompute_blocks(system), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        system.loss(batch)
    own = {x.data_ptr() for x in (*system.parameters(), *batch.values())}
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept if x.data_ptr() not in own}
    t = batch["tokens"].shape[1]
    each = found.saved.total.linear - found.saved.blocks.linear + found.saved.inputs.linear
    assert sum(storages.values()) == pytest.approx(each * 16 * t / 32, rel=0.03)
    assert found.saved.inputs.linear == 12 * 4 * 32 * config.width


def test_frozen_parts_need_neither_gradients_nor_an_optimiser():
    found = counted("lit", text_length=16)
    assert found.trained < found.parameters
    assert memory(found, 8)["plain"]["gradients"] == 4 * found.trained
    assert found.state == pytest.approx(8 * found.trained, rel=1e-3)


def test_what_is_kept_is_what_the_trainer_keeps():
    """Of the last block of CLIP's text tower only one token is computed: beside all tokens it keeps that one."""
    config = find_recipe("clip").config.tiny()
    patches = (config.image.image_size // config.image.patch_size) ** 2
    tokens = config.image.depth * patches + config.text.depth * 16 + 1
    assert counted("clip", text_length=16).saved.inputs.linear == 4 * config.text.width * tokens


def test_what_a_turn_does_not_move_has_no_gradient():
    recipe, whole = find_recipe("gpt2"), counted("gpt2")
    stage = replace(recipe.stages[0], optimizer_steps=(OptimizerStep(trains=("norm",)),))
    part = count(replace(recipe, stages=(stage,)), recipe.tiny())
    assert (part.parameters, part.trained) == (whole.parameters, 2 * recipe.tiny().width)
    assert part.flops.linear < 0.6 * whole.flops.linear
    assert part.saved.blocks.linear == 0 < whole.saved.blocks.linear


@pytest.mark.parametrize(
    ("name", "stage", "t"), [("gan-int-cls", "drawing", 9), ("attn-gan", "drawing", 16), ("vqgan", "", 4)]
)
def test_a_step_of_turns_is_what_is_computed_in_all_of_them(name, stage, t):
    """Texts are packed by their lengths, and here all of them are as long as there are positions."""
    recipe, b, generator = find_recipe(name), 6, torch.Generator().manual_seed(0)
    found, config = counted(name, stage=stage, text_length=t), recipe.for_examples(recipe.tiny())
    batch = grown(next(recipe.examples(config, 2, stage=stage)), recipe.holds()[0], b, t)
    for key, x in batch.items():
        batch[key] = torch.randn(x.shape, generator=generator) if x.is_floating_point() else torch.ones_like(x)
    system, optimizer_steps, seen = recipe.make(config), recipe.stage(stage).optimizer_steps, {}
    for turn in optimizer_steps:
        moved = {key: value for key, value in system.named_parameters() if key.startswith(turn.trains)}
        seen[turn] = sum(value.numel() for value in moved.values())
    # PyTorch's counter does not know a CPU's kernel of attention.
    with FlopCounterMode(display=False) as flops, sdpa_kernel(SDPBackend.MATH):
        fit(
            system,
            StackDataset(**batch),
            default_collate,
            steps=1,
            optimizer_steps=optimizer_steps,
            batch_size=b,
            progress=False,
        )
    assert len(optimizer_steps) == 2
    assert found.flops.shared(b, 1) == flops.get_total_flops()
    assert (found.trained, found.moved) == (sum(seen.values()), max(seen.values()))
    assert found.state == pytest.approx(8 * found.trained, rel=1e-3)  # two moments of each


def test_what_two_turns_move_has_two_optimisers():
    recipe, once = find_recipe("gpt2"), counted("gpt2")
    twice = replace(recipe.stages[0], optimizer_steps=(OptimizerStep(), OptimizerStep(betas=(0.5, 0.9))))
    both = count(replace(recipe, stages=(twice,)), recipe.tiny())
    assert (both.trained, both.moved, both.state) == (once.trained, once.moved, 2 * once.state)
    assert both.flops.linear == 2 * once.flops.linear
    assert both.saved == once.saved


def test_muon_holds_one_moment_of_matrices():
    assert counted("gpt2", optimizer="muon").state < 0.7 * counted("gpt2").state


def test_half_precision_keeps_less():
    whole, bf16, fp16 = (counted("gpt2", precision=precision).saved for precision in ("no", "bf16", "fp16"))
    assert 0.5 * whole.total.linear < bf16.total.linear < 0.8 * whole.total.linear
    assert fp16 == bf16


@pytest.mark.parametrize(
    ("says", "options"),
    [
        ("There is no device 'h10'; did you mean 'h100'", dict(device="h10")),
        ("v100 has no bf16; did you mean 'fp16'", dict(device="v100")),
        ("3 devices cannot share a batch of 64 equally", dict(devices=3)),
        ("at least 1 each", dict(batch=0)),
        ("got nan and 1024", dict(samples=float("nan"))),
        ("got inf and 1024", dict(samples=float("inf"))),
        ("got 1e.06 and 0", dict(chunk=0)),
        ("above 0 and at most 1, such as 0.4; got 40", dict(utilisation=40)),
    ],
)
def test_what_cannot_be_planned(clip, says, options):
    refused(says, plan, clip, **dict(samples=1e6, batch=64, device="h100") | options)


def test_what_cannot_be_counted():
    refused("GPT2 has no stage 'second'", counted, "gpt2", stage="second")
    refused("no precision 'fp8'; choose from no, bf16, fp16", counted, "clip", precision="fp8")
    line, batches = "Unlike cannot be counted: its loss needs the numbers", lambda b: [{"x": torch.zeros(b, 4)}]
    refused(line, count_training, Unlike(4, 1), (OptimizerStep(),), batches)


class Unlike(nn.Linear):
    """Reads rows that differ, of which a batch has as many as its numbers say."""

    def loss(self, batch):
        return {"sum": self(batch["x"].unique(dim=0)).sum()}


# Those whose towers read in chunks. The others have none in their loss, a norm over the batch, or draws.
TOWERS = {"bimodal-autoencoder", "clip", "denoising-autoencoder", "filip", "image-bind", "lit", "siglip", "vse"}


@pytest.mark.parametrize("name", system_files())
def test_every_system_is_counted(name):
    found, recipe = counted(name, text_length=16), find_recipe(name)
    assert found.parameters == sum(x.numel() for x in recipe.make(recipe.for_examples(recipe.tiny())).parameters())
    assert 0 <= found.outside <= found.parameters - found.block
    assert found.flops.linear > found.trained  # each weight is used at least once
    assert found.saved.total.linear > 0
    assert found.flops.constant == pytest.approx(0, abs=0.1 * found.flops.linear)
    assert found.flops.square >= 0
    assert ("in chunks" in memory(found, 8)) == (name in TOWERS)


def test_hidden_words_alone_are_scored():
    """One task of UNITER's three hides words, and asks the vocabulary of an eighth of positions, as its code does."""
    recipe, v, t = find_recipe("uniter"), 4096, 32
    sizes = [replace(recipe.tiny(), vocab_size=size, max_length=t) for size in (v, 2 * v)]
    few, many = (count(recipe, config, text_length=t).flops.linear for config in sizes)
    assert (many - few) / (6 * t * sizes[0].width * v) == pytest.approx(1 / 8 / 3)


def test_every_device_multiplies_faster_in_less_precision():
    for card in DEVICES.values():
        assert max(card.flops.values()) > card.flops["no"] > 1e12


def test_of_several_devices_each_has_the_rows_of_its_samples(clip):
    """Of CLIP's matrix each computes b × B, from both sides, and holds both softmaxes of it."""
    assert clip.flops.rows == 2 * clip.flops.square
    assert clip.saved.total.rows == clip.saved.total.square
    assert 2 * 2 * 512 < clip.saved.total.columns < 2 * (4 + 2) * 512  # embeddings of others, and in half precision
    one, two, eight = (memory(clip, 4096, devices)["plain"]["loss matrix"] for devices in (1, 2, 8))
    assert one == clip.saved.total.square * 4096**2
    assert two == one / 2 + clip.saved.total.columns * 2048
    assert eight == one / 8 + clip.saved.total.columns * 3584


@pytest.mark.parametrize("name", ["siglip", "vatt"])
def test_what_several_devices_take_does_not_depend_on_how_many_are_counted(name, monkeypatch):
    """VATT leaves out rows without a text, and computes the whole matrix everywhere."""
    four = counted(name, text_length=16)
    monkeypatch.setattr(counting, "SEVERAL", 2)
    two = counted.__wrapped__(name, text_length=16)
    assert (two.flops, two.saved.total.rows) == (four.flops, four.saved.total.rows)
    assert (four.flops.rows is None) == (name == "vatt")
    assert not torch.distributed.is_initialized()


def test_pairs_by_hand():
    shared, whole = Polynomial(5, 7, 3, columns=2, rows=4), Polynomial(5, 7, 3, columns=2)
    assert shared.shared(64, 1) == whole.shared(64, 1) == 5 + 7 * 64 + 3 * 64**2
    assert shared.shared(64, 4) == 5 + 7 * 16 + 2 * 48 + 4 * 16 * 64
    assert whole.shared(64, 4) == 5 + 7 * 16 + 2 * 48 + 3 * 64**2


def test_memory_by_hand():
    saved = Saved(Polynomial(8, 30, 2), Polynomial(0, 20, 0), Polynomial(0, 7, 0), Polynomial(0, 3, 0))
    made = Count(100, 70, 60, 480, 10, Polynomial(0, 0, 0), saved, passing=5, sample=1, towers=True)
    made = replace(made, outside=7)
    own = {"weights": 400, "gradients": 240, "optimiser": 480}
    part = {"weights": 100 + 4 * (10 + 7), "gradients": 60, "optimiser": 120}
    matrix = {"loss matrix": 2 * 8**2}
    ways = memory(made, 8, 4, chunk=1)  # of two samples on each device
    assert ways == {
        way: parts | matrix | {"all": sum(parts.values()) + 128}
        for way, parts in {
            "plain": own | {"activations": 68, "in passing": 10},
            "in chunks": own | {"activations": 38, "in passing": 5},
            "recomputed": own | {"activations": 68 - 40 + 6 + 14, "in passing": 10},
            "sharded": part | {"activations": 68, "in passing": 10},
        }.items()
    }
    assert memory(made, 8, 4)["in chunks"] == ways["plain"]  # no chunk is larger than a device's share


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", None),  # slower than the peak that is known
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla T4", "t4"),
        ("NVIDIA L4", None),
        ("NVIDIA T400 4GB", None),
        ("CPU", None),
    ],
)
def test_a_card_is_known_by_its_name(name, card):
    assert card_named(name) == card
