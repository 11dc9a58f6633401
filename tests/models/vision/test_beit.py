"""BEiT: hidden patches are not seen, positions are relative, codes outside the codebook are told."""

import dataclasses

import pytest
import torch
from testing_tools import close

from mmlearn.data.fields import PatchCodes
from mmlearn.models.vision.beit import BEiT, BEiTConfig
from mmlearn.models.vision.relative_encoder import RelativeEncoder, RelativeEncoderConfig, relative_position_index
from mmlearn.recipes.discovery import find_recipe

CONFIG = BEiTConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return BEiT(dataclasses.replace(CONFIG, **changes)).eval()


def batch():
    return next(find_recipe("beit").examples(CONFIG))


def test_hidden_patches_are_not_seen():
    model, given = system(), batch()
    masked = given["masked_patches"]
    cells = masked.view(-1, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    other = torch.where(cells, torch.randn_like(given["image"]), given["image"])
    assert torch.equal(model(given["image"], masked).code_logits, model(other, masked).code_logits)
    assert not torch.equal(model(given["image"]).code_logits, model(other).code_logits)


def test_equal_offsets_read_the_same_row():
    position = relative_position_index(3, 4, torch.device("cpu"))
    offsets = {}
    for i in range(12):
        for j in range(12):
            offsets.setdefault((i // 4 - j // 4, i % 4 - j % 4), set()).add(int(position[1 + i, 1 + j]))
    assert all(len(rows) == 1 for rows in offsets.values())
    rows = sorted(row for found in offsets.values() for row in found)
    assert rows == list(range(5 * 7))
    assert position[0, 1:].unique().tolist() == [35]
    assert position[1:, 0].unique().tolist() == [36]
    assert position[0, 0] == 37


def test_without_positions_the_order_of_patches_is_not_known():
    config = RelativeEncoderConfig(32, 2, 2, image_size=16, patch_size=8, relative_positions="none")
    torch.manual_seed(0)
    image = torch.randn(2, 3, 16, 16)
    flipped = torch.cat([image[:, :, 8:], image[:, :, :8]], 2)  # the lower patches first
    encoder = RelativeEncoder(config).eval()
    close(encoder(image)[:, [0, 3, 4, 1, 2]], encoder(flipped))
    encoder = RelativeEncoder(dataclasses.replace(config, relative_positions="blocks")).eval()
    for one in encoder.relative:
        one.table.data.normal_()
    assert not torch.allclose(encoder(image)[:, [0, 3, 4, 1, 2]], encoder(flipped), atol=1e-3)


@pytest.mark.parametrize("code", [64, -1])
def test_a_code_outside_the_codebook_is_told(code):
    with pytest.raises(ValueError, match=rf"^Code {code} is outside the codebook, which has codes 0 to 63\.$"):
        system().loss(batch() | {"code": torch.full((8, 64), code)})


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="Nothing to learn: this BEiT needs code"):
        system(codes=0).loss(batch())
    with pytest.raises(ValueError, match="relative positions none, shared, blocks, not 'all'"):
        system(image=dataclasses.replace(CONFIG.image, relative_positions="all"))
    with pytest.raises(ValueError, match=r"they are bool \(8, 64\); got torch.bool \(8, 63\)"):
        system()(batch()["image"], batch()["masked_patches"][:, 1:])


class Sample:
    def __init__(self, image):
        self.image = image


def test_a_tokenizer_of_ones_own_gives_the_codes():
    samples = [Sample(torch.rand(3, 32, 32)) for _ in range(3)]
    codes = PatchCodes(lambda image: (image.mean(1) > 0.5)[:, ::16, ::16].flatten(1).long())
    assert codes(samples)["code"].shape == (3, 4)
    assert codes.sizes() == {}


def test_a_patch_is_the_centroid_with_its_colours():
    red, blue = (torch.zeros(3, 16, 16) for _ in range(2))
    red[0], blue[2] = 1.0, 1.0
    centroids = tuple(
        tuple(colour.view(3, 1).expand(3, 4).flatten().tolist()) for colour in (red[:, 0, 0], blue[:, 0, 0])
    )
    codes = PatchCodes(patch_size=8, centroids=centroids)
    image = torch.cat([red[:, :, :8], blue[:, :, 8:]], 2)
    assert codes([Sample(image)])["code"].tolist() == [[0, 1, 0, 1]]
    with pytest.raises(ValueError, match="PatchCodes has no centroids yet"):
        PatchCodes()([Sample(image)])
