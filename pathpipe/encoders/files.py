"""Encoders that are one file: `torchscript:FILE` and `onnx:FILE`, with a sidecar that says what pixels they expect.

The sidecar is FILE.yaml or FILE.json beside the file; without it the input is 224 px with ImageNet's mean and std. The
width of a feature is found by a trial run. The file's digest is its identity; where it lies is not.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pathpipe.encoders.encoder import EncoderRecord, Rgb, WeightsSource
from pathpipe.errors import MissingError, SettingsError, StoreError
from pathpipe.settings import ENCODER_FILE_KINDS

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Sidecar(BaseModel):
    """What a FILE.yaml beside an encoder's file may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_px: int = Field(224, gt=0, description="Side of the input, px")
    resize_px: int | None = Field(None, gt=0, description="Resize to this side, then cut out the centre")
    mean: Rgb = _IMAGENET_MEAN
    std: Rgb = _IMAGENET_STD
    interpolation: str = "bicubic"
    mpp: float | None = Field(None, gt=0, description="um/px it was trained for")
    dim: int | None = Field(None, gt=0, description="Width of a feature; checked by the trial run")
    licence: str | None = None
    domain: str = "as its authors say"
    paper: str = ""


def is_file_encoder(name: str) -> bool:
    """Whether a name means a file."""
    return name.partition(":")[0] in ENCODER_FILE_KINDS and ":" in name


def encoder_file(name: str, weights: str | None) -> Path:
    """The file a name means; `weights` stands for it where it lies elsewhere.

    Raises:
        MissingError: It isn't there.
    """
    path = Path(weights or name.partition(":")[2]).expanduser()
    if not path.is_file():
        raise MissingError("there is no such encoder file", where=str(path), hint="pass where it lies with --weights")
    return path


def file_record(name: str, weights: str | None) -> EncoderRecord:
    """The record of `torchscript:FILE` or `onnx:FILE`.

    Raises:
        MissingError: The file, or what runs it, isn't there.
        SettingsError: The sidecar is wrong.
        StoreError: The file doesn't run, or its output isn't one vector a tile.
    """
    path = encoder_file(name, weights)
    kind = name.partition(":")[0]
    sidecar = _sidecar(path)
    status = path.stat()
    dim = _trial(kind, path, sidecar.input_px, status.st_size, status.st_mtime_ns)
    if sidecar.dim not in (None, dim):
        raise StoreError(f"gives {dim} features a tile, its sidecar says {sidecar.dim}", where=str(path))
    stated = any(path.with_name(path.name + suffix).exists() for suffix in (".yaml", ".json"))
    try:
        return EncoderRecord(
            name=f"{kind}:{path.name if weights is None else Path(name.partition(':')[2]).name}",
            architecture=kind,
            dim=dim,
            pooling="network",
            weights=WeightsSource(manual="the file itself"),
            note=None if stated else f"no {path.name}.yaml: 224 px and ImageNet's mean and std are taken",
            **sidecar.model_dump(exclude={"dim"}),
        )
    except ValidationError as error:
        raise SettingsError(f"the sidecar is wrong: {error.errors()[0]['msg']}", where=f"{path}.yaml") from None


def run_file(kind: str, path: Path, device: str) -> Any:
    """What runs the file: a torch module for TorchScript, an `OnnxNetwork` for ONNX.

    Raises:
        MissingError: onnxruntime isn't installed.
        StoreError: It can't be read.
    """
    return _torchscript(path) if kind == "torchscript" else OnnxNetwork(path, device)


class OnnxNetwork:
    """An ONNX file with one input and a vector as its first output.

    Raises:
        MissingError: onnxruntime isn't installed.
        StoreError: The file can't be read.
    """

    def __init__(self, path: Path, device: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingError(
                "an ONNX encoder needs onnxruntime", where=str(path), hint='pip install "pathpipe[onnx]"'
            ) from None
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}))
        options = onnxruntime.SessionOptions()
        options.use_deterministic_compute = True
        errors: tuple[type[Exception], ...] = (*_onnx_errors(), RuntimeError, ValueError)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except errors as error:
            raise StoreError(f"can't be read as ONNX: {str(error).splitlines()[0]}", where=str(path)) from None
        self.input = self.session.get_inputs()[0].name
        if device.startswith("cuda") and "CUDAExecutionProvider" not in self.session.get_providers():
            raise MissingError(
                "this onnxruntime has no CUDA",
                where=str(path),
                hint="pip install onnxruntime-gpu, or use `--device cpu`",
            )

    def __call__(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, 3, H, W) -> (N, D)."""
        return np.asarray(self.session.run(None, {self.input: images})[0])


def _sidecar(path: Path) -> Sidecar:
    for suffix in (".yaml", ".json"):
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            try:
                return Sidecar.model_validate(yaml.safe_load(beside.read_text(encoding="utf-8")) or {})
            except (ValidationError, yaml.YAMLError) as error:
                first = error.errors()[0] if isinstance(error, ValidationError) else None
                what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
                raise SettingsError(f"the sidecar is wrong: {what}", where=str(beside)) from None
    return Sidecar()


@cache
def _trial(kind: str, path: Path, input_px: int, size: int, changed_ns: int) -> int:
    """Width of a feature: two black tiles through the file; its size and time keep a changed file apart."""
    import torch

    tiles = torch.zeros((2, 3, input_px, input_px))
    network = run_file(kind, path, "cpu")
    errors: tuple[type[Exception], ...] = (*_onnx_errors(), RuntimeError, ValueError, AttributeError)
    try:
        if kind == "torchscript":
            with torch.inference_mode():
                found = tuple(network.eval()(tiles).shape)
        else:
            found = network(tiles.numpy()).shape
    except errors as error:
        where = f"a batch of two tiles of {input_px} px"
        raise StoreError(f"can't run {where}: {str(error).splitlines()[-1][:200]}", where=str(path)) from None
    if len(found) != 2 or found[0] != 2:
        raise StoreError(f"gives an array of shape {found} for two tiles; one vector a tile is needed", where=str(path))
    return int(found[1])


def _onnx_errors() -> tuple[type[Exception], ...]:
    """onnxruntime's own, which have nothing in common but Exception."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return ()
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _torchscript(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch writes no new such files, and still reads them
            return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise StoreError(f"can't be read as TorchScript: {str(error).splitlines()[0][:200]}", where=str(path)) from None
