"""What all bridges promise: parts that are frozen stay as they are, and without a picture nothing changes."""

import dataclasses

import pytest
import torch
from testing_tools import Listed, close, pairs, refused, shaken

from mmlearn.generation.cache import start_prompts
from mmlearn.generation.decoding import greedy
from mmlearn.layers import record_attention
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.models import GPT2, OPT, GPT2Config, OPTConfig
from mmlearn.models.bridges.bridge import Bridge, PrefixBridge
from mmlearn.objectives import causal_language_modelling
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training import fit

BRIDGES = [name for name in system_files() if issubclass(find_recipe(name).system, Bridge)]
PREFIXES = [name for name in BRIDGES if issubclass(find_recipe(name).system, PrefixBridge)]
SHOTS = ["flamingo", "frozen"]


def tiny(name, **changes):
    recipe = find_recipe(name)
    return recipe.make(dataclasses.replace(recipe.tiny(), **changes))


def batch(b=8, t=6):
    """Texts in which END of other tests is a word like any other, so they go on."""
    given = pairs(b, t)
    return given | {"tokens": given["tokens"].clamp(3)}


def test_all_are_there():
    assert BRIDGES == ["blip-2", "flamingo", "frozen", "llava", "minigpt-4"]


@pytest.mark.parametrize("language", [GPT2Config, OPTConfig])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("name", PREFIXES)
def test_without_a_prefix_the_language_model_speaks_bit_for_bit(name, positions, language):
    system, given = shaken(tiny(name, prefix_positions=positions, language_model=language.tiny())).eval(), batch()
    assert isinstance(system.language_model, OPT) == (language is OPTConfig)
    nothing = torch.zeros(8, 0, system.language_model.config.width)
    for mask in (None, given["mask"]):
        said = system.logits_after_prefix(nothing, given["tokens"], mask)
        assert torch.equal(said, system.language_model(given["tokens"], mask).token_logits)


def test_with_closed_gates_the_language_model_speaks_bit_for_bit():
    system, given = tiny("flamingo").eval(), batch()
    alone = system.language_model(given["tokens"], given["mask"]).token_logits
    assert torch.equal(system(**given).token_logits, alone)
    system.gated[1].attention_gate.data.fill_(0.1)
    assert not torch.allclose(system(**given).token_logits, alone, atol=1e-4)


def test_what_is_frozen_while_it_trains_drops_nothing_either():
    system = tiny("flamingo").train()
    system.resampler.requires_grad_(False)  # after train(), which looked at what learns
    system.loss(batch())
    assert system.gated.training
    assert not system.resampler.training


def frozen_parts(name, stage):
    """The names of what no turn of a stage moves."""
    system = tiny(name)
    moved = {each for turn in stage.optimizer_steps for each in turn.trained_names(system)}
    parts = {key for key, _ in system.named_children()}
    return {part for part in parts if not any(each.startswith(f"{part}.") for each in moved)}


