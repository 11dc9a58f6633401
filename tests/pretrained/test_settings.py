"""Every setting of a published configuration, changed one at a time, is followed or refused, and never passed over.

A model of Transformers is saved, one key of its config.json is changed, and both libraries load it. Either ours gives
what theirs gives, or it refuses in one line that names the key. Keys of which Transformers' outputs and losses do not
depend are in NOTHING, each with its reason; whatever else passes without a difference is an error of this test.
"""

import json
from copy import deepcopy
from fnmatch import fnmatch
from functools import cache

import pytest
import torch
from published import (
    BART,
    BEIT,
    DATA2VEC_AUDIO,
    DISTILBERT,
    FLAVA,
    GPT2,
    IMAGE,
    LLAMA,
    MAE,
    PERCEIVER,
    REGIONS,
    SMALL,
    SPEECH,
    SWIN,
    T5,
    TEXT,
    WHISPER,
)
from testing_tools import close
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForPreTraining,
    ASTConfig,
    ASTForAudioClassification,
    BartConfig,
    BartForConditionalGeneration,
    BeitConfig,
    BeitForImageClassification,
    BeitForMaskedImageModeling,
    BertConfig,
    BertForPreTraining,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    Data2VecTextConfig,
    Data2VecTextForMaskedLM,
    Data2VecVisionConfig,
    Data2VecVisionForImageClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    FlavaConfig,
    FlavaForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    HubertConfig,
    HubertForCTC,
    LlamaConfig,
    LlamaForCausalLM,
    LxmertConfig,
    LxmertForPreTraining,
    MistralConfig,
    MistralForCausalLM,
    PerceiverConfig,
    PerceiverForImageClassificationFourier,
    PerceiverForMaskedLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5ForConditionalGeneration,
    ViltConfig,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    VisualBertConfig,
    VisualBertForPreTraining,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mmlearn import load_pretrained
from mmlearn.layers import Attention
from mmlearn.objectives import pair_cross_entropy
from mmlearn.objectives.speech import sample_distractors
from mmlearn.pretrained.loading import families
from mmlearn.pretrained.settings import SECOND_NAMES

ANSWERED = REGIONS | dict(num_qa_labels=3)
CODES = dict(num_codevectors_per_group=5, codevector_dim=6, proj_codevector_dim=7)
BLIP = dict(
    text_config=TEXT | dict(encoder_hidden_size=16, bos_token_id=28), vision_config=IMAGE, image_text_hidden_size=12
)

# What both read. Tokens are of no special kind, but for the last, which end a text, and the first of BLIP.
DRAWN = torch.Generator().manual_seed(0)
TOKENS = torch.randint(6, 28, (3, 6), generator=DRAWN)
TOKENS[:, 4], TOKENS[:, 5] = 28, 29
PIXELS = torch.randn(3, 3, 8, 8, generator=DRAWN)
MEL = torch.randn(3, 12, 20, generator=DRAWN)
LONG_MEL = torch.randn(3, 16, 256, generator=DRAWN)
CLIP = torch.randn(3, 90, generator=DRAWN)
FEATURES = torch.randn(3, 4, 12, generator=DRAWN)
BOXES = torch.tensor([0.1, 0.2, 0.6, 0.9]).expand(3, 4, 4)
CLASSES = torch.tensor([0, 1, 1])
SEVERAL = "multi_label_classification"
MASKED = torch.arange(4).expand(3, 4) < 2
SPELT = torch.tensor([[1, 6, 7], [8, 7, 4], [4, 6, 8]])


def bert(theirs, ours):
    out = theirs(input_ids=TOKENS, labels=TOKENS, next_sentence_label=CLASSES)
    expected = out.prediction_logits, out.seq_relationship_logits, out.loss
    out = ours(TOKENS)
    losses = ours.loss(dict(tokens=TOKENS, token_label=TOKENS, next_label=CLASSES))
    return expected, (out.token_logits, out.next_logits, sum(losses.values()))


def albert(theirs, ours):
    out = theirs(input_ids=TOKENS, labels=TOKENS, sentence_order_label=CLASSES)
    expected = out.prediction_logits, out.sop_logits, out.loss
    out = ours(TOKENS)
    losses = ours.loss(dict(tokens=TOKENS, token_label=TOKENS, order_label=CLASSES))
    return expected, (out.token_logits, out.order_logits, sum(losses.values()))


def masked(theirs, ours):
    """DistilBERT, RoBERTa and ELECTRA's generator."""
    out = theirs(input_ids=TOKENS, labels=TOKENS)
    losses = ours.loss(dict(tokens=TOKENS, token_label=TOKENS))
    return (out.logits, out.loss), (ours(tokens=TOKENS).token_logits, losses["mlm"])


def data2vec_text(theirs, ours):
    out = theirs(input_ids=TOKENS, labels=TOKENS)
    loss = ours.loss(dict(tokens=TOKENS, token_label=TOKENS))["mlm"]
    return (out.logits, out.loss), (ours.token_logits(ours(TOKENS).tokens), loss)


def detected(theirs, ours):
    """ELECTRA's discriminator."""
    replaced = TOKENS > 15
    out = theirs(input_ids=TOKENS, labels=replaced.long())
    expected = theirs.electra(TOKENS).last_hidden_state, out.logits, out.loss
    out, losses = ours(TOKENS), ours.loss(dict(tokens=TOKENS, replaced=replaced))
    return expected, (out.tokens, out.replaced_logits, losses["rtd"] / 50)


