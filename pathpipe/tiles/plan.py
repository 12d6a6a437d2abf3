"""The read plan: which level, how many pixels, one resize; so that a tile has the physical size that was asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pathpipe.errors import SlideError
from pathpipe.settings import TileSettings
from pathpipe.slides.slide import Level, Mpp, Slide

TOLERANCE = 0.01


@dataclass(frozen=True)
class ReadPlan:
    """How a tile is read.

    Attributes:
        tile_px: Side of a tile after the resize.
        overlap_px: Overlap of neighbours, in the same pixels.
        mpp_wanted: um/px that was asked for.
        mpp0: um/px of level 0, (x, y).
        level: Level that is read.
        downsample: Its downsample, (x, y).
        read_px: (width, height) that is read, in px of the level after shrinking.
        side0: (width, height) of a tile, level-0 px.
        stride0: Step from tile to tile, level-0 px.
        shrink: By how much the level is shrunk while it is decoded.
    """

    tile_px: int
    overlap_px: int
    mpp_wanted: float
    mpp0: tuple[float, float]
    level: int
    downsample: tuple[float, float]
    read_px: tuple[int, int]
    side0: tuple[float, float]
    stride0: tuple[float, float]
    shrink: int = 1

    @property
    def mpp_effective(self) -> tuple[float, float]:
        """um/px of the pixels a tile really has, (x, y)."""
        x, y = (self.side0[axis] * self.mpp0[axis] / self.tile_px for axis in (0, 1))
        return x, y

    @property
    def error(self) -> float:
        """Largest relative error of the effective um/px."""
        return max(abs(value / self.mpp_wanted - 1) for value in self.mpp_effective)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ReadPlan:
        """Inverse of `to_dict`."""
        values: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
        return cls(**values)


def plan_read(slide: Slide, mpp: Mpp, settings: TileSettings) -> ReadPlan:
    """Plan the reading of a slide's tiles.

    The level is the coarsest whose resolution is not coarser than the target (within 1%). The read size is rounded to
    whole pixels once, per axis; what that costs is in `error`.

    Args:
        mpp: Resolution of level 0.

    Raises:
        SlideError: Even level 0 is coarser than the target by more than `max_upsample`.
    """
    worst = max(mpp.x, mpp.y)
    if worst > settings.mpp * settings.max_upsample:
        raise SlideError(
            f"has {worst:.4g} um/px ({mpp.source}), coarser than the {settings.mpp:g} asked for: "
            f"tiles would be enlarged {worst / settings.mpp:.1f} times",
            where=slide.path.name,
            hint=f"ask for `--mpp {worst:.4g}` or coarser, correct `mpp` in the cohort table, or raise --max-upsample",
        )
    side0 = (settings.tile_px * settings.mpp / mpp.x, settings.tile_px * settings.mpp / mpp.y)
    return _plan(slide, mpp, settings, side0, settings.overlap_px, settings.step_px, settings.mpp)


def plan_given(slide: Slide, mpp: Mpp, settings: TileSettings, side0: tuple[float, float], overlap: float) -> ReadPlan:
    """Plan the reading of tiles whose size another tool has decided; `settings` only says how many px they get.

    Args:
        mpp: Resolution of level 0.
        side0: (width, height) of a tile, level-0 px.
        overlap: Share of a tile that its neighbour covers too.

    Raises:
        SlideError: The tiles would be enlarged by more than `max_upsample`.
    """
    enlarged = settings.tile_px / min(side0)
    if enlarged > settings.max_upsample:
        raise SlideError(
            f"its tiles, {side0[0]:.0f} x {side0[1]:.0f} level-0 px, would be enlarged {enlarged:.1f} times to "
            f"{settings.tile_px} px",
            where=slide.path.name,
            hint=f"ask for `--tile-px {int(min(side0))}` or fewer, or raise --max-upsample",
        )
    wanted = (side0[0] * mpp.x * side0[1] * mpp.y) ** 0.5 / settings.tile_px
    overlap_px = round(overlap * settings.tile_px)
    return _plan(slide, mpp, settings, side0, overlap_px, settings.tile_px - overlap_px, wanted)


def _plan(
    slide: Slide,
    mpp: Mpp,
    settings: TileSettings,
    side0: tuple[float, float],
    overlap_px: int,
    step_px: int,
    mpp_wanted: float,
) -> ReadPlan:
    tile_px = settings.tile_px
    level, shrink = _level_for(slide, (side0[0] / tile_px, side0[1] / tile_px), settings)
    read0 = (level.downsample[0] * shrink, level.downsample[1] * shrink)
    read_px = (max(1, round(side0[0] / read0[0])), max(1, round(side0[1] / read0[1])))
    return ReadPlan(
        tile_px=tile_px,
        overlap_px=overlap_px,
        mpp_wanted=mpp_wanted,
        mpp0=(mpp.x, mpp.y),
        level=level.index,
        downsample=level.downsample,
        read_px=read_px,
        side0=(read_px[0] * read0[0], read_px[1] * read0[1]),
        stride0=(side0[0] * step_px / tile_px, side0[1] * step_px / tile_px),
        shrink=shrink,
    )


def _level_for(slide: Slide, wanted: tuple[float, float], settings: TileSettings) -> tuple[Level, int]:
    """The coarsest level that serves, and by how much to shrink it while it is decoded.

    Of two that come to the same resolution, a stored level wins over a shrunken one.

    Args:
        wanted: Level-0 px per px of a tile, (x, y).
    """
    limit = (wanted[0] * (1 + TOLERANCE), wanted[1] * (1 + TOLERANCE))
    fits = {
        (level.index, shrink): level.downsample[0] * shrink
        for level in slide.levels
        for shrink in (level.shrinks if settings.decode == "scaled" else (1,))
        if level.downsample[0] * shrink <= limit[0] and level.downsample[1] * shrink <= limit[1]
    }
    if not fits:
        return slide.levels[0], 1
    coarsest = max(fits.values())
    index, shrink = min((key for key, by in fits.items() if by >= coarsest / (1 + TOLERANCE)), key=lambda key: key[1])
    return slide.levels[index], shrink
