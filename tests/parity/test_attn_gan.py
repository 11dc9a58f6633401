"""AttnGAN's images, maps, losses and gradients equal its official code, https://github.com/taoxugit/AttnGAN.

Restated here from model.py, GlobalAttention.py and miscc/losses.py, in training, with batch norms over the batch. Its
image encoder, Inception, is ours for both; its wrong texts are the next rows in a circle, which all differ here.
"""

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, seeded

from mmlearn.models.drawing.attn_gan import AttnGAN, AttnGANConfig

SMALL = dict(vocab_size=40, word_width=7, text_width=12, noise_width=5, condition_width=6, region_halvings=2)
CASES = {
    "as published": dict(image_size=64, halvings=4, stages=3, generator_width=6, discriminator_width=8),
    "two stages": dict(
        image_size=24, halvings=3, stages=2, generator_width=4, discriminator_width=5, residual_blocks=3
    ),
    "one stage": dict(image_size=16, halvings=2, stages=1, generator_width=8, discriminator_width=4, damsm_weight=50.0),
}


class Restated:
    """The official networks on the weights of ours."""

    def __init__(self, model):
        self.w, self.model, self.config = dict(model.named_parameters()), model, model.config

    def norm(self, name, x):
        return F.batch_norm(x, None, None, self.w[f"{name}.weight"], self.w[f"{name}.bias"], training=True)

    def conv(self, name, x, stride=1, padding=1):
        return F.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), stride=stride, padding=padding)

    def gated(self, name, x):
        x = self.norm(f"{name}.1", self.conv(f"{name}.0", x))
        return x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :].sigmoid()

    def up(self, name, x):
        return self.gated(f"{name}.1", F.interpolate(x, scale_factor=2, mode="nearest"))

    def generate(self, words, sentence, mask, noise):
        z, epsilon = noise.split([self.config.noise_width, self.config.condition_width], 1)
        gate = F.linear(sentence, self.w["generator.condition.0.weight"], self.w["generator.condition.0.bias"])
        mean, log_variance = F.glu(gate, 1).chunk(2, 1)
        x = torch.cat([epsilon * (0.5 * log_variance).exp() + mean, z], 1)
        x = F.linear(x, self.w["generator.first_stage.linear.0.weight"])
        x = F.glu(self.norm("generator.first_stage.linear.1", x), 1)
        h = x.view(len(x), -1, self.config.start, self.config.start)
        for i in range(self.config.halvings - self.config.stages + 1):
            h = self.up(f"generator.first_stage.ups.{i}", h)
        images, maps = [self.conv("generator.to_rgb.0.0", h).tanh()], []
        for k in range(self.config.stages - 1):
            stage, source = f"generator.next_stages.{k}", words @ self.w[f"generator.next_stages.{k}.words.weight"].T
            attention = (h.flatten(2).mT @ source.mT).masked_fill(~mask[:, None], -torch.inf).softmax(-1)
            x = torch.cat([h, (attention @ source).mT.view(h.shape)], 1)
            for i in range(self.config.residual_blocks):
                branch = self.conv(f"{stage}.blocks.{i}.branch.1", self.gated(f"{stage}.blocks.{i}.branch.0", x))
                x = x + self.norm(f"{stage}.blocks.{i}.branch.2", branch)
            h = self.up(f"{stage}.up", x)
            images.append(self.conv(f"generator.to_rgb.{k + 1}.0", h).tanh())
            maps.append(attention)
        return images, maps, mean, log_variance

    def code(self, k, image):
        """What the discriminator of a stage sees: halved to the first grid, then brought back to the same channels."""
        first = self.config.halvings - self.config.stages + 1
        for i in range(first + 2 * k):
            name, halves = f"discriminators.{k}.layers.{i}", i < first + k
            image = self.conv(f"{name}.0", image, stride=2 if halves else 1)
            image = F.leaky_relu(self.norm(f"{name}.1", image) if i else image, 0.2)
        return image

    def judge(self, k, code, sentence=None):
        """The probability that an image is real, alone or with a sentence at each position."""
        if sentence is None:
            return self.conv(f"discriminators.{k}.unconditional", code, padding=0).sigmoid().flatten()
        joined = torch.cat([code, sentence[:, :, None, None].expand(-1, -1, *code.shape[2:])], 1)
        joined = self.norm(f"discriminators.{k}.join.1", self.conv(f"discriminators.{k}.join.0", joined))
        return self.conv(f"discriminators.{k}.conditional", F.leaky_relu(joined, 0.2), padding=0).sigmoid().flatten()

    def discriminator_loss(self, image, images, sentence):
        total, bce = 0.0, F.binary_cross_entropy
        for k, made in enumerate(images):
            real = self.code(k, F.interpolate(image, made.shape[2:], mode="area"))
            fake, one, zero = self.code(k, made), image.new_ones(len(image)), image.new_zeros(len(image))
            high = bce(self.judge(k, real), one) + bce(self.judge(k, real, sentence), one)
            low = bce(self.judge(k, fake), zero) + bce(self.judge(k, fake, sentence), zero)
            total = total + high / 2 + (low + bce(self.judge(k, real, sentence.roll(-1, 0)), zero)) / 3
        return total

    def generator_losses(self, images, words, sentence, mask, mean, log_variance):
        passing, one = 0.0, sentence.new_ones(len(sentence))
        for k, made in enumerate(images):
            code = self.code(k, made)
            passing = passing + F.binary_cross_entropy(self.judge(k, code, sentence), one)
            passing = passing + F.binary_cross_entropy(self.judge(k, code), one)
        regions, whole = self.model.encoders.image(images[-1])
        scores = torch.stack([self.words_score(regions, words[j][mask[j]]) for j in range(len(words))], 1)
        cosine = F.cosine_similarity(whole[:, None], sentence, dim=-1)
        target, losses = torch.arange(len(words)), {"generator": passing}
        for name, score in (("drawn_words", 10 * scores), ("drawn_sentence", 10 * cosine)):
            ways = F.cross_entropy(score, target) + F.cross_entropy(score.T, target)
            losses[name] = self.config.damsm_weight * ways
        return losses | {"kl": -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).mean()}

    def words_score(self, regions, words):
        """How well each image shows one text: regions choose words, then words choose regions, γ₁ = 4 and γ₂ = 5."""
        attention = (4 * (regions @ words.T).softmax(-1).mT).softmax(-1)  # (images, t, p)
        return (5 * F.cosine_similarity(attention @ regions, words[None], dim=-1)).exp().sum(1).log()


