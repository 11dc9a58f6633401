"""VQ-VAE, discrete VAE, VQGAN: gradients, codes that come back, noise, turns, and what does not fit."""

import dataclasses
import re
import warnings

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.layers.gumbel import gumbel_noise
from mmlearn.models.image_tokens.discrete_vae import DiscreteVAE, DiscreteVAEConfig
from mmlearn.models.image_tokens.vq_vae import VQVAE, VQVAEConfig
from mmlearn.models.image_tokens.vqgan import VQGAN, VQGANConfig
from mmlearn.objectives import code_perplexity
from mmlearn.recipes.shared.image_codes import Pixels, reconstruction
from mmlearn.recipes.vqgan import RECIPE, fooling_rate
from mmlearn.training import fit

SMALL = dict(image_size=16, width=16, residual_depth=1, num_codes=12, code_width=8)
BUILD = {
    VQVAE: VQVAEConfig(**SMALL),
    DiscreteVAE: DiscreteVAEConfig(**SMALL, temperature_steps=10, kl_steps=10),
    VQGAN: VQGANConfig(**SMALL, discriminator_width=8, discriminator_halvings=1, adversarial_start=0),
}


def images(b=4, config=BUILD[VQVAE], seed=0):
    return Pixels().example(b, config, seeded(seed))["image"]


def made(system):
    torch.manual_seed(0)
    return system(BUILD[system])


@pytest.mark.parametrize("system", BUILD)
def test_images_are_those_of_their_codes(system):
    model, image = made(system).eval(), images()
    codes = model.encode(image)
    assert codes.shape == (4, 16)
    close(model.decode(codes), model(image).image)
    assert model.decode(codes).abs().max() <= 1 or system is not DiscreteVAE


@pytest.mark.parametrize("system", BUILD)
def test_what_does_not_fit_is_told(system):
    model = made(system)
    refused("There is no code 12: this codebook has 12", model.decode, torch.full((1, 16), 12))
    refused("There is no code -1", model.decode, torch.full((1, 16), -1))
    refused("An image has 16 codes", model.decode, torch.zeros(1, 15, dtype=torch.long))
    refused("resize them, or set image_size", model.encode, torch.zeros(1, 3, 20, 20))
    refused("not cut evenly", system, dataclasses.replace(BUILD[system], image_size=18))


@torch.no_grad()
def test_codes_stand_row_by_row():
    """What changes in the upper right corner is code 3 of 4 × 4, and not code 12, and the other way round."""
    model, image = made(VQVAE).eval(), images(1)
    other = image.clone()
    other[..., 0, -1] += 1
    moved = (model.encoder(other) != model.encoder(image)).any(-1)[0]
    assert moved[3]
    assert not moved[12]
    codes = model.encode(image)
    changed = codes.clone()
    changed[0, 3] = (codes[0, 3] + 1) % 12
    painted = (model.decode(changed) != model.decode(codes)).any(1)[0]
    assert painted[0, -1]
    assert not painted[-1, 0]


def test_the_encoder_gets_the_gradient_of_what_it_chose():
    """As if nothing had been chosen; and entries of a codebook with gradients learn by their own loss alone."""
    model = VQVAE(dataclasses.replace(BUILD[VQVAE], decay=0.0))
    output = model(images())
    entries = output.entries.detach().requires_grad_()
    painted = model.decoder(entries).square().mean()
    of_entries, *of_decoder = torch.autograd.grad(painted, [entries, *model.decoder.parameters()])
    of_z, *also = torch.autograd.grad(output.image.square().mean(), [output.z, *model.decoder.parameters()])
    for one, two in zip([of_z, *also], [of_entries, *of_decoder]):
        close(one, two)
    losses = model.loss({"image": images()})
    assert losses.keys() == {"pixels", "commitment", "codebook"}
    assert torch.autograd.grad(losses["pixels"], model.codebook.entries, allow_unused=True)[0] is None
    assert torch.autograd.grad(losses["codebook"], model.codebook.entries)[0].any()


def test_losses_are_those_of_their_equations():
    """Of each number, how far it is off; commitment by its weight; scores above 1 for real, below -1 for painted."""
    model, image = VQGAN(dataclasses.replace(BUILD[VQGAN], beta=0.6)), images()
    losses, output = model.loss({"image": image}), model(image)
    close(losses["pixels"], (output.image - image).square().mean())
    close(losses["commitment"], 0.6 * (output.z - model.codebook.entries[output.codes]).square().mean())
    close(losses["adversarial"].sign(), -model.discriminator(output.image).mean().sign())
    real, painted = model.discriminator(image), model.discriminator(output.image)
    expected = ((1 - real).clamp(min=0).mean() + (1 + painted).clamp(min=0).mean()) / 2
    close(model.discriminator_loss({"image": image})["discriminator"], expected)


