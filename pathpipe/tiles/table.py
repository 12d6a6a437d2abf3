"""The tile table on disk: HDF5 that CLAM and TRIDENT open (docs/formats.md, tiles)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pathpipe.errors import StoreError
from pathpipe.hdf5 import new_hdf5
from pathpipe.provenance import Provenance
from pathpipe.tiles.attributes import SlideFacts, coords_attributes
from pathpipe.tiles.grid import Regions, TileGrid
from pathpipe.tiles.plan import ReadPlan

FORMAT, VERSION = "pathpipe-tiles", 1


@dataclass(frozen=True)
class TileTable:
    """A grid and the slide it lies on."""

    grid: TileGrid
    slide: SlideFacts


def write_tiles(path: Path, table: TileTable, provenance: Provenance) -> None:
    """Write a tile table; equal tables give equal bytes."""
    grid = table.grid
    with new_hdf5(path) as file:
        coords = file.create_dataset("coords", data=grid.xy0.astype(np.int64))
        for name, value in coords_attributes(grid.plan, table.slide).items():
            coords.attrs[name] = value
        file.create_dataset("tissue", data=grid.tissue.astype(np.float32))
        write_regions(file, grid.regions)
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["plan"] = json.dumps(grid.plan.to_dict())
        file.attrs["empty_reason"] = grid.empty_reason or ""
        file.attrs["provenance"] = provenance.to_json()


def read_tiles(path: Path) -> TileTable:
    """Read a tile table.

    Raises:
        StoreError: Not a tile table of pathpipe, or damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            if (file.attrs["format"], file.attrs["version"]) != (FORMAT, VERSION):
                raise StoreError(f"is {file.attrs['format']} version {file.attrs['version']}", where=str(path))
            xy0, tissue = file["coords"][:], file["tissue"][:]
            attributes = file["coords"].attrs
            slide = SlideFacts(
                str(attributes["name"]),
                (int(attributes["level0_width"]), int(attributes["level0_height"])),
                (int(attributes["downsampled_level_dim"][0]), int(attributes["downsampled_level_dim"][1])),
            )
            plan = ReadPlan.from_dict(json.loads(file.attrs["plan"]))
            reason = str(file.attrs["empty_reason"]) or None
            regions = read_regions(file)
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise StoreError(
            f"isn't a tile table of pathpipe, or is damaged ({error})",
            where=str(path),
            hint="delete it and run `pathpipe tile` again",
        ) from None
    if xy0.ndim != 2 or xy0.shape[1] != 2 or len(xy0) != len(tissue):
        raise StoreError(f"has {xy0.shape} coords and {tissue.shape} tissue shares", where=str(path))
    return TileTable(TileGrid(xy0, tissue, plan, reason, regions), slide)


def write_regions(file: h5py.File, regions: Regions | None) -> None:
    """Add the datasets `region` and `regions` to a file of tiles or features; nothing where there are no regions."""
    if regions is None:
        return
    file.create_dataset("region", data=regions.index.astype(np.int32))
    corners = file.create_dataset("regions", data=regions.xy0.astype(np.int64))
    corners.attrs["tiles_per_side"] = regions.side


def read_regions(file: h5py.File) -> Regions | None:
    """Inverse of `write_regions`.

    Raises:
        StoreError: Tiles and regions don't fit each other.
    """
    if "regions" not in file:
        return None
    regions = Regions(file["region"][:], file["regions"][:], int(file["regions"].attrs["tiles_per_side"]))
    if len(regions.index) != file["coords"].shape[0] or len(regions.index) != len(regions.xy0) * regions.side**2:
        raise StoreError(
            f"has {len(regions.xy0)} regions of {regions.side} x {regions.side} tiles for {len(regions.index)} tiles",
            where=getattr(file, "filename", None),  # None: a Zarr group, whose reader knows
        )
    return regions
