"""A codebook whose entries are moving averages of the vectors that choose them, and restart where nothing does."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.objectives import gather
from mmlearn.objectives.codes import code_statistics, dead_entries, moving_entries
from mmlearn.objectives.draws import generator_of_step


@dataclass(frozen=True)
class CodeStatistics:
    """Which vectors chose which entries, in the batches of a step."""

    count: Float[Tensor, "k"]  # choices of each entry
    total: Float[Tensor, "k d"]  # the sum of the vectors that chose it
    vectors: Float[Tensor, "n d"]  # the last batch, of which entries may restart


class Codebook(nn.Module):
    r"""K entries; a vector chooses the nearest, :math:`k = \arg\min_j \lVert z - e_j \rVert`.

    With ``decay`` γ above 0 entries are moving averages of the vectors that chose them
    (:func:`~mmlearn.objectives.codes.moving_entries`), and have no gradient. With 0 they are a parameter, which learns
    by :func:`~mmlearn.objectives.codes.codebook_loss`. Either way, an entry that is chosen less often than
    ``restart_threshold`` times its even share restarts as a vector of the last batch; at step 0 all entries do, because
    a start at random may be far from all vectors. ``restart_threshold`` 0 leaves entries as they are. :meth:`observe`
    is for each batch, :meth:`after_step` for each step; with several processes all see the vectors of all. Source: van
    den Oord et al. 2017 (VQ-VAE), section 3 and appendix A.1; Dhariwal et al. 2020 (Jukebox) and official code, for
    random restarts and the start from a batch.
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
        self.pending: CodeStatistics | None = None

    @torch.no_grad()
    def nearest(self, z: Float[Tensor, "b p d"]) -> Int[Tensor, "b p"]:
        """The number of the entry that is nearest to each vector."""
        distance = torch.cdist(z.float(), self.entries.float())  # (b, p, k); autocast leaves it in 32 bits
        return distance.argmin(-1)

    def forward(self, codes: Int[Tensor, "b p"]) -> Float[Tensor, "b p d"]:
        """The entries of these numbers."""
        return self.entries[codes]

    @torch.no_grad()
    def observe(self, z: Float[Tensor, "b p d"], codes: Int[Tensor, "b p"]) -> None:
        """Keep the statistics of these choices until the end of the step."""
        z = z.detach().float().flatten(0, 1)  # (n, d), n = b p
        count, total = code_statistics(z, codes.flatten(), len(self.entries))
        if self.pending is not None:  # a step of several batches
            count, total = self.pending.count + count, self.pending.total + total
        self.pending = CodeStatistics(count, total, z)

    @torch.no_grad()
    def after_step(self, step: Int[Tensor, ""]) -> None:
        """Move the entries towards what chose them, and restart each one that is dead."""
        if self.pending is None:
            return
        count, total = (gather(part[None]).sum(0) for part in (self.pending.count, self.pending.total))
        vectors, self.pending = gather(self.pending.vectors), None
        if self.decay:
            moved = moving_entries(self.count, self.total, count, total, self.decay)
            for buffer, new in zip((self.count, self.total, self.entries), moved):
                buffer.copy_(new)
        else:
            self.count.lerp_(count, 0.01)
        if not self.restart_threshold:
            return
        dead = dead_entries(self.count, self.restart_threshold) | (step == 0)
        generator = generator_of_step(self.seed, step)
        drawn = torch.randint(len(vectors), (len(dead),), generator=generator, device=generator.device)
        fresh = vectors[drawn.to(vectors.device)]  # (k, d)
        self.entries.copy_(torch.where(dead[:, None], fresh, self.entries))
        even = self.count.mean()  # so that a restarted entry is not dead at once
        self.count.copy_(torch.where(dead, even, self.count))
        if self.decay:
            self.total.copy_(torch.where(dead[:, None], fresh * even, self.total))
