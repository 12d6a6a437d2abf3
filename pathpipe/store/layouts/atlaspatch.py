"""AtlasPatch: one HDF5 a slide, `coords` (x, y, w, h, level) and a dataset an encoder in the group `features`."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pathpipe.errors import StoreError
from pathpipe.store.layouts.record import (
    Places,
    SlideFeatures,
    place_problems,
    plain_facts,
    row_problems,
)
from pathpipe.tiles.layouts import number

NAME = "AtlasPatch features"


def matches(path: Path) -> bool:
    """A group `features` beside `coords`."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        return isinstance(file.get("features"), h5py.Group) and "coords" in file


def read(path: Path) -> list[SlideFeatures]:
    """One record an encoder.

    Raises:
        StoreError: Damaged, or there are no features.
    """
    with h5py.File(path, "r", locking=False) as file:
        names = [name for name in file["features"] if not name.startswith("__tmp")]
        rows = {name: file["features"][name][:] for name in names}
        coords = np.asarray(file["coords"][:], np.float64)
        attributes = {**dict(file["coords"].attrs), **dict(file.attrs)}
        left_out = [f"{len(file['slide_features'])} embeddings of the slide"] if "slide_features" in file else []
    if not rows:
        raise StoreError("has coordinates but no features", where=str(path))
    places = _places(coords, attributes, path)
    stated = plain_facts({name: value for name, value in attributes.items() if name != "creation_date"})
    return [
        SlideFeatures(
            layout=NAME,
            slide_id=path.stem,
            features=rows[name],
            places=places,
            encoder=name,
            stated=stated,
            problems=(*row_problems(rows[name]), *place_problems(places), *_side_problem(places)),
            left_out=tuple(left_out),
        )
        for name in sorted(rows)
    ]


def _places(coords: np.ndarray, attributes: dict[str, object], path: Path) -> Places:
    if coords.ndim != 2 or coords.shape[1] < 2:
        raise StoreError(f"holds coords of shape {coords.shape}, not (N, 5)", where=str(path))
    side, px = number(attributes, "patch_size_level0"), number(attributes, "patch_size")
    width, height = number(attributes, "level0_width"), number(attributes, "level0_height")
    return Places(
        xy=coords[:, :2],
        side=(side, side) if side else None,
        tile_px=int(px) if px else None,
        overlap=(number(attributes, "overlap") or 0.0) / px if px else 0.0,
        size0=(int(width), int(height)) if width and height else None,
        mpp=number(attributes, "mpp"),
    )


def _side_problem(places: Places) -> tuple[str, ...]:
    return () if places.side else ("doesn't say how large a tile is",)