def test_the_codebook_moves_after_a_step_and_only_in_training():
    model, image = made(VQVAE), images()
    before = model.codebook.entries.clone()
    model.eval().loss({"image": image})
    model.after_step()
    assert torch.equal(model.codebook.entries, before)
    model.train().loss({"image": image})
    assert torch.equal(model.codebook.entries, before)
    model.after_step()
    assert not torch.equal(model.codebook.entries, before)
    assert model.steps == 2


@pytest.mark.parametrize(("decay", "restart_threshold"), [(0.95, 0.1), (0.0, 0.1)])
def test_revival_puts_codes_to_use(decay, restart_threshold):
    """Nearly all of twelve codes are in use; the same training without revival uses fewer."""
    used = []
    for share in (restart_threshold, 0.0):
        torch.manual_seed(1)
        model = VQVAE(dataclasses.replace(BUILD[VQVAE], decay=decay, restart_threshold=share, seed=3))
        with torch.no_grad():
            model.codebook.entries[2:] += 50  # where no vector comes
            if decay:
                model.codebook.total.copy_(model.codebook.entries)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for step in range(120):
            optimizer.zero_grad()
            sum(model.loss({"image": images(8, seed=step)}).values()).backward()
            optimizer.step()
            model.after_step()
        codes = torch.nn.functional.one_hot(model.encode(images(32, seed=999)).flatten(), 12).float()
        used.append(code_perplexity(codes[:, None]).item())
    assert used[0] > 5
    assert used[1] < 3


def test_noise_makes_codes_a_mixture_that_sharpens():
    model, image = made(DiscreteVAE), images()
    noise = gumbel_noise((4, 16, 12), generator=seeded())
    with torch.no_grad():
        logits = model.encoder(image)
        choice = ((logits + noise) / 1.0).softmax(-1)
        middle, _ = model.decoder(choice @ model.entries).chunk(2, 1)
        close(model(image, noise).mean, middle)
        model.steps += 10
        assert model.temperature == pytest.approx(1 / 16)
        sharp = ((logits + noise) * 16).softmax(-1)
        assert sharp.amax(-1).mean() > choice.amax(-1).mean() + 0.2
        close(model(image, noise).mean, model.decoder(sharp @ model.entries).chunk(2, 1)[0])
    assert torch.equal(model.sample_noise(3), model.sample_noise(3))


def test_the_scale_has_a_least_value():
    model = DiscreteVAE(dataclasses.replace(BUILD[DiscreteVAE], least_log_scale=-1.0))
    with torch.no_grad():
        model.decoder.layers[-1].bias[:3] = 0.5
        model.decoder.layers[-1].bias[3:] = -9.0
    output = model(images())
    assert (output.log_scale == -1).all()


def test_the_divergence_counts_more_and_more():
    model, image = made(DiscreteVAE).eval(), images()
    found = []
    for _ in range(3):
        found.append(model.loss({"image": image})["kl"].item())
        model.steps += 5
    assert found[0] == 0
    assert found[1] == pytest.approx(found[2] / 2, rel=1e-4)


def test_the_bound_is_what_images_cost_and_what_codes_tell():
    """A number of a pixel, with PyTorch's Laplace distribution; with noise in training, and without it otherwise."""
    model, image = made(DiscreteVAE), images()
    model.steps += 10
    pixels = 0.8 * (image + 1) / 2 + 0.1
    for training, noise in ((True, model.sample_noise(4)), (False, None)):
        losses, output = model.train(training).loss({"image": image}), model(image, noise)
        spread = torch.distributions.Laplace(output.mean, output.log_scale.exp())
        close(losses["rebuilding"], -(spread.log_prob(pixels.logit()) - (pixels * (1 - pixels)).log()).mean())
        p = output.logits.softmax(-1)
        close(losses["kl"], 6.6 * (p * (12 * p).log()).sum((1, 2)).mean() / (3 * 16 * 16))