def gpt2(theirs, ours):
    """And Llama, Mistral and Qwen2."""
    out = theirs(input_ids=TOKENS, labels=TOKENS)
    return (out.logits, out.loss), (ours(TOKENS).token_logits, ours.loss(dict(tokens=TOKENS))["lm"])


def repaired(theirs, ours):
    """BART, which is also let write as many tokens as it may."""
    expected, got = written(theirs, ours)
    special = theirs.config.bos_token_id, theirs.config.eos_token_id
    source = torch.stack([torch.tensor([special[0], *row, special[1]]) for row in TOKENS[:, :3].tolist()])
    texts = theirs.generate(source, attention_mask=torch.ones_like(source), max_length=6, do_sample=False)[:, 1:]
    return (*expected, texts.float()), (*got, ours.generate(TOKENS[:, :3], max_length=5).float())


def written(theirs, ours):
    """BART and T5."""
    target = TOKENS.flip(1)
    out = theirs(input_ids=TOKENS, labels=target)
    expected = out.encoder_last_hidden_state, out.logits, out.loss
    out = ours(TOKENS, target)
    return expected, (out.tokens, out.token_logits, *ours.loss(dict(tokens=TOKENS, target=target)).values())


def label(theirs):
    """A class, or a yes or no to each."""
    return torch.eye(theirs.config.num_labels)[CLASSES] if theirs.config.problem_type == SEVERAL else CLASSES


def vit(theirs, ours):
    out = theirs(PIXELS, labels=label(theirs))
    expected = out.logits, out.loss
    return expected, (ours(PIXELS).logits, ours.loss(dict(image=PIXELS, label=label(theirs)))["classification"])


def pooled_vit(theirs, ours):
    out = theirs(PIXELS)
    expected = out.last_hidden_state, out.pooler_output
    out = ours(PIXELS)
    return expected, (out.tokens, out.representation)


def ast(theirs, ours):
    out = theirs(MEL.mT, labels=label(theirs))
    expected = out.logits, out.loss
    return expected, (ours(MEL).logits, ours.loss(dict(mel=MEL, label=label(theirs)))["classification"])


def pairs(theirs, ours):
    """CLIP and SigLIP."""
    out = theirs(input_ids=TOKENS, pixel_values=PIXELS, return_loss=True)
    expected = out.image_embeds, out.text_embeds, out.loss
    out = ours(PIXELS, TOKENS)
    return expected, (
        out.image_embedding,
        out.text_embedding,
        sum(ours.loss(dict(image=PIXELS, tokens=TOKENS)).values()),
    )


def clap(theirs, ours):
    out = theirs(input_features=LONG_MEL.mT[:, None], input_ids=TOKENS)
    expected = out.audio_embeds, out.text_embeds, pair_cross_entropy(out.logits_per_audio, out.logits_per_text)
    given = dict(mel=LONG_MEL, tokens=TOKENS)
    out = ours(**given)
    return expected, (out.audio_embedding, out.text_embedding, ours.loss(given)["atc"])


def heard(theirs, ours):
    """Texts begin with the start token of a configuration, whose first layer of theirs tells how long sounds are."""
    mel = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))
    tokens = begun(theirs.config.decoder_start_token_id)
    out = theirs(input_features=mel, labels=tokens[:, 1:])
    given = dict(mel=mel, tokens=tokens)
    output, loss = ours(**given), ours.loss(given)["transcription"]
    return (out.encoder_last_hidden_state, out.logits, out.loss), (output.frames, output.token_logits[:, :-1], loss)


def begun(token):
    return torch.cat([torch.full_like(TOKENS[:, :1], token), TOKENS[:, 1:]], dim=1)


def retrieval(theirs, ours):
    given = dict(pixel_values=PIXELS, attention_mask=torch.ones_like(TOKENS))
    cosine = theirs(input_ids=TOKENS, **given, use_itm_head=False).itm_score
    expected = theirs(input_ids=begun(29), **given).itm_score, cosine
    return expected, (ours.match(PIXELS, TOKENS), ours.encode_image(PIXELS) @ ours.encode_text(TOKENS).T)


def captions(theirs, ours):
    given = dict(pixel_values=PIXELS, attention_mask=torch.ones_like(TOKENS), labels=TOKENS)
    written = theirs.generate(PIXELS, max_length=6, do_sample=False)
    out = theirs(input_ids=begun(theirs.config.text_config.bos_token_id), **given)
    expected = out.logits, out.loss, written[:, 1:].float()
    given = dict(image=PIXELS, tokens=TOKENS)
    written = ours.generate(PIXELS, max_length=5)
    return expected, (ours(**given).token_logits, ours.loss(given)["lm"], written.float())


