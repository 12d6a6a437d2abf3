"""Encoders: the reference transform, strict weights, identity, devices, and encoders of other packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import immunohistochemistry

from pathpipe.encoders import catalogue, fetch, weights
from pathpipe.encoders.build import build_network
from pathpipe.encoders.catalogue import encoder_names, encoder_record
from pathpipe.encoders.engine import Tuning
from pathpipe.encoders.load import encoder_identity, load_encoder, pick_device
from pathpipe.encoders.transform import Transform
from pathpipe.errors import MissingError, PathpipeError, SettingsError, StoreError

TINY = "timm:test_vit"


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [224, 256, 512])
def test_transform_equals_pillow_up_to_its_rounding(side: int, interpolation: Any) -> None:
    record = encoder_record("uni").model_copy(update={"interpolation": interpolation})
    tile = np.ascontiguousarray(immunohistochemistry()[:side, :side])
    resized = Image.fromarray(tile).resize((224, 224), getattr(Image.Resampling, interpolation.upper()))
    reference = (np.asarray(resized) / 255.0 - record.mean) / record.std
    found = Transform(record)(torch.from_numpy(tile[None]))[0].permute(1, 2, 0).numpy()
    grey_levels = np.abs(found - reference) * 255 * np.asarray(record.std)
    assert grey_levels.max() < (0.01 if side == 224 else 1.1)
    assert grey_levels.mean() < 0.33


def test_the_centre_of_a_larger_picture_is_cut_out() -> None:
    """Prov-GigaPath: 256 px, of which the inner 224 count; as torchvision's Resize(256), CenterCrop(224)."""
    from torchvision import transforms

    record = encoder_record("prov-gigapath")
    tile = np.ascontiguousarray(immunohistochemistry()[:256, :256])
    steps = [transforms.ToTensor(), transforms.CenterCrop(224), transforms.Normalize(record.mean, record.std)]
    reference = transforms.Compose(steps)(Image.fromarray(tile)).numpy()
    found = Transform(record)(torch.from_numpy(tile[None]))[0].numpy()
    assert found.shape == (3, 224, 224) and np.abs(found - reference).max() < 1e-5
    larger = Transform(record)(torch.from_numpy(np.ascontiguousarray(immunohistochemistry()[:512, :512])[None]))
    assert larger.shape == (1, 3, 224, 224)


def _tiny_weights(tmp_path: Path, suffix: str = ".safetensors") -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    state = {name: value.clone() for name, value in build_network(encoder_record(TINY)).state_dict().items()}
    path = tmp_path / f"tiny{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path, state


def _embed(path: Path) -> np.ndarray:
    record = encoder_record(TINY)
    tiles = np.random.default_rng(0).integers(0, 256, (3, record.input_px, record.input_px, 3)).astype(np.uint8)
    return load_encoder(TINY, str(path), "cpu").embed(tiles)


