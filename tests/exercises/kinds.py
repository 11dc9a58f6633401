"""Which kinds of wrong answers each task is tested for: one table, beside the mistakes that people really give.

Each kind makes a wrong answer of a right one, so that a new task gets all that apply to it with one line here.
"""

from dataclasses import dataclass
from inspect import signature

import common_mistakes as mistakes

from mmlearn.exercises.guard import swapped

# What is learned from has a gradient for each of these inputs, in the order of its arguments.
LEARNED = {
    "bicaptioning": "forward_logits backward_logits",
    "caption_language_modelling": "logits",
    "pool_by_attention": "queries x",
    "contrast_and_caption": "image_embedding text_embedding logits",
    "forget_gate": "text seen weight bias",
    "caption_loss": "logits",
    "channel_attention": "features hidden key bias query score",
    "spatial_attention": "features hidden key bias query score",
    "in_order": "features",
    "self_critical": "log_probs",
    "worker_step": "seen word hidden goal proposed weight head",
    "interpolate_texts": "text other",
    "conditioning_augmentation": "mean log_variance",
    "standard_normal_divergence": "mean log_variance",
    "matching_aware_generation": "made between",
    "matching_aware_discrimination": "real wrong made",
    "word_attention": "queries words",
    "word_region_scores": "regions words",
    "damsm_loss": "regions image words sentence",
    "pair_similarity": "text image",
    "similarity_of_pairs": "similarity",
    "outer_product": "x",
    "low_rank_product": "x factors",
    "gated_unit": "first second first_weight second_weight gate_weight",
    "cue_reconstruction": "reconstruction",
    "pointwise_fusion": "image question image_weight question_weight",
    "region_weights": "u v cell_weight question_weight bias score",
    "several_looks": "u v",
    "memory_hop": "u m c",
    "attention_gate": "query found information gate",
    "weighed_vertex": "parts logits weight",
    "graph_efficacies": "logits",
    "select_tokens": "x",
    "attention_weights": "query key",
    "attention": "query key value",
    "info_nce": "image_embedding text_embedding logit_scale",
    "pair_cross_entropy": "image_to_text text_to_image",
    "pairwise_sigmoid": "image_embedding text_embedding logit_scale logit_bias",
    "late_interaction": "image_tokens text_tokens",
    "ranking_hinge": "image_embedding text_embedding",
    "masked_cross_entropy": "logits",
    "masked_region_regression": "prediction",
    "masked_region_classification": "logits",
    "masked_region_kl": "logits",
    "cosine_cost": "x y",
    "word_region_alignment": "words regions",
    "co_attention": "text visual",
    "smooth_region_regression": "prediction",
    "soft_cross_entropy": "logits",
    "ctc_log_likelihood": "log_probs",
    "straight_through": "logits",
    "relaxed_choice": "logits",
    "copied_gradient": "z",
    "commitment": "z",
    "divergence_from_even": "logits",
    "code_perplexity": "probability",
    "distractor_contrast": "context target",
    "masked_cluster": "logits",
    "masked_multimodal_cluster": "logits",
    "drop_tokens": "x",
    "clap_loss": "audio_embedding text_embedding audio_logit_scale text_logit_scale",
    "mil_nce": "video_embedding text_embedding logit_scale",
    "binding_loss": "image_embedding other_embedding logit_scale",
    "read_others": "target sources",
    "central_moment_discrepancy": "x y",
    "difference_loss": "x y",
    "causal_language_modelling": "logits",
    "replaced_token_detection": "logits",
    "inherit_knowledge": "loss student_logits",
    "gated": "x branch gate",
    "low_rank": "x down up",
    "place_images": "words images",
    "pixel_shuffle": "x",
    "answer_loss": "states table",
    "merged_lora": "weight down up",
    "dpo": "chosen rejected",
    "response_language_modelling": "logits",
    "query_text_similarity": "query_embedding text_embedding",
    "query_text_contrast": "query_embedding text_embedding logit_scale",
    "accumulated_info_nce": "image_embedding text_embedding logit_scale",
    "local_info_nce": "image_embedding text_embedding all_images all_texts logit_scale",
    "chunked_info_nce": "image_embedding text_embedding logit_scale",
    "masked_pixels": "prediction",
    "by_modality": "x",
    "restore_order": "tokens",
    "own_gradient": "weight",
    "send_to_experts": "tokens weight",
    "balance": "probability",
    "global_entropy": "probability",
    "matched_info_nce": "image_embedding text_embedding logit_scale",
    "generalised_iou": "one other",
    "set_cross_entropy": "logits",
    "solve_by_task": "context queries",
    "route_to_one": "probability",
    "balance_of_prototypes": "logits",
    "tied_logits": "table bias",
    "grouped_attention": "query key value",
    "rotate": "x",
}
NOT_LEARNED = {  # tasks whose result nothing is learned from, and why
    "input": "patchify sinusoidal_positions box_sizes same_caption melscale_fbanks frame_count frame_mask collapse "
    "add_noise queue_positions imposters modality_dropout mask_tokens mask_spans random_negatives hard_negatives "
    "sample_distractors shifted_right prefix_mask swap_segments sample_replacements hide_spans fill_spans "
    "permute_sentences restore choose_positions draw_spans rank_batches put_back last_image_mask query_text_mask "
    "interleaved_positions draw_pairs without_style one_vocabulary next_of_box three_encodings mixing_rates "
    "infilling_task backwards seq2seq_mask what_learns leave_one_out destroy_numbers keep_modalities "
    "until_end other_captions position_encoding words_then_codes responses_in_turn shuffled_labels "
    "whisper_log_mel may_follow window_mask assistant_tokens packed",
    "target": "adaptive_weight moving_entries dead_entries normalised_patches contextual_targets "
    "inheritance_rate ratio_masks ipot soft_scores momentum_update momentum_weights distilled_targets quantise "
    "hungarian",
    "measure": "on_grid pointing_accuracy entropy mass_ratio modality_gap zero_shot ranks recall_at median_rank iou "
    "best_region nlvr_accuracy gradient_maps box_of_map si_sdr frames_near greedy sampling_probabilities beam_search "
    "question_of recall_by_chance edit_rate length_scores ctc_scores dequantise write_box "
    "most_right_by_votes bleu tf_idf cider_d prior_guesses cached_attention window_step zero_shot_pointing "
    "letters_wrong answered_right train_projector",
    "cost": "utilisation sharded_bytes block_flops recomputed_bytes kept_by_block scaled_rate swiglu_width",
    "gradient": "gather_backward ring_all_reduce backward_in_chunks rms_norm_backward",
}