def test_the_discriminator_and_the_painter_learn_in_turn():
    model, image = made(VQGAN), images()
    losses = model.discriminator_loss({"image": image})
    losses["discriminator"].backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.discriminator.parameters())
    assert model.codebook.pending is None  # which counts a batch once
    painter = model.loss({"image": image})
    assert painter.keys() == {"pixels", "commitment", "adversarial"}
    one, two = (
        torch.autograd.grad(painter[name], model.decoder.last_layer, retain_graph=True)[0].norm()
        for name in ("pixels", "adversarial")
    )
    close(two, 0.8 * one, 1e-2)
    later = VQGAN(dataclasses.replace(BUILD[VQGAN], adversarial_start=5))
    assert later.loss({"image": image})["adversarial"] == 0
    assert later.discriminator_loss({"image": image})["discriminator"] == 0
    refused("moving averages", VQGAN, dataclasses.replace(BUILD[VQGAN], decay=0.0))


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return images(1, seed=index)[0]


def test_with_a_discriminator_images_are_learned_too():
    model = VQGAN(dataclasses.replace(BUILD[VQGAN], adversarial_weight=0.1, adversarial_start=20))
    rows = fit(
        model, Batches(), lambda rows: {"image": torch.stack(rows)}, steps=150,
        optimizer_steps=RECIPE.stages[0].optimizer_steps,
        batch_size=8, learning_rate=3e-3, weight_decay=0.0, warmup=5, progress=False,
    )  # fmt: skip
    assert rows[-1]["pixels"] < 0.8 * rows[0]["pixels"]
    assert {"discriminator", "adversarial"} <= rows[0].keys()


def told_by(start, judge, steps):
    """What is told where of the judge this part learns, and of the codec its first layer alone, and the losses.

    The discriminator counts from step ``start`` on.
    """
    torch.manual_seed(0)
    model, (one, two) = (
        VQGAN(dataclasses.replace(BUILD[VQGAN], adversarial_start=start)),
        RECIPE.stages[0].optimizer_steps,
    )
    assert one.alarm.steps == 100
    optimizer_steps = (
        dataclasses.replace(one, trains=(judge,), alarm=dataclasses.replace(one.alarm, steps=20)),
        dataclasses.replace(two, trains=("encoder.layers.0",)),
    )
    how = dict(
        steps=steps,
        batch_size=8,
        optimizer_steps=optimizer_steps,
        progress=False,
        warmup=0,
        learning_rate=1e-2,
        weight_decay=0.0,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = fit(model, Batches(), lambda rows: {"image": torch.stack(rows)}, **how)
    return [str(one.message) for one in caught if "discriminator" in str(one.message)], rows


def test_a_discriminator_that_wins_outright_is_told_once_and_not_before_it_counts():
    (told,), rows = told_by(10, "discriminator", 60)
    assert all(row["discriminator"] == row["adversarial"] == 0 for row in rows[:10])
    line = r"step (\d+): the discriminator has won: .* \(discriminator (?:0|0\.0\d+), adversarial \d.*, and so for 20"
    assert int(re.match(line, told)[1]) >= 30
    assert all(row["discriminator"] < 0.1 and row["adversarial"] > 0 for row in rows[-20:])


@pytest.mark.parametrize(("start", "judge"), [(99, "discriminator"), (0, "discriminator.5.bias")])
def test_where_it_does_not_count_yet_or_does_not_win_nothing_is_told(start, judge):
    told, rows = told_by(start, judge, 30)
    assert told == []
    assert all(row["discriminator"] == 0 if start else row["discriminator"] > 0.1 for row in rows)


class Run:
    """What measures ask of a run. Its last batch is smaller than the others."""

    def __init__(self, system):
        self.system = system

    def batches(self, samples):
        for start in range(0, len(samples), 3):
            yield {"image": torch.stack(samples[start : start + 3])}


@torch.no_grad()
def test_measures_are_those_of_all_images_at_once():
    model, image = made(VQGAN).eval(), images(7, seed=77) + torch.linspace(-0.3, 0.3, 7)[:, None, None, None]
    codes = model.encode(image)
    patches = torch.cat([model.discriminator(part) for part in (image, model.decode(codes))])
    middle = patches.flatten().sort().values.tensor_split(4)[1]
    widest = middle.diff().argmax()
    model.discriminator[-1].bias -= middle[widest : widest + 2].mean()  # some pass, and none nearly
    error, used = reconstruction(Run(model), list(image)).values()
    close(torch.tensor(error["obtained"]), (model.decode(codes) - image).square().mean())
    close(torch.tensor(error["chance"]), image.transpose(0, 1).flatten(1).var(1, correction=0).mean())
    assert used == {"obtained": pytest.approx(len(set(codes.flatten().tolist())) / 12), "chance": 1 / 12}
    shares = fooling_rate(Run(model), list(image)).values()
    for row, part in zip(shares, (image, model.decode(codes))):
        assert 0 < row["obtained"] < 1
        close(torch.tensor(row["obtained"]), (model.discriminator(part) > 0).float().mean())
