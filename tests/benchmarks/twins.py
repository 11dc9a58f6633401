"""What the benches measure: systems as they are here and in Transformers or open_clip, of one shape each.

Both sides have the same weights, the same batch and the same loss: :func:`check` proves it before anything is timed. No
dropout. BLIP has no momentum encoder and no queue, because Transformers has neither; its three losses are joined there
from both published halves.
"""

import re
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
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
    image=224, width=768, depth=12, heads=12, vocab=49_408, length=77, text_width=512, text_depth=12, text_heads=8,
    embedding=512,
)  # fmt: skip
CLIP_SHRUNK = dict(
    image=32, patch=8, width=32, depth=1, heads=4, vocab=99, length=7, text_width=24, text_depth=1, text_heads=3,
    embedding=16,
)  # fmt: skip
# Texts have as many tokens as COCO's captions, from the fewest to the most, and are padded to the longest of the batch.
BLIP_SIZE = dict(
    image=224, patch=16, width=768, depth=12, heads=12, vocab=30_524, length=512, words=(10, 18),
)  # fmt: skip
BLIP_SHRUNK = dict(image=32, width=32, depth=1, heads=4, vocab=99, length=20)
# Clips of five to ten seconds.
SPEECH_SIZE = dict(channels=(512,) * 7, width=768, depth=12, heads=12, samples=160_000)
SPEECH_SHRUNK = dict(channels=(16,) * 7, width=32, depth=1, heads=4, samples=8_000)


def clip(size):
    """Of the size of ViT-B/32 or ViT-B/16 it is that preset."""
    from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
    from mmlearn.models.contrastive.clip import CLIP, CLIPConfig

    image = ImageEncoderConfig(
        size["width"], size["depth"], size["heads"], image_size=size["image"], patch_size=size["patch"],
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
        image_size=size["image"], patch_size=size["patch"], width=size["width"], layers=size["depth"],
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
    return {"image": torch.randn(count, 3, size["image"], size["image"], generator=generator), "tokens": tokens}


def total(model, batch):
    return sum(model.loss(batch).values())


def our_state(twin):
    """Weights of a model of Transformers under our names."""
    return twin.our_state() if isinstance(twin, PublishedBLIP) else loaded(twin).state_dict()


def loaded(twin):
    """Our model with the shape and weights of one of Transformers."""
    from mmlearn import load_pretrained

    with tempfile.TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        return load_pretrained(folder).train()


def as_loaded(published):
    """A function that builds ours, where its shape follows from the twin's."""
    return lambda size: loaded(published(size))


def shape(size, **more):
    """Of an encoder, under the names of Transformers."""
    return dict(
        hidden_size=size["width"], num_hidden_layers=size["depth"], num_attention_heads=size["heads"],
        intermediate_size=4 * size["width"], **more,
    )  # fmt: skip


def text_shape(size, **more):
    words = dict(vocab_size=size["vocab"], max_position_embeddings=size["length"], pad_token_id=0)
    return shape(size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **words, **more)


def published_clip(size):
    from transformers import CLIPConfig, CLIPModel

    special = dict(bos_token_id=0, eos_token_id=size["vocab"] - 1, pad_token_id=1)
    text = shape(size, vocab_size=size["vocab"], max_position_embeddings=size["length"], **special)
    vision = shape(size, image_size=size["image"], patch_size=size["patch"])
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=size["width"]))


def published_clip_loss(model, batch):
    return model(input_ids=batch["tokens"], pixel_values=batch["image"], return_loss=True).loss


def texts(size, count):
    """With padding."""
    generator = torch.Generator().manual_seed(0)
    least, most = size["words"]
    mask = torch.arange(most) < torch.randint(least, most + 1, (count, 1), generator=generator)
    mask[0] = True
    return {"tokens": torch.randint(5, size["vocab"] - 2, (count, most), generator=generator), "mask": mask}


def masked_texts(size, count):
    """Some tokens are hidden, and half of the second sentences do not follow."""
    given = texts(size, count)
    tokens, hidden = given["tokens"], torch.rand(given["mask"].shape, generator=torch.Generator().manual_seed(1)) < 0.15
    hidden = (hidden & given["mask"]).index_fill(1, torch.tensor([1]), True)
    return {
        "tokens": tokens.masked_fill(hidden, 4),
        "mask": given["mask"],
        "token_label": tokens.masked_fill(~hidden, -100),
        "next_label": torch.arange(count) % 2,
    }


def published_bert(size):
    from transformers import BertConfig, BertForPreTraining

    return BertForPreTraining(BertConfig(**text_shape(size)))


def published_bert_loss(model, batch):
    label = dict(labels=batch["token_label"], next_sentence_label=batch["next_label"])
    return model(input_ids=batch["tokens"], attention_mask=batch["mask"].long(), **label).loss