# Two arguments that a student may write in the other order; "-" where either order is right.
SWAPPED = {
    "contrast_and_caption": "-", "until_end": "-",
    "modality_gap": "-", "info_nce": "-", "iou": "-", "smooth_region_regression": "-", "difference_loss": "-",
    "central_moment_discrepancy": "-", "masked_region_regression": "-", "nlvr_accuracy": "-", "straight_through": "-",
    "accumulated_info_nce": "-", "chunked_info_nce": "-", "relaxed_choice": "-", "moving_entries": "2 3",
    "mask_spans": "-", "modality_dropout": "-", "draw_spans": "-",
    "sampling_probabilities": "-",  # of which all but one are handed over by name
    "pairwise_sigmoid": "2 3", "binding_loss": "2 3", "ranking_hinge": "1 2", "inherit_knowledge": "1 2",
    "utilisation": "1 2", "scaled_rate": "2 3", "rank_batches": "1 2", "masked_pixels": "-", "matched_info_nce": "-",
    "generalised_iou": "-", "set_cross_entropy": "1 2", "one_vocabulary": "2 3", "infilling_task": "0 1",
    "pair_similarity": "-", "cue_reconstruction": "1 2", "in_order": "2 3",
    "self_critical": "2 3", "memory_hop": "1 2", "matching_aware_generation": "-", "words_then_codes": "2 3",
    "pixel_shuffle": "1 2", "train_projector": "1 4",
}  # fmt: skip

LARGE = (
    "attention_weights attention info_nce pair_cross_entropy pairwise_sigmoid masked_cross_entropy "
    "masked_region_classification masked_region_kl soft_cross_entropy masked_cluster masked_multimodal_cluster mil_nce "
    "binding_loss hard_negatives causal_language_modelling replaced_token_detection inherit_knowledge "
    "sampling_probabilities sample_replacements accumulated_info_nce local_info_nce chunked_info_nce "
    "response_language_modelling query_text_contrast clap_loss ctc_scores matched_info_nce "
    "set_cross_entropy caption_loss matching_aware_generation matching_aware_discrimination cached_attention "
    "answer_loss dpo"
)
SMALL = (
    "box_sizes pointing_accuracy entropy mass_ratio modality_gap ranks cosine_cost iou distractor_contrast add_noise "
    "ratio_masks si_sdr box_of_map central_moment_discrepancy difference_loss normalised_patches without_style "
    "pair_similarity"
)
IDS = (
    "same_caption random_negatives queue_positions frame_count collapse distractor_contrast shifted_right "
    "swap_segments hide_spans fill_spans permute_sentences restore rank_batches draw_pairs clap_loss infilling_task "
    "until_end other_captions shuffled_labels"
)
# Tasks whose result has a row for each of the batch: of a batch of one it must have one row.
ALONE = (
    "pair_similarity outer_product low_rank_product gated_unit destroy_numbers keep_modalities until_end memory_hop "
    "channel_attention spatial_attention worker_step pointwise_fusion region_weights attention_gate graph_efficacies "
    "interpolate_texts other_captions attention_weights shifted_right choose_positions mask_tokens mask_spans "
    "sample_distractors drop_tokens query_text_similarity box_sizes cosine_cost mixing_rates prior_guesses box_of_map "
    "frames_near co_attention normalised_patches pixel_shuffle"
)
BELOW = (
    "memory_hop caption_loss causal_language_modelling bicaptioning caption_language_modelling contrast_and_caption "
    "masked_cross_entropy set_cross_entropy masked_cluster response_language_modelling"
)
DEFAULTS = (
    "interpolate_texts scaled_rate caption_language_modelling contrast_and_caption distractor_contrast frames_near "
    "mask_spans mask_tokens box_of_map ranking_hinge inheritance_rate inherit_knowledge collapse damsm_loss "
    "set_cross_entropy draw_spans"
)
# Of a generator, but one text at a time, or with rows that are those of the batch or of hidden positions.
NO_ROWS = ("random_negatives", "permute_sentences", "draw_spans", "sample_replacements")
AXES = (
    "masked_cross_entropy soft_scores momentum_update momentum_weights straight_through si_sdr frame_count "
    "gather_backward low_rank question_of quantise dequantise generalised_iou position_encoding "
    "rms_norm_backward"
)


