r"""How good written captions are: beside what people wrote, and, for scenes and collages, beside what is true.

``candidates`` are texts, one for each picture, and ``references`` say for each what people wrote, a list of texts. Each
of the three measures gives one number over the corpus, equal to ``pycocoevalcap``'s, which the field reports. Words are
what white space divides: bring texts into the same form first. The tokeniser that is usual for COCO (PTB), METEOR and
SPICE are Java programs, and are left out here.

What people say is no list of all that is true. Of a scene or a collage everything is known, so :func:`check_facts` can
say of each fact in a caption whether it is true or made up.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmlearn.data.synthetic.scene_facts import Fact
from mmlearn.data.synthetic.scene_facts import stated_facts as stated_facts
from mmlearn.data.synthetic.scene_facts import well_formed as well_formed

NGram = tuple[str, ...]


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], n: int = 4) -> float:
    r"""BLEU-n: how many n-grams of the candidates some reference has, and a penalty for candidates that are too short.

    .. math:: \min(1, e^{1 - r/c}) \Big(\prod_{k=1}^n p_k\Big)^{1/n}

    :math:`p_k` is the share of the k-grams of all candidates that also a reference of theirs has, each at most as often
    as it occurs there; c counts words of candidates and r of references, of each picture the one of the nearest length.
    From 0 to 1. Raises ``ValueError`` as :func:`check_corpus` does. Source: Papineni et al. 2002, section 2.3; the two
    tiny numbers, without which one missing k-gram is 0, are those of ``pycocoevalcap``.
    """
    check_corpus(candidates, references)
    right, written, length, wanted = [0] * n, [0] * n, 0, 0
    for candidate, texts in zip(candidates, references):
        words, others = candidate.split(), [text.split() for text in texts]
        length += len(words)
        wanted += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for k in range(1, n + 1):
            most: Counter[NGram] = Counter()
            for other in others:
                most |= _ngrams(other, k)  # the greater count of each
            right[k - 1] += (_ngrams(words, k) & most).total()
            written[k - 1] += max(0, len(words) - k + 1)
    shares = math.prod((a + 1e-15) / (b + 1e-9) for a, b in zip(right, written))
    ratio = (length + 1e-15) / (wanted + 1e-9)
    return shares ** (1 / n) * min(1.0, math.exp(1 - 1 / ratio))


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]], beta: float = 1.2) -> float:
    r"""ROUGE-L: how long a subsequence a candidate shares with a reference, as precision and recall in one.

    .. math:: F = \frac{(1 + \beta^2) P R}{R + \beta^2 P}, \quad P = \max_r \frac{\mathrm{LCS}(c, r)}{|c|}, \quad
       R = \max_r \frac{\mathrm{LCS}(c, r)}{|r|}

    LCS is the length of the longest common subsequence, which may have gaps; the mean over pictures is returned, from 0
    to 1. Raises ``ValueError`` as :func:`check_corpus` does. Source: Lin 2004, section 3.1.
    """
    check_corpus(candidates, references)
    total = 0.0
    for candidate, texts in zip(candidates, references):
        words, others = candidate.split(), [text.split() for text in texts]
        shared = [_common(words, other) for other in others]
        precision = max(shared) / max(len(words), 1)
        recall = max(count / max(len(other), 1) for count, other in zip(shared, others))
        if precision:
            total += (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    return total / len(candidates)


class DocumentFrequency(NamedTuple):
    """How rare n-grams are: of how many pictures, out of ``count``, some reference has each."""

    images: Counter[NGram]
    count: int

    def weigh(self, counts: Counter[NGram]) -> dict[NGram, float]:
        """How often each occurs, times the logarithm of how rare it is (TF-IDF)."""
        every = math.log(self.count)
        return {ngram: count * (every - math.log(max(1, self.images[ngram]))) for ngram, count in counts.items()}


def document_frequency(references: Sequence[Sequence[str]], n: int = 4) -> DocumentFrequency:
    """How rare the n-grams of these pictures' references are, up to n words. Source: Vedantam et al. 2015."""
    images: Counter[NGram] = Counter()
    for texts in references:
        images.update({ngram for text in texts for ngram in _all_ngrams(text.split(), n)})
    return DocumentFrequency(images, len(references))


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]], n: int = 4, sigma: float = 6.0) -> float:
    r"""CIDEr-D: how similar a candidate is to the references, where n-grams count the more the rarer they are.

    .. math:: \frac{10}{n\,|R|} \sum_{k=1}^n \sum_{r \in R} e^{-\frac{(|c| - |r|)^2}{2 \sigma^2}}
       \frac{\min(g_k(c), g_k(r)) \cdot g_k(r)}{\lVert g_k(c) \rVert\, \lVert g_k(r) \rVert}

    :math:`g_k` counts each k-gram, times the logarithm of the number of pictures over those whose references have it
    (TF-IDF). So the number depends on the corpus: an n-gram that all pictures share counts nothing, and one picture
    alone gives 0. From 0 to 10. Raises ``ValueError`` as :func:`check_corpus` does.
    Source: Vedantam et al. 2015, section 5, equations 1, 2 and 6.
    """
    each = cider_d_of_each(candidates, references, None, n, sigma)
    return sum(each) / len(each)


