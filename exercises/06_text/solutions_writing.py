"""Plain answers about chance and search. Each comment is a step, and the hints are these steps one at a time."""

import torch


def sampling_probabilities(logits, *, temperature=1.0, top_k=None, top_p=1.0):
    # Divide by the temperature, take the softmax, and sort each row from likely to unlikely.
    odds, token = (logits / temperature).softmax(-1).sort(descending=True)
    # Beyond the first top_k nothing stays; what stays is divided by its sum.
    if top_k is not None:
        odds = torch.where(torch.arange(odds.shape[1]) < top_k, odds, 0)
        odds = odds / odds.sum(1, keepdim=True)
    # A token is in the nucleus if what stands before it has not reached top_p yet.
    if top_p < 1:
        before = odds.cumsum(1) - odds
        odds = torch.where(before < top_p, odds, 0)
        odds = odds / odds.sum(1, keepdim=True)
    # Back from ranks to tokens.
    return torch.zeros_like(odds).scatter(1, token, odds)


def choose_positions(possible, probability, generator, words=None):
    # One random number for each position.
    chance = torch.rand(possible.shape, generator=generator)
    # A word has one chance: every position takes the number of the first place of its word.
    if words is not None:
        same = words[:, :, None] == words[:, None]  # (b, n, n)
        chance = chance.gather(1, same.int().argmax(2))
    # Where the number is below the probability, a position is chosen.
    chosen = chance < probability
    # The lowest number of the possible positions is chosen anyway; a whole word shares it.
    lowest = chance.masked_fill(~possible, 2).amin(1, keepdim=True)
    # Places that are not possible are taken out at the end.
    return possible & (chosen | (chance == lowest))


def draw_spans(length, *, generator, share=0.15, mean_length=3.0):
    masked = torch.zeros(length, dtype=torch.bool)
    if length < 2 or share == 0:
        return masked

    def parts(total, count):
        cuts = sorted((torch.randperm(total - 1, generator=generator)[: count - 1] + 1).tolist())
        return [end - begin for begin, end in zip([0, *cuts], [*cuts, total])]

    # How many tokens are hidden: at least one, and not all.
    hidden = min(max(round(length * share), 1), length - 1)
    # In how many spans: no more than the kept tokens can part.
    spans = min(max(round(hidden / mean_length), 1), length - hidden + 1)
    # Cut the hidden tokens at random into so many parts of at least one.
    lengths = parts(hidden, spans)
    # Cut the kept ones into one part more; at both ends a part may be empty, so cut two more and take one off each.
    gaps = parts(length - hidden + 2, spans + 1)
    # A gap, a span, a gap, a span.
    position = gaps[0] - 1
    for span, gap in zip(lengths, gaps[1:]):
        masked[position : position + span] = True
        position += span + gap
    return masked


def beam_search(next_logits, start, *, end_token, max_length, pad_token=0, allowed=None, beams=3, length_penalty=1.0):
    texts = []
    for row in start:
        # One text at a time. A beginning is its tokens and the sum of their logarithmic probabilities.
        beginnings, ended = [(row, 0.0)], []
        for length in range(len(row) + 1, max_length + 1):
            # All beginnings are asked at once; log_softmax makes scores of all of them comparable.
            scores = next_logits(torch.stack([tokens for tokens, _ in beginnings])).log_softmax(-1)
            # Every beginning with every token, the likeliest first.
            ways = [
                (total + s, tokens, v)
                for (tokens, total), r in zip(beginnings, scores.tolist())
                for v, s in enumerate(r)
            ]
            ways.sort(key=lambda way: -way[0])
            # Of the best, those that end are remembered with their value for their length.
            for total, tokens, token in ways[:beams]:
                if token == end_token:
                    value = total / (length - len(row)) ** length_penalty
                    ended.append((value, torch.cat([tokens, torch.tensor([token])])))
            # The best that do not end go on; they have the positions of those that did.
            going = [way for way in ways if way[2] != end_token][:beams]
            beginnings = [(torch.cat([tokens, torch.tensor([token])]), total) for total, tokens, token in going]
        # At the end of the room the beginnings compete as they are.
        written = (max_length - len(row)) ** length_penalty
        ended += [(total / written, tokens) for tokens, total in beginnings]
        texts.append(max(ended, key=lambda text: text[0])[1])
    # Texts of unequal length are padded to the longest.
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad_token)