def published_gpt2(size):
    from transformers import GPT2Config, GPT2LMHeadModel

    positions = dict(vocab_size=size["vocab"], n_positions=size["length"], bos_token_id=1, eos_token_id=2)
    none = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return GPT2LMHeadModel(
        GPT2Config(n_embd=size["width"], n_layer=size["depth"], n_head=size["heads"], **positions, **none)
    )


def published_gpt2_loss(model, batch):
    tokens, mask = batch["tokens"], batch["mask"]
    return model(input_ids=tokens, attention_mask=mask.long(), labels=tokens.masked_fill(~mask, -100)).loss


CLASSES = 10


def published_vit(size):
    from transformers import ViTConfig, ViTForImageClassification

    image = dict(image_size=size["image"], patch_size=size["patch"], num_labels=CLASSES)
    return ViTForImageClassification(ViTConfig(**shape(size), **image))


def published_vit_loss(model, batch):
    return model(pixel_values=batch["image"], labels=batch["label"]).loss


def images(size, count):
    """And their classes."""
    image = torch.rand(count, 3, size["image"], size["image"], generator=torch.Generator().manual_seed(0))
    return {"image": image, "label": torch.arange(count) % CLASSES}


def blip(size):
    from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig
    from mmlearn.models.align.blip import BLIP, BLIPConfig

    blocks = dict(width=size["width"], depth=size["depth"], num_heads=size["heads"])
    image = ImageEncoderConfig(**blocks, image_size=size["image"], patch_size=size["patch"])
    words = dict(vocab_size=size["vocab"] - 2, max_length=size["length"], token_types=0)  # two are added
    text = BERTEncoderConfig(**blocks, **words, dropout=0.0)
    return BLIP(BLIPConfig(image=image, text=text, queue_size=0))


def published_blip(size, name):
    """One of the two halves."""
    import transformers

    special = dict(bos_token_id=size["vocab"] - 2, sep_token_id=3, label_smoothing=0.1)
    image = shape(size, image_size=size["image"], patch_size=size["patch"])
    config = transformers.BlipConfig(
        text_config=text_shape(size, **special), vision_config=image, image_text_hidden_size=256
    )
    return getattr(transformers, name)(config)


class PublishedBLIP(nn.Module):
    """BLIP's three losses without momentum encoder and queue, of Transformers' two halves joined.

    They share all but what writes has for self-attention.
    """

    def __init__(self, size):
        super().__init__()
        reads = published_blip(size, "BlipForImageTextRetrieval")
        writes = published_blip(size, "BlipForConditionalGeneration")
        writes.vision_model, text = reads.vision_model, writes.text_decoder
        text.bert.embeddings = reads.text_encoder.embeddings
        text.cls.predictions.decoder.weight = reads.text_encoder.embeddings.word_embeddings.weight
        for own, shared in zip(text.bert.encoder.layer, reads.text_encoder.encoder.layer, strict=True):
            own.crossattention, own.intermediate, own.output = shared.crossattention, shared.intermediate, shared.output
        self.reads, self.writes, self.first = reads, writes, {"decode": size["vocab"] - 2, "encode": size["vocab"] - 1}

    def our_state(self):
        """Its weights under our names."""
        reads, writes, own = our_state(self.reads), our_state(self.writes), {}
        for name, value in writes.items():
            block = re.fullmatch(r"online\.text\.transformer\.blocks\.(\d+)\.(attention(?:_norm)?\..*)", name)
            if block:
                own["decoder_attention.{}.{}".format(*block.groups())] = value
        return writes | reads | own

    def begin(self, role, tokens):
        return F.pad(tokens[:, 1:], (1, 0), value=self.first[role])

    def forward(self, image, tokens, mask):
        """The sum of the three losses. What is not a layer, drawing wrong pairs and the contrast, is ours."""
        from mmlearn.objectives import gather, info_nce
        from mmlearn.objectives.align import hard_negative_pairs, positive_pairs
        from mmlearn.objectives.draws import generator_of_step

        reads, real = self.reads, mask.long()
        patches = reads.vision_model(image).last_hidden_state
        words = reads.text_encoder(tokens, attention_mask=real).last_hidden_state
        image_embedding = F.normalize(reads.vision_proj(patches[:, 0]), dim=-1)
        texts = F.normalize(reads.text_proj(words[:, 0]), dim=-1)
        scale, positives = torch.tensor(1 / 0.07), positive_pairs(tokens.new_full((len(tokens),), -1))
        generator = generator_of_step(0, torch.tensor(0, device=tokens.device))  # as ours at its first step
        image_rows, text = hard_negative_pairs(
            (image_embedding, texts), (image_embedding, texts), positives, scale, generator
        )
        rows = torch.arange(len(tokens), device=tokens.device)
        label = torch.cat([torch.ones_like(rows), torch.zeros_like(text)])  # right pairs, then wrong ones
        image_rows, text = torch.cat([rows, image_rows]), torch.cat([rows, text])
        seen = dict(
            encoder_hidden_states=patches[image_rows],
            encoder_attention_mask=tokens.new_ones(len(image_rows), patches.shape[1]),
        )
        both = reads.text_encoder(self.begin("encode", tokens[text]), attention_mask=real[text], **seen)
        written = self.writes.text_decoder(
            self.begin("decode", tokens),
            attention_mask=real,
            encoder_hidden_states=patches,
            labels=tokens.masked_fill(~mask, -100),
            reduction="mean",
        )
        matching = F.cross_entropy(reads.itm_head(both.last_hidden_state[:, 0]), label)
        # Each fits its own alone, in the batch of all processes.
        return info_nce(gather(image_embedding), gather(texts), scale) + matching + written.loss


