"""Systems that hear, as they are here and their twins of Transformers, of one size each, on one batch.

No dropout, as chapters train. Every twin is equal: with our weights it has our loss.

CLAP's texts are padded as its own code pads them, which is not computed here; without padding it takes 0.93 of its
twin's time in the larger size.
"""

import fusion
import pairs
import torch
import unified
from einops import rearrange

from mmlearn.objectives import pair_cross_entropy

# The smaller one is what chapters train, on a second or two. In the larger, AST and CLAP hear ten seconds; texts have
# from the fewest to the most tokens of Clotho's captions (8 to 20 words, and a token before and after), padded to 77 as
# CLAP's official code pads all; wav2vec 2.0 has a third of its published channels.
SIZES = {
    "64 wide, 3 layers": dict(
        width=64, depth=3, heads=4, mels=64, frames=200, patch=16, step=10, classes=35,
        pieces=2, swin_patch=8, window=4, swin_width=24, depths=(2, 2), swin_heads=(2, 4),
        vocab=512, words=(8, 16), length=16, pairs=32,
        samples=16_000, channels=(16, 24, 32, 48, 64, 64, 64), clips=16, steps=9,
    ),
    "256 wide, 6 layers": dict(
        width=256, depth=6, heads=4, mels=64, frames=1000, patch=16, step=10, classes=527,
        pieces=4, swin_patch=4, window=8, swin_width=48, depths=(2, 2, 2), swin_heads=(2, 4, 8),
        vocab=5120, words=(10, 22), length=77, pairs=2,
        samples=32_000, channels=(168,) * 7, clips=4, steps=9,
    ),
}  # fmt: skip


def batch(size):
    """Log-mels, each with a class, and a text of which some tokens are padding."""
    generator = torch.Generator().manual_seed(0)
    b, t = size["pairs"], size["length"]
    least, most = size["words"]
    mask = torch.arange(t) < torch.randint(least, most + 1, (b, 1), generator=generator)
    return {
        "mel": torch.randn(b, size["mels"], size["frames"], generator=generator),
        "label": torch.randint(size["classes"], (b,), generator=generator),
        "tokens": torch.randint(2, size["vocab"], (b, t), generator=generator).masked_fill(~mask, 1),
        "mask": mask,
    }


# Each of these returns a model and a function that computes its loss; ours and its twin's have one after the other.


def ast(size):
    from mmlearn.models.audio.ast import AST, ASTConfig

    config = ASTConfig(
        mels=size["mels"], frames=size["frames"], patch_size=size["patch"], frequency_stride=size["step"],
        time_stride=size["step"], width=size["width"], depth=size["depth"], num_heads=size["heads"],
        num_classes=size["classes"],
    )  # fmt: skip
    model, given = AST(config), batch(size)
    return model, lambda: model.loss(given)["classification"]


def published_ast(size):
    from transformers import ASTConfig, ASTForAudioClassification

    config = ASTConfig(
        num_mel_bins=size["mels"], max_length=size["frames"], patch_size=size["patch"],
        frequency_stride=size["step"], time_stride=size["step"], hidden_size=size["width"],
        num_hidden_layers=size["depth"], num_attention_heads=size["heads"], intermediate_size=4 * size["width"],
        num_labels=size["classes"],
    )  # fmt: skip
    model, given = ASTForAudioClassification(config), batch(size)
    mel = given["mel"].mT.contiguous()
    return model, lambda: model(input_values=mel, labels=given["label"]).loss


def clap(size):
    from mmlearn.layers import BERTEncoderConfig
    from mmlearn.models.audio.clap import CLAP, CLAPConfig, HTSATConfig

    audio = HTSATConfig(
        size["swin_width"], size["depths"], size["swin_heads"], window=size["window"], dropout=0.0, mels=size["mels"],
        pieces=size["pieces"], patch_size=size["swin_patch"],
    )  # fmt: skip
    text = BERTEncoderConfig(
        size["width"], size["depth"], size["heads"], dropout=0.0, vocab_size=size["vocab"], max_length=size["length"],
        token_types=1, pad_token=1,
    )  # fmt: skip
    config = CLAPConfig(audio, text)
    model, given = CLAP(config), batch(size)
    return model, lambda: model.loss(given)["atc"]


def published_clap(size):
    """Its loss is of both directions, from its logits: the one of its own is not the paper's."""
    from transformers import ClapConfig, ClapModel

    none = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    patch, stages = size["swin_patch"], len(size["depths"])
    audio = dict(
        num_mel_bins=size["mels"], spec_size=size["mels"] * size["pieces"], patch_size=patch,
        patch_stride=[patch, patch], window_size=size["window"], depths=list(size["depths"]),
        num_attention_heads=list(size["swin_heads"]), patch_embeds_hidden_size=size["swin_width"],
        hidden_size=size["swin_width"] * 2 ** (stages - 1),
    )  # fmt: skip
    text = dict(
        vocab_size=size["vocab"], max_position_embeddings=size["length"] + 2, hidden_size=size["width"],
        num_hidden_layers=size["depth"], num_attention_heads=size["heads"], intermediate_size=4 * size["width"],
    )  # fmt: skip
    model, given = ClapModel(ClapConfig(audio_config=audio | none, text_config=text | none)), batch(size)
    inputs = dict(
        input_features=rearrange(given["mel"], "b mel s -> b 1 s mel").contiguous(),
        input_ids=given["tokens"],
        attention_mask=given["mask"].long(),
    )

    def loss():
        output = model(**inputs)
        return pair_cross_entropy(output.logits_per_audio, output.logits_per_text)

    return model, loss