def lxmert(theirs, ours):
    seen = MASKED.float()
    targets = FEATURES.roll(1, 0), torch.arange(12).view(3, 4) % 5, torch.arange(12).view(3, 4) % 4
    labels = dict(zip(("feat", "obj", "attr"), ((target, seen) for target in targets)))
    out = theirs(
        input_ids=TOKENS,
        visual_feats=FEATURES.masked_fill(MASKED[..., None], 0),
        visual_pos=BOXES,
        labels=TOKENS,
        matched_label=torch.ones(3).long(),
        ans=CLASSES,
        obj_labels=labels,
    )
    expected = out.prediction_logits, out.cross_relationship_score, out.question_answering_score, out.loss
    given = dict(tokens=TOKENS, regions=FEATURES, boxes=BOXES, masked_regions=MASKED)
    out = ours(**given)
    losses = ours.loss(
        given
        | dict(
            token_label=TOKENS,
            match_label=torch.ones(3).long(),
            answer=CLASSES,
            region_target=targets[0],
            region_classes=nn.functional.one_hot(targets[1], 5).float(),
            region_attributes=nn.functional.one_hot(targets[2], 4).float(),
        )
    )
    # Theirs is a mean over all regions, of which half are masked, times 6.67.
    regions = ("mrfr", "mrc", "mrc_attributes")
    loss = sum(value * (6.67 / 2 if name in regions else 1) for name, value in losses.items())
    return expected, (ours.token_logits(out.tokens), out.match_logits, out.answer_logits, loss)


def visual_bert(theirs, ours):
    out = theirs(
        input_ids=TOKENS,
        visual_embeds=FEATURES,
        attention_mask=torch.ones_like(TOKENS),
        visual_attention_mask=torch.ones(3, 4).long(),
        labels=torch.cat([TOKENS, torch.full((3, 4), -100)], dim=1),
        sentence_image_labels=CLASSES,
    )
    expected = out.prediction_logits[:, :6], out.seq_relationship_logits, out.loss
    given = dict(tokens=TOKENS, regions=FEATURES, boxes=BOXES)
    out = ours(**given)
    # Theirs has 0 for a pair that matches.
    losses = ours.loss(given | dict(token_label=TOKENS, match_label=CLASSES))
    return expected, (ours.token_logits(out.tokens), out.match_logits, sum(losses.values()))


def vilt(theirs, ours):
    out = theirs(input_ids=TOKENS, pixel_values=PIXELS, labels=TOKENS)
    expected = out.logits, out.loss
    given = dict(tokens=TOKENS, image=PIXELS)
    return expected, (ours.token_logits(ours(**given).tokens), ours.loss(given | dict(token_label=TOKENS))["mlm"])


def answers(theirs, ours):
    scores = torch.eye(3)[:, : ours.config.answers]
    out = theirs(input_ids=TOKENS, pixel_values=PIXELS, labels=scores)
    expected = out.logits, out.loss
    given = dict(tokens=TOKENS, image=PIXELS)
    return expected, (ours(**given).answer_logits, ours.loss(given | dict(answer=scores))["vqa"])


def pretraining(theirs, ours):
    b, s = len(CLIP), int(theirs._get_feat_extract_output_lengths(CLIP.shape[1]))
    hidden = torch.arange(s).expand(b, s) % 3 == 0
    distractor = sample_distractors(hidden, 4, generator=torch.Generator().manual_seed(1))
    last = theirs.project_q  # row by row, because theirs tells equal codes by their vectors, to the last bit
    last.forward = lambda x: (x[..., None, :] * last.weight).sum(-1) + last.bias
    out = theirs(
        CLIP, mask_time_indices=hidden, sampled_negative_indices=distractor + s * torch.arange(b)[:, None, None]
    )
    expected = out.projected_states, out.projected_quantized_states, out.loss / hidden.sum()
    given = dict(waveform=CLIP, masked=hidden, distractor=distractor)
    out = ours(CLIP, None, hidden)
    return expected, (out.context, out.target, sum(ours.loss(given).values()))


def spelling(theirs, ours):
    """wav2vec 2.0, HuBERT and data2vec, of whole clips and masked ones. Ours is a mean over clips, theirs a sum."""
    out = theirs(CLIP, labels=SPELT)
    masked = torch.arange(out.logits.shape[1]).expand(3, -1) % 3 == 0
    frames = theirs.base_model(CLIP, mask_time_indices=masked).last_hidden_state
    expected = out.logits, out.loss / (3 if theirs.config.ctc_loss_reduction == "sum" else 1), frames
    loss = ours.loss(dict(waveform=CLIP, tokens=SPELT))["ctc"]
    return expected, (ours(CLIP).logits, loss, ours(CLIP, None, masked).tokens)


def painted(theirs, ours):
    p = ours.decoder.patches
    noise = torch.linspace(0, 1, 3 * p).view(3, p).roll(1, 0)
    out = theirs(PIXELS, noise=noise)
    visible = noise.argsort(1)[:, : p - int(out.mask[0].sum())]
    expected = out.logits, out.loss
    return expected, (ours(PIXELS, visible).prediction, ours.loss(dict(image=PIXELS, visible=visible))["pixels"])


