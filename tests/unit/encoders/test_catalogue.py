"""The catalogue: every entry builds and is as large and as wide as published; what no source states is not stated."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from pathpipe.encoders.build import Pooled, build_network
from pathpipe.encoders.catalogue import encoder_caution, encoder_names, encoder_record
from pathpipe.encoders.encoder import EncoderRecord, WeightsSource
from pathpipe.errors import MissingError, SettingsError

# Parameters in millions as published (papers, model cards, LazySlide's table), and how far that figure is rounded.
PUBLISHED_MILLIONS = {
    "uni": (303.4, 0.1),
    "uni2-h": (681.4, 0.1),
    "virchow": (631.2, 0.1),
    "virchow2": (631.2, 0.1),
    "prov-gigapath": (1134.953984, 1e-6),  # its card gives the exact number
    "h-optimus-0": (1130, 10),
    "h-optimus-1": (1130, 10),
    "h0-mini": (85.7, 0.1),
    "phikon": (85.8, 0.1),
    "phikon-v2": (303.4, 0.1),
    "hibou-b": (85.7, 0.1),
    "hibou-l": (303.7, 0.1),
    "ctranspath": (27.5, 0.1),
    "lunit-vits8": (21.7, 0.1),
    "midnight-12k": (1140, 10),
    "openmidnight": (1100, 50),
    "gpfm": (303, 1),
    "plip": (87.8, 0.1),
    "mstar": (303.4, 0.1),
    "reddino-s": (21.6, 0.1),
    "reddino-l": (303, 1),
    "dinobloom-s": (22, 0.5),
    "dinobloom-b": (86, 0.5),
    "dinobloom-l": (304, 1),
    "dinobloom-g": (1136, 2),
    "dinov3-s": (21.6, 0.1),
    "dinov3-b": (85.7, 0.1),
    "dinov3-l": (303.1, 0.1),
    "resnet50-imagenet": (23.5, 0.1),  # 25.6 with the classifier
}
DIMS = {
    **{"uni": 1024, "uni2-h": 1536, "virchow": 2560, "virchow2": 2560, "prov-gigapath": 1536, "h-optimus-0": 1536},
    **{"h-optimus-1": 1536, "h0-mini": 768, "phikon": 768, "phikon-v2": 1024, "hibou-b": 768, "hibou-l": 1024},
    **{"conch": 512, "conch-v1.5": 768, "ctranspath": 768, "chief-ctranspath": 768, "lunit-vits8": 384},
    **{"lunit-vits16": 384, "kaiko-vits8": 384, "kaiko-vits16": 384, "kaiko-vitb8": 768, "kaiko-vitb16": 768},
    **{"kaiko-vitl14": 1024, "midnight-12k": 3072, "openmidnight": 1536, "gpfm": 1024, "musk": 1024, "plip": 512},
    **{"keep": 768, "mstar": 1024, "cytofm": 768, "reddino-s": 384, "reddino-b": 768, "reddino-l": 1024},
    **{"dinobloom-s": 384, "dinobloom-b": 768, "dinobloom-l": 1024, "dinobloom-g": 1536, "dinov2-s": 384},
    **{"dinov2-b": 768, "dinov2-l": 1024, "dinov2-g": 1536, "dinov3-s": 384, "dinov3-b": 768, "dinov3-l": 1024},
    **{"resnet50-imagenet": 2048, "resnet50-trunc": 1024, "efficientnet-lite0": 1280},
}
NO_MPP_STATED = {"ctranspath", "openmidnight", "plip", "keep", "cytofm"}
NO_LICENCE_STATED = {"cytofm", "dinobloom-s", "dinobloom-b", "dinobloom-l", "dinobloom-g"}


@pytest.mark.parametrize("name", encoder_names())
def test_every_entry_builds_with_its_width_and_size(name: str) -> None:
    """On the meta device: shapes without memory, also of networks of 1.1 billion parameters."""
    record = encoder_record(name)
    with torch.device("meta"), torch.no_grad():
        network = build_network(record)
        vectors = Pooled(network, record.pooling).eval()(torch.zeros(2, 3, record.input_px, record.input_px))
    assert sum(parameter.numel() for parameter in network.parameters()) == record.parameters
    assert vectors.shape == (2, record.dim) == (2, DIMS[name])
    assert record.paper and record.domain and record.architecture


@pytest.mark.parametrize(
    ("name", "dim"), [("mobilenetv3_small_050", 1024), ("hgnetv2_b0", 2048), ("lcnet_035", 1280), ("resnet18", 512)]
)
def test_the_width_of_any_timm_network_is_what_it_gives(name: str, dim: int) -> None:
    record = encoder_record(f"timm:{name}")
    assert record.dim == dim, "some networks widen what they have pooled"
    with torch.device("meta"), torch.no_grad():
        network = Pooled(build_network(record), record.pooling).eval()
        assert network(torch.empty(2, 3, 64, 64)).shape == (2, dim)


def test_the_catalogue_is_whole() -> None:
    assert set(encoder_names()) == set(DIMS)


@pytest.mark.parametrize("name", list(PUBLISHED_MILLIONS))
def test_sizes_are_the_published_ones(name: str) -> None:
    millions, rounding = PUBLISHED_MILLIONS[name]
    assert abs((encoder_record(name).parameters or 0) / 1e6 - millions) <= rounding


def test_what_no_source_states_is_not_stated() -> None:
    natural = {name for name in DIMS if encoder_record(name).caution}
    haematology = {name for name in DIMS if name.startswith(("reddino", "dinobloom"))}
    assert {name for name in DIMS if encoder_record(name).mpp is None} == NO_MPP_STATED | natural | haematology
    assert {name for name in DIMS if encoder_record(name).licence is None} == NO_LICENCE_STATED
    for name in DIMS:
        record = encoder_record(name)
        revision = record.weights.revision
        assert revision is None or re.fullmatch("[0-9a-f]{40}", revision), name
        assert revision is None or record.sha256, f"{name}: a pinned revision whose bytes are unknown"
        assert (record.mpp is None) or (record.tile_px is not None), name


def test_scales_are_those_of_the_authors() -> None:
    stated = {name: encoder_record(name).mpp for name in DIMS if encoder_record(name).mpp is not None}
    assert {name for name, mpp in stated.items() if mpp != 0.5} == {"chief-ctranspath"}
    assert stated["chief-ctranspath"] == 1.0


def test_uni_and_cytofm_are_what_their_authors_say() -> None:
    uni, cytofm = encoder_record("uni"), encoder_record("cytofm")
    assert (uni.dim, uni.input_px, uni.mpp, uni.gated, uni.licence) == (1024, 224, 0.5, True, "CC-BY-NC-ND-4.0")
    assert uni.arguments["init_values"] == 1e-5 and uni.weights.hub == "MahmoodLab/UNI"
    assert (cytofm.architecture, cytofm.dim, cytofm.domain) == ("vit_base_patch16_224", 768, "cytology")
    assert "CytoFM" in str(cytofm.weights.manual)


def test_transforms_are_said_in_one_line() -> None:
    gigapath = encoder_record("prov-gigapath")
    assert gigapath.transform.startswith("resize 256 bicubic; centre 224; mean 0.485,0.456,0.406;")
    assert gigapath.transform.endswith("cls pooling")
    assert encoder_record("virchow2").transform.endswith("cls+mean pooling")
    assert encoder_record("uni").transform.startswith("resize 224 bilinear; mean")


def test_cautions_need_no_file() -> None:
    assert "not a pathology model" in str(encoder_caution("dinov2-b"))
    assert encoder_caution("uni") is None and encoder_caution("onnx:/nowhere/x.onnx") is None


def test_records_are_checked() -> None:
    with pytest.raises(ValueError, match="exactly one of package, hub, url, manual"):
        WeightsSource(hub="a/b", package="c", file="d")
    with pytest.raises(ValueError, match="name a file"):
        WeightsSource(hub="a/b")
    uni = encoder_record("uni").model_dump()
    changes: list[tuple[dict[str, Any], str]] = [
        ({"nonsense": 1}, "nonsense"),
        ({"resize_px": 200}, "must not be smaller"),
        ({"sha256": "abc"}, "sha256"),
        ({"pooling": "token"}, "pooling"),
    ]
    for change, words in changes:
        with pytest.raises(ValueError, match=words):
            EncoderRecord.model_validate({**uni, **change})


def test_networks_that_cannot_be_built_are_named() -> None:
    uni = encoder_record("uni")
    with pytest.raises(SettingsError, match="encoder `uni`: can't be built"):
        build_network(uni.model_copy(update={"arguments": {"no_such_argument": 1}}))
    with pytest.raises(MissingError, match="can't be imported"):
        build_network(uni.model_copy(update={"build": "no_such_module:network"}))
    with pytest.raises(SettingsError, match="has no tokens"):
        Pooled(torch.nn.Linear(2, 2), "cls")


def test_norms_have_the_epsilon_of_their_family() -> None:
    """1e-12 in Hugging Face's ViT: too small a difference to see in most features, and too large to leave."""
    for name, eps in {"phikon": 1e-12, "phikon-v2": 1e-6, "uni": 1e-6, "musk": 1e-5}.items():
        with torch.device("meta"):
            network = build_network(encoder_record(name))
        norms = [module for module in network.modules() if isinstance(module, torch.nn.LayerNorm)]
        assert len(norms) > 12 and {norm.eps for norm in norms} == {eps}, name


def test_pooling_leaves_registers_out() -> None:
    """Against the network's own tokens: class token first, then registers, then patches."""
    record = encoder_record("h-optimus-0")
    small = {**record.arguments, "embed_dim": 32, "depth": 1, "num_heads": 4, "img_size": 28, "mlp_ratio": 2}
    network = build_network(record.model_copy(update={"arguments": small})).eval()
    images = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        tokens = network.forward_features(images)  # type: ignore[operator]
        assert tokens.shape == (2, 1 + 4 + 4, 32)
        for pooling, expected in [
            ("cls", tokens[:, 0]),
            ("mean", tokens[:, 5:].mean(1)),
            ("cls+mean", torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], -1)),
            ("network", tokens[:, 0]),
        ]:
            assert torch.equal(Pooled(network, pooling)(images), expected), pooling  # type: ignore[arg-type]
