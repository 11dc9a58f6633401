"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch
import torch.nn.functional as F


def modality_dropout(real, *, generator, both=0.5, audio=0.5):
    # Two random numbers for each clip.
    first, second = torch.rand((2, len(real)), generator=generator)
    # The first says whether both are kept, the second which one is kept otherwise.
    keeps_both, keeps_audio = first < both, second < audio
    return keeps_both | keeps_audio, keeps_both | ~keeps_audio


def masked_multimodal_cluster(logits, cluster, audio_masked, video_masked, real):
    # The frames that count: hidden in either stream, and real.
    counts = (audio_masked | video_masked) & real
    # Their cross-entropies as a sum, divided by their number, but at least by 1.
    total = F.cross_entropy(logits[counts], cluster[counts], reduction="sum")
    return total / counts.sum().clamp(min=1)


def imposters(masked, real, *, generator):
    b, f = masked.shape
    # A frame that is not hidden shows itself.
    shown = torch.arange(f).repeat(b, 1)
    for row, n in enumerate(real.sum(1).tolist()):
        start = 0
        while start < f:
            # A run begins at a hidden frame, and goes on while frames are hidden.
            stop = start
            while stop < f and masked[row, stop]:
                stop += 1
            length = stop - start
            if length:
                # One shift for the whole run, from length to n - length; randint leaves out its upper end.
                shift = int(torch.randint(length, n - length + 1, (), generator=generator))
                # Around the end of the clip: after its last real frame comes frame 0.
                shown[row, start:stop] = (torch.arange(start, stop) + shift) % n
            start = max(stop, start + 1)
    return shown
