"""The record every layout is read into: rows, where they lie, and what the file says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.store.features import DTYPES, Features

# what h5py, numpy, torch, zarr and json raise over a file that isn't what it should be
DAMAGE = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, EOFError)
_PATHS = ("savetodir", "save_path", "wsi_path", "image_path", "mask_path")


@dataclass(frozen=True)
class Places:
    """Where the rows lie, as a file says it.

    Attributes:
        xy: (N, 2) float64 top left corners: level-0 px, or um from the slide's corner with `in_um`.
        side: (width, height) of a tile in the same unit, or None when the file doesn't say.
        in_um: Unit of both.
        tile_px: Side of the tile the encoder was given, px, where stated.
        overlap: Share of a tile that its neighbour covers too.
        size0: (w, h) of level 0, px, where stated.
        mpp: um/px of level 0, where stated.
    """

    xy: npt.NDArray[np.float64]
    side: tuple[float, float] | None = None
    in_um: bool = False
    tile_px: int | None = None
    overlap: float = 0.0
    size0: tuple[int, int] | None = None
    mpp: float | None = None


@dataclass(frozen=True)
class SlideFeatures:
    """The features of one slide by one encoder, in whatever file they were.

    Attributes:
        layout: Name of the layout, as `store inspect` shows it.
        features: (N, D) float16, float32 or float64, as stored.
        places: None where the file has no coordinates.
        encoder: Name of the encoder as the file gives it, or None.
        stated: What else the file says, name to value; no paths.
        problems: What a reader would stumble over or has to guess, one sentence each.
        left_out: What the file holds besides tile features.
        native: All that pathpipe knows, where pathpipe wrote the file.
    """

    layout: str
    slide_id: str
    features: npt.NDArray[np.floating[Any]]
    places: Places | None = None
    encoder: str | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    native: Features | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2:
            if self.features.size:
                raise StoreError(f"holds features of shape {self.features.shape}, not (N, D)", where=self.slide_id)
            object.__setattr__(self, "features", self.features.reshape(0, self.features.shape[-1]))
        if self.places is not None and self.places.xy.shape != (len(self.features), 2):
            raise StoreError(
                f"has {len(self.features)} rows of features for {len(self.places.xy)} coordinates",
                where=self.slide_id,
                hint="the file was written by halves, or rows and coordinates come from different runs",
            )


def row_problems(features: npt.NDArray[Any]) -> tuple[str, ...]:
    """What is wrong with the numbers of (N, D) features: a kind that isn't stored, NaN, infinity."""
    found = []
    if features.dtype.name not in DTYPES:
        found.append(f"features are {features.dtype}, not float16 or float32")
    bad = int((~np.isfinite(features)).any(axis=-1).sum()) if features.size else 0
    if bad:
        found.append(f"{bad} of {len(features)} rows have NaN or infinite features")
    return tuple(found)


def place_problems(places: Places) -> tuple[str, ...]:
    """What is wrong with places: not finite, negative, not whole px, or not in the unit that is said."""
    xy = places.xy
    if not len(xy):
        return ()
    if not np.isfinite(xy).all():
        return ("some coordinates aren't finite",)
    found = []
    if not places.in_um and not np.array_equal(xy, np.round(xy)):
        found.append("coordinates should be level-0 px but aren't whole numbers: they may be um")
    twins = len(xy) - len(np.unique(xy, axis=0))
    if twins:
        found.append(f"{twins} coordinates stand twice")
    if places.size0 is not None and (xy >= np.asarray(places.size0)).any():
        outside = int((xy >= np.asarray(places.size0)).any(axis=1).sum())
        found.append(f"{outside} tiles lie outside of the {places.size0[0]} x {places.size0[1]} px the file states")
    return tuple(found)


def plain_facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as plain values, without those that are paths of somebody's machine."""
    return {name: _plain(value) for name, value in attributes.items() if name not in _PATHS}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def find_beside(path: Path, *places: str) -> Path | None:
    """The first file there is at one of the places, given relative to the file's folder."""
    found = (path.parent / place for place in places)
    return next((one for one in found if one.is_file()), None)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        StoreError: It is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"can't be read as JSON ({error})", where=str(path)) from None
    if not isinstance(value, dict):
        raise StoreError(f"holds a JSON {type(value).__name__}, not an object", where=str(path))
    return value
