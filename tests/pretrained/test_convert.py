"""Released pickles of the shapes that official codes have: read without running them, and written in our own layout."""

import argparse
import json
import os
import pickle
import zipfile

import pytest
import torch
from released import albef, decoar2, released, uniter, vilbert, vlbert
from testing_tools import close

from mmlearn import load_pretrained
from mmlearn.pretrained.convert import convert

# System → its tensors, how the file holds them, and some of ours with theirs.
FILES = {
    "UNITER": (
        uniter,
        lambda all: all,
        {
            "embedding.tokens.weight": "uniter.embeddings.word_embeddings.weight",
            "transformer.blocks.1.attention.key.weight": "uniter.encoder.layer.1.attention.self.key.weight",
            "transformer.blocks.2.mlp_norm.bias": "uniter.encoder.layer.2.output.LayerNorm.bias",
            "sum_norm.weight": "uniter.img_embeddings.LayerNorm.weight",
            "box_norm.weight": "uniter.img_embeddings.pos_layer_norm.weight",
            "region_regression.2.bias": "feat_regress.net.2.bias",
            "match_head.bias": "itm_output.bias",
        },
    ),
    "ALBEF": (
        albef,
        lambda all: {
            "model": all,
            "epoch": 29,
            "config": {"embed_dim": 16},
            "optimizer": {"state": {0: all["text_queue"]}},
        },
        {
            "online.image_encoder.transformer.blocks.1.mlp_norm.weight": "visual_encoder.blocks.1.norm2.weight",
            "online.text_encoder.blocks.0.attention.query.bias": (
                "text_encoder.bert.encoder.layer.0.attention.self.query.bias"
            ),
            "online.multimodal_encoder.blocks.0.cross_attention.value.weight": (
                "text_encoder.bert.encoder.layer.1.crossattention.self.value.weight"
            ),
            "momentum_encoder.multimodal_encoder.blocks.1.cross_attention_norm.bias": (
                "text_encoder_m.bert.encoder.layer.2.crossattention.output.LayerNorm.bias"
            ),
            "momentum_encoder.text_projection.bias": "text_proj_m.bias",
        },
    ),
    "ViLBERT": (
        vilbert,
        lambda all: {f"module.{name}": value for name, value in all.items()},
        {
            "co_attention.0.visual.attention.query.weight": "bert.encoder.c_layer.0.biattention.query1.weight",
            "co_attention.0.visual.attention.key.weight": "bert.encoder.c_layer.0.biattention.key2.weight",
            "co_attention.1.text.attention.value.bias": "bert.encoder.c_layer.1.biattention.value1.bias",
            "co_attention.1.text.attention.output.weight": "bert.encoder.c_layer.1.biOutput.dense2.weight",
            "co_attention.1.text.attention_norm.bias": "bert.encoder.c_layer.1.biOutput.LayerNorm2.bias",
            "co_attention.0.visual.mlp_norm.weight": "bert.encoder.c_layer.0.v_output.LayerNorm.weight",
            "visual_blocks.1.mlp.contract.weight": "bert.encoder.v_layer.1.output.dense.weight",
            "region_head.3.bias": "cls.imagePredictions.decoder.bias",
        },
    ),
    "VLBERT": (
        vlbert,
        lambda all: {"state_dict": all, "epoch": 9},
        {
            "embedding.norm.weight": "module.vlbert.embedding_LayerNorm.weight",
            "embedding.token_types.weight": "module.vlbert.token_type_embeddings.weight",
            "region_visual_norm.bias": "module.vlbert.visual_ln_object.bias",
            "language_head.norm.bias": "module.vlbert.mlm_head.predictions.transform.LayerNorm.bias",
            "region_classifier.2.weight": "module.vlbert.mvrc_head.region_cls_pred.weight",
        },
    ),
    "DeCoAR2": (
        decoar2,
        lambda all: {"model": all, "args": argparse.Namespace(arch="decoar", lr=[0.1]), "extra_state": {"epoch": 3}},
        {
            "context.transformer.blocks.1.attention.query.weight": "encoder.layers.1.self_attn.q_proj.weight",
            "context.transformer.blocks.0.attention_norm.bias": "encoder.layers.0.self_attn_layer_norm.bias",
            "context.positions.direction": "encoder.pos_conv.0.weight_v",
            "mask_embedding": "mask_emb",
        },
    ),
}


def write(path, system, change=lambda all: all, **options):
    make, hold, _ = FILES[system]
    tensors = change(released(make()))
    torch.save(hold(tensors), path, **options)
    return tensors


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "older"])
@pytest.mark.parametrize("system", FILES)
def test_a_released_file_becomes_a_checkpoint_of_ours(system, options, tmp_path):
    theirs = write(tmp_path / "released.pt", system, **options)
    told = convert(tmp_path / "released.pt", tmp_path / "ours")
    assert "\n" not in told
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["config.json", "model.safetensors"]
    model = load_pretrained(tmp_path / "ours")
    assert type(model).__name__ == system
    assert not model.training
    state = model.state_dict()
    for name, their_name in FILES[system][2].items():
        assert torch.equal(state[name], theirs[their_name]), name


