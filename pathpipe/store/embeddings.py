"""The file of one slide's embedding: HDF5 with `features` (D,), as TRIDENT's readers of slide features expect it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.hdf5 import new_hdf5
from pathpipe.provenance import Provenance

FORMAT, VERSION = "pathpipe-embedding", 1


@dataclass(frozen=True)
class Embedding:
    """One slide as one vector.

    Attributes:
        vector: (D,) float32; empty for a slide without tiles.
        slide_id: Whose it is.
        slide_encoder: Identity of what made it of the tiles.
        encoder: Identity of the tile encoder.
        tiles: How many tiles went in.
        empty_reason: Why there is no vector.
        provenance: What made the file.
    """

    vector: npt.NDArray[np.float32]
    slide_id: str
    slide_encoder: Mapping[str, Any]
    encoder: Mapping[str, Any]
    tiles: int
    empty_reason: str | None
    provenance: Provenance


def write_embedding(path: Path, embedding: Embedding) -> None:
    """Write a file; equal input gives equal bytes.

    Raises:
        StoreError: The vector isn't one, or holds NaN or infinity.
    """
    vector = embedding.vector
    if vector.ndim != 1 or vector.dtype != np.float32:
        raise StoreError(f"an embedding must be (D,) float32, not {vector.shape} {vector.dtype}", where=str(path))
    if not np.isfinite(vector).all():
        raise StoreError(f"{int((~np.isfinite(vector)).sum())} values are NaN or infinity", where=str(path))
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "slide_id": embedding.slide_id,
        "slide_encoder": json.dumps(dict(embedding.slide_encoder), sort_keys=True),
        "encoder": json.dumps(dict(embedding.encoder), sort_keys=True),
        "tiles": embedding.tiles,
        "empty_reason": embedding.empty_reason or "",
        "provenance": embedding.provenance.to_json(),
    }
    with new_hdf5(path) as file:
        dataset = file.create_dataset("features", data=vector)
        dataset.attrs["name"] = embedding.slide_id
        dataset.attrs["savetodir"] = "."
        for name, value in attributes.items():
            file.attrs[name] = value


def read_embedding(path: Path) -> Embedding:
    """Read a file.

    Raises:
        StoreError: Not an embedding of pathpipe, of another version, or damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = (file.attrs["format"], file.attrs["version"])
            if found != (FORMAT, VERSION):
                raise StoreError(f"is {found[0]} version {found[1]}, not {FORMAT} {VERSION}", where=str(path))
            vector = np.asarray(file["features"][:])
            if vector.ndim != 1 or vector.dtype != np.float32:
                raise StoreError(f"holds features {vector.shape} {vector.dtype}", where=str(path))
            return Embedding(
                vector=vector,
                slide_id=str(file.attrs["slide_id"]),
                slide_encoder=json.loads(file.attrs["slide_encoder"]),
                encoder=json.loads(file.attrs["encoder"]),
                tiles=int(file.attrs["tiles"]),
                empty_reason=str(file.attrs["empty_reason"]) or None,
                provenance=Provenance.from_dict(json.loads(file.attrs["provenance"])),
            )
    except FileNotFoundError:
        raise StoreError("there is no such embedding", where=str(path), hint="run `pathpipe embed`") from None
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise StoreError(
            f"isn't an embedding of pathpipe, or is damaged ({error})",
            where=str(path),
            hint="delete it and run `pathpipe embed` again",
        ) from None