@dataclass(frozen=True)
class Wrong:
    """A wrong answer, and what it must be told: a part of it, or one of several."""

    name: str
    function: object
    told: tuple[str, ...] = ("",)
    draws: int = 1  # on how many fresh inputs it is tried


def wrong_answers(task):
    """All wrong answers of these kinds to a task."""
    right, name = task.reference, task.name
    yield from (Wrong(*one) for one in _ungraded(right, LEARNED.get(name, "").split()))
    yield from _with_another_default(right)
    if name in ALONE.split():
        yield Wrong("squeezed", mistakes.then(right, _squeezed))
    if name in BELOW.split():
        yield Wrong("scores below 0 lost", mistakes.not_below_zero(right))
    annotations = dict(right.__annotations__)
    returns = annotations.pop("return")
    if "generator" in annotations:
        yield Wrong(
            "restarted generator", mistakes.restarted(right), ("Two calls on one generator", "draw anew with each call")
        )
        yield Wrong("own seed", mistakes.from_own_seed(right))
        yield Wrong("global state", mistakes.from_global_state(right), ("The same seed must give the same",))
        if name not in NO_ROWS:
            yield Wrong("rows alike", mistakes.alike(right))
    if "uple" in str(returns) or name in ("drop_tokens", "permute_sentences"):
        yield Wrong("list for a tuple", mistakes.then(right, list), ("this is a list",))
    lists = [one for argument, one in annotations.items() if argument != "end_token"]  # tasks have one end token
    if any("Sequence" in str(one) for one in lists):
        yield Wrong("edited list", mistakes.edits(right), ("must leave its arguments as they are",))
    positions = SWAPPED.get(name, "0 1")
    if len(annotations) > 1 and positions != "-":
        exchanged = swapped(right, *map(int, positions.split()))
        yield Wrong("swapped arguments", exchanged, ("are used in each other's place",))
    for kind, names, make in (
        ("large numbers cut off", LARGE, mistakes.clamped),
        ("small numbers lost", SMALL, mistakes.numb),
        ("ids as float32", IDS, mistakes.rounded_ids),
        ("one number of axes", AXES, mistakes.narrow),
    ):
        if name in names.split():
            yield Wrong(kind, make(right))


def _ungraded(right, learned):
    """Without a gradient, or with half of one, for each input that is learned."""
    if not learned:
        return
    told = ("radient", "The 0 must have a graph", "must be finite")
    yield "no gradient", _cut(right), told
    returns = str(right.__annotations__["return"])
    if "Float[Tensor, '']" in returns and "uple" not in returns:
        yield "a new number", mistakes.number(right), ("this is a new number",)
    for position, name in enumerate(learned):
        yield f"{name} never learns", mistakes.deaf(right, position), told
        yield f"{name} learns half", mistakes.half_deaf(right, position), told
        yield f"{name} gets NaN", mistakes.unsound(right, position), told


def _squeezed(result):
    return tuple(map(_squeezed, result)) if isinstance(result, tuple) else result.squeeze()


def _with_another_default(right):
    """The right answer with one default that is another one, or that is none."""
    if right.__name__ in DEFAULTS.split():
        for name, one in signature(right).parameters.items():
            if isinstance(one.default, int | float) and not isinstance(one.default, bool):
                yield Wrong(f"another {name} by default", mistakes.by_default(right, name, one.default * 1.5 + 1))


def _cut(right):
    def detach(result):
        if isinstance(result, tuple):
            return type(result)(*map(detach, result)) if hasattr(result, "_fields") else tuple(map(detach, result))
        return result.detach()

    return mistakes.then(right, detach)
