"""The language model of the zoo that reads notes: its training runs, and the one that is kept has its settings."""

from mmlearn import collage_language
from mmlearn.pretrained.zoo import load_zoo


def test_it_learns_and_has_the_tokenizer_of_the_one_that_is_kept():
    model, tokenizer, history = collage_language.train(steps=3)
    assert history[-1] < history[0]
    kept = load_zoo("llama-collages")
    assert kept.tokenizer.engine.to_str() == tokenizer.engine.to_str()
    assert kept.model.config == model.config
    assert kept.record["steps"] == collage_language.STEPS
