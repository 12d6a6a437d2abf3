"""The native feature file: contiguous HDF5 that CLAM and TRIDENT open, or the same as Zarr (docs/formats.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.hdf5 import new_hdf5
from pathpipe.provenance import Provenance
from pathpipe.store.rows import RowFile
from pathpipe.store.zarr import is_zarr, open_zarr, write_zarr_group
from pathpipe.tiles.attributes import SlideFacts, coords_attributes
from pathpipe.tiles.grid import Regions
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.table import TileTable, read_regions, write_regions

FORMAT, VERSION = "pathpipe-features", 1
DTYPES = ("float16", "float32")
ZARR_SUFFIX = ".zarr"
UNKNOWN_SIZE = (0, 0)
# what h5py, zarr and the parsing of attributes raise over content that isn't what it should be
_DAMAGE = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)

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
    "slide": "JSON: id of the slide, (w, h) of level 0 and of the level that is read, px",
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
        slide: Id and sizes of the slide, where the file says them.
    """

    features: npt.NDArray[np.floating[Any]]
    xy0: npt.NDArray[np.int64]
    encoder: Mapping[str, Any]
    plan: ReadPlan
    slide_fingerprint: str
    empty_reason: str | None
    provenance: Provenance
    regions: Regions | None = None
    slide: SlideFacts | None = None


def write_features(
    path: Path,
    features: npt.NDArray[np.floating[Any]] | RowFile,
    table: TileTable,
    encoder: Mapping[str, Any],
    provenance: Provenance,
) -> None:
    """Write a slide's features, as Zarr where the path ends so, else as HDF5; equal input gives equal bytes.

    Args:
        features: (N, D), float16 or float32, in the row order of `table`; or a row file that holds them, which is
            copied block by block.

    Raises:
        StoreError: Rows and tiles don't match, or the rows have another shape or type.
    """
    grid = table.grid
    if features.shape[0] != len(grid.xy0):
        raise StoreError(f"{features.shape[0]} rows of features for {len(grid.xy0)} tiles", where=str(path))
    rows = features if isinstance(features, RowFile) else None
    whole = Features(
        features=features if isinstance(features, np.ndarray) else _shape_of(features),
        xy0=grid.xy0.astype(np.int64),
        encoder=encoder,
        plan=grid.plan,
        slide_fingerprint=provenance.inputs["slide"],
        empty_reason=grid.empty_reason,
        provenance=provenance,
        regions=grid.regions,
        slide=table.slide,
    )
    if path.suffix != ZARR_SUFFIX:
        write_hdf5(path, whole, rows)
    else:
        whole = whole if rows is None else replace(whole, features=np.concatenate([whole.features[:0], *rows.blocks()]))
        write_zarr(path, whole)


def _shape_of(rows: RowFile) -> npt.NDArray[Any]:
    """An array of the shape and type of rows in a file, which takes no room."""
    return np.broadcast_to(rows.dtype.type(0), rows.shape)


def write_hdf5(path: Path, whole: Features, rows: RowFile | None = None) -> None:
    """Write features as HDF5; equal input gives equal bytes.

    Args:
        rows: Where the rows are, if not in `whole`.

    Raises:
        StoreError: As `write_features`.
    """
    refuse_misshapen(whole, path)
    with new_hdf5(path) as file:
        dataset = file.create_dataset("features", whole.features.shape, whole.features.dtype)
        first = 0
        for block in [whole.features] if rows is None else rows.blocks():
            if len(block):  # HDF5 refuses to write nothing
                dataset[first : first + len(block)] = block
            first += len(block)
        coords = file.create_dataset("coords", data=whole.xy0)
        for name, value in tile_attributes(whole).items():
            coords.attrs[name] = value
        write_regions(file, whole.regions)
        # TRIDENT's readers look for these three on `features`
        slide_id = whole.slide.slide_id if whole.slide else ""
        for name, text in (("name", slide_id), ("savetodir", "."), ("encoder", str(whole.encoder["name"]))):
            file["features"].attrs[name] = text
        for name, value in root_attributes(whole).items():
            file.attrs[name] = value


def write_zarr(path: Path, whole: Features) -> None:
    """Write the same content as Zarr v3; equal input gives equal bytes.

    Raises:
        StoreError: As `write_features`.
    """
    refuse_misshapen(whole, path)
    arrays: dict[str, tuple[npt.NDArray[Any], Mapping[str, Any]]] = {
        "features": (whole.features, {}),
        "coords": (whole.xy0, tile_attributes(whole)),
    }
    if whole.regions is not None:
        arrays["region"] = (whole.regions.index.astype(np.int32), {})
        arrays["regions"] = (whole.regions.xy0.astype(np.int64), {"tiles_per_side": whole.regions.side})
    write_zarr_group(path, arrays, root_attributes(whole))


