"""Fusion systems as they are here and their twins of Transformers, of one size each, on one batch.

No dropout, as chapters train. What Transformers has no twin of is put beside what is nearest.
"""

import copy
import re
import tempfile

import torch
import torch.nn.functional as F
from torch import nn

# The smaller one is what chapters train. A vocabulary takes as large a share of the work as 30,522 words do in base.
# The two numbers of ``words`` are the fewest and most tokens of a text, in the larger one of COCO's captions (10.5
# words on average, and a token before and after); all are padded to the longest of the batch.
SIZES = {
    "64 wide, 3 layers": dict(
        width=64, depth=3, heads=4, vocab=512, words=(8, 16), length=16, regions=9, features=192, classes=144,
        picture=64, patch=16, pairs=128, steps=9,
    ),
    "256 wide, 6 layers": dict(
        width=256, depth=6, heads=4, vocab=5120, words=(10, 18), length=20, regions=36, features=2048, classes=1600,
        picture=96, patch=16, pairs=16, steps=9,
    ),
}  # fmt: skip


def batch(size):
    """Words with gaps, regions and a picture for each; half of the pairs do not match."""
    generator = torch.Generator().manual_seed(0)
    b, p = size["pairs"], size["regions"]
    least, most = size["words"]
    lengths = torch.randint(least, most + 1, (b, 1), generator=generator)
    t = int(lengths.max())

    def uniform(*shape):
        return torch.rand(shape, generator=generator)

    tokens = torch.randint(5, size["vocab"], (b, t), generator=generator)
    mask = torch.arange(t) < lengths
    hidden = (uniform(b, t) < 0.15) & mask
    masked = uniform(b, p) < 0.15
    masked[:, 0] = hidden[:, 1] = True
    corners = uniform(b, p, 2, 2).sort(-2).values
    classes = torch.randint(size["classes"], (b, p), generator=generator)
    return {
        "tokens": tokens.masked_fill(hidden, 4),
        "mask": mask,
        "token_label": tokens.masked_fill(~hidden, -100),
        "whole": tokens,
        "regions": uniform(b, p, size["features"]).masked_fill(masked[..., None], 0),
        "boxes": (corners * 0.98 + 0.01 * torch.arange(2)[:, None]).flatten(-2),
        "region_mask": torch.ones(b, p, dtype=torch.bool),
        "masked_regions": masked,
        "region_target": uniform(b, p, size["features"]),
        "region_classes": F.one_hot(classes, size["classes"]).float(),
        "image": uniform(b, 3, size["picture"], size["picture"]),
        "match_label": torch.arange(b) % 2,
    }


def pick(given, *names):
    return {name: given[name] for name in names}


def total(losses):
    return sum(losses.values())


def our_state(twin):
    """Weights of a model of Transformers under our names."""
    from mmlearn import load_pretrained

    if isinstance(twin, PublishedBLIP):
        return twin.our_state()
    with tempfile.TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        return load_pretrained(folder).state_dict()


def ours(size, **more):
    """Sizes under our names."""
    return dict(
        vocab_size=size["vocab"], max_length=size["length"], width=size["width"], num_heads=size["heads"], dropout=0.0,
        **more,
    )  # fmt: skip


def theirs(size, **more):
    """Sizes under the names of Transformers."""
    none = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return dict(
        vocab_size=size["vocab"], max_position_embeddings=size["length"], hidden_size=size["width"],
        num_attention_heads=size["heads"], intermediate_size=4 * size["width"], pad_token_id=0, **none, **more,
    )  # fmt: skip


# Each of these returns a model and a function that computes its loss; ours and its twin's have one after the other.


def single_stream(name, size, **more):
    """VisualBERT, UNITER or VL-BERT, for masked words and matching."""
    from mmlearn.recipes.discovery import find_recipe

    recipe = find_recipe(name)
    config = ours(size, depth=size["depth"], region_width=size["features"], objectives=("mlm", "itm"), **more)
    model, given = recipe.make(recipe.config(**config)), batch(size)
    given = pick(given, "tokens", "mask", "token_label", "regions", "boxes", "region_mask", "match_label")
    return model, lambda: total(model.loss(given))


