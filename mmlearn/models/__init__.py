"""One file per system; the paper's own idea is in its file.

:func:`system` finds a class by the name that the command line and checkpoints use.
"""

from importlib import import_module

from torch import nn

from mmlearn.layers import Config
from mmlearn.names import choices

# name → (module, class, configuration)
SYSTEMS = {
    "albef": ("mmlearn.models.albef", "ALBEF", "ALBEFConfig"),
    "ast": ("mmlearn.models.ast", "AST", "ASTConfig"),
    "av-hubert": ("mmlearn.models.av_hubert", "AVHuBERT", "AVHuBERTConfig"),
    "bert": ("mmlearn.models.bert", "BERT", "BERTConfig"),
    "blip": ("mmlearn.models.blip", "BLIP", "BLIPConfig"),
    "clap": ("mmlearn.models.clap", "CLAP", "CLAPConfig"),
    "clip": ("mmlearn.models.clip", "CLIP", "CLIPConfig"),
    "decoar2": ("mmlearn.models.decoar2", "DeCoAR2", "DeCoAR2Config"),
    "filip": ("mmlearn.models.filip", "FILIP", "FILIPConfig"),
    "hubert": ("mmlearn.models.hubert", "HuBERT", "HuBERTConfig"),
    "image-bind": ("mmlearn.models.image_bind", "ImageBind", "ImageBindConfig"),
    "lip2wav": ("mmlearn.models.lip2wav", "Lip2Wav", "Lip2WavConfig"),
    "lit": ("mmlearn.models.lit", "LiT", "LiTConfig"),
    "lxmert": ("mmlearn.models.lxmert", "LXMERT", "LXMERTConfig"),
    "misa": ("mmlearn.models.misa", "MISA", "MISAConfig"),
    "mult": ("mmlearn.models.mult", "MulT", "MulTConfig"),
    "pixel-bert": ("mmlearn.models.pixel_bert", "PixelBERT", "PixelBERTConfig"),
    "siglip": ("mmlearn.models.siglip", "SigLIP", "SigLIPConfig"),
    "sound-of-pixels": ("mmlearn.models.sound_of_pixels", "SoundOfPixels", "SoundOfPixelsConfig"),
    "uniter": ("mmlearn.models.single_stream", "UNITER", "UNITERConfig"),
    "vatt": ("mmlearn.models.vatt", "VATT", "VATTConfig"),
    "vilbert": ("mmlearn.models.vilbert", "ViLBERT", "ViLBERTConfig"),
    "vilt": ("mmlearn.models.vilt", "ViLT", "ViLTConfig"),
    "visual-bert": ("mmlearn.models.single_stream", "VisualBERT", "VisualBERTConfig"),
    "vit": ("mmlearn.models.vit", "ViT", "ViTConfig"),
    "vl-bert": ("mmlearn.models.single_stream", "VLBERT", "VLBERTConfig"),
    "wav2vec2": ("mmlearn.models.wav2vec2", "Wav2Vec2", "Wav2Vec2Config"),
}


def system(name: str) -> tuple[type[nn.Module], type[Config]]:
    """The class of a system and the class of its configuration. ``ValueError`` for an unknown name."""
    if name not in SYSTEMS:
        raise ValueError(f"There is no system {name!r}; {choices(name, SYSTEMS)}.")
    module, model, config = SYSTEMS[name]
    return getattr(import_module(module), model), getattr(import_module(module), config)
