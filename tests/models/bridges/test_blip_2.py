"""The first stage of BLIP-2 against its parts: contrast, matching with wrong pairs that look right, and writing."""

import dataclasses

import torch
import torch.nn.functional as F
from testing_tools import close, pairs, shaken

from mmlearn.objectives.bridging import query_text_similarity
from mmlearn.recipes.discovery import find_recipe

RECIPE = find_recipe("blip-2")


def small():
    language = dict(language_model=dataclasses.replace(RECIPE.tiny().language_model, depth=1))
    return shaken(RECIPE.make(dataclasses.replace(RECIPE.tiny(), **language)), 0.2).eval()


def test_the_losses_are_those_of_what_the_model_says():
    system, given = small(), pairs(4, 6)
    given["caption_id"] = torch.tensor([0, 1, 0, 2])
    losses = system.representation_loss(given)
    scale = 1 / system.temperature.item()
    system.temperature.data.fill_(1e-7)  # so that the most similar wrong pair is drawn
    matching = system.representation_loss(given)["itm"]
    image, tokens, mask, caption = (given[name] for name in ("image", "tokens", "mask", "caption_id"))
    said = system(image, tokens, mask)
    logits = scale * query_text_similarity(said.query_embedding, said.text_embedding)
    fits = (caption[:, None] == caption).float()
    target = 0.9 * fits / fits.sum(1, keepdim=True) + 0.1 / 4
    close(losses["itc"], sum(F.cross_entropy(each, target) for each in (logits, logits.T)) / 2)
    hard = logits.masked_fill(fits.bool(), -torch.inf)
    text, wrong_image = hard.argmax(1), hard.argmax(0)
    assert not torch.equal(text, wrong_image)  # so that to mix them up would be seen
    shown, read = torch.cat([image, image, image[wrong_image]]), torch.cat([tokens, tokens[text], tokens])
    matched = system.match(shown, read, torch.cat([mask, mask[text], mask]))
    close(matching, F.cross_entropy(matched, (torch.arange(12) < 4).long()))
    label = tokens.masked_fill(~mask, -100)[:, 1:].flatten()
    close(losses["itg"], F.cross_entropy(said.caption_logits[:, :-1].flatten(0, 1), label, label_smoothing=0.1))


def test_what_is_written_depends_on_the_image_and_on_earlier_words_alone():
    system, given = small(), pairs(4, 6)
    image, tokens, mask = (given[name] for name in ("image", "tokens", "mask"))
    written = system(image, tokens, mask).caption_logits
    first, later = tokens.clone(), tokens.clone()
    first[:, 0], later[:, 4:] = 7, 9  # what stands first gives way to [Decode]
    assert torch.equal(system(image, first, mask).caption_logits, written)
    close(system(image, later, mask).caption_logits[:, :4], written[:, :4])
    assert not torch.allclose(system(image.flip(0), tokens, mask).caption_logits[:, 0], written[:, 0], atol=1e-3)


def test_each_side_alone_says_what_both_say_and_the_order_of_queries_does_not_count():
    system, given = small(), pairs(4, 6)
    image, tokens, mask = (given[name] for name in ("image", "tokens", "mask"))
    said = system(image, tokens, mask)
    close(system.encode_image(image), said.query_embedding)
    close(system.encode_text(tokens, mask), said.text_embedding)
    system.query_former.queries.data = system.query_former.queries.data.flip(0)
    close(system.encode_image(image), said.query_embedding.flip(1))
    close(system.match(image, tokens, mask), said.match_logits)


def test_the_temperature_stays_within_bounds():
    system = small()
    for wrong, kept in ((0.9, 0.5), (1e-5, 0.001), (0.2, 0.2)):
        system.temperature.data.fill_(wrong)
        system.after_step()
        close(system.temperature, torch.tensor(kept))
