"""The language model of the zoo that reads notes: its training runs, and the one that is kept has its settings."""

import torch

from mmlearn.data.build import collage_language
from mmlearn.data.synthetic.collage_talk import encode
from mmlearn.pretrained.zoo import load_zoo


def test_it_learns_and_has_the_tokenizer_of_the_one_that_is_kept():
    model, tokenizer, history = collage_language.train(steps=3)
    assert history[-1] < history[0]
    kept = load_zoo("llama-collages")
    assert kept.tokenizer.engine.to_str() == tokenizer.engine.to_str()
    assert kept.model.config == model.config
    assert kept.record["steps"] == collage_language.STEPS


def test_talks_are_those_of_their_seed_and_no_two_are_alike():
    talks, again, other = (collage_language.Talks(20, seed) for seed in (0, 0, 1))
    assert [talks[k] for k in range(20)] == [again[k] for k in range(20)]
    assert len({talks[k][0] for k in range(20)} | {other[k][0] for k in range(20)}) == 40


def test_the_loss_counts_answers_and_a_little_of_all_tokens():
    """Against cross-entropies taken token by token."""
    _, tokenizer, _ = load_zoo("llama-collages")
    model = collage_language.new_model(tokenizer, seed=3)
    tokens, is_answer = encode(tokenizer, [[7, 8], []], [[("is there a cat?", "yes.")], [("is there a dog?", "no.")]])
    found = collage_language.NoteReader(model, tokenizer.pad_token).loss({"tokens": tokens, "is_answer": is_answer})
    cost = -model(tokens).token_logits.log_softmax(-1)
    every = [(b, t) for b, t in (tokens != tokenizer.pad_token).nonzero().tolist() if t]
    answers = [(b, t) for b, t in is_answer.nonzero().tolist()]
    for name, counted, weight in (("answers", answers, 1.0), ("texts", every, collage_language.TEXT_WEIGHT)):
        mean = sum(cost[b, t - 1, tokens[b, t]] for b, t in counted) / len(counted)
        torch.testing.assert_close(found[name], weight * mean)
