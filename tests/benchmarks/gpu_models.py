"""What the bench on GPUs measures: CLIP and open_clip's, BLIP and wav2vec 2.0 and Transformers', of one shape each.

Both sides have the same weights, the same batch and the same loss: :func:`check` proves it before anything is timed. No
dropout. BLIP has no momentum encoder and no queue, because Transformers has neither; its three losses are joined there
from both published halves.
"""

from collections.abc import Callable
from typing import NamedTuple

import audio
import pairs
import torch
import torch.distributed as dist
from torch import nn

FEW = 4  # samples on which losses are compared


class Case(NamedTuple):
    """A system, its twin, and the shape of both. Losses are functions of a model and a batch."""

    system: str
    beside: str
    size: dict
    shrunk: dict  # what is smaller where only the wiring is tried
    batch: int  # samples on a card of 80 GB; halved until both sides fit
    ours: Callable  # of the size: a model
    our_loss: Callable
    twin: Callable
    twin_loss: Callable
    our_state: Callable  # the twin's weights under our names
    given: Callable  # of size and number of samples: a batch


CLIP_SIZE = dict(
    picture=224, width=768, depth=12, heads=12, vocab=49_408, length=77, text_width=512, text_depth=12, text_heads=8,
    embedding=512,
)  # fmt: skip
CLIP_SHRUNK = dict(
    picture=32, patch=8, width=32, depth=1, heads=4, vocab=99, length=7, text_width=24, text_depth=1, text_heads=3,
    embedding=16,
)  # fmt: skip
# Texts have as many tokens as COCO's captions, from the fewest to the most, and are padded to the longest of the batch.
BLIP_SIZE = dict(
    picture=224, patch=16, width=768, depth=12, heads=12, vocab=30_524, length=512, words=(10, 18), regions=2,
    features=1, classes=1,
)  # fmt: skip
BLIP_SHRUNK = dict(picture=32, width=32, depth=1, heads=4, vocab=99, length=20)
# Clips of five to ten seconds.
SPEECH_SIZE = dict(channels=(512,) * 7, width=768, depth=12, heads=12, samples=160_000)
SPEECH_SHRUNK = dict(channels=(16,) * 7, width=32, depth=1, heads=4, samples=8_000)


def clip(size):
    """Of the size of ViT-B/32 or ViT-B/16 it is that preset."""
    from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
    from mmlearn.models.contrastive.clip import CLIP, CLIPConfig

    image = ImageEncoderConfig(
        size["width"], size["depth"], size["heads"], image_size=size["picture"], patch_size=size["patch"],
        activation="quick_gelu", embedding_norm=True,
    )  # fmt: skip
    text = TextEncoderConfig(
        size["text_width"], size["text_depth"], size["text_heads"], vocab_size=size["vocab"],
        max_length=size["length"], activation="quick_gelu",
    )  # fmt: skip
    return CLIP(CLIPConfig(image=image, text=text, embedding_width=size["embedding"]))


def open_clip(size):
    from open_clip.model import CLIP

    image = dict(
        image_size=size["picture"], patch_size=size["patch"], width=size["width"], layers=size["depth"],
        head_width=size["width"] // size["heads"],
    )  # fmt: skip
    text = dict(
        context_length=size["length"], vocab_size=size["vocab"], width=size["text_width"], heads=size["text_heads"],
        layers=size["text_depth"],
    )  # fmt: skip
    return CLIP(embed_dim=size["embedding"], vision_cfg=image, text_cfg=text, quick_gelu=True)


def open_clip_loss(model, batch):
    """Over the batch of all processes, with the gradient through the gathering, as ours."""
    from open_clip.loss import ClipLoss

    world = dict(rank=dist.get_rank(), world_size=dist.get_world_size()) if dist.is_initialized() else {}
    return ClipLoss(gather_with_grad=True, **world)(*model(batch["image"], batch["tokens"])[:3])