def test_what_has_another_form(tmp_path):
    def loaded(system):
        theirs = write(tmp_path / f"{system}.pt", system)
        convert(tmp_path / f"{system}.pt", tmp_path / system)
        return theirs, load_pretrained(tmp_path / system)

    theirs, model = loaded("UNITER")
    assert torch.equal(model.masked_region, theirs["uniter.img_embeddings.mask_embedding.weight"][1])
    assert model.config.objectives == ("mlm", "mrfr", "mrc_kl", "itm", "wra")
    theirs, model = loaded("ALBEF")
    query, _, value = theirs["visual_encoder.blocks.0.attn.qkv.weight"].chunk(3)
    assert torch.equal(model.online.image_encoder.transformer.blocks[0].attention.query.weight, query)
    assert torch.equal(model.online.image_encoder.transformer.blocks[0].attention.value.weight, value)
    patches = torch.nn.functional.conv2d(
        torch.ones(1, 3, 4, 4), theirs["visual_encoder.patch_embed.proj.weight"]
    ).flatten()
    close(model.online.image_encoder.embedding.patches.weight.sum(1), patches)
    close(model.logit_scale.exp(), torch.tensor(20.0))
    assert torch.equal(model.queue.text, theirs["text_queue"].T)
    assert model.queue.pointer.item() == 3
    assert (model.config.image.image_size, model.config.fusion_depth, model.config.text.depth) == (12, 2, 1)
    theirs, model = loaded("ViLBERT")
    assert torch.equal(model.match_head.bias, theirs["cls.bi_seq_relationship.bias"].flip(0))
    assert (model.config.text_connections, model.config.visual_connections) == ((1, 2), (0, 1))
    theirs, model = loaded("VLBERT")
    assert torch.equal(model.masked_region, theirs["module.object_mask_visual_embedding.weight"][0])
    assert (model.config.geometry_width, model.config.objectives) == (32, ("mlm", "mrc_kl"))
    theirs, model = loaded("DeCoAR2")
    assert model(torch.randn(2, 10, 30)).codes is None
    with pytest.raises(ValueError, match="has no quantiser"):
        model.loss({"mel": torch.randn(2, 10, 30)})


def test_half_precision_and_older_names_of_norms(tmp_path):
    def older(all):
        return {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v.half()
            for name, v in all.items()
        }

    theirs = write(tmp_path / "released.pt", "UNITER", older)
    convert(tmp_path / "released.pt", tmp_path / "ours")
    model = load_pretrained(tmp_path / "ours")
    assert torch.equal(model.match_head.weight, theirs["itm_output.weight"].float())


def refused(file, folder, *fragments, error=ValueError):
    with pytest.raises(error) as told:
        convert(file, folder)
    message = str(told.value)
    assert "\n" not in message
    assert len(message.replace(str(file), "")) < 600
    for fragment in (str(file), *fragments):
        assert fragment in message, message
    assert not (folder / "model.safetensors").exists()


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(Trap.path),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("position", ["among weights", "alone"])
def test_a_pickle_that_wants_to_run_code(position, zipped, tmp_path):
    Trap.path = tmp_path / "sprung"
    content = Trap() if position == "alone" else released(uniter()) | {"trap": Trap()}
    torch.save(content, tmp_path / "released.pt", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "released.pt", tmp_path / "ours", "wants to run code", "mkdir")
    assert not Trap.path.exists()
    torch.load(tmp_path / "released.pt", weights_only=False)
    assert Trap.path.exists()  # the trap does work


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_off(share, zipped, tmp_path):
    path = tmp_path / "released.pt"
    write(path, "UNITER", _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, tmp_path / "ours", "is no whole pickle of PyTorch")


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"\x80\x05", b"PK\x03\x04", bytes(1000)])
def test_no_pickle_at_all(content, tmp_path):
    (tmp_path / "released.pt").write_bytes(content)
    refused(tmp_path / "released.pt", tmp_path / "ours", "is no whole pickle of PyTorch")


@pytest.mark.parametrize("content", [None, 3, "text", [], {}, [torch.ones(2)], {"epoch": 3}, {1: torch.ones(2)}])
def test_no_weights_by_name(content, tmp_path):
    torch.save(content, tmp_path / "released.pt")
    refused(tmp_path / "released.pt", tmp_path / "ours", "holds no weights by name")


def test_an_unknown_layout(tmp_path):
    torch.save({"features.0.weight": torch.ones(2)}, tmp_path / "released.pt")
    refused(
        tmp_path / "released.pt",
        tmp_path / "ours",
        "has no layout that is known here (uniter, albef, vilbert, vl-bert, decoar2, whisper)",
        "features.0.weight",
    )


