"""What a plan says is what a training takes: numbers of papers, sums by hand, and memory as it is measured."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from testing_tools import refused
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.data import StackDataset, default_collate
from torch.utils.flop_counter import FlopCounterMode

from mmlearn.models.bridges.vlm import VLMConfig
from mmlearn.recipes import OptimizerStep
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training import fit
from mmlearn.training.counting import Live, count, count_training, grown
from mmlearn.training.measuring import EXACT, example_batch
from mmlearn.training.memory import save_memory
from mmlearn.training.plan import DEVICES, GIB, card_named, plan

PEAK = Path(__file__).parent.parent / "tools" / "peak.py"


@cache
def counted(name, preset="tiny", batch=8, **options):
    recipe = find_recipe(name)
    return count(recipe, recipe.config.preset(preset), batch, **options)


@pytest.fixture(scope="module")
def clip():
    return counted("clip", "ViT-B/16", 4096, devices=8, precision="bf16", chunk=64)


def test_parameters_are_those_of_the_published_models(clip):
    found = counted("gpt2", "small", 4, devices=4, text_length=16)
    assert clip.parameters == clip.trained == 149_620_737
    assert found.parameters == found.trained == 124_439_808
    block, outside = 12 * 768**2 + 13 * 768, (50_257 + 1024 + 2) * 768  # in no block are both tables, and the last norm
    assert found.memory["sharded"]["weights"] == found.parameters + 4 * (block + outside)


def blocks(d, n, depth):
    """Multiplications with additions of a forward pass: 12 d² weights for each token, 2 d for each two of them."""
    return depth * (12 * n * d**2 + 2 * n**2 * d)


def test_operations_of_a_vision_transformer_are_those_counted_by_hand():
    patches, d, classes = 196, 768, 7  # as many as random examples have
    patching, head = patches * (3 * 16 * 16) * d, d * classes
    # Twice for a multiplication and its addition, three times for the backward pass; pictures have no gradient.
    by_hand = 2 * (3 * (blocks(d, patches + 1, 12) + head) + 2 * patching)
    assert counted("vit", "B/16").flops == 8 * by_hand


def test_operations_of_bert_are_those_counted_by_hand():
    t, d, vocabulary = 128, 768, 30_522
    head = t * d**2 + t * d * vocabulary
    assert counted("bert", "base", text_length=t).flops == 8 * 6 * (blocks(d, t, 12) + head)


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


def test_pairs_of_samples_are_counted():
    few, more, most = (counted("clip", batch=b, text_length=16).flops for b in (8, 16, 24))
    width = find_recipe("clip").tiny().embedding_width
    assert (few - 2 * more + most) / 2 / 8**2 == 3 * 2 * width  # the matrix is one product, and its gradient two


def test_memory_is_what_a_process_of_its_own_takes():
    cases = ("vit", 256, 1), ("gpt2", 512, 32), ("clap", 96, 16)
    command = [sys.executable, str(PEAK), *(str(word) for case in cases for word in case)]
    done = subprocess.run(command, env=os.environ | EXACT, capture_output=True, text=True, check=True)
    for (name, b, t), measured in zip(cases, done.stdout.split(), strict=True):
        planned = counted(name, batch=b, text_length=t).memory["plain"]["all"]
        assert planned == pytest.approx(int(measured), rel=0.15), name


def test_batches_grow_in_samples_and_in_tokens():
    recipe = find_recipe("clip")
    batch = grown(next(recipe.examples(recipe.tiny(), 2)), recipe.holds()[0], 5, 9)
    assert {name: tuple(x.shape) for name, x in batch.items()} == {
        "image": (5, 3, 64, 64), "tokens": (5, 9), "mask": (5, 9), "caption_id": (5,),
    }  # fmt: skip


def test_a_plan_by_hand(clip):
    made = plan(clip, samples=1e6, device="a100", utilisation=0.5)
    assert made.steps == 245  # of which the last is not full
    assert made.flops == 8 * clip.flops
    assert made.hours == pytest.approx(245 * clip.flops / 156e12 / 3600)
    assert made.device_hours == pytest.approx(8 * made.hours)
    assert made.samples_per_second == pytest.approx(4096 * 156e12 / clip.flops)
    # A picture of 224 × 224 in float32; 77 tokens and which caption it is as int64, and a mask.
    assert made.bytes_per_second == pytest.approx(made.samples_per_second * (4 * 3 * 224**2 + 8 * 77 + 8 + 77))
    assert made.fits == [way for way, held in made.memory.items() if held["all"] <= 80 * GIB]
    assert "plain" in made.fits
    assert plan(replace(clip, precision="fp16"), samples=1e6, device="t4").fits == ["recomputed", "in chunks"]


def test_each_way_saves_what_it_says(clip):
    plain, chunks, again, parts = (clip.memory[way] for way in ("plain", "in chunks", "recomputed", "sharded"))
    assert all(sum(held.values()) == pytest.approx(2 * held["all"]) for held in clip.memory.values())
    # Of 512 samples each tower reads 64 at a time, and one tower after the other.
    assert plain["activations"] / 16 < chunks["activations"] < plain["activations"] / 8
    assert again["activations"] < plain["activations"] / 4
    assert parts["optimiser"] == plain["optimiser"] / 8
    assert parts["gradients"] == plain["gradients"] / 8
    assert plain["optimiser"] == pytest.approx(2 * plain["weights"], rel=1e-3)  # AdamW's two moments


@pytest.mark.parametrize(("name", "way"), [("gpt2", "plain"), ("gpt2", "recomputed"), ("clip", "in chunks")])
def test_what_is_counted_is_what_a_step_with_numbers_holds(name, way):
    recipe = find_recipe(name)
    config = recipe.tiny()
    batch, system = example_batch(name, config, 16, 32), recipe.make(config).train()
    found = count_training(system, (OptimizerStep(),), [batch], chunk=16).memory[way]["activations"]
    for parameter in system.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in system.parameters()]
    within = save_memory(system, way == "recomputed", 16 if way == "in chunks" else None)
    with within, Live((*system.parameters(), *system.buffers(), *gradients, *batch.values())) as live:
        sum(system.loss(batch).values()).backward()
    assert found == pytest.approx(live.most, rel=0.02)


def test_frozen_parts_need_neither_gradients_nor_an_optimiser():
    found = counted("lit", text_length=16)
    assert found.trained < found.parameters
    assert found.memory["plain"]["gradients"] == 4 * found.trained
    assert found.memory["plain"]["optimiser"] == pytest.approx(8 * found.trained, rel=1e-3)


JOINED = "SigLIP-B/16+SmolLM2-360M"


def joined_by_hand(t, tower=(768, 12, 196), language=(960, 32, 320, 2560, 49_152), k=49):
    """Numbers of the tower, of the projector and of the language model, and operations of a conversation of t tokens.

    Of what is frozen the tower has no backward pass, and the language model one through its activations alone.
    """
    (d, depth, patches), (w, layers, kv, m, vocabulary) = tower, language
    patching, block = 3 * 16 * 16 * d, 12 * d**2
    eyes = patching + d + patches * d + depth * (block + 13 * d) + 2 * d
    first, second = 4 * d * w, w * w
    matrices = layers * (2 * w * w + 2 * w * kv + 3 * w * m)
    words = vocabulary * w + matrices + (2 * layers + 1) * w
    seen = patches * patching + blocks(d, patches, depth)  # forward alone
    projected = k * (2 * first + 3 * second)  # the patches want no gradient
    read = 2 * t * (matrices + vocabulary * w) + 3 * layers * 2 * t**2 * w
    return eyes, first + w + second + w, words, 2 * (seen + projected + read)


@pytest.mark.parametrize("rank", [0, 8])
def test_a_vision_language_model_of_frozen_parts_is_counted_by_hand(rank):
    """The language model's published count is 361.8M; thin matrices beside queries and values of 32 blocks."""
    eyes, projector, words, flops = joined_by_hand(t := 64 + 49)
    assert words == 361_821_120
    thin = 32 * rank * (960 + 960 + 960 + 320)
    config = replace(VLMConfig.preset(JOINED), lora_rank=rank)
    how = dict(text_length=64, precision="bf16", stage="instruct" if rank else "align")
    found = count(find_recipe("vlm"), config, 4, **how)
    assert found.parameters == eyes + projector + words + thin
    assert found.trained == projector + thin
    held = found.memory["plain"]
    assert held["weights"] == 4 * found.parameters
    assert held["gradients"] == 4 * found.trained
    assert 8 * found.trained <= held["optimiser"] < 8 * found.trained + 4 * 200  # and one count of steps for each
    # Of a thin matrix A (rank, d) and B: forward, both gradients, but A of the first block has no other below it.
    more = 2 * 3 * t * thin if rank else 0
    assert found.flops == pytest.approx(4 * (flops + more), rel=1e-3)
    hours = plan(found, samples=4e6, device="h100", utilisation=0.4).hours
    assert hours == pytest.approx(1e6 * found.flops / (0.4 * 989.4e12) / 3600)


