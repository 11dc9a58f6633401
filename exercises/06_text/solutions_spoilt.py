"""Plain answers about texts that are spoilt and mended. Each comment is a step, and the hints are these steps."""

import torch


def swap_segments(tokens, token_type, mask, swapped):
    tokens, token_type = tokens.clone(), token_type.clone()
    # Row by row, those alone that are swapped.
    for i in swapped.nonzero()[:, 0].tolist():
        # The first segment begins behind the start token; both end with their end token.
        first = tokens[i, 1:][(token_type[i, 1:] == 0) & mask[i, 1:]]
        second = tokens[i][(token_type[i] == 1) & mask[i]]
        # Write the second one behind the start token, and the first one behind it.
        end = 1 + len(first) + len(second)
        tokens[i, 1:end] = torch.cat([second, first])
        # Types are of the new order: 0 for the start and what comes first now, 1 for the other.
        token_type[i, : 1 + len(second)] = 0
        token_type[i, 1 + len(second) : end] = 1
    return tokens, token_type


@torch.no_grad()
def sample_replacements(logits, tokens, label, generator):
    # A position was hidden where its label is not -100.
    hidden = label != -100
    filled, replaced = tokens.clone(), torch.zeros_like(hidden)
    # One draw for each row of logits, by their softmax.
    drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    # A mask picks and fills positions row by row, in the order of the logits.
    filled[hidden] = drawn
    # The generator may have found the true token: then nothing is replaced.
    replaced[hidden] = drawn != label[hidden]
    return filled, replaced


def hide_spans(text, hidden, first_sentinel):
    corrupted, target, sentinel, before = [], [], first_sentinel, False
    for token, gone in zip(text.tolist(), hidden.tolist()):
        # A span begins where a token is hidden and the one before it is not: its sentinel goes to both.
        if gone and not before:
            corrupted.append(sentinel)
            target.append(sentinel)
            sentinel -= 1
        # A hidden token goes to the target, any other stays in the text.
        (target if gone else corrupted).append(token)
        before = gone
    # One more sentinel says that nothing follows.
    return torch.tensor(corrupted), torch.tensor([*target, sentinel])


def fill_spans(corrupted, target, first_sentinel):
    # Cut the target into spans: each begins at its sentinel, and the last one is empty.
    spans, sentinel = {}, first_sentinel
    for token in target.tolist():
        if token == sentinel:
            span = spans[sentinel] = []
            sentinel -= 1
        else:
            span.append(token)
    # Where the text has a sentinel, its span stands; any other token stays.
    text = []
    for token in corrupted.tolist():
        text += spans.get(token, [token])
    return torch.tensor(text)


def permute_sentences(text, ends, *, generator):
    # Cut the positions, not the tokens, behind each end.
    sentences, sentence = [], []
    for position, end in enumerate(ends.tolist()):
        sentence.append(position)
        # What follows the last end is a sentence too.
        if end or position == len(text) - 1:
            sentences.append(sentence)
            sentence = []
    # Any order of the sentences, all as likely.
    order = torch.randperm(len(sentences), generator=generator).tolist()
    source = torch.tensor([position for i in order for position in sentences[i]])
    # The tokens are those of the positions.
    return text[source], source, len(text)


def restore(corruption, missing):
    # What is no mask has a position.
    kept = corruption.source >= 0
    text = torch.zeros(corruption.length, dtype=torch.long)
    # Put each of these tokens at the position that it had.
    text[corruption.source[kept]] = corruption.tokens[kept]
    # The positions that nobody took are those of the missing tokens, in order.
    absent = torch.ones(corruption.length, dtype=torch.bool)
    absent[corruption.source[kept]] = False
    text[absent] = missing
    return text
