"""Speech recognisers of the chapters, pretrained as HuBERT is: a small one of log-mels, and HuBERT itself, for a GPU.

The small one is ours, and of no paper. It trains in seconds, so that chapters 13a to 13c can compare. It has three
convolutions over time, of which the first has a stride; at each frame a token or the blank, as in CTC, or the
number of a cluster, as in HuBERT.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.speech.encoder import CTCHead
from mmlearn.models.speech.hubert import HuBERT
from mmlearn.objectives.speech import masked_cluster

MELS = 40


class Listener(nn.Module):
    r"""Log-mel (b, 40, s) → frames (b, s / stride, width), and from each frame a token or a cluster.

    .. math:: x_1 = \mathrm{relu}(\mathrm{norm}(W_1 * x)), \quad x_{l+1} = x_l + \mathrm{relu}(\mathrm{norm}(W_l * x_l))

    Frame i is centred on frame ``stride`` · i of the log-mel. Padding is set to 0 after each layer, so that in
    evaluation mode a clip gives the same frames in a batch as alone. ``kernel`` is that of the second and third
    convolution. Token 0 is the blank.
    """

    def __init__(self, vocab_size: int, width: int, stride: int, kernel: int, clusters: int = 2):
        super().__init__()
        self.stride = stride
        sizes = [(MELS, 9, stride), (width, kernel, 1), (width, kernel, 1)]
        self.convolutions = nn.ModuleList(nn.Conv1d(n, width, k, s, padding=k // 2) for n, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in sizes)
        self.head, self.cluster_head = CTCHead(width, vocab_size), nn.Linear(width, clusters)

    def forward(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"]
    ) -> tuple[Float[Tensor, "b frames d"], Bool[Tensor, "b frames"]]:
        """The frames, and which of them are real."""
        real = mel_mask[:, :: self.stride]  # (b, frames)
        x = mel * mel_mask[:, None]
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
            y = F.relu(norm(convolution(x)))  # (b, width, frames)
            x = (x + y if layer else y) * real[:, None]
        return x.mT, real

    def log_probabilities(self, mel: Float[Tensor, "mels s"]) -> Float[Tensor, "frames v"]:
        """The log-probability of each token at each frame of one clip."""
        x, _ = self(mel[None], torch.ones_like(mel[:1], dtype=torch.bool))
        return self.head(x)[0].log_softmax(-1)

    def cluster_logits(self, batch: dict[str, Tensor]) -> Float[Tensor, "b frames clusters"]:
        """The score of each cluster at each frame, from the unmasked ones."""
        return self.cluster_head(self(batch["mel"], batch["mel_mask"])[0])

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``cluster`` where the batch has clusters and says which frames are ``masked``, else ``ctc`` of its tokens."""
        x, real = self(batch["mel"], batch["mel_mask"])
        if "cluster" in batch:
            return {"cluster": masked_cluster(self.cluster_head(x), batch["cluster"], batch["masked"])}
        return {"ctc": self.head.loss(self.head(x), real, batch["tokens"], batch["mask"])}


class HuBERTListener(HuBERT):
    """A :class:`~mmlearn.models.speech.hubert.HuBERT`, of waveforms, with the methods of :class:`Listener`."""

    def log_probabilities(self, waveform: Float[Tensor, "samples"]) -> Float[Tensor, "frames v"]:
        """The log-probability of each token at each frame of one clip."""
        return self(waveform[None]).logits[0].log_softmax(-1)

    def cluster_logits(self, batch: dict[str, Tensor]) -> Float[Tensor, "b frames clusters"]:
        """The score of each cluster at each frame, from the unmasked ones."""
        return self(batch["waveform"], batch["waveform_mask"], batch["masked"]).cluster_logits
