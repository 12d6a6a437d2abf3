"""Checkpoints as published load into the networks of the catalogue: every key finds its place, in full size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pathpipe.encoders.build import build_network
from pathpipe.encoders.catalogue import encoder_names, encoder_record
from pathpipe.encoders.layouts import LAYOUTS, rename
from pathpipe.encoders.load import load_encoder
from pathpipe.encoders.weights import fit_positions, load_strictly, read_state
from pathpipe.errors import SettingsError, StoreError
from tests.unit.encoders import published

HIBOU_L_GATE = 2736  # int(4 * 1024 * 2 / 3) rounded up to a multiple of 8
PUBLISHED = {
    "phikon": published.hf_vit(768, 12, 16, 14, 3072),
    "phikon-v2": published.hf_dinov2(1024, 24, 16, 14, 4096),
    "midnight-12k": published.hf_dinov2(1536, 40, 14, 16, 4096, swiglu=True),
    "hibou-b": published.hf_dinov2(768, 12, 14, 16, 2048, swiglu=True, registers=4),
    "hibou-l": published.hf_dinov2(1024, 24, 14, 16, HIBOU_L_GATE, swiglu=True, registers=4),
    "plip": published.hf_clip(768, 12, 32, 7, 3072, 512),
    "openmidnight": published.dinov2(1536, 40, 14, 16, 4096, swiglu=True, registers=4),
    "gpfm": published.dinov2(1024, 24, 14, 16, 4096),
    "dinobloom-s": published.dinov2(384, 12, 14, 16, 1536),
    "dinobloom-b": published.dinov2(768, 12, 14, 16, 3072),
    "dinobloom-l": published.dinov2(1024, 24, 14, 16, 4096, chunk=6),
    "dinobloom-g": published.dinov2(1536, 40, 14, 16, 4096, swiglu=True, chunk=10),
    "reddino-b": published.timm_vit(768, 12, 14, 16, scale="gamma"),
    "dinov2-l": published.timm_vit(1024, 24, 14, 37, scale="gamma"),
    "uni": published.timm_vit(1024, 24, 16, 14, scale="gamma"),
    "mstar": published.timm_vit(1024, 24, 16, 14, scale="gamma"),
    "kaiko-vitb16": published.timm_vit(768, 12, 16, 14, scale=None),
    "keep": published.keep(1024, 24, 16, 14, 768),
    "conch": published.conch(768, 12, 16, 28, 512, 768),
    "conch-v1.5": published.conch_v1_5(1024, 24, 16, 14, 768),
    "musk": published.beit3(1024, 24, 16, 24, 4096),
    "ctranspath": published.ctranspath(96, (2, 2, 6, 2), (3, 6, 12, 24), 224),
    "resnet50-trunc": published.resnet50(),
}


def _meta_network(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network(encoder_record(name))


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_checkpoints_are_complete_and_exact(name: str) -> None:
    record = encoder_record(name)
    network = _meta_network(name)
    state = fit_positions(network, rename(record.layout, published.on_meta(PUBLISHED[name])), record.layout)
    load_strictly(network, state, Path(name))
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in state.items() if not key.startswith("fc.")} == own


def test_every_layout_has_a_published_checkpoint() -> None:
    used = {encoder_record(name).layout for name in encoder_names()}
    assert used == set(LAYOUTS), "a layout nothing uses, or an entry with an unknown one"
    tested = {encoder_record(name).layout for name in PUBLISHED}
    assert used - tested == {"efficientnet-pytorch"}  # tested with its real weights in tests/reference/test_lite0.py


def test_a_teacher_of_ibot_loads_from_the_file_its_training_leaves(tmp_path: Path) -> None:
    """CytoFM: teacher and student, the command line beside them, projection head, mask token."""
    import argparse

    shapes = published.ibot(768, 12, 16, 14)
    teacher = published.filled(shapes)
    path = tmp_path / "checkpoint.pth"
    torch.save({"student": {}, "teacher": teacher, "epoch": 3, "args": argparse.Namespace(lr=1.0)}, path)
    state = rename("dino", read_state(path))
    network = build_network(encoder_record("cytofm"))
    load_strictly(network, state, path)
    assert torch.equal(network.state_dict()["norm.weight"], teacher["backbone.norm.weight"])
    encoder = load_encoder("cytofm", str(path), "cpu")
    assert encoder.identity.name == "cytofm" and encoder.record.dim == 768


def test_hub_files_of_transformers_keep_their_own_prefix(tmp_path: Path) -> None:
    """`encoder.` is a wrapper's word elsewhere; here it is the layout's, and most keys begin with it."""
    state = published.filled(published.hf_vit(8, 6, 4, 2, 16))
    torch.save(state, tmp_path / "w.bin")
    assert set(read_state(tmp_path / "w.bin", own=("encoder.",))) == set(state)
    assert set(read_state(tmp_path / "w.bin")) != set(state)


@pytest.mark.parametrize(
    ("layout", "state", "words"),
    [
        ("hf-clip", {"a": torch.zeros(1)}, "no image half of CLIP"),
        ("hf-vit", {"encoder.layer.0.attention.attention.query.weight": torch.zeros(2, 2)}, "no key for"),
        ("beit3", {"a": torch.zeros(1)}, "not of BEiT-3"),
        ("conch", {"text.x": torch.zeros(1)}, r"no image tower \(visual.trunk"),
        ("keep", {"text.x": torch.zeros(1)}, "no image tower"),
    ],
)
def test_checkpoints_of_another_family_are_refused(layout: str, state: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        rename(layout, state)


def test_a_missing_projection_is_named() -> None:
    state = published.filled(published.beit3(8, 1, 4, 2, 16))
    del state["beit3.encoder.layers.0.self_attn.k_proj.A.bias"]
    with pytest.raises(StoreError, match=r"only q, v for blocks\.0\.attn\.qkv\.bias"):
        rename("beit3", state)


def test_unknown_layouts_and_those_of_plugins() -> None:
    with pytest.raises(SettingsError, match="no key layout `hf-vti`"):
        rename("hf-vti", {})
    kept = rename(
        "pathpipe.encoders.layouts.convolutional:from_resnet50", {"fc.bias": torch.zeros(1), "x": torch.ones(1)}
    )
    assert list(kept) == ["x"]
