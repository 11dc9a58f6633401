"""Systems that answer with tokens of one vocabulary: what each kind of answer may be, and what is refused."""

import dataclasses

import pytest
import torch
from testing_tools import close, refused

from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.models.many_tasks.unified_vocabulary import UnifiedVocabulary
from mmlearn.recipes.discovery import find_recipe, system_files

NAMES = [name for name in system_files() if issubclass(find_recipe(name).system, UnifiedVocabulary)]
PIXELS = [name for name in NAMES if "image" in find_recipe(name).holds()[0]]


def system_of(name):
    torch.manual_seed(0)
    recipe = find_recipe(name)
    return recipe.make(dataclasses.replace(recipe.tiny(), vocab_size=300)), recipe


def inputs_of(recipe, system):
    batch = next(iter(recipe.examples(system.config)))
    return {
        name: batch[name] for name in ("image", "regions", "boxes", "region_mask", "tokens", "mask") if name in batch
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_kind_of_answer_is_of_its_tokens(name):
    system, recipe = system_of(name)
    inputs = inputs_of(recipe, system)
    with evaluating(system):
        words = system.write(max_length=7, **inputs)
        assert words.shape[1] <= 7
        assert (words < system.config.vocab_size).all()
        box = system.locate(**inputs)
        assert box.shape == (8, 4)
        assert ((box >= 0) & (box <= 1)).all()


@pytest.mark.parametrize("name", PIXELS)
def test_codes_and_texts_without_a_image(name):
    system, recipe = system_of(name)
    inputs = inputs_of(recipe, system)
    with evaluating(system):
        codes = system.draw(5, **inputs)
        assert codes.shape == (8, 5)
        assert ((codes >= 0) & (codes < system.config.codes)).all()
        alone = system.encode(None, inputs["tokens"], inputs["mask"])
        assert all(x.isfinite().all() for x in alone)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_what_the_whole_target_would_give(name):
    """The cache keeps what it should: each token is the likeliest behind those before it."""
    system, recipe = system_of(name)
    inputs = inputs_of(recipe, system)
    positions = system.config.location_tokens
    with evaluating(system):
        written = system.write(allowed=positions, count=4, **inputs)
        logits = system(**inputs, target=written).token_logits[..., positions.start : positions.stop]
        close((logits.argmax(-1) + positions.start).float(), written.float())


@pytest.mark.parametrize("name", PIXELS)
def test_bad_inputs_are_told(name):
    system, recipe = system_of(name)
    inputs = inputs_of(recipe, system)
    wrong = inputs["tokens"].clone()
    wrong[1, 1] = system.config.all_tokens
    refused(f"There is no token {system.config.all_tokens}", system.encode, **inputs | {"tokens": wrong})
    small = torch.randn(8, 3, 16, 16)
    refused("got .16, 16.", system.encode, **inputs | {"image": small})
    long = torch.ones(8, 65, dtype=torch.long)
    refused("65 tokens are more than the 64 of a target", system, **inputs, target=long)