def test_packed_rows_cost_what_their_tokens_see():
    """Three conversations of 21 tokens in a row of 64: only what tokens see of others is more, and hidden again."""
    recipe = find_recipe("vlm")
    config = recipe.tiny()
    config = replace(config, language_model=replace(config.language_model, max_length=64))
    alone, rows = (count(recipe, config, 6, text_length=17, pack=pack) for pack in (None, 64))
    assert rows.batch == alone.batch == 6
    w, layers = config.language_model.width, config.language_model.depth
    assert rows.flops - alone.flops == 2 * 3 * layers * 2 * w * (2 * 63**2 - 6 * 21**2)
    refused("A conversation of 21 tokens, with those of its image, does not fit into rows of 20",
            count, recipe, config, 6, text_length=17, pack=20)  # fmt: skip
    clip = find_recipe("clip")
    refused("CLIP reads one text in each row: leave pack out", count, clip, clip.tiny(), 4, pack=64)


def test_what_a_turn_does_not_move_has_no_gradient():
    recipe, whole = find_recipe("gpt2"), counted("gpt2")
    stage = replace(recipe.stages[0], optimizer_steps=(OptimizerStep(trains=("norm",)),))
    part = count(replace(recipe, stages=(stage,)), recipe.tiny(), 8)
    assert (part.parameters, part.trained) == (whole.parameters, 2 * recipe.tiny().width)
    assert part.flops < 0.6 * whole.flops
    assert part.memory["plain"]["activations"] < 0.7 * whole.memory["plain"]["activations"]


