"""Fusion before transformers: each system against its equation, and what it can and cannot tell."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, pairs, refused, seeded, shaken
from torch import nn

from mmlearn.data import fetch
from mmlearn.data.synthetic.cues import Cues
from mmlearn.models.classic_fusion.bimodal_autoencoder import BimodalAutoencoder, BimodalAutoencoderConfig
from mmlearn.models.classic_fusion.denoising_autoencoder import DenoisingAutoencoder, DenoisingAutoencoderConfig
from mmlearn.models.classic_fusion.early_fusion import EarlyFusion, EarlyFusionConfig
from mmlearn.models.classic_fusion.gmu import GMU, GMUConfig
from mmlearn.models.classic_fusion.late_fusion import LateFusion, LateFusionConfig
from mmlearn.models.classic_fusion.lmf import LMF, LMFConfig, low_rank_product
from mmlearn.models.classic_fusion.safe import SAFE, SAFEConfig, TextCNN
from mmlearn.models.classic_fusion.tfn import TFN, TFNConfig, outer_product
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.shared.cues import reconstruction_error
from mmlearn.training.runs import new_run

THREE = dict(modalities=3, features=5, width=4, num_classes=3)
CLASSIFIERS = {
    EarlyFusion: EarlyFusionConfig(**THREE),
    LateFusion: LateFusionConfig(**THREE),
    GMU: GMUConfig(**THREE),
    TFN: TFNConfig(**THREE),
    LMF: LMFConfig(**THREE),
}
AUTOENCODERS = {
    BimodalAutoencoder: BimodalAutoencoderConfig(modalities=3, features=5, width=4, shared_width=3),
    DenoisingAutoencoder: DenoisingAutoencoderConfig(modalities=3, features=5, width=4),
}
EVERY = CLASSIFIERS | AUTOENCODERS


def inputs(b=6, m=3, features=5, seed=0):
    generator = seeded(seed)
    mask = torch.arange(m) != torch.arange(b)[:, None] % (m + 1)  # every row but some lacks one
    return torch.randn(b, m, features, generator=generator), mask


def layer(linear, x):
    bias = 0 if linear.bias is None else linear.bias
    return linear.weight @ x + bias


def classify(network, x):
    first, _, last = network
    return layer(last, layer(first, x).clamp(min=0))


def expected_logits(model, x, there):
    """One row, worked out number by number from the papers' equations."""
    x = [row if real else torch.zeros_like(row) for row, real in zip(x, there)]
    name = type(model).__name__
    if name == "EarlyFusion":
        return classify(model.classifier, torch.cat(x))
    if name == "LateFusion":
        votes = [classify(vote, row) for vote, row, real in zip(model.classifiers, x, there) if real]
        return sum(votes) / len(votes)
    if name == "GMU":
        h = [torch.tanh(project.weight @ row) for project, row in zip(model.projections, x)]
        z = torch.sigmoid(model.gate.weight @ torch.cat(x))
        gates = [z, 1 - z] if len(x) == 2 else z.split(len(h[0]))
        return classify(model.classifier, sum(gate * one for gate, one in zip(gates, h)))
    h = [
        torch.cat([layer(encode[0], row).clamp(min=0) * real, torch.ones(1)])
        for encode, row, real in zip(model.encoders, x, there)
    ]
    product = h[0]
    for one in h[1:]:
        product = torch.outer(product, one).flatten()
    if name == "TFN":
        return classify(model.classifier, product)
    logits = model.bias.clone()
    for r in range(model.config.rank):
        for c in range(model.config.num_classes):
            weight = model.factors[0, r, :, c]
            for factor in model.factors[1:, r, :, c]:
                weight = torch.outer(weight, factor).flatten()
            logits[c] = logits[c] + weight @ product
    return logits


@pytest.mark.parametrize("system", CLASSIFIERS, ids=lambda system: system.__name__)
@pytest.mark.parametrize("m", [1, 2, 3])
def test_logits_are_those_of_the_equations_row_by_row(system, m):
    model = shaken(system(dataclasses.replace(CLASSIFIERS[system], modalities=m)), 0.3).eval()
    cues, mask = inputs(m=m) if m > 1 else (torch.randn(6, 1, 5), torch.ones(6, 1, dtype=torch.bool))
    for got, x, there in zip(model(cues, mask).logits, cues, mask):
        close(got, expected_logits(model, x, there))


