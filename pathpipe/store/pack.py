"""Pack: all bags of a cohort in one file, mapped instead of read, and never used when a source has changed.

A pack is a cache beside the folder it was made from: `features/uni/` has `features/uni.pack`. Its bytes follow from
its sources. In what state (size, time of change) these were is noted beside it, `uni.pack.seen`; where that note
doesn't fit or is missing, the bytes of the sources decide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.hdf5 import new_hdf5
from pathpipe.publish import publish, publish_json
from pathpipe.store.digest import source_digest, source_state
from pathpipe.store.features import read_features, read_header
from pathpipe.store.identity import refuse_mixed
from pathpipe.store.rows import refuse_non_finite

FORMAT, VERSION = "pathpipe-pack", 1
SUFFIX, SEEN = ".pack", ".seen"


@dataclass(frozen=True)
class PackedBag:
    """Rows of one slide: views into the file.

    Attributes:
        features: (N, D) as stored; what is written to it stays in memory.
        xy0: (N, 2) int64 level-0 px.
        encoder: Identity of the encoder of the whole pack.
    """

    features: npt.NDArray[np.floating[Any]]
    xy0: npt.NDArray[np.int64]
    encoder: Mapping[str, Any]


@dataclass(frozen=True)
class Pack:
    """An open pack.

    Attributes:
        sources: Name of each source file, in order, and the digest of its bytes.
        offsets: (S + 1,) int64 first row of each source.
        features: (T, D) mapped.
        xy0: (T, 2) mapped.
    """

    path: Path
    encoder: Mapping[str, Any]
    sources: Mapping[str, str]
    offsets: npt.NDArray[np.int64]
    features: npt.NDArray[np.floating[Any]]
    xy0: npt.NDArray[np.int64]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.sources)}

    def bag(self, name: str) -> PackedBag:
        """The rows of one source file, by its name."""
        index = self._index[name]
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return PackedBag(self.features[rows], self.xy0[rows], self.encoder)


def pack_path(folder: Path) -> Path:
    """Where the pack of a folder of features lies."""
    whole = folder.absolute()
    return whole.parent / (whole.name + SUFFIX)


def write_pack(files: list[Path], target: Path) -> Pack:
    """Pack feature files of pathpipe, all of one encoder.

    Raises:
        StoreError: The encoders or types differ, a file has values that aren't finite, or there is no file.
    """
    if not files:
        raise StoreError("there are no feature files to pack", where=str(target))
    states = {path.name: source_state(path) for path in files}  # taken before reading: a later change shows
    headers = {path: read_header(path) for path in files}
    first, (header, _) = next(iter(headers.items()))
    for path, (other, _) in headers.items():
        refuse_mixed(header.encoder, other.encoder, where=f"{first} and {path}")
        if other.features.dtype != header.features.dtype:
            kinds = f"{header.features.dtype} and {other.features.dtype}"
            raise StoreError(f"are stored as {kinds}", where=f"{first} and {path}")
    offsets = np.concatenate([[0], np.cumsum([rows for _, rows in headers.values()])]).astype(np.int64)
    with publish(target) as partial, new_hdf5(partial) as file:
        total, dim = int(offsets[-1]), header.features.shape[1]
        features = file.create_dataset("features", (total, dim), header.features.dtype)
        coords = file.create_dataset("coords", (total, 2), np.int64)
        digests = {}
        for index, path in enumerate(headers):
            digests[path.name] = _copy(path, features, coords, int(offsets[index]))
        file["offsets"] = offsets
        file["sources"] = np.frombuffer(json.dumps(digests, indent=0).encode(), np.uint8)
        file.attrs.update({"format": FORMAT, "version": VERSION})
        file.attrs["encoder"] = json.dumps(dict(header.encoder), sort_keys=True)
    _note(target, states)
    return open_pack(target)


def _copy(path: Path, features: h5py.Dataset, coords: h5py.Dataset, start: int) -> str:
    digest, whole = source_digest(path), read_features(path)
    stop = start + len(whole.features)
    refuse_non_finite(whole.features, whole.xy0)
    if stop > start:
        features[start:stop], coords[start:stop] = whole.features, whole.xy0
    return digest


def open_pack(path: Path) -> Pack:
    """Map a pack; nothing of its rows is read.

    Raises:
        StoreError: Not a pack, or damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            if (file.attrs["format"], file.attrs["version"]) != (FORMAT, VERSION):
                raise StoreError(f"is {file.attrs['format']} version {file.attrs['version']}", where=str(path))
            offsets, sources = file["offsets"][:], json.loads(file["sources"][:].tobytes())
            features, xy0 = _mapped(path, file["features"]), _mapped(path, file["coords"])
            encoder = json.loads(file.attrs["encoder"])
    except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise StoreError(f"isn't a pack, or is damaged ({error})", str(path), "delete it and pack again") from None
    if len(offsets) != len(sources) + 1 or offsets[-1] != len(features) or len(features) != len(xy0):
        raise StoreError("is a pack whose parts don't fit each other", str(path), "delete it and pack again")
    return Pack(path, encoder, sources, offsets, features, xy0)


def _mapped(path: Path, dataset: h5py.Dataset) -> npt.NDArray[Any]:
    """A contiguous dataset as the bytes of the file. Copy on write: torch takes no read-only arrays."""
    offset = dataset.id.get_offset()
    if offset is None:  # no rows: nothing was ever written
        return np.empty(dataset.shape, dataset.dtype)
    return np.memmap(path, dataset.dtype, "c", offset, dataset.shape)


def fresh_pack(files: Mapping[str, Path]) -> Pack | None:
    """The pack of the folder the files are in, if there is one that holds exactly their present content.

    Args:
        files: slide_id -> feature file; the pack may hold more.

    Raises:
        StoreError: The pack is damaged.
    """
    folders = {path.parent for path in files.values()}
    if len(folders) != 1:
        return None
    path = pack_path(next(iter(folders)))
    if not path.is_file():
        return None
    pack = open_pack(path)
    return None if changed_sources(pack, list(files.values())) else pack


def changed_sources(pack: Pack, files: list[Path]) -> list[str]:
    """Names of the files that the pack lacks or holds in another state."""
    seen = _noted(pack.path)
    changed = []
    for path in files:
        known = pack.sources.get(path.name)
        unmoved = known is not None and path.exists() and seen.get(path.name) == source_state(path)
        if not unmoved and (known is None or not path.exists() or source_digest(path) != known):
            changed.append(path.name)
    return changed


def _note(target: Path, states: Mapping[str, list[int]]) -> None:
    publish_json(target.with_name(target.name + SEEN), dict(states))


def _noted(target: Path) -> dict[str, list[int]]:
    try:
        noted = json.loads(target.with_name(target.name + SEEN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def renew_pack(files: list[Path], target: Path) -> tuple[Pack, bool]:
    """A pack of exactly these files: the one that is there where it holds their content, else a new one.

    Returns:
        The pack, and whether it was made now.

    Raises:
        StoreError: As `write_pack`.
    """
    if target.is_file():
        try:
            pack = open_pack(target)
        except StoreError:  # a damaged cache is made anew
            return write_pack(files, target), True
        if list(pack.sources) == [path.name for path in files] and not changed_sources(pack, files):
            _note(target, {path.name: source_state(path) for path in files})
            return pack, False
    return write_pack(files, target), True
