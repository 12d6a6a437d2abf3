"""slide2vec: `tile_embeddings/ID.pt` or `.npz` with `ID.meta.json`; places are those of hs2p's coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.store.layouts.coords import places_at
from pathpipe.store.layouts.plain import read_array
from pathpipe.store.layouts.record import (
    Places,
    SlideFeatures,
    find_beside,
    place_problems,
    plain_facts,
    read_json,
    row_problems,
)
from pathpipe.tiles.layouts import META, number

NAME = "slide2vec features"
_META = ".meta.json"
_COORDINATES = ".coordinates.npz"


def matches(path: Path) -> bool:
    """An array with slide2vec's description of a bag beside it."""
    if path.suffix not in (".pt", ".npz") or not path.is_file() or path.name.endswith(_COORDINATES):
        return False
    meta = path.with_name(path.stem + _META)
    return meta.is_file() and read_json(meta).get("artifact_type") == "tile_embeddings"


def read(path: Path) -> list[SlideFeatures]:
    """Read the rows, and the places of the coordinates the description names or that lie where slide2vec puts them.

    Raises:
        StoreError: Damaged, or the description is of other rows.
    """
    meta = read_json(path.with_name(path.stem + _META))
    features = read_array(path)
    slide_id = str(meta.get("sample_id") or path.stem)
    _refuse_other_rows(features.shape, meta, path)
    coordinates = _coordinates(path, slide_id, meta)
    problems = row_problems(features)
    places = None
    if coordinates is None:
        problems += (f"its coordinates, {slide_id}{META}, aren't where it says nor beside it",)
    else:
        places = _places(coordinates, features.shape, meta)
        problems += place_problems(places)
    stated = {name: value for name, value in plain_facts(meta).items() if not name.endswith("_path")}
    return [
        SlideFeatures(
            layout=NAME,
            slide_id=slide_id,
            features=features,
            places=places,
            encoder=str(meta["encoder_name"]) if meta.get("encoder_name") else None,
            stated=stated,
            problems=problems,
        )
    ]


def _refuse_other_rows(shape: tuple[int, ...], meta: dict[str, object], path: Path) -> None:
    said = (meta.get("num_tiles"), meta.get("feature_dim"))
    if len(shape) == 2 and said[0] is not None and said != shape and shape[0]:
        raise StoreError(
            f"holds {shape[0]} x {shape[1]} features, its description says {said[0]} x {said[1]}", str(path)
        )


def _coordinates(path: Path, slide_id: str, meta: dict[str, object]) -> Path | None:
    """The description of the coordinates; the file names it as it lay on the machine that made it."""
    said = str(meta.get("coordinates_meta_path") or "")
    name = slide_id + META
    if said and Path(said).is_file():
        return Path(said)
    return find_beside(
        path, name, *(f"{up}/{folder}/{name}" for up in ("..", "../..") for folder in ("tiles", "coordinates"))
    )


def _places(coordinates: Path, shape: tuple[int, ...], meta: dict[str, object]) -> Places:
    places = places_at(coordinates)
    if len(places.xy) != shape[0]:
        raise StoreError(f"lists {len(places.xy)} places for {shape[0]} rows of features", where=str(coordinates))
    side0 = number(meta, "tile_size_lv0")
    if side0 is not None and places.side is not None and not np.isclose(side0, places.side[0]):
        raise StoreError(
            f"says tiles of {places.side[0]:g} level-0 px, the features say {side0:g}", where=str(coordinates)
        )
    size = number(meta, "requested_tile_size_px")
    px = read_json(coordinates).get("tiling", {}).get("requested_tile_size_px") if size is None else size
    return Places(places.xy, places.side, False, int(px) if px else None, places.overlap, places.size0)