def refuse_misshapen(whole: Features, path: Path) -> None:
    """Stop before something is written that could not be read back.

    Raises:
        StoreError: Rows of another shape or type, or rows and tiles that don't match.
    """
    features = whole.features
    if features.ndim != 2 or features.dtype.name not in DTYPES:
        raise StoreError(f"rows must be (N, D) float16 or float32, not {features.shape} {features.dtype}", str(path))
    if whole.xy0.shape != (len(features), 2):
        raise StoreError(f"{len(features)} rows of features for {len(whole.xy0)} tiles", where=str(path))


def tile_attributes(whole: Features) -> dict[str, Any]:
    """Attributes of `coords`; those that need the slide are left out where nobody knows its size."""
    slide = whole.slide or SlideFacts("", UNKNOWN_SIZE, UNKNOWN_SIZE)
    attributes = coords_attributes(whole.plan, slide)
    if slide.size0 == UNKNOWN_SIZE:
        for name in ("level_dim", "downsampled_level_dim", "level0_width", "level0_height"):
            del attributes[name]
    return attributes


def root_attributes(whole: Features) -> dict[str, Any]:
    """Values of `ROOT_ATTRIBUTES`."""
    plan = whole.plan
    return {
        "format": FORMAT,
        "version": VERSION,
        "encoder": json.dumps(dict(whole.encoder), sort_keys=True),
        "encoder_name": str(whole.encoder["name"]),
        "dtype": whole.features.dtype.name,
        "mpp_x": plan.mpp0[0],
        "mpp_y": plan.mpp0[1],
        "requested_mpp": plan.mpp_wanted,
        "effective_mpp": np.asarray(plan.mpp_effective),
        "tile_size_px": plan.tile_px,
        "tile_size_um": plan.tile_px * plan.mpp_wanted,
        "slide": json.dumps(astuple(whole.slide)) if whole.slide else "",
        "slide_fingerprint": whole.slide_fingerprint,
        "plan": json.dumps(plan.to_dict()),
        "empty_reason": whole.empty_reason or "",
        "provenance": whole.provenance.to_json(),
    }


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
    with _open(path) as file:
        return header, int(file["coords"].shape[0])


def read_rows(path: Path, rows: slice | npt.NDArray[np.intp]) -> Features:
    """Some of the rows, with their places.

    Args:
        rows: A slice, or indices in any order.

    Raises:
        StoreError: As `read_features`.
    """
    header, total = read_header(path)
    order = np.arange(total)[rows]
    back = np.argsort(np.argsort(order))  # HDF5 takes indices in rising order only
    with _open(path) as file:
        wanted = np.sort(order)
        features, xy0 = (_take(file[name], wanted)[back] for name in ("features", "coords"))
    return replace(header, features=features, xy0=xy0)


def _take(dataset: Any, rising: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    return np.asarray(dataset[rising] if isinstance(dataset, h5py.Dataset) else dataset.oindex[rising])


def _open(path: Path) -> Any:
    return open_zarr(path) if is_zarr(path) else h5py.File(path, "r", locking=False)


def _read(path: Path, rows: bool) -> Features:
    try:
        with _open(path) as file:
            about, features, coords = file.attrs, file["features"], file["coords"]  # each look-up costs 60 us
            if (about["format"], about["version"]) != (FORMAT, VERSION):
                raise StoreError(
                    f"is {about['format']} version {about['version']}, not {FORMAT} {VERSION}", where=str(path)
                )
            shape = features.shape
            if len(shape) != 2 or coords.shape != (shape[0], 2) or features.dtype.name not in DTYPES:
                raise StoreError(f"holds features {shape} for coords {coords.shape}", where=str(path))
            return Features(
                features=_whole(features) if rows else features[:0],
                xy0=_whole(coords) if rows else coords[:0],
                encoder=json.loads(about["encoder"]),
                plan=ReadPlan.from_dict(json.loads(about["plan"])),
                slide_fingerprint=str(about["slide_fingerprint"]),
                empty_reason=str(about["empty_reason"]) or None,
                provenance=Provenance.from_dict(json.loads(about["provenance"])),
                regions=read_regions(file),
                slide=_slide(about.get("slide")),
            )
    except FileNotFoundError:
        raise StoreError("there is no such feature file", where=str(path), hint="run `pathpipe extract`") from None
    except _DAMAGE as error:
        raise StoreError(
            f"isn't a feature file of pathpipe, or is damaged ({error})",
            where=str(path),
            hint="delete it and run `pathpipe extract` again",
        ) from None


def _whole(dataset: Any) -> npt.NDArray[Any]:
    """All of it. `read_direct` skips the zeroing and the copy that indexing costs."""
    if not isinstance(dataset, h5py.Dataset) or dataset.size == 0:
        return np.asarray(dataset[:])
    out = np.empty(dataset.shape, dataset.dtype)
    dataset.read_direct(out)
    return out


def _slide(text: str | None) -> SlideFacts | None:
    if not text:
        return None
    slide_id, size0, level_size = json.loads(text)
    return SlideFacts(slide_id, tuple(size0), tuple(level_size))
