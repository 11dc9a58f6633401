"""Plain answers to the tasks about the zoo; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch


def letters_wrong(reader, mel, mel_mask, texts):
    from mmlearn.data.spoken_captions import LETTERS
    from mmlearn.evaluation import edit_rate

    # log_p says how likely each symbol is at each position, (b, s, 38); real, which positions are no padding.
    with torch.no_grad():
        log_p, real = reader(mel, mel_mask)
    written = []
    for row, mask in zip(log_p, real):
        # The likeliest path is the likeliest symbol at each real position.
        path = row[mask].argmax(-1)
        # What it reads: repeats are merged first, and then blanks are taken out.
        merged = path.unique_consecutive()
        tokens = merged[merged != 0]
        # Token 0 is the blank, so that token k is letter k - 1.
        written.append("".join(LETTERS[token - 1] for token in tokens.tolist()))
    # All edits over all letters that were said, in one division.
    return edit_rate(written, texts)
