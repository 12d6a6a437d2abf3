"""Coordinate files of other tools: what each layout says of the tiles of a slide. A file is known by its content."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.tiles.grid import Regions
from pathpipe.tiles.table import FORMAT, read_tiles

META = ".coordinates.meta.json"
_AGREE = 0.01  # two statements of one size may differ by the rounding of whole pixels and magnifications


@dataclass(frozen=True)
class ForeignTiles:
    """Tiles as a file of another tool says they lie.

    Attributes:
        layout: Name of the layout.
        xy: (N, 2) float64 top left corners, level-0 px (um from the slide's corner with `in_um`), in the file's order.
        side: (width, height) of every tile, likewise.
        overlap: Share of a tile that its neighbour covers too.
        sizes: Level -> (w, h) px the file states for it.
        in_um: Places and sizes are in um.
        regions: What the tiles are parts of; only files of pathpipe say so.
    """

    layout: str
    xy: npt.NDArray[np.float64]
    side: tuple[float, float]
    overlap: float = 0.0
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    in_um: bool = False
    regions: Regions | None = None


def read_layout(path: Path) -> ForeignTiles:
    """Read a coordinate file.

    Args:
        path: HDF5 of CLAM, TRIDENT, STAMP or pathpipe, or the `.coordinates.meta.json` of hs2p, beside its `.npz`.

    Raises:
        StoreError: Of no known layout, doesn't say how large a tile is, says it twice and differently, or is damaged.
    """
    try:
        return _read_hs2p(path) if path.name.endswith(META) else _read_h5(path)
    except (OSError, KeyError, TypeError, ValueError, IndexError, RuntimeError, zipfile.BadZipFile) as error:
        raise StoreError(f"can't be read as tile coordinates ({error})", where=str(path)) from None


def _read_h5(path: Path) -> ForeignTiles:
    with h5py.File(path, "r", locking=False) as file:
        root = dict(file.attrs)
        if root.get("format") != FORMAT:
            if "coords" not in file:
                raise StoreError(f"holds no `coords` (datasets: {', '.join(file) or 'none'})", where=str(path))
            xy, attributes = np.asarray(file["coords"][:]), dict(file["coords"].attrs)
            return _of_coords(path, xy, attributes, root, stamp="feats" in file)
    table = read_tiles(path)
    grid, plan = table.grid, table.grid.plan
    xy, sizes = grid.xy0.astype(np.float64), {0: table.slide.size0}
    return ForeignTiles("pathpipe", xy, plan.side0, plan.overlap_px / plan.tile_px, sizes, regions=grid.regions)


def _of_coords(
    path: Path, xy: npt.NDArray[Any], attributes: dict[str, Any], root: dict[str, Any], stamp: bool
) -> ForeignTiles:
    if xy.ndim != 2 or xy.shape[1] != 2:
        if xy.size:
            raise StoreError(f"holds coords of shape {xy.shape}, not (N, 2)", where=str(path))
        xy = xy.reshape(0, 2)
    if stamp or "tile_size_um" in root or root.get("unit") == "um":
        return _stamp(path, xy, root)
    found = [tiles for tiles in (_trident(xy, attributes), _clam(path, xy, attributes)) if tiles is not None]
    if not found:
        raise StoreError(
            "its coords don't say how large a tile is",
            where=str(path),
            hint="give the folder of coordinate files (CLAM and TRIDENT call it `patches`), not of features",
        )
    if len(found) == 2 and not np.allclose(found[0].side, found[1].side, rtol=_AGREE):
        sizes = [f"{tiles.side[0]:g} level-0 px as {tiles.layout} reads it" for tiles in found]
        raise StoreError(f"says two sizes of a tile: {sizes[0]}, {sizes[1]}", where=str(path))
    return found[0]


def _trident(xy: npt.NDArray[Any], attributes: dict[str, Any]) -> ForeignTiles | None:
    """Sizes in px of a nominal magnification, and the side in level-0 px that TRIDENT made of them."""
    side = number(attributes, "patch_size_level0")
    patch_px = number(attributes, "patch_size")
    power0, power = number(attributes, "level0_magnification"), number(attributes, "target_magnification")
    if side is None:
        if patch_px is None or power0 is None or power is None:
            return None
        side = float(int(patch_px) * int(power0) // int(power))
    sizes = {}
    width, height = number(attributes, "level0_width"), number(attributes, "level0_height")
    if width is not None and height is not None:
        sizes[0] = (int(width), int(height))
    overlap = (number(attributes, "overlap") or 0.0) / patch_px if patch_px else 0.0
    return ForeignTiles("TRIDENT", xy.astype(np.float64), (side, side), overlap, sizes)


def _clam(path: Path, xy: npt.NDArray[Any], attributes: dict[str, Any]) -> ForeignTiles | None:
    """`patch_size` px of `patch_level`."""
    patch_px, level = number(attributes, "patch_size"), number(attributes, "patch_level")
    if patch_px is None or level is None:
        return None
    if "downsample" not in attributes and level:
        raise StoreError(f"names level {level:g} but not its downsample", where=str(path))
    downsample = np.broadcast_to(np.asarray(attributes.get("downsample", 1.0), np.float64), 2)
    sizes = {}
    if "level_dim" in attributes:  # CLAM means the size of `patch_level`, not of level 0
        width, height = np.asarray(attributes["level_dim"]).tolist()
        sizes[int(level)] = (int(width), int(height))
    side = (float(patch_px * downsample[0]), float(patch_px * downsample[1]))
    return ForeignTiles("CLAM", xy.astype(np.float64), side, sizes=sizes)


def _stamp(path: Path, xy: npt.NDArray[Any], root: dict[str, Any]) -> ForeignTiles:
    """um from the slide's corner; the side is `tile_size_um`, or `tile_size` up to version 2.0."""
    side = number(root, "tile_size_um")
    if side is None and root.get("unit") == "um":
        side = number(root, "tile_size")
    if side is None:
        raise StoreError(
            "doesn't say the size of a tile in um",
            where=str(path),
            hint="files of STAMP before 2.0 don't; make the tiles with `pathpipe tile --tile-um`",
        )
    return ForeignTiles("STAMP", xy.astype(np.float64), (side, side), in_um=True)


def _read_hs2p(path: Path) -> ForeignTiles:
    meta = json.loads(path.read_text(encoding="utf-8"))
    tiling, slide = meta["tiling"], meta["slide"]
    space = meta["artifact"]["coordinate_space"]
    if space != "level0_px":
        raise StoreError(f"gives places in `{space}`, not in level-0 px", where=str(path))
    side = float(tiling["tile_size_lv0"])
    xy = np.empty((0, 2))
    if tiling["n_tiles"]:
        with np.load(path.with_name(path.name.removesuffix(META) + ".coordinates.npz"), allow_pickle=False) as arrays:
            xy = np.stack([arrays["x"], arrays["y"]], axis=1).astype(np.float64)
    if len(xy) != tiling["n_tiles"]:
        raise StoreError(f"says {tiling['n_tiles']} tiles, the arrays hold {len(xy)}", where=str(path))
    size = slide["dimensions"]
    sizes = {0: (int(size[0]), int(size[1]))} if size else {}
    overlap = float(tiling.get("overlap") or 0.0)
    return ForeignTiles("hs2p", xy, (side, side), overlap, sizes)


def number(attributes: Mapping[str, Any], name: str) -> float | None:
    """A number, or None where it is absent; several tools write None as the word."""
    value = attributes.get(name)
    if value is None or (isinstance(value, str | bytes) and value in ("None", b"None", "")):
        return None
    return float(np.asarray(value).item())
