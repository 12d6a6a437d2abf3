"""TRIDENT: `features_ENCODER/SLIDE.h5` with the attributes of the tiles on `coords`, `patches/SLIDE_patches.h5`."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pathpipe.errors import StoreError
from pathpipe.hdf5 import new_hdf5
from pathpipe.publish import publish
from pathpipe.run import safe_name
from pathpipe.store.features import Features, tile_attributes
from pathpipe.store.layouts.clam import add_growing, write_patches
from pathpipe.store.layouts.coords import bare_places, places_at
from pathpipe.store.layouts.native import from_native, restored
from pathpipe.store.layouts.own import ATTRIBUTE, own_json, refuse_to_replace, slide_id_of, tile_is_square
from pathpipe.store.layouts.record import SlideFeatures, place_problems, plain_facts, row_problems
from pathpipe.tiles.table import write_regions

NAME = "TRIDENT features"
_ATTRIBUTES = (
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "overlap",
    "name",
    "savetodir",
    "level0_width",
    "level0_height",
)


def matches(path: Path) -> bool:
    """Features and coords, with TRIDENT's attributes on `coords`."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        rows = file.get("features")
        return isinstance(rows, h5py.Dataset) and "coords" in file and "patch_size_level0" in file["coords"].attrs


def read(path: Path) -> list[SlideFeatures]:
    """Read it whole; a slide's one embedding, (D,), is no bag and refused.

    Raises:
        StoreError: Damaged.
    """
    with h5py.File(path, "r", locking=False) as file:
        whole = restored(file, "features")
        if whole is not None:
            return [from_native(whole, NAME, path.stem)]
        features = file["features"][:]
        about, stated = dict(file["features"].attrs), plain_facts(file["coords"].attrs)
        bare = bare_places(file)
    if features.ndim == 1 and features.size:
        raise StoreError(f"is one embedding of a slide, {features.shape[0]} numbers, not a bag", where=str(path))
    encoder = str(about["encoder"]) if about.get("encoder") not in (None, "None") else _from_folder(path)
    doubts: tuple[str, ...] = ()
    try:
        places = places_at(path)
    except StoreError as error:
        places, doubts = bare, (error.what,)
    return [
        SlideFeatures(
            layout=NAME,
            slide_id=str(stated.get("name") or about.get("name") or path.stem),
            features=features,
            places=places,
            encoder=encoder,
            stated=stated,
            problems=(*row_problems(features), *place_problems(places), *doubts),
        )
    ]


def _from_folder(path: Path) -> str | None:
    folder = path.parent.name
    return folder.removeprefix("features_") if folder.startswith("features_") else None


def losses(whole: Features) -> list[str]:
    """What the layout can't say."""
    side0 = whole.plan.side0
    if tile_is_square(whole):
        return []
    return [f"tiles of {side0[0]:g} x {side0[1]:g} level-0 px: TRIDENT knows squares only"]


def write(folder: Path, whole: Features) -> list[Path]:
    """Write features, float32 as TRIDENT's models take them, and coordinates under the folder TRIDENT would make."""
    slide_id, encoder = slide_id_of(whole), str(whole.encoder["name"])
    attributes = {name: value for name, value in tile_attributes(whole).items() if name in _ATTRIBUTES}
    attributes["name"] = slide_id
    job = folder / f"{attributes['target_magnification']}x_{whole.plan.tile_px}px_{whole.plan.overlap_px}px_overlap"
    features = job / f"features_{safe_name(encoder)}" / f"{slide_id}.h5"
    patches = job / "patches" / f"{slide_id}_patches.h5"
    refuse_to_replace(features, whole)
    write_patches(patches, whole, attributes)
    with publish(features) as partial, new_hdf5(partial) as file:
        rows = add_growing(file, "features", whole.features.astype(np.float32))
        rows.attrs.update({"name": slide_id, "savetodir": ".", "encoder": encoder})
        add_growing(file, "coords", whole.xy0).attrs.update(attributes)
        write_regions(file, whole.regions)
        file.attrs[ATTRIBUTE] = own_json(whole)
    return [features, patches]
