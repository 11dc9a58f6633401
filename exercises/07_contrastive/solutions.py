"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch
import torch.nn.functional as F


def info_nce(image_embedding, text_embedding, logit_scale):
    # Compare every picture with every text: a matrix (b, b) of cosines, times logit_scale, which is 1/τ already.
    logits = logit_scale * image_embedding @ text_embedding.T
    # The right answer of row i is column i: the target is torch.arange(b), a class for each row.
    matching = torch.arange(len(logits))
    # F.cross_entropy takes logits. Pictures pick texts along the rows, texts pick pictures along the columns, which
    # are the rows of logits.T; the loss is the mean of both.
    return (F.cross_entropy(logits, matching) + F.cross_entropy(logits.T, matching)) / 2


def same_caption(caption_id):
    # A column (b, 1) compared with a row (1, b) is a matrix (b, b).
    return caption_id[:, None] == caption_id[None, :]


def pair_cross_entropy(image_to_text, text_to_image, positives=None):
    # Without positives only i fits i, which is a matrix with True on its diagonal.
    if positives is None:
        positives = torch.eye(len(image_to_text), dtype=torch.bool)
    # The target of a row is even over all that fit and sums to 1. For texts transpose first, and divide then.
    by_image = positives / positives.sum(1, keepdim=True)
    by_text = positives.T / positives.T.sum(1, keepdim=True)
    # F.cross_entropy takes such shares as its target.
    return (F.cross_entropy(image_to_text, by_image) + F.cross_entropy(text_to_image, by_text)) / 2


def pairwise_sigmoid(image_embedding, text_embedding, logit_scale, logit_bias, positives=None, chunk_size=None):
    b = len(image_embedding)
    # Without positives only i fits i.
    if positives is None:
        positives = torch.eye(b, dtype=torch.bool)
    # One chunk holds everything if no size is given.
    size = b if chunk_size is None else chunk_size
    total = 0
    for start in range(0, b, size):
        # The pictures of this chunk meet all texts, and take their own rows of positives along.
        logits = logit_scale * image_embedding[start : start + size] @ text_embedding.T + logit_bias
        # z is +1 where they match and -1 elsewhere; it multiplies the whole logit, bias included.
        z = torch.where(positives[start : start + size], 1.0, -1.0)
        # F.logsigmoid stays finite where the logarithm of a sigmoid does not.
        total = total - F.logsigmoid(z * logits).sum()
    # The sum over all b² pairs is divided by b.
    return total / b


def late_interaction(image_tokens, text_tokens, text_mask=None):
    # Without a mask all words are real.
    if text_mask is None:
        text_mask = torch.ones(text_tokens.shape[:2], dtype=torch.bool)
    # All cosines of all patches with all words: (images, texts, patches, words).
    pairs = torch.einsum("ipd,jtd->ijpt", image_tokens, text_tokens)
    # Every patch finds its best real word: fill padding with -inf before the maximum over words.
    best_word = pairs.masked_fill(~text_mask[None, :, None], -torch.inf).amax(-1)
    # A text without words has nothing to find: 0 in place of -inf. Then the mean over patches.
    best_word = best_word.masked_fill(~text_mask.any(-1)[None, :, None], 0)
    image_to_text = best_word.mean(-1)
    # Every word finds its best patch; the mean over real words is a sum of these, divided by their number, at least 1.
    best_patch = pairs.amax(2) * text_mask
    text_to_image = (best_patch.sum(-1) / text_mask.sum(-1).clamp(min=1)).T
    return image_to_text, text_to_image


def ranking_hinge(image_embedding, text_embedding, margin=0.2, hardest=False, positives=None):
    similarity = image_embedding @ text_embedding.T
    # A pair is no rival of its own, and neither is any text that fits.
    if positives is None:
        positives = torch.eye(len(similarity), dtype=torch.bool)
    # What the rivals of a row are compared with: the pair itself, on the diagonal.
    right = similarity.diagonal()[:, None]
    # margin + wrong - right, cut off at 0, for rivals along the rows; 0 where something fits.
    by_image = (margin + similarity - right).clamp(min=0).masked_fill(positives, 0)
    # The same for the transposed matrix, of which the rows are texts; positives are transposed too.
    by_text = (margin + similarity.T - right).clamp(min=0).masked_fill(positives.T, 0)
    # Each row keeps its sum, or only its largest term; then both directions together, and the mean over pairs.
    if hardest:
        return (by_image.amax(1) + by_text.amax(1)).mean()
    return (by_image.sum(1) + by_text.sum(1)).mean()
