"""Somebody says a caption: which of the written ones is it? Also asked among captions that are as long."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.evaluation.retrieval import recall_at

ALIKE = 10
LEAST = -1e4  # stands for the ln p of a text that no path reads

Recalls = Mapping[str, float]  # by what was asked: R@1, R@10, of ten alike


class CaptionQuestion(NamedTuple):
    """Clips, and the texts among which each clip's own is looked for."""

    texts: list[str]  # the different texts of the clips
    positives: Bool[Tensor, "clips texts"]
    alike: Int[Tensor, "clips alike"]  # the ten texts nearest in length to the right one, which comes first


def caption_question(said: Sequence[str], generator: torch.Generator) -> CaptionQuestion:
    """What is asked of clips that say these texts. Where more than ten are as near in length, chance chooses."""
    texts = list(dict.fromkeys(said))
    right = torch.tensor([texts.index(text) for text in said])
    length = torch.tensor([float(len(text)) for text in texts])
    away = (length[right][:, None] - length).abs() + 0.5 * torch.rand(len(said), len(texts), generator=generator)
    away[torch.arange(len(said)), right] = -1
    return CaptionQuestion(texts, F.one_hot(right, len(texts)).bool(), away.argsort(1)[:, :ALIKE])


def caption_recalls(similarity: Float[Tensor, "clips texts"], question: CaptionQuestion) -> dict[str, float]:
    """R@1 and R@10 among all texts, and R@1 among the ten that are alike in length."""
    alike = similarity.gather(1, question.alike), question.positives.gather(1, question.alike)
    return {
        "R@1": recall_at(1, similarity, question.positives),
        "R@10": recall_at(10, similarity, question.positives),
        "of ten alike": recall_at(1, *alike),
    }


def ctc_scores(
    said: Sequence[Float[Tensor, "_ v"]], texts: Sequence[Int[Tensor, "_"]], *, per_token: bool = True
) -> Float[Tensor, "clips texts"]:
    r"""How well each text fits what each clip's frames say, :math:`\ln p(l \mid x) / |l|`, by all paths of CTC.

    ``said`` are ln of the probabilities of each token at each frame, with the blank 0. Without the division
    (``per_token``) short texts win wherever a listener is unsure, because each token costs a factor. A text that no
    path reads gets -10,000. Source: Graves et al. 2006 (CTC), equation 3.
    """
    length = torch.tensor([len(text) for text in texts])
    tokens, rows = torch.cat(list(texts)), []
    for frames in said:
        each = frames[:, None].expand(-1, len(length), -1)
        rows.append(-F.ctc_loss(each, tokens, torch.full_like(length, len(frames)), length, reduction="none"))
    scores = torch.stack(rows)
    return (scores / length if per_token else scores).clamp(min=LEAST)


def length_scores(
    known: Float[Tensor, "n 2"], frames: Float[Tensor, "clips"], lengths: Float[Tensor, "texts"]
) -> Float[Tensor, "clips texts"]:
    """The control that hears nothing: how near the length of each text is to what a clip of this duration says.

    ``known`` are the frames and the letters of other clips; a line through their logarithms says which length to
    expect.
    """
    points = known.log()
    line = torch.linalg.lstsq(F.pad(points[:, :1], (0, 1), value=1.0), points[:, 1:]).solution
    expected = F.pad(frames.log()[:, None], (0, 1), value=1.0) @ line
    return -(expected - lengths.log()).abs()


def mean_recall(found: Mapping[str, Recalls], key: str) -> float:
    """The mean over languages."""
    return sum(recalls[key] for recalls in found.values()) / len(found)


def recall_table(found: Mapping[str, Mapping[str, Recalls]], key: str) -> str:
    """A row for each listener, a column for each language, and the mean."""
    languages = list(next(iter(found.values())))
    width = max(20, *(len(name) + 1 for name in found))
    lines = [f"{key:{width}}" + "".join(f"{language:>8}" for language in languages) + "    mean"]
    for name, of in found.items():
        numbers = [*(of[language][key] for language in languages), mean_recall(of, key)]
        lines.append(f"{name:{width}}" + "".join(f"{number:8.3f}" for number in numbers))
    return "\n".join(lines)
