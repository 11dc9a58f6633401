"""The recipe of AttnGAN: what it reads, what it learns, and how that is measured."""

from torch import Tensor

from mmlearn.data.fields import Tokens
from mmlearn.models.drawing.attn_gan import AttnGAN, AttnGANConfig
from mmlearn.recipes import Objective, Recipe, ln_batch
from mmlearn.recipes.shared.drawing import GANPixels, drawing_stages


def words_at_equal_similarity(config: AttnGANConfig, batch: dict[str, Tensor]) -> float:
    """Where words fit all regions alike, a text of n words scores γ₃ ln n more than one of a single word.

    So an image prefers long texts, and a text finds its image at random.
    """
    scores = config.sharpness[2] * batch["mask"].sum(1).clamp(min=1).float().log()  # (b,)
    return (ln_batch(config, batch) + float(scores.logsumexp(0) - scores.mean())) / 2


RECIPE = Recipe(
    AttnGAN,
    AttnGANConfig,
    reads=(GANPixels(), Tokens()),
    stages=drawing_stages(
        Objective("damsm", {"words": words_at_equal_similarity, "sentence": ln_batch}),
        "discriminators",
        ("discriminator", "generator", "kl", "drawn_words", "drawn_sentence"),
        betas=(0.5, 0.999),  # old gradients were aimed at another opponent
    ),
    architecture="""
    words -> *text reader [LSTM both ways] -> sentence -> condition [drawn around a mean] -> first stage
    first stage -> small drawing
    noise -> first stage
    first stage -> word attention -> later stage -> drawing -> discriminators [one a stage] -> !real and right
    text reader -> word attention
    small drawing -> discriminators
    sentence -> discriminators
    image -> discriminators
    drawing -> *DAMSM [regions and words] -> !found by its text
    condition -> !KL
    """,
)