def patches_of(theirs):
    return int((8 // theirs.config.patch_size) ** 2)


def codes(theirs, ours):
    p = patches_of(theirs)
    masked, code = torch.arange(p).expand(3, p) % 2 == 0, torch.arange(3 * p).view(3, p) % 7
    out = theirs(PIXELS, bool_masked_pos=masked, labels=code[masked])
    expected = out.logits, out.loss
    batch = dict(image=PIXELS, masked_patches=masked, code=code)
    return expected, (ours(PIXELS, masked).code_logits, ours.loss(batch)["codes"])


def asked_images(theirs, ours):
    asked = label(theirs)
    out = theirs(PIXELS, labels=asked)
    expected = out.logits, out.loss
    return expected, (ours(image=PIXELS).logits, ours.loss(dict(image=PIXELS, label=asked))["classification"])


def pairs_with_gaps(theirs, ours):
    """FLAVA, of which one pair is wrong."""
    p = (8 // theirs.config.image_config.patch_size) ** 2
    masked, code = torch.arange(p).expand(3, p) % 2 == 0, torch.arange(3 * p).view(3, p) % 7
    label, match = torch.where(TOKENS % 2 == 0, TOKENS, -100), torch.tensor([1, 0, 1])
    out = theirs(
        input_ids=TOKENS,
        input_ids_masked=TOKENS,
        pixel_values=PIXELS,
        bool_masked_pos=masked,
        mlm_labels=label.clone(),
        mim_labels=code.clone(),
        itm_labels=match,
    )
    expected = out.itm_logits, out.image_masked_embeddings, out.loss
    batch = dict(tokens=TOKENS, image=PIXELS, masked_patches=masked, code=code, token_label=label, match_label=match)
    got = ours(PIXELS, TOKENS, masked_patches=masked)
    return expected, (got.match_logits, got.image_tokens, sum(ours.loss(batch).values()))


# Name → (published model, its configuration, what both give).
CASES = {
    "bert": (BertForPreTraining, BertConfig(**TEXT), bert),
    "albert": (AlbertForPreTraining, AlbertConfig(embedding_size=12, **TEXT), albert),
    "distilbert": (DistilBertForMaskedLM, DistilBertConfig(**DISTILBERT), masked),
    "electra, generator": (ElectraForMaskedLM, ElectraConfig(embedding_size=12, **TEXT), masked),
    "electra, discriminator": (ElectraForPreTraining, ElectraConfig(embedding_size=12, **TEXT), detected),
    "roberta": (RobertaForMaskedLM, RobertaConfig(**TEXT | dict(max_position_embeddings=12)), masked),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2), gpt2),
    "llama": (LlamaForCausalLM, LlamaConfig(**LLAMA), gpt2),
    "mistral": (MistralForCausalLM, MistralConfig(**LLAMA, sliding_window=3), gpt2),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**LLAMA, eos_token_id=2), gpt2),
    "bart": (BartForConditionalGeneration, BartConfig(**BART), repaired),
    "t5": (T5ForConditionalGeneration, T5Config(**T5), written),
    "vit": (ViTForImageClassification, ViTConfig(**IMAGE, num_labels=3), vit),
    "vit, pooled": (ViTModel, ViTConfig(**IMAGE), pooled_vit),
    "vit_mae": (ViTMAEForPreTraining, ViTMAEConfig(**MAE), painted),
    "beit": (BeitForMaskedImageModeling, BeitConfig(**BEIT, vocab_size=11), codes),
    "beit, classes": (BeitForImageClassification, BeitConfig(**BEIT, num_labels=3), asked_images),
    "data2vec_vision": (Data2VecVisionForImageClassification, Data2VecVisionConfig(**BEIT, num_labels=3), asked_images),
    "data2vec_text": (
        Data2VecTextForMaskedLM,
        Data2VecTextConfig(**TEXT | dict(max_position_embeddings=12)),
        data2vec_text,
    ),
    "data2vec_audio": (Data2VecAudioForCTC, Data2VecAudioConfig(**DATA2VEC_AUDIO, vocab_size=9), spelling),
    "perceiver": (PerceiverForMaskedLM, PerceiverConfig(**PERCEIVER), masked),
    "perceiver, pictures": (
        PerceiverForImageClassificationFourier,
        PerceiverConfig(**PERCEIVER | dict(d_model=261, num_cross_attention_heads=1), num_labels=3),
        asked_images,
    ),
    "flava": (FlavaForPreTraining, FlavaConfig(**FLAVA), pairs_with_gaps),
    "ast": (
        ASTForAudioClassification,
        ASTConfig(
            num_mel_bins=12, max_length=20, patch_size=4, frequency_stride=3, time_stride=3, num_labels=3, **SMALL
        ),
        ast,
    ),
    "clip": (
        CLIPModel,
        CLIPConfig(text_config=TEXT | {"eos_token_id": 28}, vision_config=IMAGE, projection_dim=12),
        pairs,
    ),
    "siglip": (SiglipModel, SiglipConfig(text_config=TEXT, vision_config=IMAGE), pairs),
    "clap": (
        ClapModel,
        ClapConfig(text_config=TEXT | dict(max_position_embeddings=12), audio_config=SWIN, projection_dim=10),
        clap,
    ),
    "blip, retrieval": (BlipForImageTextRetrieval, BlipConfig(**BLIP), retrieval),
    "blip, captions": (BlipForConditionalGeneration, BlipConfig(**BLIP), captions),
    "lxmert": (LxmertForPreTraining, LxmertConfig(**ANSWERED), lxmert),
    "visual_bert": (VisualBertForPreTraining, VisualBertConfig(visual_embedding_dim=12, **TEXT), visual_bert),
    "vilt": (ViltForMaskedLM, ViltConfig(**TEXT | IMAGE), vilt),
    "vilt, answers": (ViltForQuestionAnswering, ViltConfig(**TEXT | IMAGE, num_labels=3), answers),
    "wav2vec2": (Wav2Vec2ForPreTraining, Wav2Vec2Config(**SPEECH, **CODES), pretraining),
    "wav2vec2, texts": (Wav2Vec2ForCTC, Wav2Vec2Config(**SPEECH, vocab_size=9), spelling),
    "hubert": (HubertForCTC, HubertConfig(**SPEECH, vocab_size=9), spelling),
    "whisper": (WhisperForConditionalGeneration, WhisperConfig(**WHISPER), heard),
}

