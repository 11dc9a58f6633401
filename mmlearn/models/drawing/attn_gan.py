"""AttnGAN: a picture is drawn small, then larger, and each place of it looks at the words that it needs.

Paper: Xu et al. 2018, "AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial
Networks". Official code: https://github.com/taoxugit/AttnGAN.

Deviations: regions come from a small network that learns with the text reader, there from an Inception network that was
trained on photographs. Painting is by transposed convolutions, as in GAN-INT-CLS, there by upsampling and gated
convolutions. Discriminators have no batch norms, and start by He's rule. The halves of a loss, alone and with the text,
are weighed equally, as in the paper; wrong texts are shown to the discriminators, as in the official code. DAMSM is the
mean of both directions, there their sum. The sentence that the discriminators read is the text reader's, as in the
official code. ``tiny`` is ours; what a configuration is without it has the paper's sizes of pictures, words and
condition.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.models.drawing.parts import (
    TINY_DRAWING,
    Discriminator,
    Drawer,
    DrawingConfig,
    First,
    Reader,
    Up,
    caption_numbers,
    gathered_pairs,
    noise_for,
)
from mmlearn.models.picture_tokens.coder import check_size
from mmlearn.objectives.adversarial import logistic_discrimination, logistic_generation
from mmlearn.objectives.all_gather import gather
from mmlearn.objectives.drawing import (
    conditioning_augmentation,
    damsm,
    matching_aware_discrimination,
    other_captions,
    standard_normal_divergence,
    word_attention,
)


@dataclass(frozen=True)
class AttnGANConfig(DrawingConfig):
    image_size: int = 256
    halvings: int = 6
    width: int = 32
    region_halvings: int = 4
    stages: int = 3  # pictures: the last is of image_size, each before it half as large
    condition_width: int = 100
    residual_blocks: int = 2  # of each stage but the first
    damsm_weight: float = 5.0  # λ; 0: DAMSM does not help to draw
    matching_aware: bool = True

    PRESETS = {"tiny": TINY_DRAWING | dict(region_halvings=2, stages=2, condition_width=16, residual_blocks=1)}

    @property
    def noise_numbers(self) -> int:
        """Those of the noise, and those by which a condition differs from its mean."""
        return self.noise_width + self.condition_width


class AttnGANOutput(NamedTuple):
    image: Float[Tensor, "b 3 height width"]  # the last and largest, from −1 to 1
    words: Float[Tensor, "b t d"]
    sentence: Float[Tensor, "b d"]
    mean: Float[Tensor, "b c"]  # of the condition
    log_variance: Float[Tensor, "b c"]
    smaller: tuple[Tensor, ...]  # the pictures of earlier stages
    maps: tuple[Tensor, ...]  # (b, p, t) of each later stage: how much each place took of each word


class DAMSM(Reader):
    """Readers that tell by words and regions, and by the whole, whether picture and text belong together."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``words`` and ``sentence``. Source: section 3.2."""
        return self.between(batch["image"], *self.text(batch["tokens"], batch["mask"]), batch)

    def between(
        self,
        image: Float[Tensor, "b 3 height width"],
        words: Float[Tensor, "b t d"],
        sentence: Float[Tensor, "b d"],
        batch: dict[str, Tensor],
    ) -> dict[str, Float[Tensor, ""]]:
        """The same for pictures in place of the batch's, where its texts are read already."""
        everyone = map(gather, (*self.picture(image), words, sentence, batch["mask"]))
        return damsm(*everyone, gathered_pairs(batch))


class Residual(nn.Module):
    """Convolution, batch norm, ReLU, convolution, batch norm, on a residual path."""

    def __init__(self, width: int):
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.branch = nn.Sequential(*layers, nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "b d height width"]) -> Float[Tensor, "b d height width"]:
        return x + self.branch(x)


