"""Encoders of any modality as they are here and in Transformers, of one size each, on one batch of ``pairs``.

Ours are loaded from what the twin saves, so both have the same sizes and weights. No dropout, as chapters train.
"""

import tempfile

import pairs
import torch


def loaded(twin):
    """Our model with the sizes and weights of a model of Transformers."""
    from mmlearn import load_pretrained

    with tempfile.TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        return load_pretrained(folder).train()


def encoder(size, **more):
    """Sizes of one encoder under the names of Transformers."""
    none = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    shape = dict(hidden_size=size["width"], num_hidden_layers=size["depth"], num_attention_heads=size["heads"])
    return shape | none | dict(intermediate_size=4 * size["width"]) | more


CODES = 512


def with_codes(size):
    """Pairs of which a third does not match, with words and patches hidden, and a code for each patch."""
    given = pairs.pick(pairs.batch(size), "tokens", "mask", "token_label", "image")
    generator = torch.Generator().manual_seed(1)
    b, patches = size["pairs"], (size["picture"] // size["patch"]) ** 2
    masked = torch.rand(b, patches, generator=generator) < 0.4
    masked[:, 0] = True
    code = torch.randint(CODES, (b, patches), generator=generator)
    return given | dict(masked_patches=masked, code=code, match_label=(torch.arange(b) % 3 > 0).long())


def flava(size):
    model, given = loaded(published_flava(size)[0]), with_codes(size)
    return model, lambda: pairs.total(model.loss(given))


def published_flava(size):
    from transformers import FlavaConfig, FlavaForPreTraining

    places = dict(vocab_size=size["vocab"], max_position_embeddings=size["length"])
    config = FlavaConfig(
        image_config=encoder(size, vocab_size=CODES, image_size=size["picture"], patch_size=size["patch"]),
        text_config=encoder(size, **places),
        multimodal_config=encoder(size),
        image_codebook_config=dict(vocab_size=CODES, hidden_size=4),
        hidden_size=size["width"],
        projection_dim=size["width"],
    )
    model, given = FlavaForPreTraining(config), with_codes(size)
    label = given["token_label"]
    inputs = dict(
        input_ids=torch.where(label == -100, given["tokens"], label),
        input_ids_masked=given["tokens"],
        attention_mask=given["mask"].long(),
        pixel_values=given["image"],
        bool_masked_pos=given["masked_patches"],
        itm_labels=given["match_label"],
    )

    def loss():  # which writes into its labels
        return model(**inputs, mlm_labels=label.clone(), mim_labels=given["code"].clone()).loss

    return model, loss


CLASSES = 10


def data2vec_vision(size):
    model, image = loaded(published_data2vec_vision(size)[0]), pairs.batch(size)["image"]
    label = torch.arange(len(image)) % CLASSES
    return model, lambda: pairs.total(model.loss(dict(image=image, label=label)))


def published_data2vec_vision(size):
    from transformers import Data2VecVisionConfig, Data2VecVisionForImageClassification

    shape = dict(image_size=size["picture"], patch_size=size["patch"], drop_path_rate=0.0, num_labels=CLASSES)
    config = Data2VecVisionConfig(**encoder(size), **shape, use_relative_position_bias=True)
    model, image = Data2VecVisionForImageClassification(config), pairs.batch(size)["image"]
    label = torch.arange(len(image)) % CLASSES
    return model, lambda: model(image, labels=label).loss


def data2vec_text(size):
    model = loaded(published_data2vec_text(size)[0])
    given = pairs.pick(pairs.batch(size), "tokens", "mask", "token_label")
    return model, lambda: pairs.total(model.loss(given))


def published_data2vec_text(size):
    from transformers import Data2VecTextConfig, Data2VecTextForMaskedLM

    places = dict(vocab_size=size["vocab"], max_position_embeddings=size["length"] + 2, pad_token_id=1)
    model, given = Data2VecTextForMaskedLM(Data2VecTextConfig(**encoder(size), **places)), pairs.batch(size)
    tokens = given["tokens"].masked_fill(~given["mask"], 1)  # what theirs counts positions by
    return model, lambda: model(tokens, given["mask"].long(), labels=given["token_label"]).loss


BYTES = 256  # places of a text


def long_texts(size):
    """As a Perceiver reads them: bytes, of which some are hidden."""
    generator = torch.Generator().manual_seed(0)
    b = size["pairs"] // 4
    tokens = torch.randint(6, 262, (b, BYTES), generator=generator)
    mask = torch.arange(BYTES) < torch.randint(BYTES // 2, BYTES + 1, (b, 1), generator=generator)
    hidden = (torch.rand(b, BYTES, generator=generator) < 0.15) & mask
    return dict(tokens=tokens.masked_fill(hidden, 3), mask=mask, token_label=tokens.masked_fill(~hidden, -100))


def perceiver_io(size):
    model, given = loaded(published_perceiver_io(size)[0]), long_texts(size)
    return model, lambda: pairs.total(model.loss(given))


def published_perceiver_io(size):
    from transformers import PerceiverConfig, PerceiverForMaskedLM

    heads = dict(num_self_attention_heads=size["heads"], num_cross_attention_heads=size["heads"])
    config = PerceiverConfig(
        num_latents=32, d_latents=size["width"], d_model=size["width"], num_blocks=1,
        num_self_attends_per_block=size["depth"], **heads, vocab_size=262, max_position_embeddings=BYTES,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model, given = PerceiverForMaskedLM(config), long_texts(size)
    return model, lambda: model(given["tokens"], given["mask"].long(), labels=given["token_label"]).loss
