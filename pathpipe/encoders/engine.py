"""The engine: batches of uint8 tiles to features on a device; halves a batch that doesn't fit, and takes turns."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pathpipe.clock import Clock
from pathpipe.encoders.build import Pooled
from pathpipe.encoders.encoder import EncoderIdentity, EncoderRecord
from pathpipe.encoders.transform import Transform
from pathpipe.errors import MissingError, SettingsError

_AUTOCAST = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BATCH = 64
_PROBED = (32, 64, 128, 256, 512, 1024)
_ENOUGH = 1.03  # a larger batch must gain this much to be worth its memory


@dataclass(frozen=True)
class Tuning:
    """How the device computes; none of it changes a feature by more than rounding.

    Attributes:
        precision: fp32, tf32, bf16 or fp16.
        channels_last: Memory order that convolutions like.
        compiled: Let torch.compile fuse the network: minutes at the start, faster afterwards.
    """

    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False


PLAIN = Tuning()


class TorchEncoder:
    """An encoder whose network is a torch module. See `Encoder`."""

    def __init__(
        self,
        record: EncoderRecord,
        identity: EncoderIdentity,
        network: torch.nn.Module,
        device: str,
        tuning: Tuning,
    ) -> None:
        self.record = record
        self.identity = identity
        self.device = device
        self._tuning = tuning
        self._autocast = _AUTOCAST[tuning.precision]
        whole = torch.nn.Sequential(Transform(record), Pooled(network, record.pooling)).eval().to(device)
        whole.requires_grad_(False)
        if tuning.channels_last:
            whole = whole.to(memory_format=torch.channels_last)
        self._network = torch.compile(whole) if tuning.compiled else whole
        self._turn, self._probing = threading.Lock(), threading.Lock()
        self._batch: dict[int, int] = {}  # tile_px -> tiles per batch, once probed
        self.largest_batch: int | None = None  # known once a batch did not fit

    def embed(self, pixels: npt.NDArray[np.uint8], clock: Clock | None = None) -> npt.NDArray[np.float32]:
        """See `Encoder.embed`."""
        clock = clock or Clock()
        with clock.spend("transfer"):
            batch = self._on_device(pixels)
        with self._turn, clock.spend("forward"), torch.inference_mode(), self._precision():
            features = self._in_parts(batch).float()
            done = self._mark()
        # outside the turn: the next slide's batch may be queued while this one is still being computed
        if done is not None:
            with clock.spend("forward"):
                done.synchronize()
        with clock.spend("transfer"):
            return np.asarray(features.cpu().numpy())

    def probe_batch(self, tile_px: int) -> int:
        """Tiles per batch: the smallest that is nearly as fast as any that fits; fixed on a CPU."""
        if self.device == "cpu":
            return CPU_BATCH
        with self._probing:
            if tile_px not in self._batch:
                self._batch[tile_px] = self._probe(tile_px)
            return self._batch[tile_px]

    def _probe(self, tile_px: int) -> int:
        best, chosen = 0.0, _PROBED[0]
        for size in _PROBED:
            pixels = np.zeros((size, tile_px, tile_px, 3), np.uint8)
            self.embed(pixels)
            if self.largest_batch is not None:
                break
            started = time.perf_counter()
            self.embed(pixels)
            rate = size / (time.perf_counter() - started)
            if rate > best * _ENOUGH:
                best, chosen = rate, size
        return min(chosen, self.largest_batch or chosen)

    def _on_device(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        batch = torch.from_numpy(pixels)
        if self.device == "cpu":
            return batch
        return batch.pin_memory().to(self.device, non_blocking=True)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, self._autocast)

    def _in_parts(self, batch: torch.Tensor) -> torch.Tensor:
        """The features of a batch, in parts once a whole one did not fit in the device's memory."""
        while True:
            size = min(self.largest_batch or len(batch), len(batch))
            try:
                return torch.cat([self._network(part) for part in batch.split(size)])
            except torch.OutOfMemoryError:
                if size == 1:
                    raise MissingError(
                        f"not even one tile fits in the memory of {self.device} with encoder `{self.record.name}`",
                        hint="use a GPU with more memory, or a smaller encoder; see what else runs there (nvidia-smi)",
                    ) from None
                self.largest_batch = size // 2
                if self.device != "cpu":
                    torch.cuda.empty_cache()

    def _mark(self) -> torch.cuda.Event | None:
        if self.device == "cpu":
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event


def check_precision(precision: str, device: str) -> None:
    """Refuse what the device can't do, or does far slower than fp32.

    Raises:
        SettingsError: With what to use instead.
    """
    if device == "cpu" and precision in ("fp16", "tf32"):
        raise SettingsError(f"{precision} needs a GPU", where="--precision", hint="use fp32 on a CPU")
    if device != "cpu" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SettingsError("this GPU has no bf16", where="--precision", hint="use fp16")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
