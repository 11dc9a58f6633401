"""Wrong answers to the task about the zoo's Llama, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
from common_mistakes import then

from mmlearn import load_pretrained, load_processor
from mmlearn.evaluation import untrained_twin

LLAMA, TOKENIZER = load_pretrained("zoo/llama-collages"), load_processor("zoo/llama-collages").tokenizer
UNTRAINED = untrained_twin(LLAMA)


def _prompt(text):
    return TOKENIZER.prompt(text).tolist()


@torch.no_grad()
def _answered_right(
    befores,
    questions,
    answers,
    *,
    model=LLAMA,
    read=lambda before, question: [*_prompt(before), *_prompt(question)],
    same=lambda written, wanted: written == wanted,
    position=-1,
    share=lambda right: sum(right) / len(right),
):
    """What is right of the text that is written, all tokens at once, or with a single step that differs."""
    found = []
    for before, question, answer in zip(befores, questions, answers):
        wanted = _prompt(answer)
        tokens = [TOKENIZER.start_token, *read(before, question), *wanted]
        # The likeliest token behind every beginning of the right answer: all are right if they would be written.
        likeliest = model(torch.tensor([tokens])).token_logits[0].argmax(-1)
        last = len(tokens) + position
        found.append(same(likeliest[last - len(wanted) : last].tolist(), wanted))
    return float(share(found))


RIGHT = {"answered_right": _answered_right}

MISTAKES = {
    "answered_right": {
        "No answer must be right": {
            "the first token alone": partial(_answered_right, same=lambda written, wanted: written[0] == wanted[0]),
            "always right": partial(_answered_right, same=lambda written, wanted: True),
        },
        "The model answers right": {
            "no notes": partial(_answered_right, read=lambda before, question: _prompt(question)),
            "no question": partial(_answered_right, read=lambda before, question: _prompt(before)),
            "the question first": partial(
                _answered_right, read=lambda before, question: [*_prompt(question), *_prompt(before)]
            ),
            "the first notes for all": lambda befores, questions, answers: _answered_right(
                befores[:1] * len(befores), questions, answers
            ),
            "an untrained model": partial(_answered_right, model=UNTRAINED),
            "one position too late": partial(_answered_right, position=0),
            "a count": partial(_answered_right, share=sum),
            "percent": then(_answered_right, lambda share: 100 * share),
        },
        "Every question must count the same": {
            "any is right": partial(_answered_right, share=any),
            "all are right": partial(_answered_right, share=all),
            "the first question alone": partial(_answered_right, share=lambda right: right[0]),
        },
    }
}
