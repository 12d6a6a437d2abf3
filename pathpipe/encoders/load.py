"""Loading: a name becomes an encoder on a device, with strict weights and a known identity."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pathpipe.clock import Clock
from pathpipe.encoders.build import build_network
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.encoder import Encoder, EncoderIdentity, EncoderRecord
from pathpipe.encoders.engine import CPU_BATCH, PLAIN, TorchEncoder, Tuning, check_precision
from pathpipe.encoders.fetch import check_published, find_weights, weights_sha256
from pathpipe.encoders.files import OnnxNetwork, encoder_file, is_file_encoder, run_file
from pathpipe.encoders.layouts import rename
from pathpipe.encoders.transform import Transform
from pathpipe.encoders.weights import fit_positions, load_strictly, read_state
from pathpipe.errors import MissingError, SettingsError
from pathpipe.settings import RunSettings


class OnnxEncoder:
    """An encoder that onnxruntime runs; pixels are prepared by torch on the CPU. See `Encoder`.

    Raises:
        SettingsError: Another precision than the file's own was asked for.
    """

    def __init__(
        self, record: EncoderRecord, identity: EncoderIdentity, network: OnnxNetwork, device: str, tuning: Tuning
    ) -> None:
        if tuning.precision != "fp32":
            raise SettingsError("an ONNX file has its own precision", where="--precision", hint="use fp32")
        self.record = record
        self.identity = identity
        self.device = device
        self._network = network
        self._transform = Transform(record)
        self._turn = threading.Lock()

    def embed(self, pixels: npt.NDArray[np.uint8], clock: Clock | None = None) -> npt.NDArray[np.float32]:
        """See `Encoder.embed`."""
        with self._turn, (clock or Clock()).spend("forward"), torch.inference_mode():
            images = self._transform(torch.from_numpy(pixels)).numpy()
            return np.asarray(self._network(images), dtype=np.float32)

    def probe_batch(self, tile_px: int) -> int:
        """See `Encoder.probe_batch`."""
        return CPU_BATCH


def pick_device(wanted: str) -> str:
    """`auto` is the first GPU, or the CPU without one.

    Raises:
        MissingError: A GPU was asked for that isn't there.
        SettingsError: There is no such kind of device.
    """
    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return wanted
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise SettingsError(f"there is no device `{wanted}`", where="--device", hint="auto, cpu, cuda or cuda:N")
    index = int(number or 0)
    if index >= torch.cuda.device_count():
        raise MissingError(
            f"GPU {index} was asked for, torch sees {torch.cuda.device_count()}",
            where="--device",
            hint="check `nvidia-smi` and the driver, or use `--device cpu`",
        )
    return f"cuda:{index}"


def pick_devices(gpus: str) -> list[str]:
    """The devices of `all` or of a list such as `0,1`.

    Raises:
        MissingError: One of them isn't there.
    """
    numbers = range(torch.cuda.device_count()) if gpus == "all" else [int(number) for number in gpus.split(",")]
    if not numbers:
        raise MissingError("torch sees no GPU", where="--gpus", hint="check `nvidia-smi` and the driver")
    return [pick_device(f"cuda:{number}") for number in numbers]


def encoder_identity(name: str, weights: str | None, offline: bool = False) -> EncoderIdentity:
    """The identity of an encoder with these weights; the network isn't built.

    Raises:
        SettingsError: There is no such encoder.
        MissingError: The weights can't be had.
    """
    return _identity(*_record_and_file(name, weights, offline))


def _record_and_file(name: str, weights: str | None, offline: bool) -> tuple[EncoderRecord, Path]:
    record = encoder_record(name, weights)
    if is_file_encoder(name):
        return record, encoder_file(name, weights)
    return record, find_weights(record, weights, offline)


def _identity(record: EncoderRecord, path: Path) -> EncoderIdentity:
    digest = weights_sha256(path)
    return EncoderIdentity(
        name=record.name,
        # by content: the same bytes are the same encoder, wherever they were found
        revision=(record.weights.revision or "") if digest == record.sha256 else "",
        weights_sha256=digest,
        transform=record.transform,
        dim=record.dim,
    )


_LOADING = threading.Lock()  # slides in flight ask at once, and each would load a network of its own


def load_for(settings: RunSettings, offline: bool = False) -> Encoder:
    """The encoder of a run's settings, one for all threads; see `load_encoder`."""
    extract, execution = settings.extract, settings.execution
    tuning = Tuning(extract.precision, execution.channels_last, execution.compile)
    with _LOADING:
        return load_encoder(extract.encoder, extract.weights, execution.device, tuning, offline or execution.offline)


@lru_cache(maxsize=4)
def load_encoder(name: str, weights: str | None, device: str, tuning: Tuning = PLAIN, offline: bool = False) -> Encoder:
    """Load an encoder; the last few stay in memory, since a cohort uses them slide after slide.

    Args:
        weights: A local checkpoint in place of the published one, or where the file of a file encoder lies.
        device: auto, cpu, cuda or cuda:N.
        tuning: Precision and other ways of computing; features come back as float32.
        offline: Never ask the network for weights.

    Raises:
        SettingsError: Unknown encoder, or a precision the device doesn't have.
        MissingError: Weights or device can't be had.
        StoreError: The weights don't fit.
    """
    device = pick_device(device)
    check_precision(tuning.precision, device)
    record, path = _record_and_file(name, weights, offline)
    identity = _identity(record, path)
    if is_file_encoder(name):
        network = run_file(record.architecture, path, device)
        if isinstance(network, OnnxNetwork):
            return OnnxEncoder(record, identity, network, device, tuning)
        return TorchEncoder(record, identity, network, device, tuning)
    if weights is None:
        check_published(record, path)
    network = build_network(record)
    # Hugging Face's classes call their blocks `encoder.`; elsewhere it is what a wrapper leaves
    state = rename(record.layout, read_state(path, own=("encoder.",) if record.layout.startswith("hf-") else ()))
    load_strictly(network, fit_positions(network, state, record.layout), path)
    return TorchEncoder(record, identity, network, device, tuning)
