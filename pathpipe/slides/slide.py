"""The noun `Slide`: what every reader offers, in level-0 pixels and um/px, never rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from pathpipe.errors import SlideError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Mpp:
    """Resolution of level 0 in um/px, and what says so."""

    x: float
    y: float
    source: str

    @property
    def mean(self) -> float:
        """Geometric mean of x and y, um/px: the side of a square of a pixel's area."""
        return float(np.sqrt(self.x * self.y))


@dataclass(frozen=True)
class Level:
    """One level of the pyramid.

    Attributes:
        size_px: (width, height).
        downsample: Level-0 px per px of this level, (x, y), as floats: 3.9999 stays 3.9999.
        shrinks: By which whole numbers the reader can shrink it while decoding, at less than the cost of all pixels.
    """

    index: int
    size_px: tuple[int, int]
    downsample: tuple[float, float]
    shrinks: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Box:
    """A rectangle in level-0 px."""

    x0: int
    y0: int
    w: int
    h: int


class Named(Protocol):
    """What every place of a slide has: a path, or an object behind a URL."""

    @property
    def name(self) -> str:
        """Its last part."""
        ...


class Slide(Protocol):
    """An open slide.

    Attributes:
        reader: Name of the reader that opened it.
        vendor: The format, as the reader names it.
        size0: (width, height) of level 0, px.
        mpp: Resolution the file itself states, or None.
        objective: Objective power the file states, or None.
        bounds: The scanned part when it is smaller than the slide, level-0 px.
        properties: The reader's own key-value pairs.
        associated: Names of the other pictures in the file (label, macro, thumbnail). A label or macro picture may
            show a name or number of the patient.
    """

    reader: str
    vendor: str
    size0: tuple[int, int]
    levels: tuple[Level, ...]
    mpp: Mpp | None
    objective: float | None
    bounds: Box | None
    properties: Mapping[str, str]
    associated: tuple[str, ...]

    @property
    def path(self) -> Named:
        """The file, by a name that errors quote."""
        ...

    def read(self, xy0: tuple[int, int], level: int, size_px: tuple[int, int]) -> Pixels:
        """Read a region.

        Args:
            xy0: Top left corner, level-0 px, whatever the level.
            level: Which level to read.
            size_px: (width, height) in px of that level.

        Returns:
            (H, W, 3) uint8 RGB; white outside the slide and where it is transparent. Safe from several threads.

        Raises:
            SlideError: The region can't be decoded; names the coordinates.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ShrinkingSlide(Slide, Protocol):
    """A slide whose levels can be shrunk while they are decoded; its levels say by how much."""

    def read_into(self, out: Pixels, xy0: tuple[int, int], level: int, shrink: int) -> None:
        """Read a region of a level that is `shrink` times smaller than stored.

        Args:
            out: (H, W, 3) uint8, C-contiguous, of the region's size in px of the shrunken level; filled whole.
            xy0: Top left corner, level-0 px; rounded to the nearest px of the shrunken level.
            shrink: One of the level's `shrinks`.

        Raises:
            SlideError: As `read`.
        """
        ...


def read_shrunk(slide: Slide, xy0: tuple[int, int], level: int, size_px: tuple[int, int], shrink: int) -> Pixels:
    """Read from any slide, (H, W, 3) uint8; `shrink` is 1 or one of the level's `shrinks`."""
    if shrink == 1:
        return slide.read(xy0, level, size_px)
    out = np.empty((size_px[1], size_px[0], 3), np.uint8)
    read_into(slide, out, xy0, level, shrink)
    return out


def read_into(slide: Slide, out: Pixels, xy0: tuple[int, int], level: int, shrink: int) -> None:
    """Read from any slide to an array that is there, (H, W, 3) uint8: see `ShrinkingSlide.read_into`."""
    read: Callable[[Pixels, tuple[int, int], int, int], None] | None = getattr(slide, "read_into", None)
    if read is not None:
        read(out, xy0, level, shrink)
    elif shrink == 1:
        out[...] = slide.read(xy0, level, (out.shape[1], out.shape[0]))
    else:
        raise SlideError(
            f"was planned to be shrunk while it is decoded, which reader {slide.reader} can't do",
            where=slide.path.name,
            hint="make the tiles again with this reader (`--stale remake`), or with `--decode exact`",
        )


class Closing:
    """Context-manager half of a reader."""

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_levels(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from their sizes.

    Each axis has its own ratio of sizes. Levels are cut to whole pixels, so on small levels the two ratios differ by
    rounding alone; where the difference is explained by one pixel, both axes take the mean of the two, as OpenSlide
    does: a level-0 place then means the same pixel to every tool.
    """
    width0, height0 = sizes[0]
    levels = []
    for index, (width, height) in enumerate(sizes):
        x, y = width0 / width, height0 / height
        by_rounding = abs(width0 / x - width0 / y) <= 1 and abs(height0 / y - height0 / x) <= 1
        if by_rounding:
            x = y = (x + y) / 2
        levels.append(Level(index, (width, height), (x, y)))
    return tuple(levels)