def visual_bert(size):
    return single_stream("visual-bert", size)


def published_visual_bert(size, more_regions=0, matched_only=False):
    from transformers import VisualBertConfig, VisualBertForPreTraining

    shape = theirs(size, num_hidden_layers=size["depth"], visual_embedding_dim=size["features"])
    model, given = VisualBertForPreTraining(VisualBertConfig(**shape)), batch(size)
    regions = F.pad(given["regions"], (0, 0, 0, more_regions))
    inputs = visual_bert_inputs(given, regions, matched_only)
    return model, lambda: model(**inputs).loss


def visual_bert_inputs(given, regions, matched_only):
    label, real = given["token_label"], torch.ones(regions.shape[:2], dtype=torch.long)
    if matched_only:
        label = label.masked_fill(given["match_label"][:, None] == 0, -100)
    return dict(
        input_ids=given["tokens"],
        attention_mask=given["mask"].long(),
        visual_embeds=regions,
        visual_attention_mask=real,
        labels=torch.cat([label, -100 * real], dim=1),
        sentence_image_labels=given["match_label"],
    )


def uniter(size):
    return single_stream("uniter", size)


def near_uniter(size):
    return published_visual_bert(size, matched_only=True)


def vl_bert(size):
    return single_stream("vl-bert", size, geometry_width=size["width"], pooler=True)


def near_vl_bert(size):
    return published_visual_bert(size, more_regions=2, matched_only=True)


def pixel_bert(size):
    from mmlearn.models.fusion.pixel_bert import PixelBERT, PixelBERTConfig

    picture = dict(backbone="convolutions", stride=size["patch"], feature_width=size["width"], sampled_pixels=0)
    model, given = PixelBERT(PixelBERTConfig(**ours(size, depth=size["depth"], **picture))), batch(size)
    given = pick(given, "tokens", "mask", "token_label", "image", "match_label")
    return model, lambda: total(model.loss(given))


def near_pixel_bert(size):
    from mmlearn.layers.embeddings import convolutional_stem

    model, _ = published_visual_bert(size | dict(features=size["width"]))
    stem, given = convolutional_stem(size["patch"], size["width"]), batch(size)

    def loss():
        pixels = stem(given["image"]).flatten(2).mT
        return model(**visual_bert_inputs(given, pixels, matched_only=True)).loss

    return nn.ModuleList([stem, model]), loss


def vilt(size, **head):
    from mmlearn.models.fusion.vilt import ViLT, ViLTConfig

    picture = dict(image_size=size["picture"], patch_size=size["patch"], alignment_weight=0.0)
    head = head or dict(match_outputs=0)
    model, given = ViLT(ViLTConfig(**ours(size, depth=size["depth"], **picture, **head))), batch(size)
    given = pick(given, "tokens", "mask", "image", *(["match_label"] if "language_head" in head else ["token_label"]))
    return model, lambda: total(model.loss(given))


def published_vilt(size, name="ViltForMaskedLM"):
    import transformers

    picture = dict(image_size=size["picture"], patch_size=size["patch"])
    config = transformers.ViltConfig(**theirs(size, num_hidden_layers=size["depth"], **picture))
    model, given = getattr(transformers, name)(config), batch(size)
    inputs = dict(input_ids=given["tokens"], attention_mask=given["mask"].long(), pixel_values=given["image"])
    if name == "ViltForMaskedLM":
        return model, lambda: model(**inputs, labels=given["token_label"]).loss
    match = given["match_label"].float()
    return model, lambda: F.binary_cross_entropy_with_logits(model(**inputs).logits[:, 0], match)


def vilt_matching(size):
    return vilt(size, language_head=False, match_outputs=1)


def published_vilt_matching(size):
    return published_vilt(size, "ViltForImageAndTextRetrieval")


