"""Bridges to a language model as they are here and in Transformers, of one size each, on one batch of ``pairs``.

The picture encoder is frozen on both sides; LLaVA trains its language model, and BLIP-2's is frozen in its second
stage. Their language model is a GPT-2 on both sides.
"""

from dataclasses import replace

import pairs
import torch


def sizes(size):
    """Of a picture: patches; of the language model under our names: its sizes, with places for these and a text."""
    patches = (size["picture"] // size["patch"]) ** 2
    return patches, pairs.ours(size, depth=size["depth"]) | dict(
        max_length=patches + size["length"], start_token=1, end_token=2, pad_token=0
    )


def language(size, places):
    from transformers import GPT2Config

    shape = dict(n_embd=size["width"], n_layer=size["depth"], n_head=size["heads"], vocab_size=size["vocab"])
    none = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return GPT2Config(**shape, **none, n_positions=places, bos_token_id=1, eos_token_id=2)


def llava(size):
    from mmlearn.models.bridges.llava import GPT2Config, ImageEncoderConfig, LLaVA, LLaVAConfig

    _, language_model = sizes(size)
    image = ImageEncoderConfig(
        size["width"], size["depth"], size["heads"], image_size=size["picture"], patch_size=size["patch"],
        embedding_norm=True, activation="quick_gelu",
    )  # fmt: skip
    model = LLaVA(LLaVAConfig(image_encoder=image, language_model=GPT2Config(**language_model)))
    return model, loss_of(model, size)


def loss_of(model, size):
    given = pairs.batch(size)
    batch = dict(image=given["image"], tokens=given["whole"], mask=given["mask"])
    return lambda: pairs.total(model.loss(batch))


def inputs_of_theirs(size, n):
    """Tokens that embeddings of the picture replace, before the text; the start token is not asked."""
    given = pairs.batch(size)
    tokens, mask = given["whole"], given["mask"]
    b, label = len(tokens), tokens.masked_fill(~mask, -100)
    label[:, 0] = -100
    return dict(
        pixel_values=given["image"],
        input_ids=torch.cat([torch.full((b, n), 3), tokens], 1),  # which no text of the batch has
        attention_mask=torch.cat([torch.ones(b, n), mask], 1).long(),
        labels=torch.cat([torch.full((b, n), -100), label], 1),
    )


def published_llava(size):
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    class LlavaOfGPT2(LlavaForConditionalGeneration):
        _tied_weights_keys = {"lm_head.weight": "model.language_model.wte.weight"}

    n, _ = sizes(size)
    vision = CLIPVisionConfig(
        hidden_size=size["width"], num_hidden_layers=size["depth"], num_attention_heads=size["heads"],
        intermediate_size=4 * size["width"], image_size=size["picture"], patch_size=size["patch"],
    )  # fmt: skip
    text = language(size, n + size["length"])
    model = LlavaOfGPT2(LlavaConfig(vision_config=vision, text_config=text, image_token_index=3))
    model.model.vision_tower.requires_grad_(False)
    inputs = inputs_of_theirs(size, n)
    return model, lambda: model(**inputs).loss


QUERIES = 8


def blip_2(size):
    from mmlearn.models.bridges.blip_2 import BLIP2, BLIP2Config, GPT2Config, QFormerConfig

    _, language_model = sizes(size)
    former = QFormerConfig(**pairs.ours(size, depth=size["depth"]), token_types=0, num_queries=QUERIES)
    image = replace(pairs.vision(size), norm_epsilon=1e-6)
    model = BLIP2(BLIP2Config(image, former, GPT2Config(**language_model), objectives=("lm",)))
    return model, loss_of(model, size)


def published_blip_2(size):
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig

    shape = dict(num_hidden_layers=size["depth"], num_attention_heads=size["heads"])
    shape |= dict(hidden_size=size["width"], intermediate_size=4 * size["width"])
    none = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    n, _ = sizes(size)
    model = Blip2ForConditionalGeneration(
        Blip2Config(
            vision_config=Blip2VisionConfig(**shape, image_size=size["picture"], patch_size=size["patch"]),
            qformer_config=Blip2QFormerConfig(**shape, **none, vocab_size=size["vocab"] + 1),
            text_config=language(size, n + size["length"]),
            num_query_tokens=QUERIES,
            image_token_index=3,
        )
    )
    for part in (model.vision_model, model.language_model):
        part.requires_grad_(False)
    inputs = inputs_of_theirs(size, QUERIES)
    return model, lambda: model(**inputs).loss