@pytest.mark.parametrize("system", EVERY, ids=lambda system: system.__name__)
def test_what_a_missing_modality_holds_changes_nothing(system):
    model, (cues, mask) = shaken(system(EVERY[system])).eval(), inputs()
    other = cues.masked_fill(~mask[..., None], torch.nan)
    batch = {"cue_mask": mask, "label": torch.arange(6) % 3}
    for one, two in zip(model(cues, mask), model(other, mask)):
        assert torch.equal(one, two)
    for one, two in zip(model.loss(batch | {"cues": cues}).values(), model.loss(batch | {"cues": other}).values()):
        assert torch.equal(one, two)
    assert not torch.equal(model(cues, mask)[-1], model(cues)[-1])


def test_the_product_of_two_vectors_by_hand():
    got = outer_product(torch.tensor([[[2.0, 3.0], [5.0, 7.0]]]))
    assert got.tolist() == [[10, 14, 2, 15, 21, 3, 5, 7, 1]]


def test_low_rank_is_a_linear_layer_on_the_product():
    x, factors = torch.randn(4, 3, 2, generator=seeded()), torch.randn(3, 5, 3, 2, generator=seeded(1))
    whole = torch.einsum("rio,rjo,rko->oijk", *factors).flatten(1)
    close(low_rank_product(x, factors), outer_product(x) @ whole.T)


def test_gates_of_two_modalities_add_up_to_1():
    cues, _ = inputs(m=2)
    gates = shaken(GMU(dataclasses.replace(CLASSIFIERS[GMU], modalities=2)))(cues).gates
    close(gates.sum(1), torch.ones(6, 4))


def test_late_fusion_is_a_sum_of_functions_of_one_modality():
    """So that the difference which one makes is the same whatever the other says; in early fusion it is not."""
    a, b, c, d = torch.randn(4, 5, generator=seeded()).unbind()
    table = torch.stack([torch.stack(pair) for pair in ((a, c), (a, d), (b, c), (b, d))])
    for system, additive in ((LateFusion, True), (EarlyFusion, False), (GMU, False), (TFN, False), (LMF, False)):
        torch.manual_seed(0)
        model = shaken(system(dataclasses.replace(CLASSIFIERS[system], modalities=2)), 0.3)
        one, two, three, four = model(table).logits
        assert torch.allclose(one - two, three - four, atol=1e-5) == additive, system


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("early-fusion", 0.9, 1), ("gmu", 0.9, 1), ("tfn", 0.9, 1), ("lmf", 0.9, 1), ("late-fusion", 0.4, 0.6)],
)
def test_who_can_tell_whether_two_bits_differ(name, least, most):
    samples = {split: fetch(Cues(split, kind="xor", strength=4.0), range(1500)) for split in ("train", "test")}
    data = {
        split: (torch.stack([one.cues for one in part]), torch.tensor([one.label for one in part]))
        for split, part in samples.items()
    }
    model = find_recipe(name).make(find_recipe(name).config.tiny())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(data["train"][0]).logits, data["train"][1]).backward()
        optimizer.step()
    right = (model(data["test"][0]).logits.argmax(1) == data["test"][1]).float().mean()
    assert least <= right <= most


def test_the_bimodal_autoencoder_restores_what_training_hid():
    config = BimodalAutoencoderConfig(features=5, width=4, shared_width=3, modality_dropout=1.0)
    model, (cues, _) = BimodalAutoencoder(config), inputs(b=400, m=2)
    assert (model.read(cues, None)[1].sum(1) == 1).all()
    assert model.eval().read(cues, None)[1].all()
    for mask in (torch.tensor([True, False]), torch.tensor([True, True])):
        encoded = [layer(encode[0], x).clamp(min=0) * there for encode, x, there in zip(model.encoders, cues[0], mask)]
        shared = layer(model.to_shared, torch.cat(encoded))
        output = model(cues[:1], mask[None])
        close(output.hidden[0], shared)
        for back, decode in zip(output.reconstruction[0], model.decoders):
            close(back, classify(decode, shared))
    hidden = torch.tensor([True, False]).expand(400, 2)
    model.read = lambda cues, mask: (cues * hidden[..., None], hidden)  # as if training hid the second
    back = model(cues).reconstruction
    close(model.loss({"cues": cues})["reconstruction"], (back - cues).square().mean())


