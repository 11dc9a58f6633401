"""The recipe of LIMoE: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence
from typing import Any

import torch

from mmlearn.data.fields import Image, Tokens
from mmlearn.evaluation.measures import retrieval, row
from mmlearn.models.unified.limoe import LIMoE, LIMoEConfig
from mmlearn.objectives.experts import top_experts
from mmlearn.recipes import Objective, Recipe, ln_batch


def expert_usage(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How many experts of the last sparse block each modality uses, and how many tokens go to experts of its own.

    Used experts are the exponential of the entropy of choices. An expert is a modality's own if at least 90 % of what
    it gets comes from there, when both weigh the same.
    """
    config = run.system.config
    counts: dict[str, Any] = {"image": 0, "text": 0}
    for batch in run.batches(samples):
        last_routings = (
            run.system.read_image(batch["image"])[1][-1],
            run.system.read_text(batch["tokens"], batch["mask"])[1][-1],
        )
        for name, routing in zip(counts, last_routings):
            choice = top_experts(routing.probability, config.chosen)[1][routing.real].flatten()
            counts[name] = counts[name] + choice.cpu().bincount(minlength=config.experts)
    shares = {name: count / count.sum() for name, count in counts.items()}
    both, rows = sum(shares.values()), {}
    for name, share in shares.items():
        own = share >= 0.9 * both
        rows[f"experts that {name}s use, of {config.experts}"] = row(torch.special.entr(share).sum().exp())
        rows[f"share of {name}s at experts of their own"] = row(share[own & (share > 0)].sum(), 0.0)
    return rows


RECIPE = Recipe(
    LIMoE,
    LIMoEConfig,
    reads=(Image(), Tokens()),
    learns=Objective(
        "itc",
        {"itc": ln_batch, "balance": None, "z": None, "local": None, "global": None},
        measures=(retrieval("image", "text"), expert_usage),
        samples=1000,
    ),
    architecture="""
    image -> patches -> shared attention -> router -> experts [top k] -> mean of tokens -> !InfoNCE
    text -> words -> shared attention
    router -> !balance and z
    router -> !local and global entropy
    """,
)
