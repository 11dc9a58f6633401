r"""KVL-BERT: VL-BERT on sentences in which words are followed by triples of a knowledge graph.

Paper: Song et al. 2021, "KVL-BERT: Knowledge Enhanced Visual-and-Linguistic BERT for visual commonsense reasoning",
Knowledge-Based Systems. No code was published. How knowledge is put in, its positions and what it may see are those of
Liu et al. 2020, "K-BERT: Enabling Language Representation with Knowledge Graph", whose official code is
https://github.com/autoliuweijie/K-BERT.

Deviations: those of :mod:`~mmlearn.models.fusion.vl_bert`, and ``tiny``. The paper takes over VL-BERT's weights, and
learns with knowledge the answers and rationales of one data set (VCR) alone; here knowledge is there from the start, in
pretraining, and any task is learned by :class:`~mmlearn.models.fusion.finetune.FineTuned`. Knowledge comes from a few
lines below, not from ConceptNet, and its words have the vectors of all words. What is known of a masked word is hidden
with it. All triples of a word are taken. Not compared with released code: no code was published; VL-BERT, which it is
without knowledge, is compared.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.models.fusion.regions import REGION_INPUTS, read_regions
from mmlearn.models.fusion.single_stream import SingleStreamOutput
from mmlearn.models.fusion.vl_bert import VLBERT, VLBERTConfig

# The knowledge graph of the words of scenes: a word → its (relation, tail) pairs.
KNOWLEDGE = {
    **{colour: [("is", "warm")] for colour in ("red", "orange", "yellow", "brown")},
    **{colour: [("is", "cold")] for colour in ("green", "cyan", "blue")},
    **{one: [("looks like", other)] for one, other in (("lime", "yellow"), ("pink", "red"), ("purple", "blue"))},
    "magenta": [("looks like", "pink"), ("looks like", "purple")],
    **{shape: [("has", "a round edge")] for shape in ("circle", "ring", "moon")},
    **{shape: [("has", "four corners")] for shape in ("square", "diamond", "bar", "hourglass")},
    "triangle": [("has", "three corners"), ("points", "up")],
    "arrow": [("points", "up")],
    "heart": [("points", "down"), ("has", "a round edge")],
    "star": [("has", "five points")],
    "cross": [("has", "four arms")],
}


@dataclass(frozen=True)
class KVLBERTConfig(VLBERTConfig):
    PRESETS = {"tiny": VLBERTConfig.PRESETS["tiny"], "base": dict()}


def visible_matrix(entity: Int[Tensor, "b n"], branch: Int[Tensor, "b n"]) -> Bool[Tensor, "b n n"]:
    r"""Which tokens attend to each other: those of one branch, and those of a word and its branches.

    .. math:: M_{ij} = [\mathrm{branch}_i = \mathrm{branch}_j] \lor
       [\mathrm{entity}_i = \mathrm{entity}_j \land (\mathrm{branch}_i = 0 \lor \mathrm{branch}_j = 0)]

    Branch 0 is the sentence. So knowledge reaches its own word directly, and all others only through that word. No
    other token attends to a branch with the entity -1. Source: Liu et al. 2020 (K-BERT), seeing layer; Song et al. 2021
    (KVL-BERT), mask-self-attention.
    """
    in_sentence = branch == 0  # (b, n)
    same_branch = branch[:, :, None] == branch[:, None]  # (b, n, n)
    same_entity = (entity[:, :, None] == entity[:, None]) & (entity >= 0)[:, None]
    return same_branch | same_entity & (in_sentence[:, :, None] | in_sentence[:, None])


class KVLBERT(VLBERT):
    r"""VL-BERT in which each token attends only to the tokens that the matrix M allows.

    .. math:: \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{k}} + \log M\right) V

    Regions and [END] stand behind the sentence as if it had no branch, and belong to it. Words of a branch have the
    type of the sentence, and like its words the visual feature of the whole picture. ``position``, ``entity`` and
    ``branch`` are those of :func:`~mmlearn.data.fields.graphs.inject`; without them, or without knowledge, this is
    :class:`~mmlearn.models.fusion.vl_bert.VLBERT`. Source: Song et al. 2021, section 3.
    """

    INPUTS = (*REGION_INPUTS, "position", "entity", "branch")

    def forward(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        masked_regions: Bool[Tensor, "b p"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
        position: Int[Tensor, "b t"] | None = None,
        entity: Int[Tensor, "b t"] | None = None,
        branch: Int[Tensor, "b t"] | None = None,
    ) -> SingleStreamOutput:
        regions, boxes, region_mask, masked = read_regions(
            regions, boxes, region_mask, masked_regions, texts=len(tokens), width=self.config.region_width
        )
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        zeros = torch.zeros_like(tokens)
        token_type, entity, branch = (zeros if x is None else x for x in (token_type, entity, branch))
        sentence = mask & (branch == 0)  # (b, t): knowledge moves no position of what follows
        x = self.embed(regions, boxes, region_mask, masked, tokens, token_type, sentence, position)  # (b, n, d)
        image_length = x.shape[1] - tokens.shape[1]  # regions and [END] belong to the sentence: branch 0
        entity, branch = F.pad(entity, (0, image_length), value=-1), F.pad(branch, (0, image_length))
        visible = visible_matrix(entity, branch)  # (b, n, n)
        return self.encode(x, mask, region_mask, visible)
