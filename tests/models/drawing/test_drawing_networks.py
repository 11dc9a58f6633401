"""GAN-INT-CLS and AttnGAN: what each turn moves, what each option changes, and what does not fit."""

import dataclasses
import math
import re
import warnings

import pytest
import torch
from testing_tools import Listed, close, refused, seeded

from mmlearn.models.drawing.attn_gan import AttnGAN, AttnGANConfig
from mmlearn.models.drawing.gan_blocks import VectorNorm
from mmlearn.models.drawing.gan_int_cls import GANINTCLS, GANINTCLSConfig
from mmlearn.objectives.adversarial import logistic_discrimination, logistic_generation
from mmlearn.recipes.attn_gan import RECIPE as ATTENTIVE
from mmlearn.recipes.gan_int_cls import RECIPE as PLAIN
from mmlearn.training import fit

SMALL = dict(image_size=16, halvings=2, generator_width=8, discriminator_width=4, vocab_size=30, word_width=6)
SMALL |= dict(text_width=8, noise_width=3, condition_width=4)
BUILD = {
    GANINTCLS: GANINTCLSConfig(**SMALL),
    AttnGAN: AttnGANConfig(**SMALL, stages=2, region_halvings=1, residual_blocks=1, ema_decay=0.9),
}
RECIPES = {GANINTCLS: PLAIN, AttnGAN: ATTENTIVE}


def made(system, **changes):
    torch.manual_seed(0)
    return system(dataclasses.replace(BUILD[system], **changes))


def batch(system, b=6, seed=0):
    config, generator = BUILD[system], seeded(seed)
    mask = torch.arange(5) < torch.tensor([5, 3, 4, 5, 2, 3])[:b, None]
    return {
        "image": 2 * torch.rand(b, 3, 16, 16, generator=generator) - 1,
        "tokens": torch.randint(4, 30, (b, 5), generator=generator).masked_fill(~mask, 0),
        "mask": mask,
        "caption_id": torch.tensor([0, 1, 1, 2, 0, 3])[:b],
        "noise": torch.randn(b, config.noise_numbers, generator=generator),
    }


@pytest.mark.parametrize("system", BUILD)
def test_images_are_in_range_and_noise_is_what_captions_do_not_say(system):
    model, given = made(system), batch(system)  # in training: batch norms do not know the scale of these weights yet
    one = model(given["tokens"], given["mask"], given["noise"]).image
    other = model(given["tokens"], given["mask"], -given["noise"]).image
    assert one.shape == given["image"].shape
    assert one.abs().max() <= 1
    assert (one - other).abs().max() > 1e-3
    none = model(given["tokens"], given["mask"]).image
    assert torch.equal(none, model(given["tokens"], given["mask"], torch.zeros_like(given["noise"])).image)


@pytest.mark.parametrize("system", BUILD)
def test_what_does_not_fit_is_told(system):
    model, given = made(system), batch(system)
    numbers = BUILD[system].noise_numbers
    refused(rf"Noise is \(6, {numbers}\)", model, given["tokens"], given["mask"], given["noise"][:, 1:])
    refused(r"Pictures are \(b, 3, 16, 16\)", model.discriminator_loss, given | {"image": torch.zeros(6, 3, 32, 32)})
    refused(r"Pictures are \(b, 3, 16, 16\)", model.encoder_loss, given | {"image": torch.zeros(6, 3, 8, 8)})
    refused("not halved 2 times evenly", made, system, image_size=18)
    refused("regions not 3 times", made, system, region_halvings=3)
    refused("the vocabulary of this model has 30", model, given["tokens"] + 30, given["mask"])


def test_more_stages_than_sizes():
    refused("4 stages are not from 1 to 3", made, AttnGAN, stages=4)
    assert len(made(AttnGAN, stages=3)(batch(AttnGAN)["tokens"], batch(AttnGAN)["mask"]).low_resolution) == 2


@pytest.mark.parametrize("system", BUILD)
def test_padding_may_stand_before_a_text(system):
    model, given = made(system).eval(), batch(system)
    counts = given["mask"].sum(1).tolist()
    left = {k: torch.stack([row.roll(5 - n, 0) for row, n in zip(given[k], counts)]) for k in ("tokens", "mask")}
    words, sentence = model.encoders.text(given["tokens"], given["mask"])
    other, same = model.encoders.text(left["tokens"], left["mask"])
    close(same, sentence)
    close(other[left["mask"]], words[given["mask"]])
    assert not other[~left["mask"]].any()


