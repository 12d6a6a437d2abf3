"""Loading: a name becomes an encoder on a device, with strict weights and a known identity."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.layers import SwiGLUPacked

from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.encoder import Encoder, EncoderIdentity, EncoderRecord
from pathpipe.encoders.layouts import from_efficientnet_pytorch
from pathpipe.encoders.transform import Transform
from pathpipe.encoders.weights import find_weights, load_strictly, read_state, weights_sha256
from pathpipe.errors import MissingError, SettingsError, StoreError

# YAML can't hold classes: these words stand for them in `arguments`.
_CLASSES: dict[str, Any] = {"SwiGLUPacked": SwiGLUPacked, "SiLU": torch.nn.SiLU}
_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Place:
    """Where and how to compute: a device and a precision that go together.

    Raises:
        SettingsError: The precision can't be had on the device.
        MissingError: The device isn't there.
    """

    def __init__(self, device: str, precision: str) -> None:
        self.device = pick_device(device)
        self.precision = precision
        if precision == "fp16" and self.device == "cpu":
            raise SettingsError("fp16 needs a GPU", where="--precision", hint="use fp32 on a CPU")


class TimmEncoder:
    """An encoder whose network timm builds. See `Encoder`."""

    def __init__(
        self, record: EncoderRecord, identity: EncoderIdentity, network: torch.nn.Module, place: Place
    ) -> None:
        self.record = record
        self.identity = identity
        self.device = place.device
        self._autocast = _PRECISIONS[place.precision]
        self._network = torch.nn.Sequential(Transform(record), network).eval().to(place.device)
        self._network.requires_grad_(False)

    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Encoder.embed`."""
        batch = torch.from_numpy(pixels).to(self.device)
        kind = torch.device(self.device).type
        casting = torch.autocast(kind, self._autocast) if self._autocast else contextlib.nullcontext()
        with torch.inference_mode(), casting:
            return np.asarray(self._network(batch).float().cpu().numpy())


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


def encoder_identity(name: str, weights: str | None) -> EncoderIdentity:
    """The identity of an encoder with these weights; the network isn't built.

    Raises:
        SettingsError: There is no such encoder.
        MissingError: The weights can't be had.
    """
    record = encoder_record(name)
    path = find_weights(record, weights)
    return EncoderIdentity(
        name=name,
        revision=(record.weights.revision or "") if weights is None else "",
        weights_sha256=weights_sha256(path),
        transform=record.transform,
        dim=record.dim,
    )


@lru_cache(maxsize=1)
def load_encoder(name: str, weights: str | None, device: str, precision: str) -> Encoder:
    """Load an encoder; the last one stays in memory, since a cohort uses it slide after slide.

    Args:
        weights: A local checkpoint in place of the published one.
        device: auto, cpu, cuda or cuda:N.
        precision: fp32, bf16 or fp16 arithmetic (autocast); features come back as float32.

    Raises:
        SettingsError: Unknown encoder, or a precision the device doesn't have.
        MissingError: Weights or device can't be had.
        StoreError: The weights don't fit.
    """
    record = encoder_record(name)
    place = Place(device, precision)
    path = find_weights(record, weights)
    identity = encoder_identity(name, weights)
    if weights is None and record.sha256 is not None and identity.weights_sha256 != record.sha256:
        raise StoreError(
            f"the weights of `{name}` are not the published ones (sha256 {identity.weights_sha256[:16]}...)",
            where=str(path),
            hint="delete the file and fetch it again, or pass it with --weights if you mean it",
        )
    network = build_network(record)
    state = read_state(path)
    if record.layout == "efficientnet-pytorch":
        state = from_efficientnet_pytorch(state)
    elif hasattr(network, "pos_embed") and "pos_embed" in state and state["pos_embed"].shape != network.pos_embed.shape:
        # a ViT trained on another input size: its position embedding is resampled as timm does
        state = timm.models.vision_transformer.checkpoint_filter_fn(state, network)
    load_strictly(network, state, path)
    return TimmEncoder(record, identity, network, place)


def build_network(record: EncoderRecord) -> torch.nn.Module:
    """The network of a record with weights at random; it returns (N, dim)."""
    arguments = {
        name: _CLASSES.get(value, value) if isinstance(value, str) else value
        for name, value in {"num_classes": 0, **record.arguments}.items()
    }
    with torch.random.fork_rng(devices=[]):
        network: torch.nn.Module = timm.create_model(record.architecture, pretrained=False, **arguments)
    return network