# case/part.key, as patterns → why it changes neither what a published model gives nor its loss, in evaluation mode.
KINDS = (
    "bert",
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "bart",
    "t5",
    "vit, pooled",
    "clip",
    "siglip",
    "clap",
    "blip",
    "lxmert",
    "visual_bert",
    "wav2vec2",
    "hubert",
    "albert",
    "distilbert",
    "electra",
    "roberta",
    "whisper",
)
WRITER = "how a text begins and ends is up to who writes it"
ELSEWHERE = "a model with another head reads it, and such a one is not loaded here"
TRAINING = "it acts in training alone, where ours draws by its own settings, or not at all: see its deviations"
LABELLED = ("*id2label", "*problem_type")
OF_OTHER_PERCEIVERS = ("audio_samples_per_frame", "image_size", "num_frames", "output_num_channels", "output_shape")
OF_OTHER_PERCEIVERS += ("samples_per_patch", "train_size")
NOTHING = {
    "*initializer_range": "how weights start, which a checkpoint replaces",
    "*initializer_factor": "how weights start, which a checkpoint replaces",
    "*init_value": "how weights start, which a checkpoint replaces",
    "visual_bert/special_visual_initialize": "how weights start, which a checkpoint replaces",
    "*architectures": "which class wrote the file; the tensors tell",
    "*transformers_version": "which version wrote the file",
    "*dtype": "the precision on the disk; ours is float32",
    "*output_hidden_states": "what else is returned",
    "*chunk_size_feed_forward": "how much is computed at once",
    "*use_cache": "whether what was computed is kept",
    # These do change something, unlike elsewhere.
    **dict.fromkeys(["t5/is_encoder_decoder", "bart/is_encoder_decoder", "bart/forced_eos_token_id"]),
    "*is_encoder_decoder": "how a cache is made",
    "*label2id": "the names of classes",
    "*output_attentions": "what else is returned",
    **{f"{case}*bos_token_id": WRITER for case in KINDS if case not in ("blip", "t5", "vit, pooled")},
    **{f"{case}*eos_token_id": WRITER for case in KINDS if case not in ("clip", "blip", "vit, pooled")},
    "*encoder_stride": ELSEWHERE,
    "vit/pooler_*": "the file has no pooler",
    "clip/*_config.projection_dim": ELSEWHERE,
    "gpt2/pad_token_id": "padding is a token like others there",
    "llama/pretraining_tp": "in float32 the order of a product changes nothing",
    **dict.fromkeys(
        [f"{case}/max_position_embeddings" for case in ("llama", "mistral", "qwen2")], "how long a text may become"
    ),
    "qwen2/max_window_layers": "windows are refused",
    "qwen2/sliding_window": "use_sliding_window says that there is none",
    "gpt2/summary_*": ELSEWHERE,
    "electra*/summary_*": ELSEWHERE,
    "electra, discriminator/tie_word_embeddings": "it has no language head",
    "distilbert/qa_dropout": ELSEWHERE,
    "distilbert/seq_classif_dropout": ELSEWHERE,
    "albert/classifier_dropout_prob": TRAINING,
    **dict.fromkeys(["bart/is_decoder", "t5/is_decoder"], "each half knows which it is"),
    "t5/tie_word_embeddings": "scale_decoder_outputs says what it is for",
    "bart/encoder_layerdrop": TRAINING,
    "bart/decoder_layerdrop": TRAINING,
    "bart/init_std": "how weights start, which a checkpoint replaces",
    "whisper/init_std": "how weights start, which a checkpoint replaces",
    "whisper/*suppress_tokens": WRITER,
    "whisper/mask_*": "apply_spec_augment says whether anything is hidden, and is refused",
    "whisper/median_filter_width": "it smooths the times of single words, which are not built here",
    **dict.fromkeys(["whisper/classifier_proj_size", "whisper/use_weighted_layer_sum"], ELSEWHERE),
    "gpt2/reorder_and_upcast_attn": "in float32 the order of a product changes nothing",
    "clip/text_config.pad_token_id": "padding is a token like others there",
    "siglip/text_config.pad_token_id": "padding is a token like others there",
    "clap/hidden_size": "those of the parts are read",
    "clap/num_hidden_layers": "those of the parts are read",
    "clap/audio_config.num_hidden_layers": "depths says it",
    "clap/audio_config.num_classes": ELSEWHERE,
    "clap/audio_config.aff_block_r": "fusion is refused",
    "clap/audio_config.fusion_type": "fusion is refused",
    "clap/*_config.projection_dim": "that of the whole takes its position",
    "clap/*_config.projection_hidden_act": "that of the whole takes its position",
    "vilt, answers/problem_type": "its loss is a yes or no to each answer, whatever this says",
    "wav2vec2/ctc_*": "the file has no head for texts",
    "wav2vec2/vocab_size": "the file has no head for texts",
    "wav2vec2/pad_token_id": "the file has no head for texts",
    "wav2vec2*/num_negatives": "how many are drawn, where the caller does not say which",
    "wav2vec2*/output_hidden_size": "adapters are refused",
    "*ctc_zero_infinity": "a text that is too long for its clip is refused in ours",
    **{
        f"wav2vec2, texts/{key}": "the file has no quantiser"
        for key in (
            "codevector_dim",
            "contrastive_logits_temperature",
            "diversity_loss_weight",
            "num_codevector_groups",
            "num_codevectors_per_group",
            "proj_codevector_dim",
        )
    },
    **dict.fromkeys(
        [f"{case}/{key}" for case in ("vit_mae", "beit", "perceiver", "flava*") for key in LABELLED], ELSEWHERE
    ),
    **dict.fromkeys(["data2vec_audio/*os_token_id", "data2vec_text/*os_token_id"], WRITER),
    **dict.fromkeys([f"data2vec_{kind}/{key}" for kind in ("text", "audio") for key in LABELLED], ELSEWHERE),
    "data2vec_audio/output_hidden_size": "adapters are refused",
    **dict.fromkeys(["*auxiliary_*", "*pool_scales", "*semantic_loss_ignore_index", "*use_auxiliary_head"], ELSEWHERE),
    "beit*reshape_hidden_states": ELSEWHERE,
    **dict.fromkeys([f"{case}*drop_path_rate" for case in ("beit", "data2vec_vision")], TRAINING),
    "beit, classes/vocab_size": "the file has no head for codes",
    "perceiver*layer_norm_eps": "its norms have PyTorch's own epsilon there",
    **dict.fromkeys([f"perceiver*{key}" for key in OF_OTHER_PERCEIVERS], ELSEWHERE),
    "perceiver, pictures/d_model": "pixels and their positions are what is read",
    **dict.fromkeys(
        ["perceiver, pictures/vocab_size", "perceiver, pictures/max_position_embeddings"], "it reads no text"
    ),
    "flava/layer_norm_eps": "those of the parts are read",
    "flava/global_backprop_contrastive": "it acts where several processes share a batch",
    "flava/skip_unmasked_multimodal_encoder": "what is computed and not used",
    "flava/image_codebook_config.freeze": "codes are made of it, and it learns nowhere",
    "lxmert/num_hidden_layers": "the three depths take its position",
    "lxmert/pad_token_id": "padding is row 0 of all tables there",
    **dict.fromkeys([f"{case}*id2label" for case in KINDS if case != "albert"], ELSEWHERE),
    **dict.fromkeys([f"{case}*problem_type" for case in KINDS], ELSEWHERE),
    "vilt/id2label": ELSEWHERE,
    "vilt/problem_type": ELSEWHERE,
    "vilt/num_images": ELSEWHERE,
    "vilt, answers/num_images": ELSEWHERE,
    "vilt*tie_word_embeddings": "Transformers always ties; what the file holds decides here as there",
    "blip*/label_smoothing": "that of text_config is read",
    "blip, retrieval/text_config.label_smoothing": "captions alone are learned by it",
    "blip*projection_dim": ELSEWHERE,
    "blip, retrieval*tie_word_embeddings": "nothing is written here, so nothing is tied",
    "blip*text_config.encoder_hidden_size": "the width of vision_config takes its position",
    "blip*text_config.eos_token_id": "sep_token_id is where a caption ends",
    "blip, retrieval/text_config.sep_token_id": "nothing is written here",
    "blip, captions/image_text_hidden_size": "nothing is compared here",
    **dict.fromkeys(
        [
            *("*activation_dropout", "*feat_proj_dropout", "*feat_quantizer_dropout", "*final_dropout", "*layerdrop"),
            *("*mask_time_*", "*mask_feature_*"),
        ],
        TRAINING,
    ),
    **dict.fromkeys(["*classifier_dropout", "*classifier_proj_size", "*use_weighted_layer_sum"], ELSEWHERE),
    **dict.fromkeys(["*tdnn_*", "*xvector_output_dim"], ELSEWHERE),
    **dict.fromkeys(["*adapter_kernel_size", "*adapter_stride", "*num_adapter_layers"], "adapters are refused"),
}
ELECTRA = ("electra, generator", "electra, discriminator")
CRASHES = {  # Transformers stops at its own configuration
    *((case, "", f"summary_{key}") for case in ("gpt2", *ELECTRA) for key in ("activation", "type")),
    ("bart", "", "output_attentions"),  # where it writes
    ("bart", "", "output_hidden_states"),
    ("albert", "", "id2label"),  # other names for two classes, or other weights for one
    ("blip, captions", "text_config", "is_encoder_decoder"),
    ("blip, captions", "text_config", "output_attentions"),
    ("blip, captions", "text_config", "output_hidden_states"),
}
OUTSIDE = ("siglip", "text_config", "pad_token_id", 30)  # Transformers never reads it; ours is tested below
SKIPPED = {  # their other values are another architecture, or another form of what Transformers returns
    "model_type",
    "return_dict",
    "return_loss",
    *("stage_names", "out_features", "out_indices"),  # which blocks a detector reads, under derived names
}

