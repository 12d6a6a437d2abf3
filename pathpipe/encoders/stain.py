"""Stain normalisation before an encoder: what tiles are to look like, and the encoder that sees them so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from pathpipe.clock import Clock
from pathpipe.encoders.colour import measure, normalise
from pathpipe.encoders.encoder import Encoder, EncoderIdentity
from pathpipe.errors import MissingError, SettingsError
from pathpipe.settings import ExtractSettings

_SHAPES = {"macenko": ((3, 2), (2,)), "reinhard": ((3,), (3,))}
_PREFIX = "stain "
# Macenko: the reference of M. Veta's open implementation, which most packages took over. Reinhard: mean and spread of
# L*, a*, b* over the tissue of CMU-1-Small-Region at 0.499 um/px.
_DEFAULTS = {
    "macenko": (0.5626, 0.2159, 0.7201, 0.8012, 0.4062, 0.5581, 1.9705, 1.0308),
    "reinhard": (42.05, 29.14, -14.36, 16.24, 11.97, 9.23),
}


@dataclass(frozen=True)
class StainTarget:
    """What tiles are to look like: the method and its numbers, as `colour.Measured` has them, row by row."""

    method: str
    numbers: tuple[float, ...]

    @property
    def text(self) -> str:
        """One line that says all of it, exactly; `stain_target` takes it too."""
        return f"{self.method}:{','.join(map(repr, self.numbers))}"

    @classmethod
    def from_text(cls, text: str) -> StainTarget:
        """Inverse of `text`.

        Raises:
            SettingsError: It isn't one.
        """
        method, _, numbers = text.partition(":")
        try:
            target = cls(method, tuple(float(number) for number in numbers.split(",")))
            target.tensors()
        except (KeyError, ValueError, RuntimeError):
            raise SettingsError(f"`{text}` is not a stain target", where="--stain-target") from None
        return target

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`first` and `second` of `colour.Measured`, for one picture."""
        first, second = _SHAPES[self.method]
        numbers = torch.tensor(self.numbers, dtype=torch.float64)
        split = int(np.prod(first))
        return numbers[:split].reshape(first), numbers[split:].reshape(second)


def stain_target(settings: ExtractSettings) -> StainTarget | None:
    """The target that is asked for, or None without normalisation.

    Raises:
        MissingError: The picture isn't there.
        SettingsError: It is no picture, or its stains can't be measured.
    """
    if settings.stain == "none":
        return None
    wanted = settings.stain_target
    if wanted is None:
        return StainTarget(settings.stain, _DEFAULTS[settings.stain])
    if wanted.partition(":")[0] in _SHAPES:
        target = StainTarget.from_text(wanted)
        if target.method != settings.stain:
            raise SettingsError(f"the target was measured for {target.method}", where=f"--stain {settings.stain}")
        return target
    path = Path(wanted)
    if not path.is_file():
        raise MissingError("there is no such picture", where=f"--stain-target {path}")
    stat = path.stat()
    return _measured(settings.stain, path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _measured(method: str, path: Path, mtime_ns: int, size: int) -> StainTarget:
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SettingsError(f"can't be read as a picture ({error})", where=f"--stain-target {path}") from None
    return measure_target(method, pixels, f"--stain-target {path}")


def measure_target(method: str, pixels: npt.NDArray[np.uint8], where: str = "--stain-target") -> StainTarget:
    """The target that a picture is.

    Args:
        method: `macenko` or `reinhard`.
        pixels: (H, W, 3) uint8 RGB.
        where: What to call it in an error.

    Raises:
        SettingsError: It holds too little tissue, or only one colour.
    """
    found = measure(method, torch.from_numpy(pixels.copy())[None])
    if not bool(found.usable[0]):
        raise SettingsError("no stains can be measured in it: too little tissue, or only one colour", where=where)
    return StainTarget(method, tuple([*found.first[0].flatten().tolist(), *found.second[0].tolist()]))


def stained(identity: EncoderIdentity, target: StainTarget | None) -> EncoderIdentity:
    """The identity of an encoder that sees tiles so: its features can't be mixed with others."""
    if target is None:
        return identity
    return replace(identity, transform=f"{_PREFIX}{target.text}; {identity.transform}")


def target_of(transform: str) -> str | None:
    """The target's text in an identity's transform, or None where there is none."""
    first = transform.split("; ")[0]
    return first.removeprefix(_PREFIX) if first.startswith(_PREFIX) else None


class StainedEncoder:
    """An encoder that sees normalised tiles. See `Encoder`.

    Attributes:
        unchanged: Tiles so far whose stains couldn't be measured (glass, one colour): encoded as they are.
    """

    def __init__(self, encoder: Encoder, target: StainTarget) -> None:
        self.record = encoder.record
        self.identity = stained(encoder.identity, target)
        self.device = encoder.device
        self.unchanged = 0
        self._encoder = encoder
        self._method = target.method
        self._target = target.tensors()
        self._counting = Lock()

    def embed(self, pixels: npt.NDArray[np.uint8], clock: Clock | None = None) -> npt.NDArray[np.float32]:
        """See `Encoder.embed`."""
        with torch.inference_mode(), (clock or Clock()).spend("stain"):
            tiles, changed = normalise(self._method, torch.from_numpy(pixels).to(self.device), self._target)
            seen = tiles.cpu().numpy()
        with self._counting:
            self.unchanged += int((~changed).sum())
        return self._encoder.embed(seen, clock)

    def probe_batch(self, tile_px: int) -> int:
        """See `Encoder.probe_batch`."""
        return self._encoder.probe_batch(tile_px)