TOWERS = {
    "visual.class_embedding": "image_encoder.embedding.class_token",
    "visual.positional_embedding": "image_encoder.embedding.positions",
    "visual.conv1": "image_encoder.embedding.patches",
    "visual.ln_pre": "image_encoder.embedding_norm",
    "visual.ln_post": "image_encoder.norm",
    "visual.transformer.resblocks": "image_encoder.transformer.blocks",
    "visual.proj": "image_projection.weight",
    "token_embedding": "text_encoder.embedding.tokens",
    "positional_embedding": "text_encoder.embedding.positions",
    "transformer.resblocks": "text_encoder.transformer.blocks",
    "ln_final": "text_encoder.norm",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
PARTS = {
    "attn.out_proj": "attention.output",
    "ln_1": "attention_norm",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "mlp.expand",
    "mlp.c_proj": "mlp.contract",
}


def open_clip_state(twin):
    """Weights of an open_clip model under our names. Three projections are one there, and patches a convolution."""
    state = {}
    for name, value in twin.state_dict().items():
        tower = next(tower for tower in TOWERS if name == tower or name.startswith(f"{tower}."))
        own = TOWERS[tower] + name.removeprefix(tower)
        if name in ("visual.proj", "text_projection"):
            value = value.T
        if name == "visual.conv1.weight":
            value = value.flatten(1)
        if ".in_proj_" in own:
            block, kind = own.split(".attn.in_proj_")
            for part, third in zip(("query", "key", "value"), value.chunk(3)):
                state[f"{block}.attention.{part}.{kind}"] = third
            continue
        for theirs, ours in PARTS.items():
            own = own.replace(f".{theirs}.", f".{ours}.")
        state[own] = value
    return state


def images_and_texts(size, count):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, size["vocab"] - 1, (count, size["length"]), generator=generator)
    tokens[:, -1] = size["vocab"] - 1  # the end, where a text is read
    return {"image": torch.randn(count, 3, size["picture"], size["picture"], generator=generator), "tokens": tokens}


def total(model, batch):
    return sum(model.loss(batch).values())


def captioned_images(size, count):
    given = pairs.batch(size | dict(pairs=count))
    return {"image": given["image"], "tokens": given["whole"], "mask": given["mask"]}


def clips(size, count):
    return audio.clips(size | dict(clips=count))


def speech_loss(model, batch):
    """With noise for the choice of codes that is drawn on the device at every step, as the twin draws its own."""
    b, frames = batch["masked"].shape
    noise = -torch.empty(b * frames * 2, 320, device=batch["waveform"].device).exponential_().log()
    return total(model, batch | {"gumbel": noise.view(b, frames, 2, 320)})


def published_speech_loss(model, batch):
    """The mean over hidden frames, as ours."""
    b, frames = batch["masked"].shape
    clip_start = frames * torch.arange(b, device=batch["masked"].device)[:, None, None]
    output = model(
        input_values=batch["waveform"],
        attention_mask=batch["waveform_mask"].long(),
        mask_time_indices=batch["masked"],
        sampled_negative_indices=batch["distractor"] + clip_start,
    )
    return output.loss / batch["masked"].sum()


def first(build, **more):
    """Of what a builder of the other benches returns, the model."""
    return lambda size: build(size | more)[0]


CLIP = dict(
    system="CLIP", beside="open_clip", shrunk=CLIP_SHRUNK, ours=clip, our_loss=total, twin=open_clip,
    twin_loss=open_clip_loss, our_state=open_clip_state, given=images_and_texts,
)  # fmt: skip
CASES = {
    "clip-b32": Case(**CLIP | dict(system="CLIP ViT-B/32", size=CLIP_SIZE | dict(patch=32), batch=1024)),
    "clip-b16": Case(**CLIP | dict(system="CLIP ViT-B/16", size=CLIP_SIZE | dict(patch=16), batch=512)),
    "blip": Case(
        "BLIP base, ITC + ITM + LM", "Transformers", BLIP_SIZE, BLIP_SHRUNK, 256,
        first(pairs.blip_pretraining, pairs=FEW), total, first(pairs.published_blip_pretraining, pairs=FEW),
        lambda model, batch: model(**batch), pairs.our_state, captioned_images,
    ),
    "wav2vec2": Case(
        "wav2vec 2.0 base", "Transformers", SPEECH_SIZE, SPEECH_SHRUNK, 32, first(audio.wav2vec2, clips=FEW),
        speech_loss, first(audio.published_wav2vec2, clips=FEW), published_speech_loss, pairs.our_state, clips,
    ),
}  # fmt: skip


class Loss(nn.Module):
    """A loss of a model as a forward pass, which is what compilation and data parallelism wrap."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch):
        return self.loss(self.model, batch)


def build(case, size):
    """Ours and the twin, with equal weights."""
    torch.manual_seed(0)
    ours, twin = Loss(case.ours(size), case.our_loss), Loss(case.twin(size), case.twin_loss)
    check(case, size, ours, twin)
    return {"mmlearn": ours, case.beside: twin}


def trained(module):
    """How many numbers learn."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def check(case, size, ours, twin):
    """Ours takes the twin's weights; as many learn, and on a few samples in float32 the losses are equal.

    Raises ``AssertionError`` where they are not.
    """
    assert trained(ours) == trained(twin), f"{case.system}: {trained(ours):,} parameters, {trained(twin):,} there"
    ours.model.load_state_dict(case.our_state(twin.model))
    batch, losses = case.given(size, FEW), []
    for side in (ours, twin):
        torch.manual_seed(0)
        with torch.no_grad():
            losses.append(side(batch))
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
