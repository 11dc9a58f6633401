"""The recipe of DALL·E: what it reads, what it learns, and how that is measured."""

from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.data.fields import Tokens
from mmlearn.models.image_tokens.dall_e import DALLE, DALLEConfig, DALLEOutput
from mmlearn.recipes import Objective, OptimizerStep, Recipe, Stage, ln
from mmlearn.recipes.shared.image_codes import Pixels, codec_stage, token_accuracy


def predicted_codes(config: DALLEConfig, output: DALLEOutput) -> tuple[Float[Tensor, "n v"], Int[Tensor, "n"]]:
    """Scores of every code, given the caption and all codes before, and which it is."""
    true = output.sequence[:, config.max_length :]
    return output.token_logits[:, -true.shape[1] :].flatten(0, 1), true.flatten()


RECIPE = Recipe(
    DALLE,
    DALLEConfig,
    reads=(Pixels(), Tokens()),
    stages=(
        codec_stage("rebuilding", "kl"),
        Stage(
            Objective(
                "drawing",
                {"words": ln("all_tokens", "word_weight"), "codes": ln("all_tokens", "code_weight")},
                measures=(token_accuracy("next code", predicted_codes),),
            ),
            optimizer_steps=(OptimizerStep(trains=("decoder", "text_positions", "rows", "columns")),),
            name="drawing",
        ),
    ),
    architecture="""
    image -> *discrete VAE -> codes -> transformer [causal] -> !next token
    words -> transformer
    """,
)