LINEAR_ROPE = dict(rope_type="linear", rope_theta=1e4, factor=2.0)
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=9.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3_ROPE |= dict(original_max_position_embeddings=8)
# Key → other values. Other keys: the opposite, one more, or twice as much.
OTHER = {
    "hidden_act": ("relu", "silu"),
    "projection_hidden_act": ("gelu",),
    "pooler_act": ("relu",),
    "feat_extract_activation": ("relu",),
    "feat_extract_norm": ("layer",),
    "layer_norm_eps": (0.1,),
    "mask_ratio": (0.4,),
    "num_attention_heads": (4, 3),
    "image_size": (12, [8, 12]),
    "patch_size": (2, [4, 4]),
    "dtype": ("float64",),
    "problem_type": ("regression", SEVERAL),
    "id2label": ({"0": "a", "1": "b"}, {"0": "a"}),
    "label2id": ({"a": 0, "b": 1, "c": 2},),
    "pad_token_id": (5, None, 30),
    "eos_token_id": (29, 2),
    "sep_token_id": (11,),
    "forced_eos_token_id": (3, None),
    "max_length": (24,),
    "ctc_loss_reduction": ("mean",),
    "max_image_length": (2, 200),
    "classifier_dropout": (0.37,),
    "pooler_output_size": (20,),
    "projection_size": (20,),
    "output_hidden_size": (20,),
    "adapter_attn_dim": (4,),
    "fusion_type": ("aff_2d",),
    "architectures": (["Other"],),
    "transformers_version": ("4.0.0",),
    "depths": ([2, 1],),
    "layer_types": (["sliding_attention"], ["full_attention"]),
    "rope_parameters": (
        LINEAR_ROPE,
        LLAMA3_ROPE,
        dict(rope_type="dynamic", rope_theta=1e4, factor=2.0),
        dict(rope_type="default", rope_theta=50.0),
    ),
    "num_key_value_heads": (2, None),
    "head_dim": (4,),
    "rms_norm_eps": (0.1,),
    "sliding_window": (2, None),
    "dense_act_fn": ("silu",),
    "relative_attention_max_distance": (4,),
    "patch_stride": ([2, 2],),
}


