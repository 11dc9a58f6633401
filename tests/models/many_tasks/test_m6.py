"""M6: masks decide what a target sees, and experts are kept at work."""

import torch
import torch.nn.functional as F
from testing_tools import close, refused

from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.models import M6, M6Config
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.m6 import DenoisingTarget


def test_a_mask_hides_a_modality_and_a_target_sees_no_later_token():
    torch.manual_seed(0)
    system, batch = M6(M6Config.tiny()), next(iter(find_recipe("m6").examples(M6Config.tiny())))
    image, tokens, target, mask = (batch[name] for name in ("image", "tokens", "target", "mask"))
    image_only, text_only = (torch.tensor([visible]).expand(8, 2) for visible in ([True, False], [False, True]))
    with evaluating(system):
        one = system(image, tokens, target, mask, image_only).token_logits
        assert torch.equal(one, system(image, tokens.flip(0), target, mask, image_only).token_logits)
        two = system(image, tokens, target, mask, text_only).token_logits
        assert torch.equal(two, system(image.flip(0), tokens, target, mask, text_only).token_logits)
        close(two, system(None, tokens, target, mask).token_logits, 1e-5)
        assert not torch.allclose(one, two, atol=1e-2)
        later = target.clone()
        later[:, 3:] = 7
        both = (system(image, tokens, each, mask).token_logits[:, :4] for each in (target, later))
        close(*both, 1e-5)


def test_padding_of_a_target_goes_to_no_expert():
    system, batch = M6(M6Config.tiny()), next(iter(find_recipe("m6").examples(M6Config.tiny())))
    longer = {"target": F.pad(batch["target"], (0, 5), value=7), "target_mask": F.pad(batch["target_mask"], (0, 5))}
    with evaluating(system):
        before, after = system.loss(batch), system.loss(batch | longer)
    for name, loss in before.items():
        close(after[name], loss, 1e-5)


def test_a_caption_is_read_with_gaps_and_written_whole():
    caption = torch.tensor([[1, 10, 11, 12, 13, 14, 15, 2, 0], [1, 20, 21, 22, 2, 0, 0, 0, 0]])
    mask = caption > 0
    batch = {"tokens": caption, "mask": mask, "response": mask & (torch.arange(9) > 0)}
    found = DenoisingTarget()(batch, torch.Generator().manual_seed(0), {}.__getitem__)
    for row, real, text, there in zip(found["target"], found["target_mask"], caption, mask):
        assert row[real].tolist() == text[there][1:].tolist()
    read = found["tokens"][0][found["mask"][0]]
    assert read[0] == Tokenizer.start_token
    assert read[-1] == Tokenizer.end_token
    assert (read == Tokenizer.mask_token).any()
    kept = [token for token in read[1:-1].tolist() if token != Tokenizer.mask_token]
    assert kept == [token for token in caption[0].tolist() if token in kept]


def test_settings_that_cannot_be_are_told():
    tiny = M6Config.PRESETS["tiny"]
    refused("a token goes to 1 to 4 experts", M6, M6Config(**tiny | dict(chosen=5)))
