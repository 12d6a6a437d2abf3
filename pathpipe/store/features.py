"""The native feature file: contiguous HDF5 that CLAM and TRIDENT open (docs/formats.md, features)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance
from pathpipe.tiles.attributes import coords_attributes
from pathpipe.tiles.grid import Regions
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.table import TileTable, read_regions, write_regions

FORMAT, VERSION = "pathpipe-features", 1
DTYPES = ("float16", "float32")

# name -> meaning of every root attribute; docs/formats.md shows the same table and a test compares
ROOT_ATTRIBUTES: dict[str, str] = {
    "format": "`pathpipe-features`",
    "version": "1",
    "encoder": "JSON: name, revision, weights_sha256, transform, dim of the encoder",
    "encoder_name": "name of the encoder",
    "dtype": "`float16` or `float32`",
    "mpp_x": "um/px of level 0, x",
    "mpp_y": "um/px of level 0, y",
    "requested_mpp": "um/px that was asked for",
    "effective_mpp": "um/px the tiles really have, (x, y)",
    "tile_size_px": "side of a tile after the resize, px",
    "tile_size_um": "side of a tile, um",
    "slide_fingerprint": "fingerprint of the slide's content",
    "plan": "JSON: the read plan",
    "empty_reason": "why there are no rows, or an empty string",
    "provenance": "JSON: stage, settings, input fingerprints, versions, fingerprint",
}


@dataclass(frozen=True)
class Features:
    """The features of one slide.

    Attributes:
        features: (N, D) float16 or float32, one row a tile.
        xy0: (N, 2) int64 top left corners, level-0 px, the same rows.
        encoder: Identity of the encoder: name, revision, weights_sha256, transform, dim.
        plan: How the tiles were read.
        slide_fingerprint: Of the slide's content.
        empty_reason: Why there are no rows.
        provenance: What made the file.
        regions: What the tiles are parts of, where regions were asked for.
    """

    features: npt.NDArray[np.floating[Any]]
    xy0: npt.NDArray[np.int64]
    encoder: Mapping[str, Any]
    plan: ReadPlan
    slide_fingerprint: str
    empty_reason: str | None
    provenance: Provenance
    regions: Regions | None = None


def write_features(
    path: Path,
    features: npt.NDArray[np.floating[Any]],
    table: TileTable,
    encoder: Mapping[str, Any],
    provenance: Provenance,
) -> None:
    """Write a slide's features; equal input gives equal bytes.

    Args:
        features: (N, D), float16 or float32, in the row order of `table`.

    Raises:
        StoreError: Rows and tiles don't match, or the rows have another shape or type.
    """
    grid, plan = table.grid, table.grid.plan
    if features.ndim != 2 or features.dtype.name not in DTYPES:
        raise StoreError(f"rows must be (N, D) float16 or float32, not {features.shape} {features.dtype}", str(path))
    if len(features) != len(grid.xy0):
        raise StoreError(f"{len(features)} rows of features for {len(grid.xy0)} tiles", where=str(path))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.create_dataset("features", data=features)
        coords = file.create_dataset("coords", data=grid.xy0.astype(np.int64))
        for name, value in coords_attributes(plan, table.slide).items():
            coords.attrs[name] = value
        write_regions(file, grid.regions)
        # TRIDENT's readers look for these three on `features`
        for name, text in (("name", table.slide.slide_id), ("savetodir", "."), ("encoder", str(encoder["name"]))):
            file["features"].attrs[name] = text
        root = {
            "format": FORMAT,
            "version": VERSION,
            "encoder": json.dumps(dict(encoder), sort_keys=True),
            "encoder_name": str(encoder["name"]),
            "dtype": features.dtype.name,
            "mpp_x": plan.mpp0[0],
            "mpp_y": plan.mpp0[1],
            "requested_mpp": plan.mpp_wanted,
            "effective_mpp": np.asarray(plan.mpp_effective),
            "tile_size_px": plan.tile_px,
            "tile_size_um": plan.tile_px * plan.mpp_wanted,
            "slide_fingerprint": provenance.inputs["slide"],
            "plan": json.dumps(plan.to_dict()),
            "empty_reason": grid.empty_reason or "",
            "provenance": provenance.to_json(),
        }
        for name, value in root.items():
            file.attrs[name] = value


def read_features(path: Path) -> Features:
    """Read a whole file.

    Raises:
        StoreError: Not a feature file of pathpipe, of another version, or damaged.
    """
    return _read(path, rows=True)


def read_header(path: Path) -> tuple[Features, int]:
    """Everything but the rows, and how many there are: cheap, for listings and checks.

    Raises:
        StoreError: As `read_features`.
    """
    header = _read(path, rows=False)
    with h5py.File(path, "r", locking=False) as file:
        return header, len(file["coords"])


def _read(path: Path, rows: bool) -> Features:
    try:
        with h5py.File(path, "r", locking=False) as file:
            if (file.attrs["format"], file.attrs["version"]) != (FORMAT, VERSION):
                raise StoreError(
                    f"is {file.attrs['format']} version {file.attrs['version']}, not {FORMAT} {VERSION}",
                    where=str(path),
                )
            shape, coords_shape = file["features"].shape, file["coords"].shape
            if len(shape) != 2 or coords_shape != (shape[0], 2) or file["features"].dtype.name not in DTYPES:
                raise StoreError(f"holds features {shape} for coords {coords_shape}", where=str(path))
            take = slice(None) if rows else slice(0, 0)
            return Features(
                features=file["features"][take],
                xy0=file["coords"][take],
                encoder=json.loads(file.attrs["encoder"]),
                plan=ReadPlan.from_dict(json.loads(file.attrs["plan"])),
                slide_fingerprint=str(file.attrs["slide_fingerprint"]),
                empty_reason=str(file.attrs["empty_reason"]) or None,
                provenance=Provenance.from_dict(json.loads(file.attrs["provenance"])),
                regions=read_regions(file),
            )
    except FileNotFoundError:
        raise StoreError("there is no such feature file", where=str(path), hint="run `pathpipe extract`") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"isn't a feature file of pathpipe, or is damaged ({error})",
            where=str(path),
            hint="delete it and run `pathpipe extract` again",
        ) from None


def refuse_non_finite(features: npt.NDArray[np.floating[Any]], xy0: npt.NDArray[np.int64]) -> None:
    """Stop at NaN or infinity.

    Args:
        features: (n, D) of the tiles at `xy0`, (n, 2), in the type they will be stored in.

    Raises:
        StoreError: Names the first tile's level-0 coordinates.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        x0, y0 = xy0[bad[0]].tolist()
        raise StoreError(
            f"the encoder gave NaN or infinity for {len(bad)} tiles, the first at level-0 ({x0}, {y0})",
            hint="try `--dtype float32` and `--precision fp32`; if it stays, the weights or the tile are broken",
        )
