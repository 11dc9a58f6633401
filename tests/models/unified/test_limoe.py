"""LIMoE: each token is computed by the experts that it chose, and by no others."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from testing_tools import close

from mmlearn.layers import TransformerBlock
from mmlearn.models.unified.limoe import LIMoE, LIMoEConfig
from mmlearn.models.unified.sparse import Routing, SparseBlock, SparseMLP
from mmlearn.objectives import info_nce
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.limoe import expert_usage

CONFIG = LIMoEConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return LIMoE(dataclasses.replace(CONFIG, **changes)).eval()


def batch():
    return next(find_recipe("limoe").examples(CONFIG))


@pytest.mark.parametrize("chosen", [1, 2, 4])
def test_a_token_is_the_weighted_sum_of_the_experts_that_it_chose(chosen):
    torch.manual_seed(0)
    layer, x = SparseMLP(dataclasses.replace(CONFIG, chosen=chosen)), torch.randn(2, 5, 64)
    y, routing = layer(x)
    every = torch.stack([expert(x.flatten(0, 1)) for expert in layer.experts], 1)  # (n, e, d)
    kept = routing.probability.argsort(-1, descending=True).argsort(-1) < chosen
    close(y.flatten(0, 1), ((routing.probability * kept)[..., None] * every).sum(1))


def test_experts_compute_their_own_tokens_alone():
    torch.manual_seed(0)
    layer, x, seen = SparseMLP(CONFIG), torch.randn(3, 7, 64), []
    for expert in layer.experts:
        expert.register_forward_hook(lambda part, inputs, output: seen.append(len(output)))
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    y, _ = layer(x, mask)
    assert sum(seen) == 7 + 4 + 2
    assert len(seen) == 4
    assert (y[~mask] == 0).all()


def test_a_single_expert_is_a_plain_block():
    model = system(experts=1, image_experts=1.0, text_experts=1.0)
    sparse = model.blocks[1]
    plain = TransformerBlock(CONFIG).eval()
    plain.load_state_dict(
        {name.replace("mlp.experts.0.", "mlp."): x for name, x in sparse.state_dict().items() if "router" not in name}
    )
    x = torch.randn(2, 5, 64)
    close(sparse(x)[0], plain(x))


def test_every_second_block_is_sparse_and_the_last_one_is():
    kinds = [isinstance(block, SparseBlock) for block in system(depth=5).blocks]
    assert kinds == [True, False, True, False, True]
    assert all(isinstance(block, SparseBlock) for block in system(sparse_every=1).blocks)


def test_losses_of_routing_have_their_weight_and_teach_the_router():
    model, given = system(), batch()
    losses = model.loss(given)
    assert list(losses) == ["itc", "balance", "z", "local", "global"]
    double = system(auxiliary_weight=0.08).loss(given)
    for name in ("balance", "z", "local"):
        close(double[name], 2 * losses[name])
    router = model.blocks[1].mlp.router.weight
    for name in ("itc", "balance", "z", "local"):
        (gradient,) = torch.autograd.grad(losses[name], router, retain_graph=True)
        assert gradient.abs().max() > 0, name


def test_forward_says_where_patches_and_words_went():
    model, given = system(), batch()
    output = model(given["image"], given["tokens"], given["mask"])
    seen, words = model.read_image(given["image"])[1], model.read_text(given["tokens"], given["mask"])[1]
    for found, expected in ((output.patch_routing, seen), (output.word_routing, words)):
        assert [len(routing.real) for routing in found] == [len(routing.real) for routing in expected]
        close(found[0].probability, expected[0].probability)
    losses, plain = model.loss(given), model.routing_losses(seen, words)
    for name, loss in plain.items():
        close(losses[name], CONFIG.auxiliary_weight * loss)


def routed(choice, logits=0.0):
    """Each token goes to its expert for sure, and the router's logits are all the same."""
    sure = torch.nn.functional.one_hot(torch.tensor(choice), 4).float()
    return Routing(torch.full_like(sure, logits), sure, torch.ones(len(sure), dtype=torch.bool))


def test_which_modality_each_loss_of_routing_is_of():
    """Patches use all four experts, as they should; words use one, and should use two."""
    patches, words = routed([0, 1, 2, 3] * 2), routed([0] * 8, 1.0)
    found = system().routing_losses([patches], [words])
    close(found["balance"], torch.tensor(4 * (10**2 + 3 * 2**2) / 16**2))
    close(found["z"], torch.tensor((math.log(4) ** 2 + (1 + math.log(4)) ** 2) / 2))
    close(found["global"], torch.tensor(math.log(2)))
    close(system().routing_losses([words], [patches])["global"], torch.tensor(math.log(4)))
    unsure = patches._replace(probability=torch.full((8, 4), 0.25))
    close(system().routing_losses([unsure], [words])["local"], torch.tensor(0.0))
    close(system().routing_losses([words], [unsure])["local"], torch.tensor(math.log(4)))
    both = system().routing_losses([patches, unsure], [words, words])  # the mean over blocks
    close(both["global"], found["global"])


def test_equal_captions_are_all_right_and_padding_is_not_read():
    model, given = system(), batch()
    caption_id = torch.arange(8) // 2
    image, text = model.encode_image(given["image"]), model.encode_text(given["tokens"], given["mask"])
    expected = info_nce(image, text, model.logit_scale.exp(), caption_id[:, None] == caption_id)
    close(model.loss(given | {"caption_id": caption_id})["itc"], expected)
    shortest = int(given["mask"].sum(1).argmin())
    length = int(given["mask"][shortest].sum())
    assert length < given["mask"].shape[1]
    close(model.encode_text(given["tokens"][shortest, None, :length]), text[shortest, None])


def test_the_temperature_stays_in_bounds():
    model = system()
    model.logit_scale.data.fill_(9.0)
    model.after_step()
    assert model.logit_scale.item() == pytest.approx(4.6052)


def test_how_many_experts_each_modality_uses():
    """Pictures use 0 and 1 alike, texts 1 to 3: expert 1 gets 60 % of what it gets from pictures, and is nobody's."""
    patches, words = routed([0, 1] * 6), routed([1, 2, 3] * 4)
    read = dict(read_image=lambda image: (None, [words, patches]), read_text=lambda *text: (None, [words]))
    run = SimpleNamespace(system=SimpleNamespace(config=CONFIG, **read))
    run.batches = lambda samples: [dict(image=None, tokens=None, mask=None)] * 2
    values = [row["obtained"] for row in expert_usage(run, []).values()]
    assert values == pytest.approx([2.0, 0.5, 3.0, 2 / 3])


def test_what_is_missing_or_wrong_is_told_in_one_line():
    model, given = system(), batch()
    with pytest.raises(ValueError, match=r"^LIMoE compares pictures with texts, and this batch has no image\.$"):
        model.loss({name: value for name, value in given.items() if name != "image"})
    with pytest.raises(ValueError, match="a token goes to 1 to 4 experts; got"):
        system(chosen=5)
    with pytest.raises(ValueError, match="can use 1 to 4 experts, not 9"):
        system(text_experts=9.0).loss(given)
