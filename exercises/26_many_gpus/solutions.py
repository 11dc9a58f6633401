"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import math

import torch
import torch.nn.functional as F


def utilisation(forward_flops, samples_per_second, peak_flops):
    # A training step is a forward pass, and a backward pass that costs twice as much: three times forward_flops.
    work = 3 * forward_flops * samples_per_second
    # Of all that the device could have done in that second.
    return work / peak_flops


def pair_loss(image, text, logit_scale):
    logits = logit_scale * image @ text.T
    matching = torch.arange(len(logits))
    return (F.cross_entropy(logits, matching) + F.cross_entropy(logits.T, matching)) / 2


def accumulated_info_nce(image_embedding, text_embedding, logit_scale, parts):
    # Cut both into parts of as many pairs each.
    pairs = zip(image_embedding.chunk(parts), text_embedding.chunk(parts))
    # The loss of each part knows nothing of the others; the mean of these losses has the accumulated gradient.
    losses = [pair_loss(image, text, logit_scale) for image, text in pairs]
    return sum(losses) / parts


def sharded_bytes(parameters, devices, stage):
    # A float32 number has 4 bytes: weights 4, gradients 4, AdamW's two moments 8.
    weights, gradients, moments = 4 * parameters, 4 * parameters, 8 * parameters
    # Moments are shared from stage 1 on, gradients from stage 2, weights from stage 3.
    if stage >= 1:
        moments = moments / devices
    if stage >= 2:
        gradients = gradients / devices
    if stage >= 3:
        weights = weights / devices
    return weights + gradients + moments


def scaled_rate(step, rate, batch, base_batch, warmup, rule="linear"):
    # By how much the batch is larger, or the root of that.
    k = batch / base_batch
    factor = math.sqrt(k) if rule == "root" else k
    # Which share of the warm-up is done, at most all of it; without a warm-up it is done at once.
    way = min(1, step / warmup) if warmup else 1
    # A straight line from rate to factor · rate.
    return rate + (factor * rate - rate) * way


def rank_batches(order, rank, world, batch_size):
    # Whole batches only: what does not fill one is left out.
    steps = len(order) // batch_size
    batches = order[: steps * batch_size].view(steps, batch_size)
    # Of each batch every rank has an equal part, in order of rank.
    own = batch_size // world
    return batches[:, rank * own : (rank + 1) * own]


def block_flops(tokens, width, mlp_width):
    # Query, key, value and output: four products (n, d) · (d, d).
    projections = 4 * tokens * width * width
    # Queries by keys, and weights by values: two products of n · n · d, however many heads share d.
    pairs = 2 * tokens * tokens * width
    # From d to m, and back.
    mlp = 2 * tokens * width * mlp_width
    # A multiplication and an addition each.
    return 2 * (projections + pairs + mlp)


def recomputed_bytes(depth, every, input_bytes, block_bytes):
    # How many segments there are; a shorter one at the end counts too.
    segments = math.ceil(depth / every)
    # The input of each is kept all the time; all blocks of one segment are computed again, and held, at once.
    return segments * input_bytes + every * block_bytes


def kept_by_block(tokens, width, num_heads, mlp_width, fused=False):
    # Of the width, 8: the inputs of two norms, of query, key and value together, of the output projection and of the
    # MLP, which are 5; and query, key and value themselves.
    of_width = 8 * tokens * width
    # The inputs of the activation and of the second layer.
    of_mlp = 2 * tokens * mlp_width
    # A mean and a deviation for each token and norm.
    of_norms = 4 * tokens
    # Each head has a weight for each two tokens; the fused kernel keeps a sum for each row of them.
    of_weights = num_heads * tokens * (1 if fused else tokens)
    return of_width + of_mlp + of_norms + of_weights


def gather_backward(gradient):
    # Every rank used every row, so that what their losses say of it adds up.
    total = gradient.sum(0)
    # Each rank keeps its own rows, which stand in order of rank.
    return torch.stack(total.chunk(len(gradient)))


def local_info_nce(image_embedding, text_embedding, all_images, all_texts, logit_scale, first):
    # Own rows ask, the rows of all answer: (b, all).
    by_image = logit_scale * image_embedding @ all_texts.T
    by_text = logit_scale * text_embedding @ all_images.T
    # Own row i is row first + i of all.
    matching = first + torch.arange(len(image_embedding))
    # The mean of both directions.
    return (F.cross_entropy(by_image, matching) + F.cross_entropy(by_text, matching)) / 2


def chunked_info_nce(image_embedding, text_embedding, logit_scale, size):
    b = len(image_embedding)

    # The loss of some rows is a local loss: own rows against all.
    def of_chunk(first):
        own = slice(first, first + size)
        images, texts = image_embedding[own], text_embedding[own]
        loss = local_info_nce(images, texts, image_embedding, text_embedding, logit_scale, first)
        # Each pair counts as much, also in a last chunk that is short.
        return loss * len(images) / b

    # A checkpoint keeps nothing of a chunk but its inputs, and computes its logits again when it goes backward.
    again = torch.utils.checkpoint.checkpoint
    return sum(again(of_chunk, first, use_reentrant=False) for first in range(0, b, size))


def ring_all_reduce(part, send):
    ranks, n = part.shape
    # Cut the numbers into as many chunks as ranks, the last filled up with zeros: (rank, chunk, numbers).
    chunks = F.pad(part, (0, -n % ranks)).reshape(ranks, ranks, -1).clone()
    rank = torch.arange(ranks)
    # Reduce-scatter: in each turn a rank sends one chunk, and adds the one that comes from the rank before, which is
    # the chunk one number lower than its own.
    for turn in range(ranks - 1):
        received = send(chunks[rank, (rank - turn) % ranks])
        chunks[rank, (rank - 1 - turn) % ranks] += received
    # Now rank r holds the whole sum of chunk r + 1.
    # All-gather: it sends that on in the same way, but what comes takes the place of what was there.
    for turn in range(ranks - 1):
        received = send(chunks[rank, (rank + 1 - turn) % ranks])
        chunks[rank, (rank - turn) % ranks] = received
    # All chunks in a row, without the zeros.
    return chunks.reshape(ranks, -1)[:, :n]


def backward_in_chunks(encode, loss, x, size):
    # The first time only embeddings are kept, and no graph.
    with torch.no_grad():
        embedding = torch.cat([encode(chunk) for chunk in x.split(size)])
    # The loss of all rows gives each embedding its gradient; they are leaves of a small graph of their own.
    embedding.requires_grad_()
    value = loss(embedding)
    value.backward()
    # The second time each chunk has a graph, and goes backward from its rows of that gradient at once.
    for chunk, gradient in zip(x.split(size), embedding.grad.split(size)):
        encode(chunk).backward(gradient)
    return value.detach()
