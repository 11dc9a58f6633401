"""From what each frame says to a text: the likeliest path, or the likeliest text of many.

Frames say tokens or the blank; repeated symbols are merged, then blanks are removed. Both functions return the texts
(b, t), filled up with the blank, and their mask, True where a token is real. ``frame_mask`` (b, s) is True where a
frame is real. Source: Graves et al. 2006 (CTC), section 3.2; Hannun et al. 2014, "First-Pass Large Vocabulary
Continuous Speech Recognition using Bi-Directional Recurrent DNNs", algorithm 1, for the search over prefixes.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmlearn.objectives.ctc import IMPOSSIBLE, lattice_of

Texts = tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]


def collapse(path: Int[Tensor, "s"], blank: int = 0) -> Int[Tensor, "t"]:
    r"""The text that a path reads, :math:`\mathcal{B}(\pi)`: repeats merged, then blanks removed."""
    merged = path.unique_consecutive()
    return merged[merged != blank]


def ctc_greedy(
    log_probs: Float[Tensor, "b s v"], frame_mask: Bool[Tensor, "b s"] | None = None, blank: int = 0
) -> Texts:
    r"""The text of the likeliest path, :math:`\mathcal{B}(\arg\max_\pi p(\pi \mid x))`: of each frame its best symbol.

    Not always the likeliest text, for which all its paths count. Source: Graves et al. 2006, section 3.2, best path
    decoding.
    """
    paths, real = log_probs.argmax(-1), _real(log_probs, frame_mask)
    return _texts([collapse(path[row], blank) for path, row in zip(paths, real)], blank, log_probs.device)


def ctc_beam_search(
    log_probs: Float[Tensor, "b s v"], frame_mask: Bool[Tensor, "b s"] | None = None, blank: int = 0, beams: int = 16
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"], Float[Tensor, "b"]]:
    r"""Keep the ``beams`` likeliest beginnings of each text from frame to frame, and sum over the paths that read one.

    .. math:: p(l, t) = p_\mathrm{blank}(l, t) + p_\mathrm{token}(l, t)

    told apart by what frame t ends with, for only after a blank does the same token begin anew. Third comes the
    :math:`\ln p(l \mid x)` of each text (b,), over paths whose beginnings were kept. With beams enough for all
    beginnings this finds the likeliest text. One beam is no greedy search: that follows one path, this the beginning to
    which all paths together give most.

    Raises ``ValueError`` for less than one beam. Source: Hannun et al. 2014, algorithm 1, without a language model.
    """
    if beams < 1:
        raise ValueError(f"A search needs at least one beam, got {beams}.")
    real = _real(log_probs, frame_mask)
    found = [_search(rows[row].tolist(), blank, beams) for rows, row in zip(log_probs, real)]
    texts = [torch.tensor(text, dtype=torch.long, device=log_probs.device) for text, _ in found]
    tokens, mask = _texts(texts, blank, log_probs.device)
    return tokens, mask, torch.tensor([score for _, score in found], dtype=log_probs.dtype, device=log_probs.device)


def _search(frames: Sequence[Sequence[float]], blank: int, beams: int) -> tuple[tuple[int, ...], float]:
    """The likeliest text of one sound, and its logarithmic probability."""
    kept = {(): (0.0, -math.inf)}  # beginning → ln p of its paths that end with the blank, and with its last token
    for frame in frames:
        grown = defaultdict(lambda: [-math.inf, -math.inf])
        for text, (blank_end, token_end) in kept.items():
            either = _add(blank_end, token_end)
            for symbol, log_prob in enumerate(frame):
                if symbol == blank:
                    ways = [(text, 0, either)]
                elif text and symbol == text[-1]:  # the last token goes on, or is said again after a blank
                    ways = [(text, 1, token_end), ((*text, symbol), 1, blank_end)]
                else:
                    ways = [((*text, symbol), 1, either)]
                for longer, end, before in ways:
                    grown[longer][end] = _add(grown[longer][end], before + log_prob)
        kept = dict(heapq.nlargest(beams, grown.items(), key=lambda item: _add(*item[1])))
    text, ends = max(kept.items(), key=lambda item: _add(*item[1]))
    return text, _add(*ends)


def _add(a: float, b: float) -> float:
    """The logarithm of a sum, from the logarithms of its parts."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _real(log_probs: Tensor, frame_mask: Tensor | None) -> Bool[Tensor, "b s"]:
    return torch.ones_like(log_probs[..., 0], dtype=torch.bool) if frame_mask is None else frame_mask


def _texts(texts: list[Tensor], blank: int, device: torch.device) -> Texts:
    if not texts:
        return torch.zeros(0, 0, dtype=torch.long, device=device), torch.zeros(0, 0, dtype=torch.bool, device=device)
    mask = pad_sequence([torch.ones_like(text, dtype=torch.bool) for text in texts], batch_first=True)
    return pad_sequence(texts, batch_first=True, padding_value=blank), mask


def ctc_best_path(
    log_probs: Float[Tensor, "b s v"],
    tokens: Int[Tensor, "b t"],
    frame_mask: Bool[Tensor, "b s"] | None = None,
    token_mask: Bool[Tensor, "b t"] | None = None,
    blank: int = 0,
) -> Int[Tensor, "b s"]:
    r"""Forced alignment: of all paths that read a text the likeliest, for each frame its state in :math:`l'`.

    State 2 k + 1 is token k, and even states are blanks, as in :func:`~mmlearn.objectives.ctc.between_blanks`; behind
    the last real frame a path stays where it is. It is the forward algorithm with the maximum over paths in place of
    their sum (Viterbi), and then back from its end. Raises ``ValueError`` where no path reads a text, and as
    :func:`~mmlearn.objectives.ctc_log_likelihood` does, which takes the same arguments.
    Source: Graves et al. 2006, section 4.1; Viterbi 1967 for the maximum.
    """
    lattice = lattice_of(log_probs, tokens, frame_mask, token_mask, blank)
    best = lattice.start
    came: list[Tensor] = []  # how far the likeliest path into each state moved: 0, 1 or 2
    for t in range(log_probs.shape[1]):
        highest, moved = lattice.moves(best).max(0)
        now = lattice.frames[:, t, None]
        best = torch.where(now, highest + lattice.emission[:, t], best)
        came.append(moved.where(now, 0))
    last, token = lattice.last, (lattice.last - 1).clamp(min=0)
    state = torch.where(best.gather(1, last) >= best.gather(1, token), last, token)
    if len(wrong := (best.gather(1, state)[:, 0] < IMPOSSIBLE / 2).nonzero()):
        row = int(wrong[0])
        told = f"{int(lattice.frames[row].sum())} frames are too few for a text of {int(last[row]) // 2} tokens"
        raise ValueError(f"{told}, or one of its tokens has probability 0.")
    path = []
    for moved in reversed(came):
        path.append(state)
        state = state - moved.gather(1, state)
    return torch.cat(path[::-1], 1)
