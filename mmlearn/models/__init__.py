"""One file per system; the paper's own idea is in its file.

:func:`system` finds a class by the name that the command line and checkpoints use.
"""

from importlib import import_module

from torch import nn

from mmlearn.layers import Config
from mmlearn.names import choices

# name → (module, class, configuration)
SYSTEMS = {
    "albef": ("mmlearn.models.align.albef", "ALBEF", "ALBEFConfig"),
    "ast": ("mmlearn.models.audio.ast", "AST", "ASTConfig"),
    "av-hubert": ("mmlearn.models.audiovisual.av_hubert", "AVHuBERT", "AVHuBERTConfig"),
    "bert": ("mmlearn.models.text.bert", "BERT", "BERTConfig"),
    "blip": ("mmlearn.models.align.blip", "BLIP", "BLIPConfig"),
    "clap": ("mmlearn.models.audio.clap", "CLAP", "CLAPConfig"),
    "clip": ("mmlearn.models.contrastive.clip", "CLIP", "CLIPConfig"),
    "decoar2": ("mmlearn.models.speech.decoar2", "DeCoAR2", "DeCoAR2Config"),
    "filip": ("mmlearn.models.contrastive.filip", "FILIP", "FILIPConfig"),
    "hubert": ("mmlearn.models.speech.hubert", "HuBERT", "HuBERTConfig"),
    "image-bind": ("mmlearn.models.trimodal.image_bind", "ImageBind", "ImageBindConfig"),
    "lip2wav": ("mmlearn.models.audiovisual.lip2wav", "Lip2Wav", "Lip2WavConfig"),
    "lit": ("mmlearn.models.contrastive.lit", "LiT", "LiTConfig"),
    "lxmert": ("mmlearn.models.fusion.lxmert", "LXMERT", "LXMERTConfig"),
    "misa": ("mmlearn.models.trimodal.misa", "MISA", "MISAConfig"),
    "mult": ("mmlearn.models.trimodal.mult", "MulT", "MulTConfig"),
    "pixel-bert": ("mmlearn.models.fusion.pixel_bert", "PixelBERT", "PixelBERTConfig"),
    "siglip": ("mmlearn.models.contrastive.siglip", "SigLIP", "SigLIPConfig"),
    "sound-of-pixels": ("mmlearn.models.audiovisual.sound_of_pixels", "SoundOfPixels", "SoundOfPixelsConfig"),
    "uniter": ("mmlearn.models.fusion.uniter", "UNITER", "UNITERConfig"),
    "vatt": ("mmlearn.models.trimodal.vatt", "VATT", "VATTConfig"),
    "vilbert": ("mmlearn.models.fusion.vilbert", "ViLBERT", "ViLBERTConfig"),
    "vilt": ("mmlearn.models.fusion.vilt", "ViLT", "ViLTConfig"),
    "visual-bert": ("mmlearn.models.fusion.visual_bert", "VisualBERT", "VisualBERTConfig"),
    "vit": ("mmlearn.models.vision.vit", "ViT", "ViTConfig"),
    "vl-bert": ("mmlearn.models.fusion.vl_bert", "VLBERT", "VLBERTConfig"),
    "wav2vec2": ("mmlearn.models.speech.wav2vec2", "Wav2Vec2", "Wav2Vec2Config"),
}


def system(name: str) -> tuple[type[nn.Module], type[Config]]:
    """The class of a system and the class of its configuration. ``ValueError`` for an unknown name."""
    if name not in SYSTEMS:
        raise ValueError(f"There is no system {name!r}; {choices(name, SYSTEMS)}.")
    module, model, config = SYSTEMS[name]
    return getattr(import_module(module), model), getattr(import_module(module), config)
