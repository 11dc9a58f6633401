"""Each system is compared with published code in a file of this folder, or it is said here why not."""

from pathlib import Path

import mmlearn
from mmlearn.recipes.discovery import system_files

FOLDER = Path(__file__).parent
ROOT = Path(mmlearn.__file__).parents[1]
NOT_COMPARED = {  # with their equations instead, in tests/models
    "filip": "no code was published",
    "frozen": "no code was published, nor was its language model",
    "minigpt-4": "one linear layer between BLIP-2's Q-Former and GPT-2, which are compared",
    "ernie-vil": "no code of its pretraining was published; ViLBERT, whose streams it has, is compared",
    "kvl-bert": "no code was published; VL-BERT, which it is without knowledge, is compared",
    "pixel-bert": "no code was published; its BERT and its ResNet take published weights",
    "vse": "its picture network is another; its GRU is PyTorch's, and its loss is compared with loops",
    "std-roberta": "no code was published; RoBERTa, which it is, is compared",
    "lit": "the text tower is CLIP's here; both towers are compared in CLIP and ViT",
    "lip2wav": "a transformer stands for the recurrent layers",
    "vq-vae": "the published code is for another library, and blocks and averages start differently here",
    "discrete-vae": "the released networks are deeper, and their weights are pickled",
    "vqgan": "its networks are those of our VQ-VAE; its losses are compared with their equations",
    "dall-e": "no code of the transformer was published",
    "cm3": "its codec and its texts are others; what it moves is compared with the published rule",
    "mult": "the code scales features and hides what comes later, and ours follows the paper",
    "limoe": "no code of it was published, only of its sparse layers, in JAX",
    "multiway": "the papers' blocks have scales and relative positions as well",
    "vit-bert": "no code was published",
    "ofa": "its norms, its positions and its codes are others",
    "unit": "its tasks and heads are others; DETR, on which it stands, is compared",
    "vl-t5": "its released weights are pickled; T5's blocks, of which it is made, are compared",
    "m6": "no code was published",
    "unified-io": "the published code is for another library, and its scores know more of positions",
    "virtex": "its decoder is PyTorch's, with which it is compared, and its network torchvision's",
    "vlp": "the published code has layers and a number of each box that the paper has not",
    "simvlm": "no code was published",
    "coca": "no code was published",
    "vinvl": "OSCAR with a norm and a class more, which are compared there",
    "vokenization": "both of its BERTs start at random, and BERT is compared; its picture network is another",
    "uc2": "its one stream is UNITER's and its texts are XLM-R's, which are compared",
    "m3p": "its texts are XLM-R's, which is compared; heads of its published code are many, and ours follow the paper",
    "vatt": "words, heads and positions of texts are others",
    "early-fusion": "one hidden layer, of no one paper",
    "late-fusion": "an average of votes, of no one paper",
    "bimodal-autoencoder": "no code was published",
    "denoising-autoencoder": "no code was published",
    "gmu": "the published code is for another library, and its classifier is another",
    "tfn": "its encoders are others; the product is compared with every product by itself",
    "lmf": "the code weighs the sum over ranks, and ours follows the paper; it is compared with the whole tensor",
    "safe": "the code reads a picture as a sentence that a captioner wrote",
    "show-and-tell": "the published code is for another library, and its picture network is another",
    "sca-cnn": "the published code is for another library, and its picture network is another",
    "scst": "no code was published",
    "lstm-cnn": "the published code is for another library; its picture network is another",
    "san": "the published code is for another library; its picture network is another",
    "memory-network": "the published code is for another library, and answers have a layer of their own here",
    "aoa": "no code was published that we found",
    "graph-mfn": "the code's networks of vertices and gates are deeper",
    "gan-int-cls": "the published code is for another library, and its reader of captions is another",
    "attn-gan": "its readers and its way to paint are others; DAMSM is compared with its equations",
}


def test_each_is_compared_or_named():
    compared = {name for name in system_files() if (FOLDER / f"test_{name.replace('-', '_')}.py").exists()}
    assert compared.isdisjoint(NOT_COMPARED)
    assert compared | NOT_COMPARED.keys() == set(system_files())
