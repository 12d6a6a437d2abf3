"""Encoders that are one file: TorchScript and ONNX, with and without a sidecar."""

from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.engine import Tuning
from pathpipe.encoders.files import encoder_file, is_file_encoder
from pathpipe.encoders.load import encoder_identity, load_encoder
from pathpipe.errors import MissingError, SettingsError, StoreError
from pathpipe.settings import ExtractSettings


class Means(torch.nn.Module):
    """Mean of each channel, and of each half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[-1] // 2
        return torch.cat([images.mean((2, 3)), images[..., :half].mean((2, 3))], 1)


def _torchscript(path: Path, module: torch.nn.Module | None = None, side: int = 32) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates what other people's files are made with
        torch.jit.trace(module or Means(), torch.zeros(1, 3, side, side)).save(str(path))
    return path


def _sidecar(path: Path, **facts: Any) -> None:
    path.with_name(path.name + ".json").write_text(json.dumps(facts))


def _expected(tiles: np.ndarray, mean: float, std: float) -> np.ndarray:
    scaled = (tiles.astype(np.float64) / 255 - mean) / std
    return np.concatenate([scaled.mean((1, 2)), scaled[:, :, : tiles.shape[2] // 2].mean((1, 2))], 1)


def _tiles(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)


def test_torchscript_with_a_sidecar_gives_the_right_numbers(tmp_path: Path) -> None:
    path = _torchscript(tmp_path / "net.pt")
    _sidecar(path, input_px=32, mean=[0.5] * 3, std=[0.25] * 3, interpolation="bilinear", mpp=0.5, dim=6, licence="MIT")
    record = encoder_record(f"torchscript:{path}")
    assert (record.dim, record.input_px, record.mpp, record.licence, record.note) == (6, 32, 0.5, "MIT", None)
    found = load_encoder(f"torchscript:{path}", None, "cpu").embed(_tiles(32))
    assert found.dtype == np.float32 and np.abs(found - _expected(_tiles(32), 0.5, 0.25)).max() < 1e-5


def test_without_a_sidecar_it_is_imagenet_at_224_and_says_so(tmp_path: Path) -> None:
    path = _torchscript(tmp_path / "net.pt")
    record = encoder_record(f"torchscript:{path}")
    assert (record.dim, record.input_px, record.mean) == (6, 224, (0.485, 0.456, 0.406))
    assert "net.pt.yaml" in str(record.note) and record.licence is None


def test_identity_is_the_files_content_and_never_its_place(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
    one = _torchscript(tmp_path / "a" / "net.pt")
    other = tmp_path / "b" / "net.pt"
    other.write_bytes(one.read_bytes())
    identity = encoder_identity(f"torchscript:{one}", None)
    assert identity == encoder_identity(f"torchscript:{other}", None)
    assert identity == encoder_identity("torchscript:net.pt", str(other)), "as settings keep it: a name and a place"
    assert identity.name == "torchscript:net.pt" and len(identity.weights_sha256) == 64
    _sidecar(other, mean=[0.1] * 3)
    assert encoder_identity(f"torchscript:{other}", None).transform != identity.transform


def test_settings_split_a_file_into_name_and_place() -> None:
    settings = ExtractSettings(encoder="torchscript:/data/models/net.pt")
    assert (settings.encoder, settings.weights) == ("torchscript:net.pt", "/data/models/net.pt")
    again = ExtractSettings(**settings.model_dump())
    assert again == settings
    moved = ExtractSettings(encoder="onnx:net.onnx", weights="/elsewhere/net.onnx")
    assert (moved.encoder, moved.weights) == ("onnx:net.onnx", "/elsewhere/net.onnx")
    assert ExtractSettings(encoder="timm:vit_tiny").weights is None


def test_what_does_not_work_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such encoder file"):
        encoder_file("torchscript:nowhere.pt", None)
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(StoreError, match="can't be read as TorchScript"):
        encoder_record(f"torchscript:{tmp_path / 'noise.pt'}")
    path = _torchscript(tmp_path / "net.pt")
    _sidecar(path, dim=7)
    with pytest.raises(StoreError, match="gives 6 features a tile, its sidecar says 7"):
        encoder_record(f"torchscript:{path}")
    _sidecar(path, inputpx=7)
    with pytest.raises(SettingsError, match="inputpx"):
        encoder_record(f"torchscript:{path}")
    _sidecar(path, interpolation="nearest")
    with pytest.raises(SettingsError, match="sidecar is wrong"):
        encoder_record(f"torchscript:{path}")
    maps = _torchscript(tmp_path / "maps.pt", torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(StoreError, match=r"shape \(2, 4, 222, 222\) for two tiles"):
        encoder_record(f"torchscript:{maps}")
    assert not is_file_encoder("timm:x") and not is_file_encoder("uni") and is_file_encoder("onnx:x")


def test_onnx_without_its_package_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingError, match="needs onnxruntime") as caught:
        encoder_record(f"onnx:{tmp_path / 'net.onnx'}")
    assert 'pip install "pathpipe[onnx]"' in str(caught.value.hint)


class _Session:
    """Stands for onnxruntime: computes `Means` of what it is fed."""

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        if Path(path).read_bytes() != b"onnx":
            raise RuntimeError("INVALID_PROTOBUF\nmore")
        assert options.use_deterministic_compute
        self.providers = providers

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def get_inputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="pixels")]

    def run(self, outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [Means()(torch.from_numpy(feed["pixels"])).numpy()]


def test_onnx_is_fed_what_its_sidecar_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(InferenceSession=_Session, SessionOptions=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"onnx")
    _sidecar(path, input_px=32, mean=[0.5] * 3, std=[0.25] * 3)
    encoder = load_encoder(f"onnx:{path}", None, "cpu")
    assert encoder.identity.name == "onnx:net.onnx" and encoder.identity.dim == 6
    assert np.abs(encoder.embed(_tiles(32)) - _expected(_tiles(32), 0.5, 0.25)).max() < 1e-5
    with pytest.raises(SettingsError, match="its own precision"):
        load_encoder(f"onnx:{path}", None, "cpu", Tuning("bf16"))
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(StoreError, match="can't be read as ONNX: INVALID_PROTOBUF"):
        encoder_record(f"onnx:{tmp_path / 'broken.onnx'}")


def test_a_real_onnx_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", kinds.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("features", kinds.FLOAT, ["n", 5])],
        [helper.make_tensor("weights", kinds.FLOAT, (3, 5), weights.ravel().tolist())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, str(path))
    _sidecar(path, input_px=16, mean=[0.0] * 3, std=[1.0] * 3)
    found = load_encoder(f"onnx:{path}", None, "cpu").embed(_tiles(16))
    expected = (_tiles(16) / 255).mean((1, 2)) @ weights
    assert found.shape == (3, 5) and np.abs(found - expected).max() < 1e-5
    _sidecar(path, input_px=24)  # the graph is fixed to 16
    with pytest.raises(StoreError, match="can't run a batch of two tiles of 24 px"):
        encoder_record(f"onnx:{path}")
    path.write_bytes(b"noise")
    with pytest.raises(StoreError, match="can't be read as ONNX"):
        encoder_record(f"onnx:{path}")
