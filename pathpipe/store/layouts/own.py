"""What pathpipe knows of features and another layout has no place for: one JSON that other tools pass over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance
from pathpipe.store.features import FORMAT, VERSION, Features
from pathpipe.store.zarr import is_zarr, zarr_attributes
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.grid import Regions
from pathpipe.tiles.plan import ReadPlan

ATTRIBUTE = "pathpipe"


def own_json(whole: Features) -> str:
    """All but the rows, their places and their regions."""
    slide = whole.slide
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "encoder": dict(whole.encoder),
            "dtype": whole.features.dtype.name,
            "plan": whole.plan.to_dict(),
            "slide": [slide.slide_id, list(slide.size0), list(slide.level_size)] if slide else None,
            "slide_fingerprint": whole.slide_fingerprint,
            "empty_reason": whole.empty_reason,
            "provenance": whole.provenance.to_dict(),
        },
        ensure_ascii=False,
    )


def restore(
    text: str, features: npt.NDArray[Any], xy: npt.NDArray[Any], regions: Regions | None, in_um: bool = False
) -> Features:
    """Inverse of `own_json`, with rows and places as the other layout holds them.

    Args:
        features: (N, D) of a type that holds the original's values.
        xy: (N, 2) level-0 px, or um with `in_um`.

    Raises:
        StoreError: Rows, places or values were changed since.
    """
    known = json.loads(text)
    if (known["format"], known["version"]) != (FORMAT, VERSION):
        raise StoreError(f"carries {known['format']} version {known['version']}, not {FORMAT} {VERSION}")
    plan = ReadPlan.from_dict(known["plan"])
    xy0 = np.round(np.asarray(xy, np.float64) / plan.mpp0 if in_um else xy).astype(np.int64).reshape(-1, 2)
    rows = features.astype(known["dtype"])
    if not np.array_equal(rows.astype(features.dtype), features, equal_nan=True):
        raise StoreError(f"its rows are no longer the {known['dtype']} values that pathpipe wrote")
    slide = known["slide"]
    return Features(
        features=rows,
        xy0=xy0,
        encoder=known["encoder"],
        plan=plan,
        slide_fingerprint=known["slide_fingerprint"],
        empty_reason=known["empty_reason"],
        provenance=Provenance.from_dict(known["provenance"]),
        regions=regions,
        slide=SlideFacts(slide[0], tuple(slide[1]), tuple(slide[2])) if slide else None,
    )


def refuse_to_replace(path: Path, whole: Features) -> None:
    """Stop before a file is replaced that isn't an earlier conversion of the same features.

    Raises:
        StoreError: It is there, and something else made it.
    """
    if path.exists() and _made_by(path) != whole.provenance.fingerprint:
        raise StoreError(
            "is there already, and other features are in it",
            where=str(path),
            hint="delete it, or give another folder with -o",
        )


def refuse_other_tiles(path: Path, xy0: npt.NDArray[np.int64], attributes: Mapping[str, Any]) -> None:
    """Stop before a file of coordinates is replaced that says anything else of the tiles: rows beside it count on it.

    Raises:
        StoreError: It is there, with other places, another order or other attributes.
    """
    if not path.exists():
        return
    try:
        with h5py.File(path, "r", locking=False) as file:
            there, about = file["coords"][:], file["coords"].attrs
            same = np.array_equal(there, xy0) and all(
                name in about and np.array_equal(about[name], value) for name, value in attributes.items()
            )
    except (OSError, LookupError, TypeError, ValueError, RuntimeError):
        same = False
    if not same:
        raise StoreError(
            "is there already, and holds other tiles",
            where=str(path),
            hint="give another folder with -o, or delete it with the features it belongs to",
        )


def _made_by(path: Path) -> str | None:
    """Fingerprint of what made a file, in whichever layout pathpipe wrote it; None where it didn't."""
    try:
        if is_zarr(path):
            return str(json.loads(zarr_attributes(path)["provenance"])["fingerprint"])
        with h5py.File(path, "r", locking=False) as file:
            if "provenance" in file.attrs:
                return str(json.loads(file.attrs["provenance"])["fingerprint"])
            own = file.attrs[ATTRIBUTE] if ATTRIBUTE in file.attrs else file[f"uns/{ATTRIBUTE}"][()]
            return str(json.loads(own)["provenance"]["fingerprint"])
    except (OSError, LookupError, TypeError, ValueError, RuntimeError):
        return None


def tile_is_square(whole: Features) -> bool:
    """Whether one number says how large a tile is, within half a level-0 px."""
    return abs(whole.plan.side0[0] - whole.plan.side0[1]) < 0.5


def side_um(whole: Features) -> tuple[float, float]:
    """(width, height) of a tile, um."""
    plan = whole.plan
    return plan.side0[0] * plan.mpp0[0], plan.side0[1] * plan.mpp0[1]


def slide_id_of(whole: Features, otherwise: str = "") -> str:
    """Id of the slide.

    Raises:
        StoreError: The file doesn't say it, and there is nothing else to call it by.
    """
    name = whole.slide.slide_id if whole.slide else ""
    if not (name or otherwise):
        raise StoreError("doesn't say which slide it is of")
    return name or otherwise