def test_the_denoising_autoencoder_against_its_equation():
    model, (cues, mask) = shaken(DenoisingAutoencoder(AUTOENCODERS[DenoisingAutoencoder])).eval(), inputs()
    for row in range(6):
        x = (cues[row] * mask[row, :, None]).flatten()
        hidden = torch.sigmoid(layer(model.encoder, x))
        output = model(cues, mask)
        close(output.hidden[row], hidden)
        close(output.reconstruction[row].flatten(), model.encoder.weight.T @ hidden + model.bias)
    model.train()
    seen = []
    model.encoder.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    loss = model.loss({"cues": cues})["reconstruction"]
    assert ((seen[0] == 0).sum(1) == round(0.25 * 15)).all()
    back = model.encoder.weight.T @ torch.sigmoid(F.linear(seen[0], model.encoder.weight, model.encoder.bias)).T
    close(loss, (back.T + model.bias - cues.flatten(1)).square().mean())


def test_what_is_restored_is_measured_against_the_mean():
    run = new_run("bimodal-autoencoder", Cues("train", length=100))
    samples = fetch(Cues("test", missing=0.5), range(60))
    rows = reconstruction_error(run, samples)
    whole = torch.stack([sample.cues for sample in samples if sample.cue_mask.all()])
    seen = torch.tensor([True, False]).expand(len(whole), 2)
    back = run.system.eval()(whole, seen).reconstruction
    found = rows["error of modality 1 from 0"]
    assert found["obtained"] == pytest.approx((back - whole)[:, 1].square().mean().item(), rel=1e-4)
    assert found["chance"] == pytest.approx(whole[:, 1].var(0, unbiased=False).mean().item(), rel=1e-4)
    assert reconstruction_error(run, [sample for sample in samples if not sample.cue_mask.all()]) == {}


@pytest.mark.parametrize("system", EVERY, ids=lambda system: system.__name__)
def test_cues_of_another_shape_are_told(system, unchecked):
    model, (cues, mask) = system(EVERY[system]), inputs()
    refused("Cues are 3 vectors of 5 numbers", model, cues[:, :2])
    refused("Cues are 3 vectors of 5 numbers", model, cues[..., :4])
    refused("Cues are 3 vectors of 5 numbers", model, cues, mask[:, :2])


# SAFE.


def test_text_cnn_against_a_loop_over_windows():
    model, generator = shaken(TextCNN(6, 5, (2, 3), 4)), seeded()
    x, mask = torch.randn(3, 7, 6, generator=generator), torch.arange(7) < torch.tensor([[7], [2], [0]])
    for row, real, got in zip(x, mask, model(x.masked_fill(~mask[..., None], torch.nan), mask)):
        words, found = [*row[real], *torch.zeros(3, 6)], []
        for window in model.windows:
            size = window.kernel_size[0]
            responses = [torch.zeros(5)]
            for i in range(int(real.sum())):
                seen = torch.stack(words[i : i + size])
                responses.append(torch.einsum("nkh,hk->n", window.weight, seen) + window.bias)
            found.append(torch.stack(responses).amax(0))
        close(got, layer(model.output, torch.cat(found)))


def labelled(b=8):
    return pairs(b) | {"match_label": torch.arange(b) % 2}


def test_safe_against_its_equations():
    model, batch = (
        shaken(SAFE(dataclasses.replace(SAFEConfig.tiny(), prediction_weight=2.0, similarity_weight=3.0))),
        labelled(),
    )
    text, image = model.embed_text(batch["tokens"], batch["mask"]), model.embed_image(batch["image"])
    positions = model.image_encoder(batch["image"]).clamp(min=0).flatten(2).amax(2)
    close(image, F.linear(positions, model.image_output.weight, model.image_output.bias))
    output = model(batch["image"], batch["tokens"], batch["mask"])
    close(output.match_logits, F.linear(torch.cat([text, image], 1), model.match_head.weight, model.match_head.bias))
    close(output.similarity, (1 + nn.CosineSimilarity()(text, image)) / 2)
    losses, true = model.loss(batch), batch["match_label"].float()
    close(losses["prediction"], 2 * F.cross_entropy(output.match_logits, batch["match_label"]))
    similar = output.similarity
    close(losses["similarity"], -3 * (true * similar.log() + (1 - true) * (1 - similar).log()).mean())


def test_safe_starts_at_what_guessing_costs():
    losses = [SAFE(SAFEConfig.tiny()).loss(labelled())["prediction"].item() for _ in range(5)]
    assert sum(losses) / 5 == pytest.approx(math.log(2), abs=0.05)


def test_images_that_are_none_are_told(unchecked):
    model, batch = SAFE(SAFEConfig.tiny()), labelled()
    refused("smaller than one 8-pixel patch", model, batch["image"][..., :4], batch["tokens"])
    refused("Pictures are float", model, batch["image"][:, :1], batch["tokens"])
