"""pathpipe's own files, HDF5 or Zarr, and pieces that the writers of other HDF5 layouts share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from pathpipe.publish import publish
from pathpipe.store.features import FORMAT, UNKNOWN_SIZE, Features, read_features, write_hdf5, write_zarr
from pathpipe.store.layouts.own import ATTRIBUTE, refuse_to_replace, restore, slide_id_of
from pathpipe.store.layouts.record import Places, SlideFeatures, row_problems
from pathpipe.store.zarr import is_zarr, zarr_attributes
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.table import read_regions

NAME = "pathpipe features"


def matches(path: Path) -> bool:
    """Whether the file says so."""
    if is_zarr(path):
        return zarr_attributes(path).get("format") == FORMAT
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        return file.attrs.get("format") == FORMAT


def read(path: Path) -> list[SlideFeatures]:
    """Read it whole."""
    return [from_native(read_features(path), NAME, path.stem)]


def from_native(whole: Features, layout: str, stem: str) -> SlideFeatures:
    """The record of features that pathpipe made, in whichever layout they are kept."""
    if whole.slide is None:
        whole = replace(whole, slide=SlideFacts(stem, UNKNOWN_SIZE, UNKNOWN_SIZE))
    plan, slide = whole.plan, whole.slide
    places = Places(
        xy=whole.xy0.astype(np.float64),
        side=plan.side0,
        tile_px=plan.tile_px,
        overlap=plan.overlap_px / plan.tile_px,
        size0=slide.size0 if slide and slide.size0 != UNKNOWN_SIZE else None,
        mpp=plan.mpp0[0],
    )
    return SlideFeatures(
        layout=layout,
        slide_id=slide_id_of(whole, stem),
        features=whole.features,
        places=places,
        encoder=str(whole.encoder["name"]),
        problems=row_problems(whole.features),
        native=whole,
    )


def restored(file: h5py.File, rows: str, in_um: bool = False) -> Features | None:
    """The features of a file of another layout that pathpipe wrote; None for one that it didn't."""
    if ATTRIBUTE not in file.attrs:
        return None
    return restore(str(file.attrs[ATTRIBUTE]), file[rows][:], file["coords"][:], read_regions(file), in_um)


def losses(whole: Features) -> list[str]:
    """Nothing is lost."""
    return []


def write(folder: Path, whole: Features) -> list[Path]:
    """Write `SLIDE.h5`."""
    path = folder / f"{slide_id_of(whole)}.h5"
    refuse_to_replace(path, whole)
    with publish(path) as partial:
        write_hdf5(partial, whole)
    return [path]


def write_as_zarr(folder: Path, whole: Features) -> list[Path]:
    """Write `SLIDE.zarr`."""
    path = folder / f"{slide_id_of(whole)}.zarr"
    refuse_to_replace(path, whole)
    with publish(path) as partial:
        write_zarr(partial, whole)
    return [path]
