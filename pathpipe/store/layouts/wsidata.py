"""LazySlide and wsidata: a SpatialData Zarr a slide, `tables/MODEL_tiles` over `shapes/tiles` (GeoParquet)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import MissingError, StoreError
from pathpipe.store.layouts.record import (
    DAMAGE,
    Places,
    SlideFeatures,
    place_problems,
    plain_facts,
    row_problems,
)
from pathpipe.store.zarr import is_zarr, zarr_attributes
from pathpipe.tiles.layouts import number

NAME = "wsidata features"
# A rectangle as well-known binary: byte order, type 3 (polygon), 1 ring, 5 points.
_POLYGON = np.dtype([("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))])


def matches(path: Path) -> bool:
    """A Zarr group with tables of features over shapes of tiles."""
    return is_zarr(path) and (path / "tables").is_dir() and (path / "shapes").is_dir()


def read(path: Path) -> list[SlideFeatures]:
    """One record a table of features.

    Raises:
        StoreError: Damaged, or there is no table of features.
        MissingError: Reading GeoParquet needs pyarrow.
    """
    import zarr

    tables: Any = zarr.open_group(str(path / "tables"), mode="r")
    records = []
    for name, table in sorted(tables.groups()):
        keys = _tile_key(table)
        if keys is not None and "X" in table and (path / "shapes" / keys / "shapes.parquet").is_file():
            records.append(_read_table(path, name, table, keys))
    if not records:
        raise StoreError("holds no table of features of tiles", where=str(path))
    return records


def _tile_key(table: Any) -> str | None:
    """Name of the tiles a table is about."""
    try:
        about = table["uns/spatialdata_attrs/region"]
        value = about[()] if about.shape == () else about[:]
    except KeyError:
        return None
    names = np.asarray(value).reshape(-1).tolist()
    return str(names[0]) if len(names) == 1 else None


def _read_table(path: Path, name: str, table: Any, key: str) -> SlideFeatures:
    try:
        if not hasattr(table["X"], "shape"):
            raise StoreError(f"its table `{name}` is sparse, not rows of features", where=str(path))
        features, rows = np.asarray(table["X"][:]), np.asarray(table["obs/tile_id"][:])
        left_out = [f"varm/{one}: vectors made of all tiles" for one in table["varm"]] if "varm" in table else []
    except DAMAGE as error:
        raise StoreError(f"its table `{name}` can't be read ({error})", where=str(path)) from None
    root = zarr_attributes(path)
    spec = dict((root.get("tile_spec") or {}).get(key) or {})
    slide = dict(root.get("slide_properties") or {})
    ids, corners, sides = _boxes(path / "shapes" / key / "shapes.parquet")
    places = _places(_in_order(rows, ids, corners, path, name), sides, spec, slide)
    problems = [*row_problems(features), *place_problems(places)]
    if len(sides) and not np.allclose(sides, sides[0]):
        problems.append("tiles differ in size")
    return SlideFeatures(
        layout=NAME,
        slide_id=path.stem,
        features=features,
        places=places,
        encoder=name.removesuffix(f"_{key}"),
        stated=plain_facts({"table": name, "tile_spec": spec}),
        problems=tuple(problems),
        left_out=tuple(left_out),
    )


def _places(
    xy: npt.NDArray[np.float64], sides: npt.NDArray[np.float64], spec: dict[str, Any], slide: dict[str, Any]
) -> Places:
    shape = slide.get("shape")  # (height, width)
    step, width = number(spec, "stride_width"), number(spec, "width")
    if not len(sides) and width:
        sides = np.full((1, 2), int(width * float(spec.get("base_downsample", 1.0))), np.float64)
    return Places(
        xy=xy,
        side=(float(sides[0, 0]), float(sides[0, 1])) if len(sides) else None,
        tile_px=int(width) if width else None,
        overlap=max(0.0, 1 - step / width) if step and width else 0.0,
        size0=(int(shape[1]), int(shape[0])) if shape else None,
        mpp=number(slide, "mpp"),
    )


def _in_order(
    rows: npt.NDArray[Any], ids: npt.NDArray[Any], corners: npt.NDArray[np.float64], path: Path, name: str
) -> npt.NDArray[np.float64]:
    """Corners in the order of the table's rows, joined by the id of the tile."""
    order = np.argsort(ids, kind="stable")
    at = np.searchsorted(ids, rows, sorter=order)
    found = order[np.minimum(at, len(ids) - 1)] if len(ids) else np.empty(0, np.intp)
    if len(found) != len(rows) or not np.array_equal(ids[found], rows):
        raise StoreError(f"its table `{name}` has rows of tiles that aren't there", where=str(path))
    return corners[found]


def _boxes(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Ids (N,), top left corners (N, 2) and sides (N, 2) of the tiles, level-0 px."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingError(
            "reading wsidata's tiles (GeoParquet) needs pyarrow", hint='pip install "pathpipe[wsidata]"'
        ) from None
    try:
        table = parquet.read_table(str(path), columns=None).to_pydict()
        blob = b"".join(table["geometry"])
        ids = np.asarray(table["tile_id"] if "tile_id" in table else np.arange(len(table["geometry"])))
        if len(blob) != len(ids) * _POLYGON.itemsize:
            raise StoreError("holds tiles that aren't rectangles", where=str(path))
        polygons = np.frombuffer(blob, _POLYGON)
    except DAMAGE as error:
        raise StoreError(f"can't be read as GeoParquet ({error})", where=str(path)) from None
    if len(polygons) and not ((polygons["order"] == 1) & (polygons["kind"] == 3) & (polygons["points"] == 5)).all():
        raise StoreError("holds tiles that aren't rectangles", where=str(path))
    corners = polygons["xy"].min(axis=1)
    return ids, corners, polygons["xy"].max(axis=1) - corners