STAGES = [(name, stage.name) for name in BRIDGES for stage in find_recipe(name).stages]
FIRST = {"query_former", "text", "image_projection", "text_projection", "match_head", "language_head"}
LEARNING = {  # of each stage, the parts that learn
    ("blip-2", "represent"): FIRST,
    ("blip-2", "generate"): {"query_former", "language_projection"},
    ("blip-2", "answer"): {"query_former", "language_projection"},
    ("flamingo", ""): {"resampler", "gated"},
    ("frozen", ""): {"image_encoder", "prefix_projection"},
    ("llava", "align"): {"projector"},
    ("llava", "instruct"): {"projector", "language_model"},
    ("minigpt-4", "pretrain"): {"language_projection"},
    ("minigpt-4", "finetune"): {"language_projection"},
}


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_what_is_frozen_stays_bit_for_bit_and_drops_nothing(name, stage, tmp_path):
    recipe = find_recipe(name)
    stage = recipe.stage(stage)
    config = recipe.tiny()
    noisy = {key: dataclasses.replace(getattr(config, key), dropout=0.5) for key in ("image_encoder", "language_model")}
    torch.manual_seed(0)
    system = recipe.make(dataclasses.replace(config, **noisy))
    frozen = frozen_parts(name, stage)
    assert frozen == {key for key, _ in system.named_children()} - LEARNING[name, stage.name]
    before = {key: value.clone() for key, value in system.state_dict().items()}
    given = next(recipe.examples(config, stage=stage.name))
    seen = []

    def look(step, metrics):
        parts = [part for part in frozen if list(system.get_submodule(part).parameters())]
        seen.append([part for part in parts if getattr(system, part).training])

    settings = dict(steps=3, batch_size=1, warmup=1, optimizer="muon", weight_decay=0.5, progress=False)
    fit(
        system,
        Listed([given] * 100),
        lambda one: one[0],
        optimizer_steps=stage.optimizer_steps,
        on_step=look,
        **settings,
    )
    after = system.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert not [key for key in moved if key.split(".")[0] in frozen]
    assert len(seen) == 3
    assert not any(seen)


@pytest.mark.parametrize("name", BRIDGES)
def test_where_a_response_is_told_it_alone_is_asked(name):
    system, given = shaken(tiny(name)).eval(), batch()
    given["response"] = (torch.arange(6) >= 3) & given["mask"]
    label = given["tokens"].masked_fill(~given["response"], -100)[:, 1:].flatten()
    logits = system(given["image"], given["tokens"], given["mask"]).token_logits[:, :-1].flatten(0, 1)
    close(system.loss(given)["lm"], torch.nn.functional.cross_entropy(logits, label))


def test_frozen_reads_the_class_token_where_there_is_one():
    image = torch.randn(2, 3, 64, 64)
    for token in (True, False):
        system = shaken(tiny("frozen", image_encoder=dataclasses.replace(TINY_IMAGE, class_token=token))).eval()
        states = system.image_encoder(image)
        pooled = states[:, 0] if token else states.mean(1)
        close(system.prefix(image).flatten(1), system.prefix_projection(pooled))


def test_gated_blocks_stand_before_the_first_block_and_each_so_many():
    system, given = shaken(tiny("flamingo", gated_every=2)).eval(), batch()
    model, latents = system.language_model, system.encode_image(given["image"])
    first, second, third = model.transformer.blocks
    x = first(system.gated[0](model.embedding(given["tokens"]), latents), given["mask"], causal=True)
    x = second(x, given["mask"], causal=True)
    x = third(system.gated[1](x, latents), given["mask"], causal=True)
    close(system(**given).token_logits[given["mask"]], model.logits(model.norm(x))[given["mask"]])


@pytest.mark.parametrize("name", BRIDGES)
def test_what_is_written_with_a_cache_is_what_is_written_without(name):
    system, given = shaken(tiny(name), 0.2).eval(), batch()
    prompt, mask = given["tokens"][:, :3], torch.arange(3) >= torch.arange(8)[:, None] % 3
    got = system.generate(given["image"], prompt=prompt, prompt_mask=mask, max_length=9)
    language = system.language_model.config

    def logits(tokens):
        rows = []
        for image, row, real in zip(given["image"], tokens, start_mask):
            real = torch.cat([real, real.new_ones(len(row) - len(real))])
            rows.append(system(image[None], row[real][None]).token_logits[0, -1])
        return torch.stack(rows)

    start, start_mask = start_prompts(language.start_token, prompt, mask)
    ids = dict(end_token=language.end_token, pad_token=language.pad_token)
    with torch.no_grad():
        expected = greedy(logits, start, max_length=10, **ids)
    assert torch.equal(got[:, 3:], expected[:, 4:])
    assert len(got.unique(dim=0)) > 1


