"""Random batches for systems that read more than a picture and a text."""

import torch
from testing_tools import pairs

OF_REGIONS = ("tokens", "regions", "boxes", "mask", "region_mask", "masked_regions", "token_type")


def gaps(b=8, seed=0):
    """Pictures and texts of which every third token is to be guessed."""
    batch = pairs(b, seed=seed)
    hidden = (torch.arange(12) % 3 == 1) & batch["mask"]
    label = torch.where(hidden, batch["tokens"], -100)
    return batch | {"tokens": batch["tokens"].masked_fill(hidden, 2), "token_label": label}


def labelled(b=8, seed=0):
    """As above with every label: pairs that match or do not, and answers."""
    return gaps(b, seed) | {"match_label": torch.arange(b) % 2, "answer": torch.arange(b) % 7}


def only(batch, *labels):
    """A batch of pictures and texts with these labels alone."""
    return {name: batch[name] for name in ("tokens", "image", "mask", *labels)}


def scenes(b=6, p=9, seed=0):
    """Texts with up to nine regions each, every third word and second region hidden, and every label."""
    generator = torch.Generator().manual_seed(seed)
    batch = gaps(b, seed)
    corners = torch.rand(b, p, 2, 2, generator=generator).sort(-2).values
    regions = torch.randn(b, p, 216, generator=generator)
    region_mask = torch.arange(p) <= 1 + torch.arange(b)[:, None] % p
    masked = (torch.arange(p) % 2 == 1) & region_mask
    return {
        "tokens": batch["tokens"],
        "mask": batch["mask"],
        "regions": regions.masked_fill((masked | ~region_mask)[..., None], 0),
        "boxes": corners.flatten(-2).masked_fill(~region_mask[..., None], 0),
        "region_mask": region_mask,
        "token_label": batch["token_label"],
        "masked_regions": masked,
        "region_target": regions,
        "region_classes": torch.randn(b, p, 144, generator=generator).mul(3).softmax(-1),
        "region_attributes": torch.randn(b, p, 12, generator=generator).softmax(-1),
        "match_label": torch.arange(b) % 2,
        "answer": torch.arange(b) % 10,
    }


def read(model, batch, **changes):
    """What a model that reads regions makes of a batch."""
    return model(**{name: value for name, value in (batch | changes).items() if name in OF_REGIONS})


def talk(b=4, seed=0):
    """Words, sound and small frames of lengths that have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.arange(b)[:, None]
    return {
        "tokens": torch.randint(50, (b, 6), generator=generator),
        "mel": torch.randn(b, 10, 21, generator=generator),
        "video": torch.randn(b, 9, 3, 4, 4, generator=generator),
        "mask": torch.arange(6) < 6 - row % 4,
        "mel_mask": torch.arange(21) < 21 - 4 * (row % 3),
        "video_mask": torch.arange(9) < 9 - 3 * (row % 2),
        "label": row[:, 0] % 4,
    }


def inputs(batch):
    """All but what is to be predicted."""
    return {name: value for name, value in batch.items() if name != "label"}