@pytest.mark.parametrize("system", FILES)
def test_every_tensor_is_needed(system, tmp_path):
    """Each that is read, one after the other, is missed by a sentence; but for what ours can do without."""
    make, hold, _ = FILES[system]
    whole = released(make())
    spare = ("position_ids", "q_dense", "aux_text", "decoder.", "quantizer", "project_q", "mask_emb", "feat_regress.w")
    for name in [name for i, name in enumerate(whole) if i % 5 == 0 and not any(part in name for part in spare)]:
        torch.save(hold({key: value for key, value in whole.items() if key != name}), tmp_path / "released.pt")
        with pytest.raises(
            ValueError, match=r"but not in the file|has nothing for our|no layout|no multiple|has shape"
        ) as told:
            convert(tmp_path / "released.pt", tmp_path / "ours")
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("UNITER", "rank_output.weight"),
        ("ALBEF", "idx_queue"),
        ("ViLBERT", "bert.embeddings.task_embeddings.weight"),
        ("VLBERT", "module.image_feature_extractor.backbone.conv1.weight"),
    ],
)
def test_what_is_left_over_is_named(system, name, tmp_path):
    write(tmp_path / "released.pt", system, lambda all: all | {name: torch.ones(2, 3)})
    refused(tmp_path / "released.pt", tmp_path / "ours", "in the file but not in")


@pytest.mark.parametrize(
    ("system", "name", "shape"),
    [
        ("UNITER", "uniter.img_embeddings.mask_embedding.weight", (1, 12)),
        ("UNITER", "uniter.embeddings.word_embeddings.weight", (9, 130)),
        ("DeCoAR2", "post_extract_proj.weight", (12,)),
        ("DeCoAR2", "encoder.pos_conv.0.weight_v", (128, 0, 6)),
    ],
)
def test_shapes_that_no_model_has_are_told_in_one_line(system, name, shape, tmp_path):
    write(tmp_path / "released.pt", system, lambda all: all | {name: torch.zeros(shape)})
    refused(tmp_path / "released.pt", tmp_path / "ours", str(tmp_path / "released.pt"))


def test_two_names_of_one_tensor_contradict_each_other(tmp_path):
    write(tmp_path / "released.pt", "UNITER", lambda all: all | {"bert.pooler.dense.bias": torch.zeros(128)})
    refused(tmp_path / "released.pt", tmp_path / "ours", "contradicts itself")


def twice(tensors):
    """A tensor once more, under the other beginning that names have."""
    name = next(name for name in tensors if name.startswith(("bert.", "uniter.")))
    start, _, rest = name.partition(".")
    return {f"{'uniter' if start == 'bert' else 'bert'}.{rest}": torch.zeros_like(tensors[name])}


def test_a_tied_table_that_is_another(tmp_path):
    name = "cls.predictions.decoder.weight"
    write(tmp_path / "released.pt", "UNITER", lambda all: all | {name: all[name] + 1})
    refused(tmp_path / "released.pt", tmp_path / "ours", name, "once more, and is another")


def test_positions(tmp_path):
    refused(tmp_path / "none.pt", tmp_path / "ours", "There is no file", error=FileNotFoundError)
    write(tmp_path / "released.pt", "DeCoAR2")
    convert(tmp_path / "released.pt", tmp_path / "ours")
    with pytest.raises(ValueError, match=r"holds a model\.safetensors already"):
        convert(tmp_path / "released.pt", tmp_path / "ours")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"system": "no-such"}, "a system 'no-such', which is not here"),
        ({"system": "../evil.py"}, "which is not here"),
        ({"system": None}, "which is not here"),
        ({"system": ["decoar2"]}, "which is not here"),
        ({"system": {}}, "which is not here"),
        ({"config": {"width": "wide"}}, "width is a whole number"),
        ({"config": {"nothing": 1}}, "has no field nothing"),
        ({"config": [1]}, "No decoar2 can be built"),
        ({"config": None}, "No decoar2 can be built"),
    ],
)
def test_a_config_of_ours_that_cannot_be(changes, says, tmp_path):
    write(tmp_path / "released.pt", "DeCoAR2")
    convert(tmp_path / "released.pt", tmp_path / "ours")
    path = tmp_path / "ours" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=says) as told:
        load_pretrained(tmp_path / "ours")
    assert "\n" not in str(told.value)


def test_a_namespace_is_a_plain_object_here(tmp_path):
    """Its parts are checked like all others."""
    Trap.path = tmp_path / "sprung"
    torch.save({"model": released(decoar2()), "args": argparse.Namespace(trap=Trap())}, tmp_path / "released.pt")
    refused(tmp_path / "released.pt", tmp_path / "ours", "wants to run code")
    assert not Trap.path.exists()


def test_a_program_in_an_archive(tmp_path):
    """A zip whose pickle calls a function of Python itself."""
    write(tmp_path / "released.pt", "DeCoAR2")
    Trap.path = tmp_path / "sprung"
    with zipfile.ZipFile(tmp_path / "released.pt") as old, zipfile.ZipFile(tmp_path / "evil.pt", "w") as new:
        for item in old.infolist():
            data = pickle.dumps(Trap(), protocol=2) if item.filename.endswith("data.pkl") else old.read(item)
            new.writestr(item.filename, data)
    refused(tmp_path / "evil.pt", tmp_path / "ours", "wants to run code")
    assert not Trap.path.exists()
