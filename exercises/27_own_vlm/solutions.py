"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def pixel_shuffle(x, rows, s):
    b, p, d = x.shape
    # p patches in so many rows have p / rows columns. Each row and each column is a square's number and a place in it.
    x = x.view(b, rows // s, s, p // rows // s, s, d)
    # Squares first, row by row; then the places in a square, row by row; the d numbers of a patch stay last.
    x = x.permute(0, 1, 3, 2, 4, 5)
    # The first two of these axes count squares, the last three are one wide vector.
    return x.reshape(b, p // s**2, s * s * d)


def place_images(words, images, is_image):
    # How many image tokens of its row stand before each position: the number of the embedding that it takes.
    number = is_image.cumsum(1) - 1
    # Before the first image token this is -1. Nothing is taken there, but it must be an index.
    number = number.clamp(min=0)
    # For each position the embedding of that number, of its own row.
    row = torch.arange(len(words))[:, None]
    chosen = images[row, number]
    # Image tokens give way to it, and words stay.
    return torch.where(is_image[:, :, None], chosen, words)


def assistant_tokens(tokens, opens, end):
    k, opens, marks = len(opens), opens.tolist(), torch.zeros_like(tokens, dtype=torch.bool)
    for mark, row in zip(marks, tokens.tolist()):
        # Go through a row token by token, and remember whether an answer is being written.
        answers = False
        for i, token in enumerate(row):
            if answers:
                # Each token of an answer counts, its end too; behind the end nothing does.
                mark[i] = True
                answers = token != end
            else:
                # An answer begins behind this token if it is the last of those in opens.
                answers = row[max(0, i - k + 1) : i + 1] == opens
    return marks


def answer_loss(states, table, tokens, is_answer):
    # The state at position i predicts token i + 1: the last state is of no use, and the first token is never asked.
    states, tokens, is_answer = states[:, :-1], tokens[:, 1:], is_answer[:, 1:]
    # Choose the states that predict a token of an answer, of all rows together: (n, d).
    states = states[is_answer]
    # Only these are multiplied by the table. With 49,152 words this saves most of the memory.
    logits = states @ table.T
    # The mean cross-entropy over the chosen tokens.
    return F.cross_entropy(logits, tokens[is_answer])


def merged_lora(weight, down, up, alpha):
    # B A is a matrix of the layer's size; B is called up, A is called down.
    change = up @ down
    # It is scaled by α / r. The rank r is the number of rows of A.
    return weight + alpha / down.shape[0] * change


def packed(conversation):
    t = conversation.shape[1]
    # Which pairs of tokens are of the same conversation: (b, t, t).
    same = conversation[:, :, None] == conversation[:, None, :]
    # A token sees itself and what is before it.
    past = torch.ones(t, t, dtype=torch.bool).tril()
    # Padding is one conversation by its number, -1, and must not be seen, by itself neither.
    mask = same & past & (conversation >= 0)[:, None, :]
    # What a token sees are the tokens of its own conversation up to itself: their number less 1 is its position.
    position = mask.sum(2) - 1
    # Padding sees nothing, and would be at -1.
    return mask, position.clamp(min=0)


def dpo(chosen, rejected, reference_chosen, reference_rejected, beta):
    # How much likelier each answer has become since the reference.
    gained, lost = chosen - reference_chosen, rejected - reference_rejected
    # The margin by which the chosen answer has gained more.
    margin = beta * (gained - lost)
    # The loss is small where the margin is large. logsigmoid takes margins of any size.
    loss = -F.logsigmoid(margin).mean()
    # The derivative of -log σ(h) by h is -σ(-h); by the chosen log-probability it has β in it, and the mean's 1 / b.
    slope = beta * torch.sigmoid(-margin) / len(margin)
    # The rejected one is in the margin with a minus.
    return loss, -slope, slope


def train_projector(llama, features, answer, question, unseen, steps):
    # Gradients go through the language model to the projector; its own weights need none.
    llama.requires_grad_(False)
    # Two layers, from the width of the features to that of a word's embedding.
    width = llama.config.width
    projector = torch.nn.Sequential(
        torch.nn.Linear(features.shape[1], 256), torch.nn.GELU(), torch.nn.Linear(256, width)
    )
    # The optimizer gets the parameters of the projector alone, so that the language model stays as it is.
    optimizer = torch.optim.AdamW(projector.parameters(), lr=3e-3)

    def read(features):
        n = len(features)
        # Start token, then the picture, then the question: each is a part of one sequence of embeddings.
        start = llama.embed(torch.full((n, 1), llama.config.start_token))
        asked = llama.embed(question.expand(n, -1))
        x = torch.cat([start, projector(features)[:, None], asked], dim=1)
        # The last state predicts the token that follows: the answer.
        return llama.logits(llama.read(x)[:, -1])

    for _ in range(steps):
        # Some drawings, the cross-entropy of their answers, and a step of the projector.
        rows = torch.randint(len(features), (24,))
        loss = F.cross_entropy(read(features[rows]), answer[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # The likeliest answer about each picture that it has not seen.
    with torch.no_grad():
        return read(unseen).argmax(-1)
