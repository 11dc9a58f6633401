"""The recipe of KVL-BERT: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import Regions
from mmlearn.data.fields.graphs import KnowledgeTokens, MaskedSentence
from mmlearn.evaluation.measures import masked_token_accuracy
from mmlearn.models.fusion.kvl_bert import KNOWLEDGE, KVLBERT, KVLBERTConfig
from mmlearn.recipes import MLM, MRM, Recipe

LABEL = MaskedSentence()
RECIPE = Recipe(
    KVLBERT,
    KVLBERTConfig,
    reads=(KnowledgeTokens(graph=KNOWLEDGE), Regions()),
    learns=(replace(MLM, labels=(LABEL,), measures=(masked_token_accuracy(LABEL),)), MRM),
    architecture="""
    words -> sentence tree [a branch for each triple of a word] -> token and visual feature [of every element]
    *knowledge graph [not trained] -> sentence tree
    *detector [not trained] -> regions -> token and visual feature
    token and visual feature -> BERT [a branch attends only to its word] -> !MLM
    BERT -> !MRC
    """,
)
