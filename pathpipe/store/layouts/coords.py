"""Places for features from a file of coordinates: the file's own attributes, or another file given for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from pathpipe.errors import StoreError
from pathpipe.store.layouts.record import DAMAGE, Places, SlideFeatures
from pathpipe.tiles.foreign import FOLDERS, NAMES, coords_files
from pathpipe.tiles.layouts import number, read_layout

_FOLDERS = (*FOLDERS, "coords", "h5_files")
_NAMES = (*NAMES, "{}.npy", "{}.npz")


def places_at(path: Path) -> Places:
    """Places of a coordinate file of CLAM, TRIDENT, STAMP, hs2p or pathpipe, or of a bare (N, 2) array of level-0 px.

    Raises:
        StoreError: Of no such layout, or it doesn't say how large a tile is.
    """
    if path.suffix in (".npy", ".npz"):
        return Places(_bare(path))
    tiles = read_layout(path)
    tile_px = None
    if path.suffix == ".h5":
        with h5py.File(path, "r", locking=False) as file:
            px = number(file["coords"].attrs, "patch_size") or number(file.attrs, "tile_size_px")
            tile_px = int(px) if px else None
    return Places(tiles.xy, tiles.side, tiles.in_um, tile_px, tiles.overlap, tiles.sizes.get(0))


def bare_places(file: h5py.File) -> Places:
    """Places of `coords` that don't say how large a tile is, as in CLAM's feature files."""
    xy = np.asarray(file["coords"][:], np.float64)
    return Places(xy.reshape(-1, 2) if not xy.size else xy)


def add_places(record: SlideFeatures, source: Path) -> SlideFeatures:
    """Features with the places of a coordinate file, or of the file of that slide in a folder.

    Where the features have places of their own, both must be the same; what they lack (the size of a tile) is added.

    Raises:
        StoreError: There is no file for the slide, or its rows aren't those of the features.
    """
    path = _find(source, record.slide_id) if source.is_dir() else source
    given, own = places_at(path), record.places
    if len(given.xy) != len(record.features):
        raise StoreError(
            f"lists {len(given.xy)} places for the {len(record.features)} rows of features of {record.slide_id}",
            where=str(path),
            hint="they come from different runs; give the coordinates these features were made from",
        )
    if own is not None and own.in_um == given.in_um and not np.array_equal(own.xy, given.xy):
        first = int(np.flatnonzero((own.xy != given.xy).any(axis=1))[0])
        raise StoreError(
            f"row {first} lies at {given.xy[first].tolist()}, in the features of {record.slide_id} at "
            f"{own.xy[first].tolist()}",
            where=str(path),
            hint="rows are in another order or come from another run",
        )
    stated = {**record.stated, "coordinates": path.name}
    if own is None:
        stated["order"] = "taken to be that of the coordinates: the features say nothing of it"
    return replace(record, places=given, stated=stated)


def _find(folder: Path, slide_id: str) -> Path:
    found = coords_files(folder, slide_id, _FOLDERS, _NAMES)
    if len(found) != 1:
        names = " and ".join(str(path.relative_to(folder)) for path in found)
        raise StoreError(
            f"has more than one file of coordinates in {folder}: {names}"
            if found
            else f"has no coordinates in {folder}",
            where=slide_id,
            hint="give the file itself" if found else f"looked for {', '.join(one.format(slide_id) for one in _NAMES)}",
        )
    return found[0]


def _bare(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            with loaded:
                xy = np.stack([loaded["x"], loaded["y"]], axis=1) if "x" in loaded else loaded["coords"]
        else:
            xy = loaded
        return np.asarray(xy, np.float64).reshape(-1, 2)
    except DAMAGE as error:
        raise StoreError(f"can't be read as coordinates ({error})", where=str(path)) from None