def lxmert(size):
    from mmlearn.models.fusion.lxmert import LXMERT, LXMERTConfig

    depth = dict(depth=size["depth"] - 1, region_depth=size["depth"] // 2, cross_depth=size["depth"] // 2)
    heads = dict(region_classes=size["classes"], region_attributes=0, answers=0)
    model = LXMERT(LXMERTConfig(**ours(size, **depth, region_width=size["features"], **heads)))
    given = batch(size)
    # Theirs divides by all regions, ours by the masked ones.
    share = LXMERT_SCALE * given["masked_regions"].float().mean()

    def loss():
        losses = model.loss(given)
        return losses["mlm"] + losses["itm"] + share * (losses["mrfr"] + losses["mrc"])

    return model, loss


def published_lxmert(size, features=True, **depth):
    from transformers import LxmertConfig, LxmertForPreTraining

    depth = depth or dict(l_layers=size["depth"] - 1, r_layers=size["depth"] // 2, x_layers=size["depth"] // 2)
    heads = dict(num_object_labels=size["classes"], visual_attr_loss=False, visual_feat_loss=features, task_qa=False)
    config = LxmertConfig(
        **theirs(size, visual_feat_dim=size["features"], visual_loss_normalizer=LXMERT_SCALE, **depth, **heads)
    )
    model, given = LxmertForPreTraining(config), batch(size)
    seen = given["masked_regions"].float()
    inputs = dict(
        input_ids=given["tokens"],
        attention_mask=given["mask"].long(),
        visual_feats=given["regions"],
        visual_pos=given["boxes"],
        visual_attention_mask=given["region_mask"].long(),
        labels=given["token_label"],
        matched_label=given["match_label"],
        obj_labels={"feat": (given["region_target"], seen), "obj": (given["region_classes"].argmax(-1), seen)},
    )
    return model, lambda: model(**inputs).loss


LXMERT_SCALE = 6.67  # of losses of regions, as published


def vilbert(size):
    """Three meetings; a meeting has an MLP of its own, where LXMERT has two more self-attentions."""
    from mmlearn.models.fusion.vilbert import ViLBERT, ViLBERTConfig, VisualStreamConfig

    width, heads, depth = size["width"], size["heads"], size["depth"]
    config = ViLBERTConfig(
        **ours(size, depth=depth, region_width=size["features"], region_classes=size["classes"]),
        visual=VisualStreamConfig(width=width, depth=depth - 1, num_heads=heads, mlp_width=4 * width, dropout=0.0),
        co_attention_width=width,
        co_attention_heads=heads,
        text_connections=tuple(range(depth - 2, depth + 1)),
        visual_connections=tuple(range(depth - 3, depth)),
    )
    model, given = ViLBERT(config), batch(size)
    return model, lambda: total(model.loss(given))


def near_vilbert(size):
    depth = size["depth"]
    return published_lxmert(size, features=False, l_layers=depth - 1, r_layers=depth - 2, x_layers=3)


def blip(size, **half):
    from mmlearn.layers import BERTEncoderConfig
    from mmlearn.models.align.blip import BLIP, BLIPConfig

    half = half or dict(decoder=False)
    image = vision(size)
    text = BERTEncoderConfig(**ours(size | dict(vocab=size["vocab"] - 2), depth=size["depth"]), token_types=0)
    config = BLIPConfig(image=image, text=text, queue_size=0, **half)
    model, given = BLIP(config), batch(size)
    if "encoder" in half:
        given = dict(image=given["image"], tokens=given["whole"], mask=given["mask"])
        return model, lambda: total(model.loss(given))
    return model, lambda: F.cross_entropy(
        model.match(given["image"], given["whole"], given["mask"]), given["match_label"]
    )


def blip_captioning(size):
    return blip(size, encoder=False)


def vision(size):
    from mmlearn.layers import ImageEncoderConfig

    return ImageEncoderConfig(
        size["width"], size["depth"], size["heads"], image_size=size["picture"], patch_size=size["patch"]
    )


def published_blip(size, name="BlipForImageTextRetrieval"):
    import transformers

    decode, encode = size["vocab"] - 2, size["vocab"] - 1
    text = theirs(size, num_hidden_layers=size["depth"], bos_token_id=decode, sep_token_id=3, label_smoothing=0.1)
    image = dict(image_size=size["picture"], patch_size=size["patch"], hidden_size=size["width"])
    image |= dict(
        num_hidden_layers=size["depth"], num_attention_heads=size["heads"], intermediate_size=4 * size["width"]
    )
    config = transformers.BlipConfig(text_config=text, vision_config=image, image_text_hidden_size=256)
    model, given = getattr(transformers, name)(config), batch(size)
    tokens, mask = given["whole"].clone(), given["mask"]
    inputs = dict(pixel_values=given["image"], input_ids=tokens, attention_mask=mask.long())
    if name == "BlipForImageTextRetrieval":
        tokens[:, 0] = encode
        return model, lambda: F.cross_entropy(model(**inputs).itm_score, given["match_label"])
    tokens[:, 0] = decode
    return model, lambda: model(**inputs, labels=given["whole"].masked_fill(~mask, -100)).loss


def published_blip_captioning(size):
    return published_blip(size, "BlipForConditionalGeneration")


def blip_pretraining(size):
    return blip(size, encoder=True)


def triples(embeddings, momentum_embeddings, positives, scale, generator):
    """Which picture meets which text, and whether they belong together: right pairs, then our wrong ones."""
    from mmlearn.objectives.align import hard_pairs

    picture, text = hard_pairs(embeddings, momentum_embeddings, positives, scale, generator)
    rows = torch.arange(len(positives), device=positives.device)
    label = torch.cat([torch.ones_like(rows), torch.zeros_like(text)])
    return torch.cat([rows, picture]), torch.cat([rows, text]), label


class PublishedBLIP(nn.Module):
    """BLIP's three losses without momentum encoder and queue, of Transformers' two halves joined.

    They share all but what writes has for self-attention.
    """

    def __init__(self, size):
        super().__init__()
        reads, writes = published_blip(size)[0], published_blip_captioning(size)[0]
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
        from mmlearn.objectives.align import positive_pairs

        reads, real = self.reads, mask.long()
        patches = reads.vision_model(image).last_hidden_state
        words = reads.text_encoder(tokens, attention_mask=real).last_hidden_state
        pictures = F.normalize(reads.vision_proj(patches[:, 0]), dim=-1)
        texts = F.normalize(reads.text_proj(words[:, 0]), dim=-1)
        scale, positives = torch.tensor(1 / 0.07), positive_pairs(tokens.new_full((len(tokens),), -1))
        generator = torch.Generator().manual_seed(int(tokens[mask].sum()))
        picture, text, label = triples((pictures, texts), (pictures, texts), positives, scale, generator)
        seen = dict(
            encoder_hidden_states=patches[picture],
            encoder_attention_mask=tokens.new_ones(len(picture), patches.shape[1]),
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
        return info_nce(gather(pictures), gather(texts), scale) + matching + written.loss


def published_blip_pretraining(size):
    model, given = PublishedBLIP(size), batch(size)
    return model, lambda: model(given["image"], given["whole"], given["mask"])


QUEUE = 1024  # earlier pairs that ALBEF compares with


def albef(size):
    """A step of pretraining, with the momentum encoder moved."""
    from mmlearn.layers import BERTEncoderConfig
    from mmlearn.models.align.albef import ALBEF, ALBEFConfig

    half = size["depth"] // 2
    more = dict(fusion_depth=size["depth"] - half, queue_size=QUEUE, alpha_ramp=0)
    text = BERTEncoderConfig(**ours(size, depth=half))
    model, given = ALBEF(ALBEFConfig(image=vision(size), text=text, **more)), batch(size)
    given = pick(given, "image", "tokens", "mask", "token_label")

    def loss():
        model.after_step()
        return total(model.loss(given))

    return model, loss


class NearALBEFEncoders(nn.Module):
    """ALBEF's three encoders, of Transformers' parts."""

    def __init__(self, size):
        from transformers import BertConfig, BertModel, BlipTextConfig, BlipVisionConfig, BlipVisionModel
        from transformers.models.bert.modeling_bert import BertOnlyMLMHead
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        half, width = size["depth"] // 2, size["width"]
        image = dict(image_size=size["picture"], patch_size=size["patch"], hidden_size=width)
        image |= dict(num_hidden_layers=size["depth"], num_attention_heads=size["heads"], intermediate_size=4 * width)
        special = dict(bos_token_id=2, sep_token_id=3)
        fusion = theirs(size, num_hidden_layers=size["depth"] - half, encoder_hidden_size=width, **special)
        text = BertConfig(**theirs(size, num_hidden_layers=half))
        self.image = BlipVisionModel(BlipVisionConfig(**image))
        self.text = BertModel(text, add_pooling_layer=False)
        self.fusion = BlipTextModel(BlipTextConfig(**fusion), add_pooling_layer=False)
        self.fusion.embeddings = None  # it goes on from the text encoder
        self.image_projection, self.text_projection = nn.Linear(width, 256), nn.Linear(width, 256)
        self.head = BertOnlyMLMHead(text)
        self.head.predictions.decoder.weight = self.text.embeddings.word_embeddings.weight

    def read(self, image, tokens, mask):
        """States of picture and text, and a vector of each."""
        image = self.image(image).last_hidden_state
        text = self.text(tokens, attention_mask=mask).last_hidden_state
        vectors = self.image_projection(image[:, 0]), self.text_projection(text[:, 0])
        return image, text, tuple(F.normalize(vector, dim=-1) for vector in vectors)

    def fuse(self, image, text, mask):
        return self.fusion(
            encoder_embeds=text,
            attention_mask=mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long),
            is_decoder=False,
        ).last_hidden_state

    def fill(self, image, tokens, mask):
        """What each token may be."""
        return self.head(self.fuse(image, self.text(tokens, attention_mask=mask).last_hidden_state, mask))


class NearALBEF(nn.Module):
    """ALBEF's three losses. What is no layer, queue, wrong pairs, contrast and moving the momentum encoder, is ours."""

    def __init__(self, size):
        from mmlearn.models.align.pair_queue import PairQueue

        super().__init__()
        self.online = NearALBEFEncoders(size)
        self.momentum_encoder = copy.deepcopy(self.online).requires_grad_(False)
        self.match, self.scale = nn.Linear(size["width"], 2), nn.Parameter(torch.tensor(1 / 0.07).log())
        self.queue, self.chance = PairQueue(QUEUE, 256), torch.Generator()

    def forward(self, image, tokens, mask, token_label):
        from mmlearn.objectives import update_momentum_encoder
        from mmlearn.objectives.align import momentum_contrast, positive_pairs

        update_momentum_encoder(self.momentum_encoder, self.online, 0.995)
        hidden, scale, caption_id = token_label != -100, self.scale.exp(), torch.full((len(tokens),), -1)
        whole = torch.where(hidden, token_label, tokens)
        states, text, fast = self.online.read(image, whole, mask)
        with torch.no_grad():
            slow_states, _, slow = self.momentum_encoder.read(image, whole, mask)
            taught = self.momentum_encoder.fill(slow_states, tokens, mask).softmax(-1)
        positives = positive_pairs(caption_id)
        candidates = torch.cat([positives, self.queue.positives(caption_id)], dim=1)
        contrast = momentum_contrast(fast, slow, (self.queue.image, self.queue.text), candidates, scale, 0.4)
        picture, words, label = triples(fast, slow, positives, scale, self.chance)
        both = self.match(self.online.fuse(states[picture], text[words], mask[words])[:, 0])
        logits = self.online.fill(states, tokens, mask)
        soft = -(taught * logits.log_softmax(-1)).sum(-1)[hidden].mean()
        gaps = 0.6 * F.cross_entropy(logits.flatten(0, 1), token_label.flatten()) + 0.4 * soft
        self.queue.push(*slow, caption_id)
        return contrast + F.cross_entropy(both, label) + gaps


def near_albef(size):
    model, given = NearALBEF(size), batch(size)
    return model, lambda: model(given["image"], given["tokens"], given["mask"].long(), given["token_label"])
