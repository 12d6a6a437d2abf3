"""Bucket: files of features in an object store. A Zarr store appears there whole, or not at all.

Nothing is renamed in an object store, so a Zarr store is written where it will lie; `zarr.json`, without which it is
none, comes last: after everything else has been read back and found to be what was written.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pathpipe.errors import RemoteError, RemoteMissingError, StoreError
from pathpipe.remote import fetch, filesystem, find, listed, reaching, read_whole
from pathpipe.store.features import ZARR_SUFFIX, read_features, write_zarr
from pathpipe.store.zarr import METADATA, is_zarr
from pathpipe.url import Place, Url

_ROOT = METADATA[0]
_SUFFIXES = (".h5", ".hdf5", ".h5ad", ".pt", ".npy", ".npz")
_AT_ONCE = 4


def bucket_files(url: Url) -> list[Url]:
    """The files of features at a URL: itself, or what lies below a prefix; in order.

    Raises:
        StoreError: There are none.
        RemoteError: They can't be listed.
    """
    if url.suffix.lower() in (ZARR_SUFFIX, *_SUFFIXES):
        return [url]
    base = f"{url.text.rstrip('/')}/"
    found = set()
    for one in listed(Url(base)):
        parts = PurePosixPath(one.url.text.removeprefix(base)).parts
        stores = [index for index, part in enumerate(parts[:-1]) if part.endswith(ZARR_SUFFIX)]
        if stores:
            if parts[stores[0] + 1 :] == (_ROOT,):
                found.add(base + "/".join(parts[: stores[0] + 1]))
        elif one.url.suffix.lower() in _SUFFIXES:
            found.add(one.url.text)
    if not found:
        raise StoreError("holds no files of features", where=url.shown)
    return [Url(text) for text in sorted(found)]


@contextmanager
def fetched(path: Place) -> Iterator[Path]:
    """A file or Zarr store of features on this machine, for as long as the block lasts.

    Raises:
        StoreError: It isn't there, or is no whole store.
        RemoteError: It can't be downloaded.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="pathpipe-") as folder:
        copy = Path(folder) / path.name
        try:
            _download_store(path, copy) if path.suffix == ZARR_SUFFIX else copy.write_bytes(read_whole(path))
        except RemoteMissingError as error:
            raise StoreError(error.what, error.where) from None
        yield copy


def _download_store(url: Url, copy: Path) -> None:
    base = f"{url.text.rstrip('/')}/"
    objects = listed(Url(base))
    if not any(one.url.text == base + _ROOT for one in objects):
        raise StoreError(
            f"has no {_ROOT}: it isn't whole", url.shown, "wait for whoever is writing it, or let them write it again"
        )
    for one in objects:
        target = copy / one.url.text.removeprefix(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(fetch(one.url, 0, one.size, one.size) if one.size else b"")


def publish_features(path: Path, target: Url) -> bool:
    """Write a slide's features as a Zarr store unless what is there was made from the same.

    Args:
        path: A native feature file, HDF5 or Zarr.
        target: Where the store goes, ending in `.zarr`.

    Returns:
        Whether something was written.

    Raises:
        RemoteError: The bucket can't be reached or written.
    """
    if is_zarr(path):
        if made_by(target) == _made_by(json.loads((path / _ROOT).read_text("utf-8"))):
            return False
        upload(path, target)
        return True
    whole = read_features(path)
    if made_by(target) == whole.provenance.fingerprint:
        return False
    with tempfile.TemporaryDirectory(prefix="pathpipe-") as folder:
        store = Path(folder) / target.name
        write_zarr(store, whole)
        upload(store, target)
    return True


def made_by(store: Url) -> str | None:
    """Fingerprint of what made a Zarr store of pathpipe's; None where there is none.

    Raises:
        RemoteError: The bucket can't be reached or read.
    """
    try:
        return _made_by(json.loads(read_whole(store / _ROOT)))
    except (RemoteMissingError, ValueError):
        return None


def _made_by(metadata: object) -> str | None:
    try:
        return str(json.loads(metadata["attributes"]["provenance"])["fingerprint"])  # type: ignore[index]
    except (LookupError, TypeError, ValueError):
        return None


def upload(source: Path, target: Url) -> None:
    """Write a file, or a Zarr store whole, and read it back.

    Raises:
        RemoteError: The bucket can't be reached or written, or gives back something else.
    """
    if source.is_file():
        _put(source, target)
        return
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    _clear(target, keep=set(names) - {_ROOT})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda name: _put(source / name, target / name), [one for one in names if one != _ROOT]):
            pass
    _put(source / _ROOT, target / _ROOT)


def _clear(target: Url, keep: set[str]) -> None:
    """Take an older store out of sight, `zarr.json` first, and away what the new one won't write over."""
    base = f"{target.text.rstrip('/')}/"
    try:
        old = [one.url for one in listed(Url(base))]
    except RemoteMissingError:
        return
    for url in sorted(old, key=lambda one: one.text != base + _ROOT):
        if url.text.removeprefix(base) not in keep:
            fs, path = filesystem(url)
            with reaching(url):
                fs.rm_file(path)


def _put(source: Path, target: Url) -> None:
    refuse_unwritable(target)
    data = source.read_bytes()
    fs, path = filesystem(target)
    with reaching(target):
        fs.pipe_file(path, data)
    size = find(target).size
    if size != len(data) or (data and fetch(target, 0, size, size) != data):
        raise RemoteError("gives back something else than was written", target.shown, "run again")


def refuse_unwritable(target: Url) -> None:
    """Refuse what is no bucket.

    Raises:
        StoreError: It is a web server.
    """
    if target.is_web:
        raise StoreError("is on a web server, where nothing can be written", target.shown, "give s3:// or gs://")


def refuse_closed(prefix: Url) -> None:
    """Write and remove an empty object: a bucket that can't be written is found out before the work, not after it.

    Raises:
        RemoteError: It can't be written.
        StoreError: It is no bucket.
    """
    refuse_unwritable(prefix)
    probe = prefix / ".pathpipe"
    fs, path = filesystem(probe)
    with reaching(probe):
        fs.pipe_file(path, b"")
        fs.rm_file(path)
