"""Systems of words and pictures beside Transformers, by ``make bench``: each in a process of its own, asked in turn.

For BLIP's three losses Transformers has no class: two are joined. For ALBEF it has none either: its BERT and its BLIP's
encoders are joined. Wrong pairs, the contrast, the queue and the momentum encoder are ours on both sides. A twin is
*equal* where Transformers has the system: weights are copied over and the losses agree. Else it is the *nearest*: what
Transformers has with as many blocks, tokens and operations. Both sides have the same sizes, batch, loss and optimiser.
Texts are padded to the longest of the batch, on both sides. Both leave matrix products to the same library, so time can
at best approach the ratio of these, *work*.
"""

import statistics

import bridges
import pairs
import torch
import unified
from timing import STARTS, compare, ratio

TARGET = 0.95  # our time over theirs, at most; what is above it is marked with "!"

# System, what it learns, its twin, whether that is equal or what is near about it, ours, theirs.
VISUAL_BERT, LXMERT = "VisualBertForPreTraining", "LxmertForPreTraining"
BLIP = "both halves, joined"
ROWS = (
    ("VisualBERT", "mlm + itm", VISUAL_BERT, "equal", pairs.visual_bert, pairs.published_visual_bert),
    ("ViLT", "mlm", "ViltForMaskedLM", "equal", pairs.vilt, pairs.published_vilt),
    ("ViLT", "itm", "ViltForImageAndTextRetrieval", "equal", pairs.vilt_matching, pairs.published_vilt_matching),
    ("LXMERT", "mlm + itm + mrfr + mrc", LXMERT, "equal", pairs.lxmert, pairs.published_lxmert),
    ("BLIP", "itm", "BlipForImageTextRetrieval", "equal", pairs.blip, pairs.published_blip),
    ("BLIP", "lm", "BlipForConditionalGeneration", "equal", pairs.blip_captioning, pairs.published_blip_captioning),
    ("BLIP", "itc + itm + lm", BLIP, "equal", pairs.blip_pretraining, pairs.published_blip_pretraining),
    ("UNITER", "mlm + itm", VISUAL_BERT, "nearest: as many blocks and tokens", pairs.uniter, pairs.near_uniter),
    ("VL-BERT", "mlm + itm", VISUAL_BERT, "nearest: as many blocks and tokens", pairs.vl_bert, pairs.near_vl_bert),
    ("Pixel-BERT", "mlm + itm", VISUAL_BERT, "nearest: same convolutions", pairs.pixel_bert, pairs.near_pixel_bert),
    ("ViLBERT", "mlm + itm + mrc", LXMERT, "nearest: as many operations", pairs.vilbert, pairs.near_vilbert),
    (
        "ALBEF",
        "itc + itm + mlm",
        "BLIP's vision, BERT, BLIP's text",
        "nearest: same blocks",
        pairs.albef,
        pairs.near_albef,
    ),
)
UNIFIED = (
    ("FLAVA", "itc + itm + mmm", "FlavaForPreTraining", "equal", unified.flava, unified.published_flava),
    (
        "data2vec",
        "pictures in classes",
        "Data2VecVisionForImageClassification",
        "equal",
        unified.data2vec_vision,
        unified.published_data2vec_vision,
    ),
    ("data2vec", "mlm", "Data2VecTextForMaskedLM", "equal", unified.data2vec_text, unified.published_data2vec_text),
    ("Perceiver IO", "mlm", "PerceiverForMaskedLM", "equal", unified.perceiver_io, unified.published_perceiver_io),
)
BRIDGES = (
    ("LLaVA", "response lm", "LlavaForConditionalGeneration", "equal", bridges.llava, bridges.published_llava),
    ("BLIP-2", "lm", "Blip2ForConditionalGeneration", "equal", bridges.blip_2, bridges.published_blip_2),
)


def check(build, build_twin, size):
    """An equal twin has the same loss once ours has taken its weights. Raises ``AssertionError``."""
    (model, loss), (twin, twin_loss) = build(size), build_twin(size)
    model.load_state_dict(pairs.our_state(twin))
    torch.testing.assert_close(loss(), twin_loss(), atol=1e-5, rtol=1e-5)


def measure(rows=ROWS, sizes=pairs.SIZES, starts=STARTS):
    """One record for each system, size and number of threads, printed as it comes."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    records = []
    for label, size in sizes.items():
        for system, task, twin, relation, build, build_twin in rows:
            if relation == "equal":
                check(build, build_twin, size)
            results = compare({"mmlearn": (build, size), "twin": (build_twin, size)}, size["steps"], starts=starts)
            mine, other = results.values()
            for threads, seconds in mine["seconds"].items():
                twin_seconds = other["seconds"][threads]
                records.append(
                    {
                        "size": label,
                        "threads": threads,
                        "system": system,
                        "learns": task,
                        "twin": twin,
                        "relation": relation,
                        "parameters": mine["parameters"],
                        "twin_parameters": other["parameters"],
                        "step_ms": round(statistics.median(seconds) * 1e3, 1),
                        "twin_step_ms": round(statistics.median(twin_seconds) * 1e3, 1),
                        "ratio": ratio(seconds, twin_seconds),
                        "ratio_of_each_start": [ratio([a], [b]) for a, b in zip(seconds, twin_seconds)],
                        "gflop": mine["gflop"],
                        "twin_gflop": other["gflop"],
                        "work": round(mine["gflop"] / other["gflop"], 3),
                        "peak_mib": mine["peak_mib"],
                        "twin_peak_mib": other["peak_mib"],
                    }
                )
                print_row(records[-1])
    return {"target": TARGET, "steps": records}


def print_row(row):
    """One line; ``!`` marks a ratio above the target. *Work* is the ratio of products, below which time cannot get."""
    mark = " " if row["ratio"] <= TARGET else "!"
    work = f"{row['size']:18}  {row['threads']} thread(s)  {row['system']:10}  {row['learns']:22}"
    times = f"{row['step_ms']:7.1f} ms  {row['twin_step_ms']:7.1f} ms  {row['ratio']:.3f}{mark}  work {row['work']:.2f}"
    memory = f"{row['peak_mib']:4} and {row['twin_peak_mib']:4} MiB"
    print(f"{work} {times}  {memory}  {row['twin']}, {row['relation']}", flush=True)
