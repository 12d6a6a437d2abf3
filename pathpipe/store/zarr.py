"""Groups of arrays as Zarr v3: sharded, uncompressed, and refused when a piece is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError

_CHUNK_BYTES, _SHARD_BYTES = 4 << 20, 64 << 20
METADATA = ("zarr.json", ".zgroup")  # of zarr 3 and of zarr 2


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in METADATA)


def open_zarr(path: Path) -> nullcontext[Any]:
    """A group to read, to be used with `with`.

    Raises:
        StoreError: A shard is missing, which Zarr itself would fill with zeros and say nothing.
    """
    import zarr

    group: Any = zarr.open_group(str(path), mode="r")
    for name, array in group.arrays():
        for index in np.ndindex(*_pieces(array)):
            piece = path / name / "/".join(["c", *map(str, index)])
            if array.metadata.zarr_format == 3 and array.size and not piece.is_file():
                raise StoreError(f"its array `{name}` has lost the piece {piece.relative_to(path)}", where=str(path))
    return nullcontext(group)


def _pieces(array: Any) -> list[int]:
    """Number of files along each axis."""
    sides = array.shards or array.chunks
    return [math.ceil(length / side) for length, side in zip(array.shape, sides, strict=True)]


def write_zarr_group(
    path: Path, arrays: Mapping[str, tuple[npt.NDArray[Any], Mapping[str, Any]]], attributes: Mapping[str, Any]
) -> None:
    """Write arrays with their attributes; equal input gives equal bytes.

    Args:
        arrays: Name -> array and its attributes.
        attributes: Of the group.
    """
    import zarr

    group: Any = zarr.open_group(str(path), mode="w", zarr_format=3)
    for name, (values, own) in arrays.items():
        chunks, shards = _layout(values)
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=chunks,
            shards=shards,
            compressors=None,
            attributes=_plain(own),
            config={"write_empty_chunks": True},  # a piece of zeros is written too: one that isn't there is damage
        )
        if values.size:
            array[...] = values
    group.attrs.update(_plain(attributes))


def _layout(values: npt.NDArray[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunk and shard shapes: pieces along the rows only."""
    rows, rest = max(1, len(values)), values.shape[1:]
    row_bytes = max(1, values.dtype.itemsize * math.prod(rest))
    chunk = min(rows, max(1, _CHUNK_BYTES // row_bytes))
    per_shard = min(math.ceil(rows / chunk), max(1, _SHARD_BYTES // (chunk * row_bytes)))
    sides = tuple(max(1, side) for side in rest)
    return (chunk, *sides), (chunk * per_shard, *sides)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON takes them."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in attributes.items()
    }


def zarr_attributes(path: Path) -> dict[str, Any]:
    """Attributes of the group at `path`; empty where there is none that can be read."""
    try:
        found = json.loads((path / METADATA[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    attributes = found.get("attributes") if isinstance(found, dict) else None
    return attributes if isinstance(attributes, dict) else {}
