"""Real English that every Python brings: its reference manual, as ``help("for")`` shows it.

``pydoc_data.topics`` of the standard library holds it, under the licence of Python (PSF-2.0). It is a little different
in each version of Python, so that results differ a little as well.
"""

from pydoc_data.topics import topics

from mmlearn.suggestions import suggest

PAGE = 4096  # characters
SPLITS = {8: "val", 9: "test"}  # of every ten pages


def python_manual(split: str = "train") -> list[str]:
    """The pages of a split, each of 4,096 characters in one piece.

    The manual repeats itself, since a topic is part of others: a paragraph counts once. ``ValueError`` for a split
    that there is not.
    """
    splits = ("train", *SPLITS.values())
    if split not in splits:
        raise ValueError(f"The manual has no split {split!r}; {suggest(split, splits)}.")
    paragraphs: dict[str, str] = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):  # long ones first, which hold others
        for paragraph in topics[name].strip("\n").split("\n\n"):
            paragraphs.setdefault(" ".join(paragraph.split()), paragraph)
    text = "\n\n".join(paragraphs.values())
    pages = [text[i : i + PAGE] for i in range(0, len(text) - PAGE + 1, PAGE)]
    return [page for k, page in enumerate(pages) if SPLITS.get(k % 10, "train") == split]