def others(key, value):
    """Values that mean something else."""
    if key == "num_attention_heads" and isinstance(value, list):
        return ([4, 8],)
    if key in OTHER:
        return tuple(other for other in OTHER[key] if other != value)
    if "drop" in key:
        return (0.37,)
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1,)
    if isinstance(value, float):
        return (2 * value + 0.25,)
    if isinstance(value, list):
        return ([*value[:-1], value[-1] + 1],)
    return (7,)  # of a token that does not exist


def settings(config):
    """Each part and key of a configuration with another value."""
    whole = json.loads(config.to_json_string(use_diff=False))
    parts = {"": whole} | {name: value for name, value in whole.items() if name.endswith("_config")}
    for part, values in parts.items():
        for key, value in values.items():
            if key not in SKIPPED and not key.endswith("_config") and not key.startswith("_"):
                yield from ((part, key, other) for other in others(key, value))


def second_names(config):
    """What a format reads under two names, with other values: its aliases, and its older names of parts."""
    for second, name in config.attribute_map.items():
        yield from (("", second, other) for other in others(name, getattr(config, name)))
    whole = json.loads(config.to_json_string(use_diff=False))
    for part in (name for name in whole if name.endswith("_config")):
        yield "", f"{part}_dict", {}
        for key in {"layer_norm_eps", "hidden_size"} & set(whole[part]):
            yield from (("", f"{part}_dict", whole[part] | {key: other}) for other in others(key, whole[part][key]))


ALL = [
    (case, *setting) for case, (_, config, _) in CASES.items() for setting in (*settings(config), *second_names(config))
]
ALL = [row for row in ALL if row[:3] not in CRASHES and row != OUTSIDE]
ALL += [
    ("bert", "", "position_embedding_type", "relative_key"),
    ("vit", "", "num_labels", 2),
    ("data2vec_audio", "", "apply_spec_augment", False),  # read, though no field of its configuration
    ("clip", "", "text_config_dict", TEXT | {"eos_token_id": 29, "hidden_act": "gelu"}),
]