def test_captions_are_read_as_pytorch_reads_each_alone():
    encoder, given = made(GANINTCLS).encoders.text, batch(GANINTCLS)
    words, sentence = encoder(given["tokens"], given["mask"])
    for row, n in enumerate(given["mask"].sum(1).tolist()):
        alone, (last, _) = encoder.recurrent(encoder.tokens(given["tokens"][row : row + 1, :n]))
        close(words[row, :n], alone[0])
        close(sentence[row], torch.cat([alone[0, -1, :4], alone[0, 0, 4:]]))  # there to its end, and back to its start
        close(sentence[row], last.flatten())


@pytest.mark.parametrize("system", BUILD)
def test_what_was_drawn_has_no_gradient_in_the_turn_of_the_discriminator(system):
    model = made(system)
    model.discriminator_loss(batch(system))["discriminator"].backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert all(parameter.grad is None for parameter in model.encoders.parameters())


@pytest.mark.parametrize("system", BUILD)
def test_each_turn_moves_its_own_and_the_reader_stays(system):
    model, given = made(system), batch(system)
    before = {name: value.clone() for name, value in model.named_parameters()}
    stage = RECIPES[system].stage("drawing")
    for turn, mover in zip(stage.optimizer_steps, ("discriminator", "generator")):
        assert {name.partition(".")[0].rstrip("s") for name in turn.trained_names(model)} == {mover}
        assert turn.betas == (0.5, 0.999)
    rows = [given]
    fit(
        model,
        Listed(rows * 4),
        lambda one: one[0],
        steps=2,
        batch_size=1,
        optimizer_steps=stage.optimizer_steps,
        progress=False,
        warmup=0,
    )
    same = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith("encoders")}


def test_the_discriminator_sees_what_it_should():
    """The three terms, from scores that are computed here, with the next other caption as the wrong one."""
    model, given = made(GANINTCLS), batch(GANINTCLS)
    sentence = model.encoders.text(given["tokens"], given["mask"])[1]
    image = model(given["tokens"], given["mask"], given["noise"]).image
    wrong = sentence[[1, 3, 3, 4, 5, 0]]
    scores = [
        model.discriminate(*pair) for pair in ((given["image"], sentence), (given["image"], wrong), (image, sentence))
    ]
    real, other, drawn = (torch.nn.functional.softplus(sign * x).mean() for sign, x in zip((-1, 1, 1), scores))
    close(model.discriminator_loss(given)["discriminator"], real + (other + drawn) / 2)
    plain = made(GANINTCLS, matching_aware=False)
    close(plain.discriminator_loss(given)["discriminator"], logistic_discrimination(scores[0], scores[2]))
    between = (sentence + wrong) / 2
    passing = logistic_generation(scores[2]) + logistic_generation(
        model.discriminate(model.draw(between, given["noise"]), between)
    )
    close(model.loss(given)["generator"], passing)
    close(made(GANINTCLS, interpolate=False).loss(given)["generator"], logistic_generation(scores[2]))


def test_one_row_has_no_wrong_text():
    for system in BUILD:
        losses = made(system).discriminator_loss(batch(system, b=1))
        assert all(loss.isfinite() for loss in losses.values())


def test_attn_gan_judges_each_size_alone_and_beside_the_text():
    model, given = made(AttnGAN), batch(AttnGAN)
    sentence = model.encoders.text(given["tokens"], given["mask"])[1]
    drawing = model(given["tokens"], given["mask"], given["noise"])
    small = torch.nn.functional.avg_pool2d(given["image"], 2)
    soft, total, passing = torch.nn.functional.softplus, 0, 0
    for discriminator, real, made_one in zip(
        model.discriminators, (small, given["image"]), (*drawing.low_resolution, drawing.image)
    ):
        seen, drawn = discriminator.features(real), discriminator.features(made_one)
        high = soft(-discriminator.unconditional_score(seen)), soft(-discriminator.conditional_score(seen, sentence))
        low = soft(discriminator.unconditional_score(drawn)), soft(discriminator.conditional_score(drawn, sentence))
        wrong = soft(discriminator.conditional_score(seen, sentence[[1, 3, 3, 4, 5, 0]]))
        total += sum(high).mean() / 2 + (sum(low) + wrong).mean() / 3
        passing += soft(-discriminator.conditional_score(drawn, sentence)).mean()
        passing += soft(-discriminator.unconditional_score(drawn)).mean()
    close(model.discriminator_loss(given)["discriminator"], total)
    losses = model.loss(given)
    close(losses["generator"], passing)
    alone = model.encoders.matching_loss(drawing.image, drawing.words, sentence, given)
    close({k: losses[f"drawn_{k}"] for k in alone}, {k: 10 * value for k, value in alone.items()})  # λ, both directions
    without = made(AttnGAN, damsm_weight=0.0).loss(given)
    assert without["drawn_words"] == without["drawn_sentence"] == 0
    other = made(AttnGAN, matching_aware=False).discriminator_loss(given)["discriminator"]
    assert abs(other - total) > 1e-3