def test_local_weights_in_every_container_give_the_same_features(tmp_path: Path) -> None:
    path, state = _tiny_weights(tmp_path)
    expected = _embed(path)
    assert expected.shape == (3, encoder_record(TINY).dim) and expected.dtype == np.float32
    wrapped = {
        "plain.pth": state,
        "module.pt": {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        "teacher.bin": {
            "teacher": {f"backbone.{name}": value for name, value in state.items()}
            | {"head.last.weight": torch.zeros(3)},
            "epoch": 3,
        },
        "classifier.pth": {**state, "head.weight": torch.zeros(10, 8)},
    }
    for name, content in wrapped.items():
        torch.save(content, tmp_path / name)
        assert np.array_equal(_embed(tmp_path / name), expected), name


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    path, state = _tiny_weights(tmp_path)
    first = next(iter(state))
    for name, content, words in [
        ("missing.pth", {key: value for key, value in state.items() if key != first}, f"1 keys missing: {first}"),
        ("extra.pth", {**state, "blocks.99.norm.weight": torch.zeros(3)}, "1 keys unexpected: blocks.99.norm.weight"),
        ("shape.pth", {**state, first: torch.zeros(2)}, f"1 of another shape: {first} (2,) instead of"),
    ]:
        torch.save(content, tmp_path / name)
        with pytest.raises(StoreError) as caught:
            load_encoder(TINY, str(tmp_path / name), "cpu")
        assert words in caught.value.what
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(StoreError, match="can't be read as weights"):
        weights.read_state(tmp_path / "noise.pth")
    with pytest.raises(MissingError, match="no such weights file"):
        load_encoder(TINY, str(tmp_path / "none.pth"), "cpu")
    assert path.exists()


def test_identity_follows_the_weights_and_needs_no_network(tmp_path: Path) -> None:
    path, state = _tiny_weights(tmp_path)
    one = encoder_identity(TINY, str(path))
    save_file({name: value + 1 if value.is_floating_point() else value for name, value in state.items()}, path)
    other = encoder_identity(TINY, str(path))
    assert one.weights_sha256 != other.weights_sha256 and one.fingerprint != other.fingerprint
    assert (one.name, one.dim, one.transform) == (other.name, other.dim, other.transform)
    assert encoder_identity("efficientnet-lite0", None).weights_sha256.startswith("579344248a93e230")


def test_a_file_from_the_hub_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = _tiny_weights(tmp_path)
    asked: list[tuple[object, ...]] = []

    def download(*args: object, **kwargs: object) -> str:
        asked.append((*args, kwargs.get("revision")))
        return str(path)

    import huggingface_hub

    fetch._from_hub.cache_clear()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    load_encoder.cache_clear()
    assert load_encoder(TINY, None, "cpu").identity.weights_sha256 == fetch.weights_sha256(path)
    assert asked == [(encoder_record(TINY).weights.hub, "model.safetensors", None)]


def test_other_bytes_than_published_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = encoder_record("efficientnet-lite0").model_copy(update={"sha256": "0" * 64})
    monkeypatch.setattr("pathpipe.encoders.load.encoder_record", lambda name, weights: record)
    load_encoder.cache_clear()
    with pytest.raises(StoreError, match="not the published ones"):
        load_encoder("efficientnet-lite0", None, "cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [("unii", "did you mean `uni`"), ("timm:vit_smal_patch16_224", "did you mean"), ("", "known: efficientnet-lite0")],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        encoder_record(name)
    assert words in str(caught.value)


def test_devices_and_precision(tmp_path: Path) -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(SettingsError, match="no device `gpu`"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(MissingError, match="GPU 0 was asked for, torch sees 0"):
            pick_device("cuda")
    with pytest.raises(SettingsError, match="fp16 needs a GPU"):
        load_encoder("efficientnet-lite0", None, "cpu", Tuning("fp16"))
    path, _ = _tiny_weights(tmp_path)
    tile = np.zeros((1, encoder_record(TINY).input_px, encoder_record(TINY).input_px, 3), np.uint8)
    exact = load_encoder(TINY, str(path), "cpu").embed(tile)
    rough = load_encoder(TINY, str(path), "cpu", Tuning("bf16")).embed(tile)
    assert 0 < np.abs(exact - rough).max() < 0.1


def test_an_installed_package_adds_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_encoders.py").write_text(
        "from pathpipe.encoders.catalogue import encoder_record\n"
        "MINE = encoder_record('resnet50-imagenet').model_copy(update={'name': 'mine'})\nNOT_ONE = 3\n"
    )
    info = tmp_path / "their_encoders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-encoders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[pathpipe.encoders]\nmine = their_encoders:MINE\nbroken = no_such_module:X\nnumber = their_encoders:NOT_ONE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(catalogue, "PLUGINS", type(catalogue.PLUGINS)("encoder", {}))
    try:
        assert "mine" in encoder_names()
        assert encoder_record("mine").dim == 2048
        for name, words in [("broken", "can't be loaded"), ("number", "is a int")]:
            with pytest.raises(PathpipeError, match=words):
                encoder_record(name)
    finally:
        sys.modules.pop("their_encoders", None)


def test_real_local_checkpoint(shared_data: Path) -> None:
    (path,) = (shared_data / "weights").glob("vit_small_patch14_dinov2*.safetensors")
    encoder = load_encoder("timm:vit_small_patch14_dinov2", str(path), "cpu")
    assert encoder.identity.dim == 384
    tiles = np.stack([immunohistochemistry()[:256, :256], immunohistochemistry()[256:, 256:]])
    features = encoder.embed(tiles)
    assert features.shape == (2, 384) and np.isfinite(features).all()
    cosine = features[0] @ features[1] / np.linalg.norm(features[0]) / np.linalg.norm(features[1])
    assert cosine < 0.999, "two different tiles must differ"