def turns(b=3, s=2, t=5):
    """Pictures with texts of unequal length, in turn."""
    given = batch(b * s, t)
    return tuple(given[key].unflatten(0, (b, s)) for key in ("image", "tokens", "mask"))


@pytest.mark.parametrize("name", SHOTS)
def test_one_turn_is_a_pair(name):
    system, given = shaken(tiny(name)).eval(), batch()
    said = system.read_shots(given["image"][:, None], given["tokens"][:, None], given["mask"][:, None])[:, 0]
    close(said[given["mask"]], system(**given).token_logits[given["mask"]])


@pytest.mark.parametrize("name", SHOTS)
def test_padding_between_turns_counts_for_nothing(name):
    system, (image, tokens, mask) = shaken(tiny(name)).eval(), turns()
    said = system.read_shots(image, tokens, mask)
    other = torch.where(mask, tokens, 7)
    assert torch.equal(said[mask], system.read_shots(image, other, mask)[mask])
    wide = [torch.nn.functional.pad(part, (0, 4)) for part in (tokens, mask)]
    close(system.read_shots(image, *wide)[:, :, :5][mask], said[mask])


@pytest.mark.parametrize("name", SHOTS)
def test_a_turn_sees_what_stands_before_it_alone(name):
    """Of earlier pictures Frozen sees the embeddings, and Flamingo what its words made of them."""
    system, (image, tokens, mask) = shaken(tiny(name)).eval(), turns()
    said = system.read_shots(image, tokens, mask)
    later = image.clone()
    later[:, 1] = torch.randn_like(later[:, 1])
    changed = system.read_shots(later, tokens, mask)
    assert torch.equal(changed[:, 0][mask[:, 0]], said[:, 0][mask[:, 0]])
    assert not torch.allclose(changed[:, 1][mask[:, 1]], said[:, 1][mask[:, 1]], atol=1e-4)


@pytest.mark.parametrize("name", SHOTS)
@pytest.mark.parametrize("positions", [False, True])
def test_writing_behind_shots_is_reading_them(name, positions):
    system = shaken(tiny(name, **({"prefix_positions": positions} if name == "frozen" else {})), 0.2).eval()
    (image, tokens, mask), last = turns(), torch.randn(3, 3, 64, 64)
    prompt = tokens[:, 0, 1:3]
    got = system.generate(last, prompt=prompt, shots=(image, tokens, mask), max_length=6)
    language = system.language_model.config

    def logits(written):
        shown = torch.cat([image, last[:, None]], 1)
        long = max(written.shape[1], tokens.shape[2])
        wide = torch.nn.functional.pad(tokens, (0, long - tokens.shape[2]))
        real = torch.nn.functional.pad(mask, (0, long - mask.shape[2]))
        own = torch.nn.functional.pad(written, (0, long - written.shape[1]))[:, None]
        here = (torch.arange(long) < written.shape[1]).expand(3, 1, -1)
        said = system.read_shots(shown, torch.cat([wide, own], 1), torch.cat([real, here], 1))
        return said[:, -1, written.shape[1] - 1]

    start, _ = start_prompts(language.start_token, prompt, None)
    ids = dict(end_token=language.end_token, pad_token=language.pad_token)
    with torch.no_grad():
        expected = greedy(logits, start, max_length=7, **ids)
    assert torch.equal(got, expected[:, 1:])
    without = system.generate(last, prompt=prompt, max_length=6)
    assert not torch.equal(without[:, 2:], got[:, 2:])


@pytest.mark.parametrize("name", PREFIXES)
def test_no_shots_are_as_none(name):
    system, given = shaken(tiny(name, prefix_positions=True), 0.2).eval(), batch(3, 6)
    none = given["image"][:, None][:, :0], given["tokens"][:, None][:, :0], given["mask"][:, None][:, :0]
    got = system.generate(given["image"], prompt=given["tokens"][:, :2], shots=none, max_length=6)
    assert torch.equal(got, system.generate(given["image"], prompt=given["tokens"][:, :2], max_length=6))


