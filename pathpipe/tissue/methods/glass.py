"""Glass: the lowest peak of a signal that is low on bare glass and grows with tissue."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pathpipe.slides.slide import Pixels
from pathpipe.tissue.method import BoolArray

DIMMEST_GLASS = 175  # of 255: what is darker in any primary is no glass
TINT = 0.1  # of its brightest primary: what is more coloured is no glass
ENOUGH = 200_000  # pixels for a colour
DARKER = 4.0  # luma this many standard deviations below glass is more than noise
Signal = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Glass:
    """Where a signal lies on glass.

    Attributes:
        level: Its commonest value there.
        spread: Its standard deviation there; at least 1, the rounding of 8 bits.
    """

    level: float
    spread: float


def find_glass(signal: Signal, ignore: BoolArray | None = None) -> tuple[Glass | None, float]:
    """Glass in a signal, and Otsu's threshold.

    The level is the commonest value of Otsu's lower class. The spread is that of the values below the level, mirrored:
    above it pale tissue mixes in, below it there is nothing but noise.

    Args:
        signal: Any shape, uint8.
        ignore: Of the same shape; what to leave out.

    Returns:
        None for the glass where nothing is left of the signal; Otsu's threshold.

    Reference: Otsu (1979), IEEE Trans. SMC 9(1), 62-66.
    """
    counts = _histogram(signal, ignore)
    if not counts.sum():
        return None, 0.0
    otsu = otsu_threshold(counts)
    lower = counts[: otsu + 1]
    level = int(np.argmax(np.convolve(lower, (1, 2, 1), "same")))
    below = counts[: level + 1]
    distance = np.arange(level, -1, -1, dtype=np.float64)
    spread = float(np.sqrt((below * distance**2).sum() / max(below.sum(), 1)))
    return Glass(float(level), max(spread, 1.0)), float(otsu)


def otsu_threshold(counts: npt.NDArray[np.float64]) -> int:
    """The value that splits a histogram into two classes of the largest variance between them; it is in the lower."""
    if np.count_nonzero(counts) < 2:
        return int(counts.argmax())
    values = np.arange(len(counts))
    weight = counts.cumsum()
    moment = (counts * values).cumsum()
    total, whole = weight[-1], moment[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (whole * weight - moment * total) ** 2 / (weight * (total - weight))
    return int(np.argmax(np.nan_to_num(between, nan=0.0, posinf=0.0)))


def white_of(pixels: Pixels, ignore: BoolArray) -> npt.NDArray[np.float32]:
    """The colour of the slide's glass, (3,) float32; pure white where the commonest light colour is no glass's.

    Args:
        pixels: (H, W, 3) uint8.
        ignore: (H, W) bool, what to leave out.
    """
    pure = np.full(3, 255.0, np.float32)
    step = max(1, round(np.sqrt(pixels[..., 0].size / ENOUGH)))
    dark = 255 - pixels[::step, ::step]
    levels = [find_glass(dark[..., channel], ignore[::step, ::step])[0] for channel in range(3)]
    white = pure - np.array([glass.level if glass else 0.0 for glass in levels], np.float32)
    is_glass = white.min() >= DIMMEST_GLASS and white.min() >= (1 - TINT) * white.max()
    return white if is_glass else pure


def as_bright_as_glass(pixels: Pixels, not_glass: BoolArray) -> BoolArray:
    """Where there may be colour but no absorption: JPEG stores colour at half the resolution, so stain bleeds.

    Args:
        pixels: (H, W, 3) uint8.
        not_glass: (H, W) bool, what the glass isn't to be measured on.

    Returns:
        (H, W) bool, smoothed.
    """
    darkness = cv2.bitwise_not(cv2.medianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 3))
    glass, _ = find_glass(np.asarray(darkness, np.uint8), not_glass)
    if glass is None:
        return np.zeros(not_glass.shape, bool)
    return np.asarray(darkness <= glass.level + DARKER * glass.spread)


def _histogram(signal: Signal, ignore: BoolArray | None) -> npt.NDArray[np.float64]:
    flat = np.ascontiguousarray(signal).reshape(-1, 1)
    if not flat.size:
        return np.zeros(256)
    mask = None if ignore is None else np.ascontiguousarray(~ignore).view(np.uint8).reshape(-1, 1)
    return np.asarray(cv2.calcHist([flat], [0], mask, [256], [0, 256]), np.float64).ravel()
