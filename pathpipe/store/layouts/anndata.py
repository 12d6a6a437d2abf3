"""AnnData: a bag as `.h5ad`, rows in `X`, level-0 px in `obsm/spatial`; written and read without the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.hdf5 import new_hdf5
from pathpipe.publish import publish
from pathpipe.store.features import Features
from pathpipe.store.layouts.native import from_native
from pathpipe.store.layouts.own import ATTRIBUTE, own_json, refuse_to_replace, restore, slide_id_of
from pathpipe.store.layouts.record import Places, SlideFeatures, place_problems, row_problems
from pathpipe.tiles.grid import Regions

NAME = "AnnData features"
_ENCODING, _VERSION = "encoding-type", "encoding-version"


def matches(path: Path) -> bool:
    """HDF5 that calls itself AnnData."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        return str(file.attrs.get(_ENCODING, "")) == "anndata"


def read(path: Path) -> list[SlideFeatures]:
    """Read it whole.

    Raises:
        StoreError: `X` isn't a dense array.
    """
    with h5py.File(path, "r", locking=False) as file:
        if not isinstance(file.get("X"), h5py.Dataset):
            raise StoreError("its X is sparse or missing, not rows of features", where=str(path))
        features = file["X"][:]
        xy = file["obsm/spatial"][:] if "obsm/spatial" in file else None
        own = file[f"uns/{ATTRIBUTE}"][()].decode() if f"uns/{ATTRIBUTE}" in file else None
        regions = _regions(file)
    if own is not None and xy is not None:
        return [from_native(restore(own, features, xy, regions), NAME, path.stem)]
    places = None if xy is None else Places(np.asarray(xy, np.float64))
    doubts = ("has no coordinates in obsm/spatial",) if places is None else ("doesn't say how large a tile is",)
    problems = (*row_problems(features), *(place_problems(places) if places else ()), *doubts)
    return [SlideFeatures(NAME, path.stem, features, places, problems=problems)]


def _regions(file: h5py.File) -> Regions | None:
    if "obs/region" not in file:
        return None
    corners = file["uns/regions/xy0"][:]
    return Regions(file["obs/region"][:], corners, int(file["uns/regions/tiles_per_side"][()]))


def losses(whole: Features) -> list[str]:
    """Nothing is lost: what AnnData has no place for is in `uns`."""
    return []


def write(folder: Path, whole: Features) -> list[Path]:
    """Write `SLIDE.h5ad`: a row a tile, a column a feature.

    Reference: the on-disk format of AnnData 0.8 and later (encodings anndata 0.1.0, array 0.2.0, dataframe 0.2.0).
    """
    path = folder / f"{slide_id_of(whole)}.h5ad"
    names = [f"{slide_id_of(whole)}-{row}" for row in range(len(whole.features))]
    columns: dict[str, npt.NDArray[Any]] = {"x0": whole.xy0[:, 0], "y0": whole.xy0[:, 1]}
    if whole.regions is not None:
        columns["region"] = whole.regions.index
    refuse_to_replace(path, whole)
    with publish(path) as partial, new_hdf5(partial) as file:
        _mark(file, "anndata", "0.1.0")
        _array(file, "X", whole.features)
        _frame(file, "obs", names, columns)
        _frame(file, "var", [f"feature-{column}" for column in range(whole.features.shape[1])], {})
        _array(_group(file, "obsm"), "spatial", whole.xy0)
        for name in ("layers", "varm", "obsp", "varp"):
            _group(file, name)
        notes = _group(file, "uns")
        _text(notes, ATTRIBUTE, own_json(whole))
        if whole.regions is not None:
            regions = _group(notes, "regions")
            _array(regions, "xy0", whole.regions.xy0)
            _mark(regions.create_dataset("tiles_per_side", data=whole.regions.side), "numeric-scalar", "0.2.0")
    return [path]


def _mark(item: Any, encoding: str, version: str) -> None:
    item.attrs[_ENCODING] = encoding
    item.attrs[_VERSION] = version


def _group(parent: Any, name: str) -> Any:
    group = parent.create_group(name)
    _mark(group, "dict", "0.1.0")
    return group


def _array(parent: Any, name: str, values: npt.NDArray[Any]) -> None:
    _mark(parent.create_dataset(name, data=values), "array", "0.2.0")


def _text(parent: Any, name: str, text: str) -> None:
    _mark(parent.create_dataset(name, data=text, dtype=h5py.string_dtype()), "string", "0.2.0")


def _frame(parent: Any, name: str, index: list[str], columns: dict[str, npt.NDArray[Any]]) -> None:
    """A table: one array a column, the names of its rows in `_index`."""
    frame = parent.create_group(name)
    _mark(frame, "dataframe", "0.2.0")
    frame.attrs["_index"] = "_index"
    frame.attrs["column-order"] = np.array(list(columns), dtype=h5py.string_dtype())
    names = frame.create_dataset("_index", data=np.array(index, dtype=object), dtype=h5py.string_dtype())
    _mark(names, "string-array", "0.2.0")
    for column, values in columns.items():
        _array(frame, column, values)