def test_flamingo_learns_from_pairs_in_turn():
    system, given = shaken(tiny("flamingo", turns=4)).eval(), batch(8, 6)
    rows = [given[key].unflatten(0, (2, 4)) for key in ("image", "tokens", "mask")]
    said = system.read_shots(*rows).flatten(0, 1)
    label = given["tokens"].masked_fill(~given["mask"], -100)[:, 1:]
    expected = torch.nn.functional.cross_entropy(said[:, :-1].flatten(0, 1), label.flatten())
    close(system.loss(given)["lm"], expected)
    odd = {key: value[:7] for key, value in given.items()}  # seven pairs make no two rows
    close(system.loss(odd)["lm"], causal_language_modelling(system(**odd).token_logits, odd["tokens"], odd["mask"]))


def test_what_words_see_of_patches_goes_by_way_of_the_latents():
    system, (image, tokens, mask) = shaken(tiny("flamingo")).eval(), turns()
    with record_attention(system) as maps:
        system.read_shots(image, tokens, mask)
    seen = system.patch_attention(maps, gate=1)
    (b, s, t), n, patches = tokens.shape, system.config.num_latents, 16
    assert seen.shape == (b, system.config.language_model.num_heads, s * t, s, patches)
    for i, h, q in ((0, 0, 0), (1, 1, t), (2, 0, s * t - 1)):
        for j in range(s):
            expected = torch.zeros(patches)
            for latent in range(n):
                word = maps["gated.1.attention"][i, h, q, j * n + latent]
                expected += word * maps["resampler.blocks.1.attention"][i * s + j, :, latent, :patches].mean(0)
            close(seen[i, h, q, j], expected)
            assert bool(seen[i, h, q, j].any()) == (j == q // t)  # the last picture before a word, and no other
    assert (seen.sum((-1, -2)) < 1).all()


# What people get wrong.


@pytest.mark.parametrize("name", SHOTS)
def test_more_shots_than_the_language_model_has_positions(name):
    system = tiny(name)
    image, tokens, mask = torch.randn(2, 9, 3, 64, 64), torch.full((2, 9, 4), 9), torch.ones(2, 9, 4, dtype=torch.bool)
    refused("need 36 positions, and the language model has 32: give fewer", system.read_shots, image, tokens, mask)
    refused("need 36 positions", system.generate, image[:, 0], shots=(image, tokens, mask))


@pytest.mark.parametrize("name", PREFIXES)
def test_what_does_not_fit_the_language_model(name):
    system, given = tiny(name, prefix_positions=True), batch(2, 30)
    n = system.prefix(given["image"]).shape[1]
    refused(f"^{n} embeddings of a picture and 30 tokens need {n + 30} positions, and the language", system, **given)
    refused(
        "gives embeddings of width 5; the language model reads 64",
        system.logits_after_prefix,
        torch.zeros(2, 3, 5),
        given["tokens"],
    )
    unknown = given["tokens"].clone()
    unknown[0, 0] = 999
    system = tiny(name, prefix_positions=False)
    refused("There is no token 999", system.logits_after_prefix, system.prefix(given["image"]), unknown[:, :9])


@pytest.mark.parametrize("name", BRIDGES)
def test_special_tokens_that_the_language_model_lacks(name):
    config = find_recipe(name).tiny()
    language = dataclasses.replace(config.language_model, end_token=600)
    refused(
        "end_token 600 is none of the 512 tokens",
        find_recipe(name).make,
        dataclasses.replace(config, language_model=language),
    )


def test_an_activation_that_there_is_not():
    refused("Unknown activation 'tanh'; choose from gelu", tiny, "llava", projector_activation="tanh")
    refused("Unknown activation 'tanh'; choose from gelu", tiny, "flamingo", activation="tanh")


def test_the_language_model_is_this_librarys_own():
    assert all(isinstance(tiny(name).language_model, GPT2) for name in BRIDGES)