@pytest.mark.parametrize(
    ("name", "stage", "t"), [("gan-int-cls", "drawing", 9), ("attn-gan", "drawing", 16), ("vqgan", "", 4)]
)
def test_a_step_of_turns_is_what_is_computed_in_all_of_them(name, stage, t):
    """Texts are packed by their lengths, and here all of them are as long as there are positions."""
    recipe, b, generator = find_recipe(name), 6, torch.Generator().manual_seed(0)
    found, config = counted(name, batch=b, stage=stage, text_length=t), recipe.for_examples(recipe.tiny())
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
    assert found.flops == flops.get_total_flops()
    assert (found.trained, found.memory["plain"]["gradients"]) == (sum(seen.values()), 4 * max(seen.values()))
    assert found.memory["plain"]["optimiser"] == pytest.approx(8 * found.trained, rel=1e-3)  # two moments of each


def test_what_two_turns_move_has_two_optimisers():
    recipe, once = find_recipe("gpt2"), counted("gpt2")
    twice = replace(recipe.stages[0], optimizer_steps=(OptimizerStep(), OptimizerStep(betas=(0.5, 0.9))))
    both = count(replace(recipe, stages=(twice,)), recipe.tiny(), 8)
    assert (both.trained, both.flops) == (once.trained, 2 * once.flops)
    two, one = both.memory["plain"], once.memory["plain"]
    assert two == one | {"optimiser": 2 * one["optimiser"], "all": one["all"] + one["optimiser"]}


def test_muon_holds_one_moment_of_matrices():
    muon, adamw = (counted("gpt2", optimizer=name).memory["plain"]["optimiser"] for name in ("muon", "adamw"))
    assert muon < 0.7 * adamw


def test_half_precision_keeps_less():
    ways = [counted("gpt2", precision=precision).memory["plain"]["activations"] for precision in ("no", "bf16", "fp16")]
    assert 0.5 * ways[0] < ways[1] == ways[2] < 0.9 * ways[0]


