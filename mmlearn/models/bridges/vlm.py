"""A vision–language model as they are built today: an image tower, a projector, and a Llama that reads both.

An image becomes k embeddings, as long as those of words. In the text stands a special token k times, the *image token*,
and each of these gives way to one embedding. Then the language model reads on as if all were words. That is the idea.
LLaVA-1.5, Idefics3, SmolVLM and nanoVLM differ in how patches become k embeddings:

=================  ======================================  =======================  =====
model              patches of the tower                    projector                k
=================  ======================================  =======================  =====
LLaVA-1.5          all, before the last block              two layers               576
Idefics3, SmolVLM  s × s neighbours become one             one matrix               64–169
a small one        their mean                              two layers, k outputs    4
=================  ======================================  =======================  =====

Papers: Liu et al. 2024, "Improved Baselines with Visual Instruction Tuning" (LLaVA-1.5); Laurençon et al. 2024,
"Building and better understanding vision-language models" (Idefics3); Marafioti et al. 2025, "SmolVLM". Official code:
https://github.com/haotian-liu/LLaVA, https://github.com/huggingface/smollm, https://github.com/huggingface/nanoVLM.

Deviations: no image is cut into tiles, as Idefics3 and SmolVLM do. The tower learns only where
``tower_learns`` says so. ``tiny`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, pad_left
from mmlearn.generation.decoding import greedy
from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.layers.packing import packed
from mmlearn.models.bridges.projector import FrozenParts
from mmlearn.models.bridges.scaled_projector import build_projector
from mmlearn.models.bridges.vlm_sizes import PUBLISHED, SIGLIP_B, check_sizes
from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.objectives.generative import response_language_modelling

Images = Float[Tensor, "b c height width"] | Float[Tensor, "b s c height width"]  # one of each row, or s


@dataclass(frozen=True)
class VLMConfig(Config):
    image_encoder: ImageEncoderConfig = SIGLIP_B
    language_model: LlamaConfig = LlamaConfig(**LlamaConfig.PRESETS["SmolLM2-135M"])
    image_token: int | None = None  # gives way to an embedding of an image; None: the last of the vocabulary
    skipped_blocks: int | None = None  # last blocks of the tower that are left out, and its norm; None: neither is
    shuffle: int = 1  # s: so many rows and columns of patches become one embedding
    pooled_tokens: int = 0  # k embeddings of the mean of all patches, instead; 0: patches stay apart
    projector_layers: int = 2
    projector_activation: str = "gelu"
    projector_bias: bool = True
    projector_length: float | None = None  # root mean square of an embedding of an image, at first; None: as it comes
    lora_rank: int = 0  # of what the recipe lets learn in the language model's place (LoRA); 0: itself does
    tower_learns: bool = False  # the tower too, where its stage trains it
    projector_positions: bool = False  # those of a scaled projector also say where they are: learned vectors

    PRESETS = {"tiny": dict(image_encoder=TINY_IMAGE, language_model=LlamaConfig.tiny(), shuffle=2), **PUBLISHED}

    @property
    def num_image_tokens(self) -> int:
        """k: how many tokens of a text an image takes."""
        size, patch = self.image_encoder.image_size, self.image_encoder.patch_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.pooled_tokens or (height // patch // self.shuffle) * (width // patch // self.shuffle)


class VLMOutput(NamedTuple):
    image_embeddings: Float[Tensor, "b n d"]  # n = s k, of the s images of each row
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i


def pixel_shuffle(x: Float[Tensor, "b p d"], rows: int, s: int) -> Float[Tensor, "b fewer wider"]:
    r"""s × s neighbouring patches become one, which is s² times as wide: nothing is lost, and fewer tokens are read.

    .. math:: z \in \mathbb{R}^{(H W) \times d} \to \mathbb{R}^{\frac{H W}{s^2} \times s^2 d}

    ``rows`` is H. Source: Laurençon et al. 2024, section 4.1; Shi et al. 2016, for the name.
    """
    return rearrange(x, "b (row y column x) d -> b (row column) (y x d)", row=rows // s, y=s, x=s)


class VLM(FrozenParts):
    r"""The projected patches of images stand in a text in place of its image tokens, and a Llama reads on.

    .. math:: e_i = \begin{cases} \mathrm{projector}(\mathrm{tower}(I))_{c(i)} & x_i = \text{image token} \\
       E[x_i] & \text{otherwise} \end{cases} \qquad p(x_{i+1} \mid I, x_{\le i}) = \mathrm{Llama}(e_1, \dots, e_i)

    where c(i) counts the image tokens up to i. Other parts than the configuration says may be given; a tower is any
    module from images to (b, p, width). ``ValueError`` for patches that s does not divide, and too long an image.
    """

    def __init__(self, config: VLMConfig, image_encoder: nn.Module | None = None, language_model: Llama | None = None):
        super().__init__()
        check_sizes(config, language_model)
        self.config = config
        language, inputs = config.language_model, config.image_encoder.width * config.shuffle**2
        self.image_token = language.vocab_size - 1 if config.image_token is None else config.image_token
        self.image_encoder = image_encoder or ImageEncoder(config.image_encoder)
        self.image_encoder.requires_grad_(config.tower_learns)
        self.projector = build_projector(config, inputs, language.width)
        self.language_model = language_model or Llama(config.language_model)

    def patches(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b p image_width"]:
        """What the tower says of each patch, without its class token."""
        if self.config.skipped_blocks is None:
            x = self.image_encoder(image)
        else:  # earlier blocks keep more detail than the last, which was trained to sum up
            x = self.image_encoder.skip(image, self.config.skipped_blocks)
        return x[:, int(self.config.image_encoder.class_token) :]

    def encode_image(self, image: Images, image_mask: Bool[Tensor, "b s"] | None = None) -> Float[Tensor, "b n d"]:
        """The embeddings of the image of each row, or of its s images one after the other: n = s k.

        Where ``image_mask`` says that there is no image, they are 0, and the tower reads nothing.
        """
        if image_mask is not None:
            real = self.encode_image(image[image_mask][None])  # (1, n, d): as if they were of one row
            x = real.new_zeros(*image_mask.shape, self.config.num_image_tokens, real.shape[-1])  # (b, s, k, d)
            return x.masked_scatter(image_mask[..., None, None], real).flatten(1, 2)
        x = self.patches(image if image.ndim == 4 else image.flatten(0, 1))  # (b s, p, image_width)
        if x.shape[-1] != (width := self.config.image_encoder.width):
            raise ValueError(f"The image tower gives {x.shape[-1]} numbers a patch; the configuration says {width}.")
        if self.config.pooled_tokens:
            x = x.mean(1, keepdim=True)  # (b s, 1, image_width)
        elif self.config.shuffle > 1:
            x = pixel_shuffle(x, image.shape[-2] // self.config.image_encoder.patch_size, self.config.shuffle)
        x = self.projector(x)  # (b s, k, d), or (b s, 1, k d) of pooled patches
        return rearrange(x, "(b s) k (more d) -> b (s k more) d", b=len(image), more=max(self.config.pooled_tokens, 1))

    def embed(
        self, images: Float[Tensor, "b n d"], tokens: Int[Tensor, "b t"], is_image: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        """The embeddings of words; the i-th image token of a row gives way to the i-th embedding of its images."""
        words, n = self.language_model.embed(tokens), images.shape[1]  # (b, t, d)
        if not n:  # there is no image, or its keys are in the cache
            return words
        count = is_image.cumsum(1)  # (b, t): image tokens up to here
        chosen = images.to(words).take_along_dim((count - 1).clamp(0, n - 1)[..., None], dim=1)  # (b, t, d)
        return torch.where((is_image & (count <= n))[..., None], chosen, words)

    def forward(
        self,
        image: Images,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        image_mask: Bool[Tensor, "b s"] | None = None,
        conversation: Int[Tensor, "b t"] | None = None,
    ) -> VLMOutput:
        """Images in the order of their tokens; ``image_mask`` is True where one is real: those of a row come first.

        A row may hold several texts: ``conversation`` says whose each token is, and none sees another's.
        """
        images = self.encode_image(image, image_mask)  # (b, n, d)
        is_image = self.find_images(images, tokens, mask, image_mask)  # (b, t)
        seen, position = (mask, None) if conversation is None else packed(conversation)
        states = self.language_model.read(self.embed(images, tokens, is_image), seen, position)  # (b, t, d)
        return VLMOutput(images, self.language_model.logits(states))

    def find_images(
        self, images: Float[Tensor, "b n d"], tokens: Int[Tensor, "b t"], mask: Tensor | None, image_mask: Tensor | None
    ) -> Bool[Tensor, "b t"]:
        """Where images stand. ``ValueError`` for a row whose image tokens are not those of its images."""
        is_image = tokens == self.image_token if mask is None else (tokens == self.image_token) & mask  # (b, t)
        found, k = is_image.sum(1), self.config.num_image_tokens  # (b,)
        wanted = torch.full_like(found, images.shape[1]) if image_mask is None else k * image_mask.sum(1)
        if not torch.compiler.is_compiling() and not (found == wanted).all():  # a graph looks at no value
            i = int((found != wanted).nonzero()[0, 0])
            raise ValueError(
                f"Text {i} has {found[i]} image tokens, and its {wanted[i] // k} images need {wanted[i]}, {k} each."
            )
        return is_image

    def predicted(self, batch: dict[str, Tensor]) -> Bool[Tensor, "b t"]:
        """Which tokens the loss is a mean over: each ``response``, or without one in the batch all words.

        Never an image, nor the first token of a row, nor that of a text, which would be said by the end of another.
        """
        tokens, conversation = batch["tokens"], batch.get("conversation")
        found = batch.get("response", tokens != self.image_token)  # (b, t)
        if conversation is not None:
            found = found & (conversation == conversation.roll(1, 1))
        found = found & batch.get("mask", torch.ones_like(found))
        return found & (torch.arange(tokens.shape[1], device=tokens.device) > 0)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The mean over the :meth:`predicted` tokens, each from those before it. ``ValueError`` for no text."""
        self.freeze_modes()
        if not len(tokens := batch["tokens"]):
            raise ValueError("A batch holds at least one image with its text.")
        more = (batch.get(name) for name in ("mask", "image_mask", "conversation"))
        logits = self(batch["image"], tokens, *more).token_logits
        return {"lm": response_language_modelling(logits, tokens, self.predicted(batch))}

    @torch.no_grad()
    def generate(
        self,
        image: Images,
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b length"]:
        """Texts that continue the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        A ``prompt`` without image tokens comes after the images. Shorter ones are padded at their left, where
        ``prompt_mask`` is False. Errors as of :meth:`forward`.
        """
        images = self.encode_image(image)  # (b, n, d)
        given = torch.zeros(len(images), 0, dtype=torch.long, device=images.device) if prompt is None else prompt
        prompt, prompt_mask = given, torch.ones_like(given, dtype=torch.bool) if prompt_mask is None else prompt_mask
        if not (prompt == self.image_token).any() and images.shape[1]:
            before = prompt.new_full((images.shape[1],), self.image_token)
            rows = [torch.cat([before, row[real]]) for row, real in zip(prompt, prompt_mask)]
            pad = self.language_model.config.pad_token
            prompt, prompt_mask = (part.to(prompt.device) for part in pad_left(rows, pad))
        self.find_images(images, prompt, prompt_mask, None)

        def embed(step: DecodingStep) -> Float[Tensor, "n t d"]:
            is_image = (step.tokens == self.image_token) & step.new
            return self.embed(step.context(images), step.tokens, is_image)  # images in the first step alone

        longest = max_length + prompt.shape[1] - given.shape[1]  # what was put in is not counted
        written = self.language_model.write(embed, prompt, decode, prompt_mask, longest)
        return torch.cat([given, written[:, prompt.shape[1] :]], dim=1)
