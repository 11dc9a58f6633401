"""The recipe of a vision–language model: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Image, ImageDialogues
from mmlearn.layers.lora import add_lora
from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.models.text.llama import Llama
from mmlearn.models.vision.backbone import BackboneConfig
from mmlearn.pretrained.backbone import load_positions
from mmlearn.recipes import LM, REPLY, OptimizerStep, Recipe, Stage


def build(config: VLMConfig, language_model: Llama | None = None) -> VLM:
    """With the packaged tower where the configuration names it, a language model that there is, and LoRA beside it."""
    tower = config.image_encoder
    vlm = VLM(config, load_positions(tower) if isinstance(tower, BackboneConfig) else None, language_model)
    if config.lora_rank:  # queries and values alone
        add_lora(vlm.language_model, config.lora_rank, 2 * config.lora_rank)
    return vlm


RECIPE = Recipe(
    VLM,
    VLMConfig,
    reads=(Image(), ImageDialogues()),
    stages=(
        Stage(LM, (OptimizerStep(trains=("projector",)),), name="align"),
        Stage(REPLY, (OptimizerStep(),), name="instruct"),  # what is not frozen
    ),
    build=build,
    writes=True,
    architecture="""
    image -> *ViT [frozen] -> pixel shuffle -> projector -> sequence [in place of image tokens]
    text with image tokens -> token table -> sequence
    sequence -> Llama [causal, frozen at first] -> !response LM
    """,
)