def test_the_divergence_is_a_mean_over_all_numbers_of_a_condition():
    """As in the official code's ``KL_loss``, so that it does not grow with the condition's width."""
    given = batch(AttnGAN)
    drawing = made(AttnGAN)(given["tokens"], given["mask"], given["noise"])
    mean, log_variance = drawing.mean, drawing.log_variance
    numbers = (mean**2 + log_variance.exp() - 1 - log_variance) / 2
    close(made(AttnGAN).loss(given)["kl"], numbers.mean())
    close(made(AttnGAN, kl_weight=1.0).loss(given)["kl"], numbers.sum(1).mean())
    assert made(AttnGAN, kl_weight=0.0).loss(given)["kl"] == 0


def test_damsm_is_that_of_the_official_code():
    """γ₁ is 4, the scores of words have no root, and half of the embeddings' numbers are dropped, while it learns."""
    model, given = made(AttnGAN).encoders, batch(AttnGAN) | {"caption_id": torch.arange(6)}
    torch.manual_seed(5)
    found = model.loss(given)["words"]
    torch.manual_seed(5)
    words = model.text(given["tokens"], given["mask"], 0.5)[0]
    scores, regions = torch.zeros(6, 6), model.image(given["image"])[0]
    for i in range(6):
        for j in range(6):
            e, v = words[j][given["mask"][j]], regions[i]
            c = (4 * (e @ v.T).softmax(0)).softmax(1) @ v
            scores[i, j] = (5 * torch.cosine_similarity(c, e)).exp().sum().log()
    ways = [-(10 * way).log_softmax(1).diagonal().mean() for way in (scores, scores.T)]
    close(found, sum(ways) / 2)
    assert not torch.equal(words, model.text(given["tokens"], given["mask"])[0])  # and none is while it draws


def test_samples_are_drawn_by_the_running_average_of_the_generator():
    model, given = made(AttnGAN), batch(AttnGAN)
    first = {name: value.clone() for name, value in model.generator.named_parameters()}
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(1.0)
    model.after_step()
    for name, value in model.ema_generator.named_parameters():
        close(value, first[name] + 0.1)
    texts = given["tokens"], given["mask"], given["noise"]
    drawn = model.eval()(*texts).image
    encoded = *model.encoders.text(*texts[:2]), texts[1], texts[2]
    assert torch.equal(drawn, model.ema_generator(*encoded).image)
    assert torch.equal(model(*texts, averaged=False).image, model.generator(*encoded).image)
    assert not torch.equal(drawn, model(*texts, averaged=False).image)


# Parameters of the official code, https://github.com/taoxugit/AttnGAN, counted there: of the generator, of three
# discriminators, and of the text encoder, whose vocabularies have 5,450 and 27,297 words.
PUBLISHED = {
    "birds": (7_084_592, (6_313_730, 19_424_002, 71_858_946), 2_075_320),
    "coco": (13_811_456, (13_304_450, 42_800_258, 160_774_274), 8_629_420),
}


def count(*parts):
    return tuple(sum(parameter.numel() for parameter in part.parameters()) for part in parts)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_attn_gan_has_the_published_parameters(preset):
    with torch.device("meta"):
        model = AttnGAN(AttnGANConfig.preset(preset))
    found = count(model.generator)[0], count(*model.discriminators), count(model.encoders.text)[0]
    assert found == PUBLISHED[preset]
    assert model.encoders.sharpness == (4.0, 5.0, 10.0)


