"""STAMP: `feats` float16 and `coords` in um from the slide's corner; three generations of attributes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.hdf5 import new_hdf5
from pathpipe.publish import publish
from pathpipe.run import safe_name
from pathpipe.store.features import Features
from pathpipe.store.layouts.native import from_native, restored
from pathpipe.store.layouts.own import ATTRIBUTE, own_json, refuse_to_replace, side_um, slide_id_of
from pathpipe.store.layouts.record import Places, SlideFeatures, place_problems, plain_facts, row_problems
from pathpipe.tiles.layouts import number
from pathpipe.tiles.table import write_regions

NAME = "STAMP features"
VERSION = "2.1.0"  # the first that names both sizes of a tile; STAMP refuses files newer than itself
# STAMP's slide encoders take only features of an extractor they know by its exact name
EXTRACTORS = {
    "ctranspath": "ctranspath",
    "chief-ctranspath": "chief-ctranspath",
    "conch": "mahmood-conch",
    "conch-v1.5": "mahmood-conch1_5",
    "uni": "mahmood-uni",
    "uni2-h": "mahmood-uni2",
    "dinobloom-s": "dino-bloom",
    "prov-gigapath": "gigapath",
    "h-optimus-0": "h-optimus-0",
    "h-optimus-1": "h-optimus-1",
    "virchow": "virchow",
    "virchow2": "virchow2",
    "musk": "musk",
    "mstar": "mstar",
}
_OLD_UM, _OLD_PX = 256.0, 224
_ROWS = ("feats", "patch_embeddings")


def matches(path: Path) -> bool:
    """`feats` in an HDF5 file."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        return any(isinstance(file.get(name), h5py.Dataset) for name in _ROWS)


def read(path: Path) -> list[SlideFeatures]:
    """Read it whole; one embedding of a slide or patient is no bag and refused.

    Raises:
        StoreError: Damaged.
    """
    with h5py.File(path, "r", locking=False) as file:
        name = next(name for name in _ROWS if name in file)
        kind = str(file.attrs.get("feat_type", "tile"))
        if kind != "tile" or file[name].ndim != 2:
            raise StoreError(f"is an embedding of a {kind}, shape {file[name].shape}, not a bag", where=str(path))
        whole = restored(file, name, in_um=True) if "coords" in file else None
        if whole is not None:
            return [from_native(whole, NAME, path.stem)]
        features, attributes = file[name][:], dict(file.attrs)
        xy = np.asarray(file["coords"][:], np.float64) if "coords" in file else None
    places, doubts = _places(xy, attributes, path)
    extractor = attributes.get("extractor")
    return [
        SlideFeatures(
            layout=NAME,
            slide_id=path.stem,
            features=features,
            places=places,
            encoder=_name(str(extractor)) if extractor is not None else None,
            stated=plain_facts(attributes),
            problems=(*row_problems(features), *(place_problems(places) if places else ()), *doubts),
        )
    ]


def _places(
    xy: npt.NDArray[np.float64] | None, attributes: dict[str, object], path: Path
) -> tuple[Places | None, tuple[str, ...]]:
    """um by what the attributes say, in the order STAMP itself asks: v2.0, v2.1, then the stride of files before."""
    if xy is None:
        return None, ("has no coordinates",)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise StoreError(f"holds coords of shape {xy.shape}, not (N, 2)", where=str(path))
    old, new = number(attributes, "tile_size"), number(attributes, "tile_size_um")
    px = number(attributes, "tile_size_px")
    unit = attributes.get("unit")
    if unit not in (None, "um"):
        return Places(xy), (f"gives coordinates in `{unit}`, which no STAMP writes",)
    side = old if old is not None and unit == "um" else new
    if side is not None:
        places = Places(xy, (side, side), in_um=True, tile_px=int(px) if px else None)
        mixed = len(xy) > 1 and _stride(xy) > 0 and abs(_stride(xy) - _OLD_PX) < 0.5 and abs(side - _OLD_UM) < 0.5
        doubt = f"says tiles of {side:g} um but they lie 224 apart: the coordinates may be px of the tiles, not um"
        return places, (doubt,) if mixed else ()
    if round(old if old is not None else _stride(xy)) == _OLD_PX:
        return Places(xy * (_OLD_UM / _OLD_PX), (_OLD_UM, _OLD_UM), in_um=True, tile_px=_OLD_PX), ()
    doubt = f"is older than STAMP 2 and its tiles lie {_stride(xy):g} apart, not 224: nobody says in which unit"
    return Places(xy), (doubt,)


def _stride(xy: npt.NDArray[np.float64]) -> float:
    """Least distance of two columns or rows."""
    steps = [np.diff(np.unique(xy[:, axis])) for axis in (0, 1)]
    found = [float(step.min()) for step in steps if len(step)]
    return min(found) if found else 0.0


def _name(extractor: str) -> str:
    """The encoder of an extractor, whose name may end in a hash of STAMP's code."""
    head, _, tail = extractor.rpartition("-")
    bare = head if head and len(tail) == 8 and all(c in "0123456789abcdef" for c in tail) else extractor
    return next((name for name, known in EXTRACTORS.items() if known == bare), bare)


def losses(whole: Features) -> list[str]:
    """What the layout can't say."""
    found = []
    narrow = _narrow(whole)
    if not np.array_equal(narrow.astype(whole.features.dtype), whole.features):
        found.append("float32 features: STAMP stores float16")
    width, height = side_um(whole)
    if abs(width - height) > 0.01 * width:
        found.append(f"tiles of {width:.4g} x {height:.4g} um: STAMP knows squares only")
    return found


def _narrow(whole: Features) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return whole.features.astype(np.float16)


def write(folder: Path, whole: Features) -> list[Path]:
    """Write `EXTRACTOR/SLIDE.h5`.

    Raises:
        StoreError: A feature is larger than float16 can say: it would be written as infinity.
    """
    name = str(whole.encoder["name"])
    extractor = EXTRACTORS.get(name, name)
    path = folder / safe_name(extractor) / f"{slide_id_of(whole)}.h5"
    width, height = side_um(whole)
    narrow = _narrow(whole)
    too_large = int((~np.isfinite(narrow)).any(axis=1).sum())
    if too_large:
        raise StoreError(
            f"{too_large} rows have features too large for float16, which is what STAMP stores",
            where=slide_id_of(whole),
            hint="write another layout",
        )
    refuse_to_replace(path, whole)
    with publish(path) as partial, new_hdf5(partial) as file:
        file["coords"] = (whole.xy0 * np.asarray(whole.plan.mpp0)).astype(np.float32)
        file["feats"] = narrow
        write_regions(file, whole.regions)
        file.attrs.update(
            {
                "stamp_version": VERSION,
                "extractor": extractor,
                "unit": "um",
                "tile_size_um": (width * height) ** 0.5,
                "tile_size_px": whole.plan.tile_px,
                "code_hash": "",
                "feat_type": "tile",
                ATTRIBUTE: own_json(whole),
            }
        )
    return [path]
