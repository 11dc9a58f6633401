"""BLIP-2 on T5: the encoder reads queries and prompt, and the decoder answers; padding counts for nothing."""

import torch
from testing_tools import close, pairs, seeded, shaken

from mmlearn.recipes.discovery import find_recipe

RECIPE = find_recipe("blip-2-t5")


def small():
    return shaken(RECIPE.make(RECIPE.tiny()), 0.2).eval()


def batch(b=4, t=8):
    given = pairs(b, t)
    return given | {"tokens": given["tokens"].clamp(3)}


def test_a_prompt_is_read_by_the_encoder_and_an_answer_by_the_decoder():
    system, image = small(), batch(1)["image"]
    model, prompt, answer = system.language_model, [7, 8, 9], [20, 21, 2]
    tokens = torch.tensor([[1, *prompt, *answer]])
    response = torch.arange(7)[None] >= 4
    said = system(image, tokens, None, response).token_logits[:, 3:6]  # of the tokens behind 9, 20 and 21
    x = torch.cat([system.prefix(image), model.embedding(torch.tensor([[*prompt, 2]]))], 1)
    expected = model.decode(torch.tensor([[0, 20, 21]]), model.encoder(x))
    close(said, expected)
    loss = torch.nn.functional.cross_entropy(expected[0], torch.tensor(answer))
    close(system.loss(dict(image=image, tokens=tokens, response=response))["lm"], loss)


def test_a_caption_is_written_from_queries_alone():
    system, given = small(), batch()
    image, tokens, mask = (given[name] for name in ("image", "tokens", "mask"))
    other = tokens.clone()
    other[:, 0] = 5  # a T5 begins with padding, whatever a text begins with
    said = system(image, tokens, mask).token_logits
    assert torch.equal(said, system(image, other, mask).token_logits)
    response = mask & (torch.arange(8) > 0)
    assert torch.equal(said[mask], system(image, tokens, mask, response).token_logits[mask])


def test_prompts_are_padded_at_either_side():
    system, image = small(), batch(2)["image"]
    prompt = torch.randint(4, 500, (2, 5), generator=seeded())
    left = torch.tensor([[False, False, True, True, True], [True] * 5])
    written = system.generate(image, prompt=prompt, prompt_mask=left, max_length=12)
    right = torch.cat([prompt[:1, 2:], prompt[:1, :2]], 1), left.flip(1)
    again = system.generate(image, prompt=torch.cat([right[0], prompt[1:]]), prompt_mask=right[1], max_length=12)
    assert torch.equal(written[:, 5:], again[:, 5:])
    alone = system.generate(image[:1], prompt=prompt[:1, 2:], max_length=10)
    assert torch.equal(written[0, 5 : 5 + alone.shape[1] - 3], alone[0, 3:])
    assert not torch.equal(written[0, 5:], written[1, 5:])