def official_gan_int_cls(w):
    """Sizes of all weights of ``main_cls_int.lua``, without biases of convolutions, which it keeps at 0."""
    up = lambda i, o: i * o * 16  # noqa: E731
    norm = lambda o: 2 * o  # noqa: E731
    block = lambda o: o * o // 4 + 9 * (o * o // 16 + o * o // 4) + 2 * norm(o // 4) + norm(o)  # noqa: E731
    text, g, d = 1024 * 128 + 128, w["ngf"], w["ndf"]
    generator = text + up(100 + 128, 8 * g) + norm(8 * g) + block(8 * g) + block(4 * g)
    generator += sum(up(2 * c, c) + norm(c) for c in (4 * g, 2 * g, g)) + up(g, 3)
    discriminator = up(3, d) + sum(up(c // 2, c) + norm(c) for c in (2 * d, 4 * d, 8 * d)) + block(8 * d)
    discriminator += text + norm(128) + (8 * d + 128) * 8 * d + norm(8 * d) + up(8 * d, 1)
    return generator, discriminator


def test_gan_int_cls_has_the_published_parameters():
    with torch.device("meta"):
        model = GANINTCLS(GANINTCLSConfig.preset("birds"))
    assert count(model.generator, model.discriminator) == official_gan_int_cls({"ngf": 128, "ndf": 64})
    channels = [layer.out_channels for layer in model.discriminator.layers if isinstance(layer, torch.nn.Conv2d)]
    assert channels == [64, 128, 256, 512]


def normed(x, norm):
    return torch.nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


def refined(x, block, activation):
    """A residual block of GAN-INT-CLS, step by step."""
    y, layers = x, list(block.branch)
    for i in (0, 3, 6):
        y = normed(torch.nn.functional.conv2d(y, layers[i].weight, padding=min(i, 1)), layers[i + 1])
        y = activation(y) if i < 6 else y
    return activation(x + y)


def test_gan_int_cls_is_that_of_the_official_code():
    """In training, with batch norms over the batch. Sentences are not of unit length."""
    model, given = made(GANINTCLS, image_size=64, halvings=4), batch(GANINTCLS)
    f, (g, d) = torch.nn.functional, (model.generator, model.discriminator)
    leaky = lambda x: f.leaky_relu(x, 0.2)  # noqa: E731
    sentence = model.encoders.text(given["tokens"], given["mask"])[1]
    z = torch.cat([given["noise"], leaky(f.linear(sentence, g.condition[0].weight, g.condition[0].bias))], 1)
    layers, x = list(g.layers), (z @ g.linear.weight.T).view(6, 64, 4, 4)
    x = refined(normed(x, layers[0]), layers[1], f.relu)
    for k in (2, 5, 8):
        x = normed(f.conv_transpose2d(x, layers[k].weight, stride=2, padding=1), layers[k + 1])
        x = refined(x, layers[4], f.relu) if k == 2 else f.relu(x)
    image = f.conv_transpose2d(x, layers[11].weight, stride=2, padding=1).tanh()
    drawn, read = model(given["tokens"], given["mask"], given["noise"])
    close(drawn, image)
    close(read, sentence)
    layers = [layer for layer in d.layers if not isinstance(layer, torch.nn.Identity | torch.nn.LeakyReLU)]
    x = leaky(f.conv2d(image, layers[0].weight, stride=2, padding=1))
    x = leaky(normed(f.conv2d(x, layers[1].weight, stride=2, padding=1), layers[2]))
    for k in (3, 5):  # nothing between the last two
        x = normed(f.conv2d(x, layers[k].weight, stride=2, padding=1), layers[k + 1])
    x = refined(x, layers[7], leaky)
    text = leaky(normed(f.linear(sentence, d.text[0].weight, d.text[0].bias), d.text[1]))
    joined = torch.cat([x, text[:, :, None, None].expand(-1, -1, 4, 4)], 1)
    joined = leaky(normed(f.conv2d(joined, d.join[0].weight), d.join[1]))
    close(model.discriminate(image, sentence), (joined * d.score.weight).sum((1, 2, 3)))


def test_an_image_may_be_drawn_from_the_mean_of_its_captions():
    model, given = made(GANINTCLS), batch(GANINTCLS)
    tokens, mask = (torch.stack([given[name], given[name].roll(1, 0)], 1) for name in ("tokens", "mask"))
    sentence = model.encoders.text(given["tokens"], given["mask"])[1]
    found = model(tokens, mask, given["noise"])
    close(found.sentence, (sentence + sentence.roll(1, 0)) / 2)
    several = given | {"tokens": tokens, "mask": mask}
    losses = model.encoder_loss(several) | model.discriminator_loss(several) | model.loss(several)
    assert all(loss.isfinite() for loss in losses.values())


def test_one_row_alone_is_normed_by_running_statistics():
    norm = VectorNorm(3)
    norm.running_mean.fill_(2.0)
    close(norm(torch.tensor([[2.0, 3.0, 1.0]])), torch.tensor([[0.0, 1.0, -1.0]]))
    assert norm.running_mean.eq(2.0).all()
    rows = torch.tensor([[2.0, 3.0, 1.0], [4.0, 3.0, 1.0]])
    close(norm(rows), torch.nn.functional.batch_norm(rows, None, None, training=True))


def test_conditions_differ_by_chance_and_words_are_looked_at():
    """The last numbers of the noise move the condition, and a word that changes moves the later stage's map."""
    model, given = made(AttnGAN).eval(), batch(AttnGAN)
    drawing = model(given["tokens"], given["mask"], given["noise"])
    (maps,) = drawing.maps
    assert maps.shape == (6, 64, 5)
    close(maps.sum(-1), torch.ones(6, 64))
    assert not maps.masked_select(~given["mask"][:, None].expand_as(maps)).any()
    moved = given["noise"].clone()
    moved[:, 3:] += 1
    assert (model(given["tokens"], given["mask"], moved).image - drawing.image).abs().max() > 1e-3
    words, sentence = model.encoders.text(given["tokens"], given["mask"])
    other = model.ema_generator(words.flip(2), sentence, given["mask"], given["noise"])
    assert torch.equal(other.low_resolution[0], drawing.low_resolution[0])
    assert not torch.allclose(other.image, drawing.image, atol=1e-4)


@pytest.mark.parametrize("system", BUILD)
def test_losses_stay_finite_however_sure_a_discriminator_is(system):
    """And the generator still gets a gradient."""
    model, given = made(system), batch(system)
    scores = (
        [model.discriminator.score]
        if system is GANINTCLS
        else [score for part in model.discriminators for score in (part.conditional, part.unconditional)]
    )
    with torch.no_grad():
        for score in scores:
            score.weight.mul_(1e4)
    losses = model.discriminator_loss(given) | model.loss(given)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["generator"] > 100
    assert any(parameter.grad.abs().max() > 0 for parameter in model.generator.parameters())


def drawn_with(system, trains, steps):
    """What is told while it learns to draw, where the second turn moves these parts alone, and the last losses."""
    model, (one, two) = made(system), RECIPES[system].stage("drawing").optimizer_steps
    assert one.alarm.steps == 100
    optimizer_steps = (
        dataclasses.replace(one, alarm=dataclasses.replace(one.alarm, steps=20)),
        dataclasses.replace(two, trains=trains),
    )
    how = dict(
        steps=steps,
        batch_size=1,
        optimizer_steps=optimizer_steps,
        progress=False,
        warmup=0,
        learning_rate=1e-2,
        weight_decay=0.0,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = fit(model, Listed([batch(system, seed=i) for i in range(4)]), lambda one: one[0], **how)
    return [str(one.message) for one in caught if "discriminator" in str(one.message)], rows[-20:]


@pytest.mark.parametrize("system", BUILD)
def test_a_discriminator_that_wins_outright_is_told_once(system):
    """Against a generator of which little moves. Losses stay finite, and it still gets a gradient."""
    (told,), last = drawn_with(system, ("generator.condition",), 200)
    assert re.match(
        r"step \d+: the discriminator has won: .* \(discriminator 0\.0\d+, generator \d.*, and so for 20", told
    )
    assert all(row["discriminator"] < 0.1 and row["generator"] > 4 for row in last)
    assert all(math.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in last)


@pytest.mark.parametrize("system", BUILD)
def test_where_both_learn_nothing_is_told(system):
    told, last = drawn_with(system, ("generator",), 80)
    assert told == []
    assert all(row["discriminator"] > 0.1 for row in last)
