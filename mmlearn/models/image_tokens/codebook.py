"""A codebook whose entries follow the vectors that choose them, and come to life again where nothing does."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.objectives import gather
from mmlearn.objectives.codes import code_statistics, dead_entries, moving_entries
from mmlearn.objectives.draws import generator_of_step


class Seen(NamedTuple):
    """What a step has shown to a codebook."""

    count: Float[Tensor, "k"]  # choices of each entry
    total: Float[Tensor, "k d"]  # the sum of the vectors that chose it
    vectors: Float[Tensor, "n d"]  # the last batch, of which entries may be made anew


class Codebook(nn.Module):
    r"""K entries; a vector chooses the nearest, :math:`k = \arg\min_j \lVert z - e_j \rVert`.

    With ``decay`` γ above 0 entries are moving averages of the vectors that chose them
    (:func:`~mmlearn.objectives.codes.moving_entries`), and have no gradient. With 0 they are a parameter, which learns
    by :func:`~mmlearn.objectives.codes.codebook_loss`. Either way, an entry that is chosen less often than
    ``restart_threshold`` times its even share becomes a vector of the last batch; at step 0 all entries do, because a
    start at random may be far from all vectors. ``restart_threshold`` 0 leaves entries as they are. :meth:`observe` is
    for each batch, :meth:`after_step` for each step; with several processes all see the vectors of all. Source: van den
    Oord et al. 2017 (VQ-VAE), section 3 and appendix A.1; Dhariwal et al. 2020 (Jukebox) and official code, for random
    restarts and the start from a batch.
    """

    def __init__(self, entries: int, width: int, decay: float, restart_threshold: float, seed: int = 0):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay is from 0 to below 1, got {decay}; 0 lets entries learn by their gradient.")
        self.decay, self.restart_threshold, self.seed = decay, restart_threshold, seed
        start = torch.randn(entries, width) * width**-0.5
        if decay:
            self.register_buffer("entries", start)
            self.register_buffer("total", start.clone())
        else:
            self.entries = nn.Parameter(start)
        self.register_buffer("count", torch.ones(entries))  # the moving average of choices
        self.seen: Seen | None = None

    @torch.no_grad()
    def choose(self, z: Float[Tensor, "b p d"]) -> Int[Tensor, "b p"]:
        """The number of the entry that is nearest to each vector."""
        return torch.cdist(z.float(), self.entries.float()).argmin(-1)  # which autocast leaves in 32 bits

    def forward(self, codes: Int[Tensor, "b p"]) -> Float[Tensor, "b p d"]:
        """The entries of these numbers."""
        return self.entries[codes]

    @torch.no_grad()
    def observe(self, z: Float[Tensor, "b p d"], codes: Int[Tensor, "b p"]) -> None:
        """Remember, until the end of the step, which vectors chose what."""
        z, before = z.detach().float().flatten(0, 1), self.seen
        count, total = code_statistics(z, codes.flatten(), len(self.entries))
        self.seen = Seen(count, total, z) if before is None else Seen(before.count + count, before.total + total, z)

    @torch.no_grad()
    def after_step(self, step: Int[Tensor, ""]) -> None:
        """Move the entries to what chose them, and put a vector in the place of each one that is dead."""
        if self.seen is None:
            return
        count, total = (gather(part[None]).sum(0) for part in (self.seen.count, self.seen.total))
        vectors, self.seen = gather(self.seen.vectors), None
        if self.decay:
            for mine, new in zip(
                (self.count, self.total, self.entries), moving_entries(self.count, self.total, count, total, self.decay)
            ):
                mine.copy_(new)
        else:
            self.count.lerp_(count, 0.01)
        if not self.restart_threshold:
            return
        dead = dead_entries(self.count, self.restart_threshold) | (step == 0)
        drawn = torch.randint(len(vectors), (len(dead),), generator=generator_of_step(self.seed, step))
        fresh = vectors[drawn.to(vectors.device)]
        self.entries.copy_(torch.where(dead[:, None], fresh, self.entries))
        even = self.count.mean()  # so that it has time until it is judged again
        self.count.copy_(torch.where(dead, even, self.count))
        if self.decay:
            self.total.copy_(torch.where(dead[:, None], fresh * even, self.total))