def captioned_images(size, count):
    return texts(size, count) | {"image": images(size, count)["image"]}


def wav2vec2(size):
    from mmlearn.models.speech.encoder import SpeechEncoderConfig
    from mmlearn.models.speech.wav2vec2 import Wav2Vec2, Wav2Vec2Config

    speech = SpeechEncoderConfig(
        channels=size["channels"], width=size["width"], depth=size["depth"], num_heads=size["heads"], dropout=0.0
    )
    return Wav2Vec2(Wav2Vec2Config(speech=speech))


def published_wav2vec2(size):
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    parts = ("hidden", "activation", "attention", "feat_proj", "feat_quantizer", "final")
    none = {f"{part}_dropout": 0.0 for part in parts}
    return Wav2Vec2ForPreTraining(Wav2Vec2Config(**shape(size), conv_dim=size["channels"], layerdrop=0.0, **none))


def clips(size, count):
    """Waveforms, some shorter than others; which frames are hidden, and for each of these other hidden ones."""
    from mmlearn.models.speech.encoder import frame_mask
    from mmlearn.objectives.speech import mask_spans, sample_distractors

    generator, most = torch.Generator().manual_seed(0), size["samples"]
    mask = torch.arange(most) < torch.randint(most // 2, most + 1, (count, 1), generator=generator)
    mask[0] = True
    real = frame_mask(mask, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    masked = mask_spans(real, generator=generator)
    return {
        "waveform": torch.randn(count, most, generator=generator) * mask,
        "waveform_mask": mask,
        "masked": masked,
        "distractor": sample_distractors(masked, 100, generator=generator),
    }


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


CLIP = dict(
    system="CLIP", beside="open_clip", shrunk=CLIP_SHRUNK, ours=clip, our_loss=total, twin=open_clip,
    twin_loss=open_clip_loss, our_state=open_clip_state, given=images_and_texts,
)  # fmt: skip
CASES = {  # of the bench on GPUs
    "clip-b32": Case(**CLIP | dict(system="CLIP ViT-B/32", size=CLIP_SIZE | dict(patch=32), batch=1024)),
    "clip-b16": Case(**CLIP | dict(system="CLIP ViT-B/16", size=CLIP_SIZE | dict(patch=16), batch=512)),
    "blip": Case(
        "BLIP base, ITC + ITM + LM", "Transformers", BLIP_SIZE, BLIP_SHRUNK, 256, blip, total, PublishedBLIP,
        lambda model, batch: model(**batch), our_state, captioned_images,
    ),
    "wav2vec2": Case(
        "wav2vec 2.0 base", "Transformers", SPEECH_SIZE, SPEECH_SHRUNK, 32, wav2vec2, speech_loss, published_wav2vec2,
        published_speech_loss, our_state, clips,
    ),
}  # fmt: skip

# Of the bench on a CPU: the smaller is about what chapters train.
SIZES = {
    "64 wide, 3 layers": dict(
        width=64, depth=3, heads=4, image=64, patch=8, vocab=512, length=32, words=(16, 32), samples=16_000,
        channels=(16, 24, 32, 48, 64, 64, 64), batch=32,
    ),
    "256 wide, 6 layers": dict(
        width=256, depth=6, heads=4, image=64, patch=8, vocab=5120, length=32, words=(16, 32), samples=32_000,
        channels=(168,) * 7, batch=8,
    ),
}  # fmt: skip


def beside_transformers(system, published, loss, given):
    """A case whose shape is asked for, not published."""
    return Case(
        system, "Transformers", {}, {}, 0, as_loaded(published), total, published, loss, our_state, given
    )  # fmt: skip


SMALL = {
    "clip": beside_transformers("CLIP", published_clip, published_clip_loss, images_and_texts),
    "bert": beside_transformers("BERT", published_bert, published_bert_loss, masked_texts),
    "gpt2": beside_transformers("GPT-2", published_gpt2, published_gpt2_loss, texts),
    "vit": beside_transformers("ViT", published_vit, published_vit_loss, images),
    "wav2vec2": CASES["wav2vec2"]._replace(system="wav2vec 2.0"),
    "blip": CASES["blip"]._replace(system="BLIP"),
}


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