class Next(nn.Module):
    r"""A later stage: each place looks at the words, and the grid becomes twice as large.

    .. math:: h_i = F_i(h_{i-1}, F^\mathrm{attn}_i(e, h_{i-1}))

    Source: section 3.1, equations 1 and 2.
    """

    def __init__(self, config: AttnGANConfig, width: int):
        super().__init__()
        self.words = nn.Linear(config.text_width, width, bias=False)
        self.blocks = nn.Sequential(*(Residual(2 * width) for _ in range(config.residual_blocks)))
        self.up = Up(2 * width, width // 2)

    def forward(
        self, h: Float[Tensor, "b d y x"], words: Float[Tensor, "b t k"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b c yy xx"], Float[Tensor, "b p t"]]:
        places = rearrange(h, "b d y x -> b (y x) d")
        taken, maps = word_attention(places, self.words(words), mask)
        context = rearrange(taken, "b (y x) d -> b d y x", y=h.shape[2])
        return self.up(self.blocks(torch.cat([h, context], 1))), maps


class Generator(nn.Module):
    """All stages: noise and a condition become a grid, and that a picture; later grids look at words. Equation 1."""

    def __init__(self, config: AttnGANConfig):
        super().__init__()
        self.config = config
        self.condition = nn.Linear(config.text_width, 2 * config.condition_width)
        later = [config.width * 2**i for i in range(config.stages - 1, 0, -1)]  # channels before each later stage
        self.first = First(config, config.noise_numbers, config.halvings - len(later))
        self.later = nn.ModuleList(Next(config, width) for width in later)
        channels = [*later, config.width]
        self.colours = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 3, 3, padding=1), nn.Tanh()) for c in channels)

    def forward(
        self,
        words: Float[Tensor, "b t d"],
        sentence: Float[Tensor, "b d"],
        mask: Bool[Tensor, "b t"],
        noise: Float[Tensor, "b numbers"] | None,
    ) -> AttnGANOutput:
        z, by_chance = noise_for(sentence, noise, self.config).split(
            [self.config.noise_width, self.config.condition_width], 1
        )
        mean, log_variance = self.condition(sentence).chunk(2, 1)
        h = self.first(torch.cat([conditioning_augmentation(mean, log_variance, by_chance), z], 1))
        pictures, maps = [self.colours[0](h)], []
        for stage, colours in zip(self.later, self.colours[1:]):
            h, looked = stage(h, words, mask)
            pictures.append(colours(h))
            maps.append(looked)
        return AttnGANOutput(pictures[-1], words, sentence, mean, log_variance, tuple(pictures[:-1]), tuple(maps))


class AttnGAN(Drawer):
    r"""A text reader that knows pictures (DAMSM), a generator in stages, and a discriminator for each of these.

    .. math:: \min_G \max_D \sum_i \mathcal{L}_{G_i} + \lambda\, \mathcal{L}_\mathrm{DAMSM} + \mathcal{L}_\mathrm{KL}

    DAMSM is the first stage of training, and stays as it is. Of a step of the second there are two turns:
    :meth:`discriminator_loss`, then :meth:`loss`. Errors: ``ValueError`` for pictures of another size, for noise that
    does not fit, and for more stages than halvings. Source: section 3, equations 3 to 6.
    """

    def __init__(self, config: AttnGANConfig):
        super().__init__()
        if not 1 <= config.stages <= config.halvings + 1:
            raise ValueError(
                f"{config.stages} stages are not from 1 to {config.halvings + 1}, one more than the halvings."
            )
        self.config = config
        self.reader = DAMSM(config)
        self.generator = Generator(config)
        first = config.halvings - config.stages + 1
        self.discriminators = nn.ModuleList(
            Discriminator(config, halvings, alone=True) for halvings in range(first, config.halvings + 1)
        )

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"], noise: Float[Tensor, "b numbers"] | None = None
    ) -> AttnGANOutput:
        return self.generator(*self.reader.text(tokens, mask), mask, noise)

    def judged(self, image: Float[Tensor, "b 3 height width"], sentence: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """The last discriminator's scores beside the text."""
        return self.discriminators[-1].fits(self.discriminators[-1].see(image), sentence)

    def discriminator_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Each picture against a real one of its size, alone and beside the text; a mean of both. Equation 5."""
        check_size(batch["image"], self.config.image_size)
        with torch.no_grad():
            drawing = self(batch["tokens"], batch["mask"], batch["noise"])
        other, differs = other_captions(caption_numbers(batch))
        losses, sentence = [], drawing.sentence
        for judge, made in zip(self.discriminators, (*drawing.smaller, drawing.image)):
            real, made = judge.see(F.interpolate(batch["image"], made.shape[2:], mode="area")), judge.see(made)
            pair = judge.fits(real, sentence), judge.fits(made, sentence)
            if self.config.matching_aware:
                wrong = judge.fits(real, sentence[other])
                beside = matching_aware_discrimination(pair[0], wrong, pair[1], differs)
            else:
                beside = logistic_discrimination(*pair)
            losses.append((logistic_discrimination(judge.real(real), judge.real(made)) + beside) / 2)
        return {"discriminator": sum(losses)}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """To pass for real at each size, and for what the text says, by discriminators and by DAMSM. Equation 3."""
        drawing = self(batch["tokens"], batch["mask"], batch["noise"])
        passing = []
        for judge, made in zip(self.discriminators, (*drawing.smaller, drawing.image)):
            seen = judge.see(made)
            passing.append(sum(map(logistic_generation, (judge.real(seen), judge.fits(seen, drawing.sentence)))) / 2)
        losses = {"generator": sum(passing), "kl": standard_normal_divergence(drawing.mean, drawing.log_variance)}
        found = self.reader.between(drawing.image, drawing.words, drawing.sentence, batch)
        return losses | {f"drawn_{name}": self.config.damsm_weight * value for name, value in found.items()}