@pytest.mark.parametrize(
    ("says", "options"),
    [
        ("There is no device 'h10'; did you mean 'h100'", dict(device="h10")),
        ("v100 has no bf16; did you mean 'fp16'", dict(device="v100")),
        ("got nan", dict(samples=float("nan"))),
        ("got inf", dict(samples=float("inf"))),
        ("above 0 and at most 1, such as 0.4; got 40", dict(utilisation=40)),
    ],
)
def test_what_cannot_be_planned(clip, says, options):
    refused(says, plan, clip, **dict(samples=1e6, device="h100") | options)


@pytest.mark.parametrize(
    ("says", "options"),
    [
        ("3 devices cannot share a batch of 64 equally", dict(batch=64, devices=3)),
        ("at least 1 each", dict(batch=0)),
        ("at least one row, got 0", dict(chunk=0)),
        ("CLIP has no stage 'second'", dict(stage="second")),
        ("no precision 'fp8'; choose from no, bf16, fp16", dict(precision="fp8")),
    ],
)
def test_what_cannot_be_counted(says, options):
    refused(says, counted, "clip", **options)


def test_a_loss_that_needs_numbers_cannot_be_counted():
    batches = [{"x": torch.zeros(8, 4)}]
    refused(
        "Unlike cannot be counted: its loss needs the numbers",
        count_training,
        Unlike(4, 1),
        (OptimizerStep(),),
        batches,
    )


class Unlike(nn.Linear):
    """Reads rows that differ, of which a batch has as many as its numbers say."""

    def loss(self, batch):
        return {"sum": self(batch["x"].unique(dim=0)).sum()}


# Those whose towers read in chunks. The others have none in their loss, a norm over the batch, or draws.
TOWERS = {
    "bimodal-autoencoder", "clip", "denoising-autoencoder", "filip", "flamingo", "image-bind",
    "lit", "memory-network", "siglip", "vlm", "vse", "whisper",
}  # fmt: skip


@pytest.mark.parametrize("name", system_files())
def test_every_system_is_counted(name):
    found, recipe = counted(name, text_length=16, chunk=4), find_recipe(name)
    assert found.parameters == sum(x.numel() for x in recipe.make(recipe.for_examples(recipe.tiny())).parameters())
    assert found.flops > 8 * found.trained  # each weight is used at least once
    plain = found.memory["plain"]
    assert 0 < plain["activations"] < plain["all"] == sum(plain.values()) / 2
    assert found.memory["recomputed"]["activations"] <= plain["activations"]
    assert found.memory["sharded"]["weights"] <= 2 * plain["weights"]
    assert ("in chunks" in found.memory) == (name in TOWERS)


def test_hidden_words_alone_are_scored():
    """One task of UNITER's three hides words, and asks the vocabulary of an eighth of positions, as its code does."""
    recipe, v, t = find_recipe("uniter"), 4096, 32
    sizes = [replace(recipe.tiny(), vocab_size=size, max_length=t) for size in (v, 2 * v)]
    few, many = (count(recipe, config, 8, text_length=t).flops / 8 for config in sizes)
    assert (many - few) / (6 * t * sizes[0].width * v) == pytest.approx(1 / 8 / 3)


def test_every_device_multiplies_faster_in_less_precision():
    for card in DEVICES.values():
        assert max(card.flops.values()) > card.flops["no"] > 1e12


@pytest.mark.parametrize("name", ["siglip", "vatt"])
def test_of_several_devices_each_has_the_rows_of_its_samples(name):
    """A matrix has b rows and B columns. VATT leaves out rows without a text, and computes all B rows everywhere."""
    one, few, many = (counted(name, batch=8 * devices, devices=devices, text_length=16).flops for devices in (1, 2, 4))
    columns = (many - few) / (few - one)
    assert columns == pytest.approx(2, rel=1e-6) if name == "siglip" else columns > 3
    assert not torch.distributed.is_initialized()


def test_processes_count_what_the_planner_counts_from_without():
    recipe, each = find_recipe("clip"), counted("clip", batch=32, devices=4, text_length=16)
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    try:
        within = count(recipe, recipe.tiny(), 32, devices=4, text_length=16)
    finally:
        dist.destroy_process_group()
    assert within == each


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
