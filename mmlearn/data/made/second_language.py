"""A second language for captions in English: each word is spelt backwards, and words come in the reverse order.

"a red star above a blue bar" is "rab eulb a evoba rats der a". It has words and an order of its own, it can be made of
any caption, and it is known which word translates which. One word, "a", is the same in both languages, as names and
numbers are in real ones. Systems that learn several languages can so be checked without a translator.

Source of the idea: K et al. 2020, "Cross-Lingual Ability of Multilingual BERT", Fake-English.
"""


def translate(caption: str) -> str:
    """The caption in the second language. To translate twice changes nothing but white space."""
    return " ".join(word[::-1] for word in reversed(caption.split()))


def translated_words(caption: str) -> tuple[int, ...]:
    """For each word of the translation the number of the word of ``caption`` that it translates."""
    return tuple(reversed(range(len(caption.split()))))