def why_nothing(case, part, key):
    name = f"{case}/{part}.{key}" if part else f"{case}/{key}"
    return next((reason for pattern, reason in NOTHING.items() if fnmatch(name, pattern)), None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function from a case to a folder, as Transformers saves it with noise on every weight."""
    root = tmp_path_factory.mktemp("published")

    @cache
    def save(case):
        kind, config, _ = CASES[case]
        torch.manual_seed(0)
        model = kind(deepcopy(config)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            if case == "blip, captions":
                model.text_decoder.cls.predictions.bias[11] += 5  # what is written, unless it is the end
        folder = root / case.replace(", ", "-")
        model.save_pretrained(folder)
        whole = json.loads(config.to_json_string(use_diff=False))
        (folder / "config.json").write_text(json.dumps(whole))
        return folder

    return save


def load_theirs(kind, folder):
    """Their model, or None where the weights do not fit the configuration or it cannot be."""
    try:
        model, info = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32, local_files_only=True
        )
    except Exception:
        return None
    unfit = any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return None if unfit else model.eval()


def padding(model):
    """Which row of the table of words does not learn by being looked up."""
    return next((m.padding_idx for m in model.modules() if isinstance(m, nn.Embedding) and len(m.weight) == 30), None)


def drops(model, share):
    """Whether anything in the model is dropped with this probability."""

    def share_of(module):
        return module.p if isinstance(module, nn.Dropout) else module.dropout if isinstance(module, Attention) else None

    return any(share_of(module) == share for module in model.modules())


@pytest.fixture(scope="module")
def unchanged(saved):
    """A function from a case to what Transformers gives with its own configuration; ours, which gives the same."""

    @cache
    def results(case):
        kind, _, run = CASES[case]
        theirs, ours = load_theirs(kind, saved(case)), load_pretrained(saved(case))
        with torch.no_grad():
            expected, got = run(theirs, ours)
        close(got, expected)
        return expected, padding(theirs), ours

    return results


def differ(one, other):
    return any(a.shape != b.shape or (a - b).abs().max() > 1e-6 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_each_setting_is_followed_or_refused(case, saved, unchanged, tmp_path, subtests):
    """One by one; those that should change nothing together, and one by one only where that changes something."""
    (tmp_path / "model.safetensors").symlink_to(saved(case) / "model.safetensors")
    settings = [row for name, *row in ALL if name == case]
    together = {(part, key): value for part, key, value in settings if why_nothing(case, part, key)}
    try:
        followed_or_refused(case, [(*name, value) for name, value in together.items()], saved, unchanged, tmp_path)
    except (AssertionError, RuntimeError):
        together = {}
    for setting in settings:
        if together.get(tuple(setting[:2]), ()) != setting[2]:
            with subtests.test(setting=setting):
                followed_or_refused(case, [setting], saved, unchanged, tmp_path)


def followed_or_refused(case, settings, saved, unchanged, folder):
    """These settings, which are one, or have no effect."""
    (kind, _, run), (before, table, ours_before) = CASES[case], unchanged(case)
    part, key, value = settings[0]
    reason = why_nothing(case, part, key)
    whole = json.loads((saved(case) / "config.json").read_text())
    for part, key, value in settings:
        (whole[part] if part else whole)[key] = value
    (folder / "config.json").write_text(json.dumps(whole))
    try:
        ours = load_pretrained(folder)
    except ValueError as error:
        message = str(error)
        assert reason is None, f"refused, though it changes nothing: {message}"
        assert "\n" not in message
        assert key in message or load_theirs(kind, folder) is None, message
        return
    theirs = load_theirs(kind, folder)
    assert theirs is not None, "Transformers does not fit these weights to it, and ours passes it over"
    with torch.no_grad():
        expected, got = run(theirs, ours)
    close(got, expected)
    assert padding(ours) == padding(theirs)
    if reason is None and "drop" in key:
        assert drops(ours, value)
        assert not drops(ours_before, value)
    elif reason is None:
        assert differ(expected, before) or padding(theirs) != table, "it changes nothing: say in NOTHING why"
    else:
        assert not differ(expected, before), f"it does change something, and not: {reason}"
        assert padding(theirs) == table


def test_every_reason_is_needed():
    unused = {
        pattern
        for pattern in NOTHING
        if not any(fnmatch(f"{case}/{part}.{key}" if part else f"{case}/{key}", pattern) for case, part, key, _ in ALL)
    }
    assert unused == set()


def changed(folder, saved, case, part=None, **values):
    """A folder with the weights of this case, and these settings."""
    whole = json.loads((saved(case) / "config.json").read_text())
    (whole[part] if part else whole).update(values)
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors").symlink_to(saved(case) / "model.safetensors")
    return folder


def test_older_names_of_parts(saved, tmp_path):
    """A dropout under one of them is followed; null there is nothing, and elsewhere they are refused by their name."""
    nothing = changed(tmp_path, saved, "clip", text_config_dict=None)
    assert load_pretrained(nothing).config == load_pretrained(saved("clip")).config
    tower = IMAGE | dict(attention_dropout=0.37)
    dropped = load_pretrained(changed(tmp_path, saved, "clip", vision_config_dict=tower))
    assert dropped.image_encoder.transformer.blocks[0].attention.dropout == 0.37
    fused = FLAVA["multimodal_config"] | dict(attention_probs_dropout_prob=0.37)
    dropped = load_pretrained(changed(tmp_path, saved, "flava", multimodal_config_dict=fused))
    assert dropped.fusion.blocks[0].attention.dropout == 0.37
    with pytest.raises(ValueError, match=r"vision_config_dict in config\.json is not read here: put"):
        load_pretrained(changed(tmp_path, saved, "siglip", vision_config_dict=IMAGE))


def test_second_names_are_those_of_the_formats():
    """All that a part of Transformers reads as well, but for what it reads nowhere here."""
    known = {kind.replace("-", "_"): kind for kind in CONFIG_MAPPING}
    for family in set(families()) - {"nanovlm"}:  # which Transformers has not
        names = dict(CONFIG_MAPPING[known[family]].attribute_map)
        names.pop("image_token_id", None)  # where the picture stands in a prompt, which is no token here
        assert names.items() <= SECOND_NAMES.get(family, {}).items(), family


def test_a_second_name_of_both_halves_is_in_the_message(saved, tmp_path):
    with pytest.raises(ValueError, match=r"with num_attention_heads for encoder_attention_heads\) should be"):
        load_pretrained(changed(tmp_path, saved, "bart", num_attention_heads=4))


def test_padding_outside_the_vocabulary(saved, tmp_path):
    with pytest.raises(ValueError, match=r"pad_token_id 30 in text_config of config\.json is none of the 30"):
        load_pretrained(changed(tmp_path, saved, "siglip", "text_config", pad_token_id=30))
