"""Publishing: a file or folder appears under its name whole, or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from pathpipe.errors import StoreError
from pathpipe.process import Process, process_gone

_SUFFIX = ".partial"
_NAME = re.compile(rf"\..*\.([0-9a-f]{{8}})-(\d+)-(\d+)-[0-9a-f]{{8}}{re.escape(_SUFFIX)}.*", re.DOTALL)
_TRIES = 5
_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


class Claim(Protocol):
    """What entitles a worker to publish, and may be lost to another while it works (a `Lease`)."""

    def partial(self, target: Path) -> Path:
        """Where to write `target`: a name that whoever takes over will know."""

    def confirm(self) -> None:
        """Raise LeaseLostError when it is lost."""


def partial_path(target: Path) -> Path:
    """A new hidden name beside `target` that says which process writes it."""
    # The original suffix stays last so that writers that look at it (imageio, h5py) still work.
    here = Process.here()
    token = f"{here.place}-{here.pid}-{here.started}-{uuid.uuid4().hex[:8]}"
    return target.with_name(f".{target.stem}.{token}{_SUFFIX}{target.suffix}")


def is_partial(name: str) -> bool:
    """Whether a file name is one of `partial_path`."""
    return _writer(name) is not None


def _writer(name: str) -> tuple[str, int, int] | None:
    """Place, pid and start of the process that writes it."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2]), int(match[3])) if match else None


@contextmanager
def publish(target: Path, claim: Claim | None = None) -> Iterator[Path]:
    """Give a path to write to; on a clean exit make it durable and rename it to `target`.

    What is written may be a file or a folder. On an error nothing appears and the partial is removed; after a
    kill -9 a hidden `*.partial*` stays behind, which `sweep` removes.

    Args:
        claim: It is confirmed before the rename, and who takes it over afterwards removes the partial first: a process
            that sleeps between the two finds nothing to rename.

    Raises:
        LeaseLostError: The claim was lost; nothing has been published.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(target) if claim is None else claim.partial(target)
    try:
        yield partial
        if partial.is_dir():
            for file in sorted(partial.rglob("*")):
                _fsync(file)
        _fsync(partial)
        if claim is not None:
            claim.confirm()
        _put(partial, target, claim)
        _fsync(target.parent)
    except OSError as error:  # for people: they know the target, and the partial won't be there
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(str(partial), str(target))
        raise
    finally:
        _remove(partial)


def publish_text(target: Path, text: str) -> None:
    """Write a small text file atomically (UTF-8)."""
    with publish(target) as partial:
        partial.write_text(text, encoding="utf-8")


def publish_json(target: Path, value: Any) -> None:
    """Write a JSON file atomically, indented for people, keys in the order given."""
    publish_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def withdraw(partial: Path) -> None:
    """See to it that a partial is never published: after this its writer finds nothing to rename."""
    aside = partial_path(partial)
    with suppress(FileNotFoundError):
        os.rename(partial, aside)  # a folder too goes in one step
    _remove(aside)


def sweep(folder: Path) -> int:
    """Remove partials that dead processes of this machine left in `folder`; returns how many."""
    here, swept = Process.here(), 0
    for partial in folder.glob(f".*{_SUFFIX}*"):
        writer = _writer(partial.name)
        if writer is not None and writer[0] == here.place and process_gone(*writer[1:]):
            _remove(partial)
            swept += 1
    return swept


def now_on(folder: Path) -> float:
    """What the clock says that dates the files of `folder`: the server's with NFS, this machine's with Lustre.

    It makes a file there, and that has an effect of its own: an NFS client that remembers for a minute that a file
    isn't there asks the server again once it has changed the folder itself.

    Raises:
        OSError: Nothing can be written there.
    """
    probe = partial_path(folder / "probe")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        return os.stat(probe).st_mtime
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        _remove(probe)


def look_anew(folder: Path) -> None:
    """Before one counts what is there: have the server asked again what was absent a moment ago, as `now_on` does."""
    with suppress(OSError):  # nothing is there yet, or this user may only read
        now_on(folder)


def _put(partial: Path, target: Path, claim: Claim | None) -> None:
    """Rename, with what can't be renamed over (a filled folder) set aside first; on an error it is put back."""
    retired: list[Path] = []
    try:
        for _ in range(_TRIES):
            try:
                _rename(partial, target)
                return
            except OSError as error:
                if error.errno not in _IN_THE_WAY:
                    raise
            retired.append(partial_path(target) if claim is None else claim.partial(target.with_suffix(".retired")))
            _remove(retired[-1])
            with suppress(FileNotFoundError):  # gone meanwhile
                os.rename(target, retired[-1])
        raise StoreError("others keep putting something there", where=str(target), hint="run the command again")
    except (OSError, StoreError):
        if retired:
            with suppress(OSError):
                os.rename(retired[-1], target)
        raise
    finally:
        for path in retired:
            _remove(path)


def _rename(partial: Path, target: Path) -> None:
    before = os.stat(partial)
    try:
        os.replace(partial, target)
    except FileNotFoundError:
        # A client of NFS that got no answer asks again, and hears that what it has renamed isn't there.
        if not _is_that(target, before):
            raise


def _is_that(path: Path, before: os.stat_result) -> bool:
    try:
        now = os.stat(path)
    except OSError:
        return False
    # The number of a removed file is given again at once: only with its time it tells files apart.
    return (now.st_ino, now.st_mtime_ns, now.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove what is of no use; where that can't be done it stays hidden, and the first error is the one to tell."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