def clips(size):
    """Waveforms, some shorter than others; which frames are hidden, and for each of these other hidden ones."""
    from mmlearn.models.speech.encoder import frame_mask
    from mmlearn.objectives.speech import mask_spans, sample_distractors

    generator = torch.Generator().manual_seed(0)
    b, most = size["clips"], size["samples"]
    mask = torch.arange(most) < torch.randint(most // 2, most + 1, (b, 1), generator=generator)
    mask[0] = True
    real = frame_mask(mask, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    masked = mask_spans(real, generator=generator)
    return {
        "waveform": torch.randn(b, most, generator=generator) * mask,
        "waveform_mask": mask,
        "masked": masked,
        "distractor": sample_distractors(masked, 100, generator=generator),
    }


def wav2vec2(size):
    """It draws the noise of its codes at every step as its twin does, and the same."""
    from mmlearn.models.speech.encoder import SpeechEncoderConfig
    from mmlearn.models.speech.wav2vec2 import Wav2Vec2, Wav2Vec2Config

    speech = SpeechEncoderConfig(
        channels=size["channels"], width=size["width"], depth=size["depth"], num_heads=size["heads"], dropout=0.0
    )
    model, given = Wav2Vec2(Wav2Vec2Config(speech=speech)), clips(size)
    b, frames = given["masked"].shape

    def loss():
        torch.manual_seed(0)
        noise = -torch.empty(b * frames * 2, 320).exponential_().log()
        return sum(model.loss(given | {"gumbel": noise.view(b, frames, 2, 320)}).values())

    return model, loss


def published_wav2vec2(size):
    """Its loss is a sum over hidden frames; here it is their mean, as ours is."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    parts = ("hidden", "activation", "attention", "feat_proj", "feat_quantizer", "final")
    config = Wav2Vec2Config(
        conv_dim=size["channels"], hidden_size=size["width"], num_hidden_layers=size["depth"],
        num_attention_heads=size["heads"], intermediate_size=4 * size["width"], layerdrop=0.0,
        **{f"{part}_dropout": 0.0 for part in parts},
    )  # fmt: skip
    model, given = Wav2Vec2ForPreTraining(config), clips(size)
    b, frames = given["masked"].shape
    inputs = dict(
        input_values=given["waveform"],
        attention_mask=given["waveform_mask"].long(),
        mask_time_indices=given["masked"],
        sampled_negative_indices=given["distractor"] + frames * torch.arange(b)[:, None, None],
    )

    def loss():
        torch.manual_seed(0)
        return model(**inputs).loss / given["masked"].sum()

    return model, loss


def written(size):
    """Clips, and of each what is said in it."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, 32, (size["clips"], 12), generator=generator)
    mask = torch.arange(12) < torch.randint(4, 13, (size["clips"], 1), generator=generator)
    return pairs.pick(clips(size), "waveform", "waveform_mask") | dict(tokens=tokens, mask=mask)


def data2vec(size):
    model, given = unified.loaded(published_data2vec(size)[0]), written(size)
    return model, lambda: model.loss(given)["ctc"]


def published_data2vec(size):
    """Its loss is a sum over texts; here it is their mean, as ours is."""
    from transformers import Data2VecAudioConfig, Data2VecAudioForCTC

    none = {f"{part}_dropout": 0.0 for part in ("hidden", "activation", "attention", "feat_proj", "final")}
    config = Data2VecAudioConfig(
        **unified.encoder(size) | none,
        conv_dim=size["channels"],
        layerdrop=0.0,
        apply_spec_augment=False,
        vocab_size=32,
    )
    model, given = Data2VecAudioForCTC(config), written(size)
    inputs = dict(
        input_values=given["waveform"],
        attention_mask=given["waveform_mask"].long(),
        labels=given["tokens"].masked_fill(~given["mask"], -100),
    )
    return model, lambda: model(**inputs).loss / len(given["tokens"])


# System, what it learns, its twin, whether that is equal or what is near about it, ours, theirs.
ROWS = (
    ("AST", "classification", "ASTForAudioClassification", "equal", ast, published_ast),
    ("CLAP", "atc", "ClapModel", "equal", clap, published_clap),
    ("wav2vec 2.0", "contrast + diversity", "Wav2Vec2ForPreTraining", "equal", wav2vec2, published_wav2vec2),
    ("data2vec", "ctc", "Data2VecAudioForCTC", "equal", data2vec, published_data2vec),
)


def measure():
    """As for fusion systems: one record for each system, size and number of threads."""
    return fusion.measure(ROWS, SIZES)