def gradients(loss, parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True)


@pytest.mark.parametrize("case", CASES)
def test_images_losses_and_gradients_are_those_of_the_official_code(case):
    torch.manual_seed(0)
    config = AttnGANConfig(**SMALL | CASES[case])
    model, generator = AttnGAN(config).double(), seeded(1)
    mask = torch.arange(7) < torch.tensor([7, 4, 2, 6, 5])[:, None]
    batch = {
        "image": 2 * torch.rand(5, 3, config.image_size, config.image_size, generator=generator) - 1,
        "tokens": torch.randint(4, 40, (5, 7), generator=generator),
        "mask": mask,
        "noise": torch.randn(5, config.noise_numbers, generator=generator),
    }
    batch = {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}
    official, output = Restated(model), model(batch["tokens"], mask, batch["noise"])
    words, sentence = model.encoders.text(batch["tokens"], mask)
    images, maps, mean, log_variance = official.generate(words, sentence, mask, batch["noise"])
    close([*output.low_resolution, output.image], images)
    close(list(output.maps), maps)
    ours = model.discriminator_loss(batch)["discriminator"]
    expected = official.discriminator_loss(batch["image"], [image.detach() for image in images], sentence.detach())
    close(ours, expected)
    moved = list(model.discriminators.parameters())
    close(gradients(ours, moved), gradients(expected, moved))
    losses = model.loss(batch)
    restated = official.generator_losses(images, words, sentence, mask, mean, log_variance)
    close(losses, {name: restated[name] for name in losses})
    moved = list(model.generator.parameters())
    close(gradients(sum(losses.values()), moved), gradients(sum(restated.values()), moved))