def cider_d_of_each(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    rare: DocumentFrequency | None = None,
    n: int = 4,
    sigma: float = 6.0,
) -> list[float]:
    """The :func:`cider_d` of every candidate, whose mean that of the corpus is.

    ``rare`` says how rare n-grams are elsewhere, as in all captions of training; without it these references say so.
    Raises ``ValueError`` as :func:`check_corpus` does.
    """
    check_corpus(candidates, references)
    rare, found = rare or document_frequency(references, n), []
    for candidate, texts in zip(candidates, references):
        counts, total = _all_ngrams(candidate.split(), n), 0.0
        weighed, pairs = rare.weigh(counts), _pairs(counts)
        for other in (_all_ngrams(text.split(), n) for text in texts):
            apart = pairs - _pairs(other)
            alike = _cosines(weighed, rare.weigh(other), n) * math.exp(-(apart**2) / (2 * sigma**2))
            total += 10 * alike / (n * len(texts))
        found.append(total)
    return found


def check_corpus(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """``ValueError`` where there is no candidate, or not one list of at least one reference for each."""
    if isinstance(candidates, str) or not len(candidates) or len(candidates) != len(references):
        count = "one text" if isinstance(candidates, str) else f"{len(candidates)} candidates"
        raise ValueError(f"Give a list of texts, and as many lists of references; got {count} and {len(references)}.")
    for i, texts in enumerate(references):
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"The references of picture {i} are a list of at least one text; got {texts!r}.")


def _ngrams(words: Sequence[str], k: int) -> Counter[NGram]:
    return Counter(tuple(words[i : i + k]) for i in range(len(words) - k + 1))


def _all_ngrams(words: Sequence[str], n: int) -> Counter[NGram]:
    return sum((_ngrams(words, k) for k in range(1, n + 1)), Counter())


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    before = [0] * (len(b) + 1)  # of what was read of a, and of each beginning of b
    for word in a:
        row = [0]
        for j, other in enumerate(b):
            row.append(before[j] + 1 if word == other else max(before[j + 1], row[j]))
        before = row
    return before[-1]


def _pairs(counts: Counter[NGram]) -> int:
    """How many pairs of neighbours a text has: as good as its length, and what ``pycocoevalcap`` takes for it."""
    return sum(count for ngram, count in counts.items() if len(ngram) == 2)


def _cosines(one: dict[NGram, float], other: dict[NGram, float], n: int) -> float:
    """The cosines of k-grams, summed over k; to say one more often than ``other`` gains nothing."""
    shared, norms = [0.0] * n, [[0.0] * n, [0.0] * n]
    for ngram, weight in one.items():
        shared[len(ngram) - 1] += min(weight, other.get(ngram, 0.0)) * other.get(ngram, 0.0)
    for norm, weights in zip(norms, (one, other)):
        for ngram, weight in weights.items():
            norm[len(ngram) - 1] += weight**2
    return sum(x / math.sqrt(a * b) for x, a, b in zip(shared, *norms) if a and b)


# What is true of a scene or a collage.


class Facts(NamedTuple):
    """Facts that captions state, which are true or made up, and those that they were to state and do not."""

    true: int
    missing: int
    made_up: int


def check_facts(candidates: Sequence[str], samples: Sequence[Any]) -> Facts:
    """Count over all captions what they state of their scenes or collages, by the samples' graphs.

    A sample reads ``stated_facts`` out of a text, and says which of its things a text may mean (``meant``). A thing is
    true where there is one, and a relation where two such things stand so. No caption tells a whole scene, so what is
    missing are facts of the scene's own caption: one that tells the truth about other objects has all of them missing,
    and nothing made up. Raises ``ValueError`` where captions and samples are not as many, or a sample has no graph.
    """
    if len(candidates) != len(samples) or not all(hasattr(sample, "graph") for sample in samples):
        raise ValueError(
            f"Facts are checked for one caption of each scene; got {len(candidates)} captions and {len(samples)} "
            "samples, which must have a graph, as those of scenes do."
        )
    true = missing = made_up = 0
    for text, sample in zip(candidates, samples):
        stated = sample.stated_facts(text)
        holding = sum(_holds(fact, sample) for fact in stated)
        true, made_up = true + holding, made_up + len(stated) - holding
        missing += len(sample.stated_facts(sample.caption) - stated)
    return Facts(true, missing, made_up)


def true_share(candidates: Sequence[str], samples: Sequence[Any]) -> float:
    """The share of the facts that captions state which are true; 0 where they state none."""
    facts = check_facts(candidates, samples)
    return facts.true / max(facts.true + facts.made_up, 1)


def has_facts(sample: Any) -> bool:
    """Whether a sample's own caption states facts that can be checked."""
    return hasattr(sample, "graph") and bool(sample.stated_facts(sample.caption))


def _holds(fact: Fact, sample: Any) -> bool:
    """Whether things of this sample are so."""
    subject, *rest = fact
    if not rest:
        return bool(sample.meant(subject))
    subjects, others = sample.meant(subject), sample.meant(rest[1])
    return any(i in subjects and j in others and relation == rest[0] for i, relation, j in sample.graph)
