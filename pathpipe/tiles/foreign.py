"""Tiles from the coordinate files of other tools: found, checked against the slide, and laid as our own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathpipe.errors import SettingsError, SlideError, StoreError
from pathpipe.fingerprint import file_sha256, fingerprint
from pathpipe.settings import TileSettings
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.layouts import META, ForeignTiles, read_layout
from pathpipe.tiles.plan import plan_given
from pathpipe.tiles.thin import spread_evenly
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.rois import Rois

FOLDERS = ("", "patches", "tiles")  # where CLAM and TRIDENT, and hs2p and pathpipe, put them
NAMES = ("{}.h5", "{}_patches.h5", "{}" + META)


@dataclass(frozen=True)
class ForeignGrid:
    """A grid and the layout of the file it comes from."""

    grid: TileGrid
    layout: str


def coords_files(
    folder: Path, slide_id: str, folders: Sequence[str] = FOLDERS, names: Sequence[str] = NAMES
) -> list[Path]:
    """Files of a slide at the places where tools put coordinates."""
    places = (folder / inside / name.format(slide_id) for inside in folders for name in names)
    return [path for path in places if path.is_file()]


def find_coords(folder: Path, slide_id: str) -> Path:
    """The coordinate file of a slide.

    Raises:
        SlideError: There is none, or more than one.
    """
    found = coords_files(folder, slide_id)
    if not found:
        raise SlideError(
            f"there are no coordinates for it in {folder}",
            where=slide_id,
            hint=f"a file is named after the slide's id: {', '.join(name.format(slide_id) for name in NAMES)}",
        )
    if len(found) > 1:
        names = " and ".join(str(path.relative_to(folder)) for path in found)
        raise SlideError(f"has more than one file of coordinates in {folder}: {names}", where=slide_id)
    return found[0]


def refuse_useless_coords(folder: Path, slide_ids: Sequence[str]) -> None:
    """Stop before the first slide where a folder can't be meant.

    Raises:
        SettingsError: There is no such folder, or it holds no file for any slide.
    """
    if not folder.is_dir():
        raise SettingsError("there is no such folder", where=f"--coords-dir {folder}")
    if not any(coords_files(folder, slide_id) for slide_id in slide_ids):
        below = sorted({path.parent.relative_to(folder) for path in folder.glob("*/*/*_patches.h5")})
        raise SettingsError(
            "holds no coordinates for any slide of the cohort",
            where=f"--coords-dir {folder}",
            hint=f"TRIDENT's lie one folder deeper: {folder / below[0]}"
            if below
            else f"a file is named after the slide's id: {', '.join(name.format('SLIDE') for name in NAMES)}",
        )


def coords_fingerprint(path: Path) -> str:
    """Layout and content of a coordinate file."""
    files = [path, path.with_name(path.name.removesuffix(META) + ".coordinates.npz")]
    content = [file_sha256(file) for file in files[: 1 + path.name.endswith(META)] if file.is_file()]
    return f"{read_layout(path).layout} {fingerprint(content)}"


def lay_foreign(
    path: Path, slide: Slide, mpp: Mpp, mask: TissueMask, settings: TileSettings, rois: Rois | None = None
) -> ForeignGrid:
    """The tiles of a coordinate file, in its order.

    Where tiles lie and how much of the slide each covers is the file's decision; how many pixels that becomes is
    `settings.tile_px`, and how many tiles at most `settings.max_tiles`. Shares of tissue are measured, not asked for;
    without any tissue they are 1.

    Args:
        mpp: Resolution of level 0, um/px.

    Raises:
        StoreError: The file can't be read.
        SlideError: It belongs to another slide, or the tiles would have to be enlarged.
    """
    tiles = read_layout(path)
    # STAMP takes one um/px for both axes, the horizontal one
    scale = 1 / mpp.x if tiles.in_um else 1.0
    side0 = (tiles.side[0] * scale, tiles.side[1] * scale)
    if not (np.isfinite(side0).all() and min(side0) >= 1):
        raise StoreError(f"says a tile is {tiles.side[0]:g} x {tiles.side[1]:g} large", where=str(path))
    xy0 = _whole(path, tiles.xy * scale, exact=not tiles.in_um)
    _refuse_other_slide(path, slide, tiles, xy0, side0)
    plan = plan_given(slide, mpp, settings, side0, tiles.overlap)
    rows = np.arange(len(xy0)) if rois is None else np.flatnonzero(rois.keep(xy0, plan.side0))
    if settings.max_tiles is not None and len(rows):
        rows = rows[spread_evenly(xy0[rows], settings.max_tiles)]
    regions = tiles.regions if len(rows) == len(xy0) else None  # a region with a gap is none
    reason = None
    if not len(rows):
        reason = f"its {tiles.layout} coordinates list no tile" + (" where tiles were asked for" if len(xy0) else "")
    xy0 = xy0[rows]
    tissue = mask.fraction(xy0, plan.side0) if mask.mask.any() else np.ones(len(xy0), np.float32)
    return ForeignGrid(TileGrid(xy0, tissue, plan, reason, regions), tiles.layout)


def _whole(path: Path, xy0: npt.NDArray[np.float64], exact: bool) -> npt.NDArray[np.int64]:
    whole = np.round(xy0)
    if not np.isfinite(xy0).all() or (exact and not np.array_equal(whole, xy0)):
        raise StoreError("has places that aren't whole level-0 px", where=str(path))
    return whole.astype(np.int64)


def _refuse_other_slide(
    path: Path, slide: Slide, tiles: ForeignTiles, xy0: npt.NDArray[np.int64], side0: tuple[float, float]
) -> None:
    for index, (width, height) in tiles.sizes.items():
        if index >= len(slide.levels):
            raise SlideError(f"{path.name} reads level {index}, the slide has {len(slide.levels)}", slide.path.name)
        # some tools that write CLAM's layout give the size of level 0 whatever the level
        if (width, height) not in (slide.levels[index].size_px, slide.size0):
            w, h = slide.levels[index].size_px
            raise SlideError(
                f"{path.name} was made for another slide: level {index} of {width} x {height} px, here {w} x {h}",
                where=slide.path.name,
            )
    outside = ((xy0 >= np.asarray(slide.size0)) | (xy0 + np.asarray(side0) <= 0)).any(axis=1)
    if outside.any():
        x0, y0 = xy0[outside][0].tolist()
        raise SlideError(
            f"{path.name} was made for another slide or another um/px: {int(outside.sum())} tiles lie outside of "
            f"{slide.size0[0]} x {slide.size0[1]} px, the first at ({x0}, {y0})",
            where=slide.path.name,
        )
