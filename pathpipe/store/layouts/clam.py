"""CLAM: `h5_files/SLIDE.h5` (features, coords, no attributes), `pt_files/SLIDE.pt`, `patches/SLIDE.h5` (coords)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.hdf5 import OLD, new_hdf5
from pathpipe.publish import publish
from pathpipe.store.features import UNKNOWN_SIZE, Features
from pathpipe.store.layouts.coords import bare_places, places_at
from pathpipe.store.layouts.native import from_native, restored
from pathpipe.store.layouts.own import (
    ATTRIBUTE,
    own_json,
    refuse_other_tiles,
    refuse_to_replace,
    slide_id_of,
    tile_is_square,
)
from pathpipe.store.layouts.plain import read_array
from pathpipe.store.layouts.record import SlideFeatures, find_beside, place_problems, plain_facts, row_problems
from pathpipe.tiles.table import write_regions

NAME = "CLAM features"
_ROWS = 32  # rows a chunk, as CLAM writes them


def matches(path: Path) -> bool:
    """Features and coords without TRIDENT's attributes, or a .pt in a folder `pt_files`."""
    if path.suffix == ".pt":
        return path.parent.name == "pt_files"
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        rows = file.get("features")
        return isinstance(rows, h5py.Dataset) and "coords" in file and "patch_size_level0" not in file["coords"].attrs


def read(path: Path) -> list[SlideFeatures]:
    """Read the h5, or the pt with the places of the h5 that CLAM writes with it.

    Raises:
        StoreError: Damaged; pt and h5 hold other rows.
    """
    if path.suffix == ".pt":
        return [_read_pt(path)]
    with h5py.File(path, "r", locking=False) as file:
        whole = restored(file, "features")
        if whole is not None:
            return [from_native(whole, NAME, path.stem)]
        features, own = file["features"][:], plain_facts(file["coords"].attrs)
        places = bare_places(file)
    tiles = find_beside(path, f"../patches/{path.stem}.h5", f"../../patches/{path.stem}.h5")
    if own.get("patch_size") is not None:
        places = places_at(path)
    elif tiles is not None:
        given = places_at(tiles)
        if np.array_equal(given.xy, places.xy):
            places = given
    notes = () if places.side else ("doesn't say how large a tile is",)
    problems = (*row_problems(features), *place_problems(places), *notes)
    return [SlideFeatures(NAME, path.stem, features, places, stated=own, problems=problems)]


def _read_pt(path: Path) -> SlideFeatures:
    features = read_array(path)
    beside = find_beside(path, f"../h5_files/{path.stem}.h5")
    if beside is None:
        problems = (*row_problems(features), "has no coordinates, and there is no h5_files beside it")
        return SlideFeatures(NAME, path.stem, features, problems=problems)
    record = read(beside)[0]
    if record.features.shape != features.shape or not np.array_equal(record.features, features, equal_nan=True):
        raise StoreError(
            f"holds other rows than {beside.parent.name}/{beside.name}",
            where=str(path),
            hint="one of the two is of another run; delete the wrong one or make both again",
        )
    return replace(record, stated={**record.stated, "coordinates": f"{beside.parent.name}/{beside.name}"})


def losses(whole: Features) -> list[str]:
    """What the layout can't say."""
    plan = whole.plan
    if tile_is_square(whole):
        return []
    return [f"tiles of {plan.side0[0]:g} x {plan.side0[1]:g} level-0 px: CLAM knows squares only"]


def write(folder: Path, whole: Features) -> list[Path]:
    """Write the features as h5 and pt, float32 as CLAM's models take them, and the coordinates with the tile's size."""
    import torch

    slide_id = slide_id_of(whole)
    features = whole.features.astype(np.float32)
    h5, pt = (folder / f"{kind}_files" / f"{slide_id}.{kind}" for kind in ("h5", "pt"))
    patches = folder / "patches" / f"{slide_id}.h5"
    refuse_to_replace(h5, whole)
    write_patches(patches, whole, _tile_attributes(whole, slide_id))
    with publish(h5) as partial, new_hdf5(partial) as file:
        add_growing(file, "features", features)
        add_growing(file, "coords", whole.xy0.astype(np.int32))
        write_regions(file, whole.regions)
        file.attrs[ATTRIBUTE] = own_json(whole)
    saved = io.BytesIO()  # given a path, torch would write the path's name into the file
    torch.save(torch.from_numpy(features), saved)
    with publish(pt) as partial:
        partial.write_bytes(saved.getvalue())
    return [h5, pt, patches]


def write_patches(path: Path, whole: Features, attributes: Mapping[str, object]) -> None:
    """Write the file of coordinates that CLAM and TRIDENT keep beside the features; see `refuse_other_tiles`."""
    refuse_other_tiles(path, whole.xy0, attributes)
    with publish(path) as partial, new_hdf5(partial, OLD) as file:
        add_growing(file, "coords", whole.xy0).attrs.update(attributes)


def add_growing(file: h5py.File, name: str, values: npt.NDArray[np.generic]) -> h5py.Dataset:
    """A dataset that can be appended to, as tools that write batch by batch leave it."""
    shape = values.shape[1:]
    return file.create_dataset(name, data=values, chunks=(_ROWS, *shape), maxshape=(None, *shape))


def _tile_attributes(whole: Features, slide_id: str) -> dict[str, object]:
    """A tile as CLAM reads it: so many px of a level, without any resize."""
    plan, slide = whole.plan, whole.slide
    attributes: dict[str, object] = {
        "patch_size": plan.read_px[0] * plan.shrink,
        "patch_level": plan.level,
        "downsample": np.asarray(plan.downsample),
        "name": slide_id,
        "save_path": ".",
    }
    if slide is not None and slide.size0 != UNKNOWN_SIZE:
        attributes["level_dim"] = attributes["downsampled_level_dim"] = np.asarray(slide.level_size)
    return attributes
