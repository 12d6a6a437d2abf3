"""The file of a lease: who has it, and what its owner is writing; how it changes hands.

Its first line is the owner, in JSON; each further line is a partial that the owner is about to write, relative to the
file's folder. A lease leaves its name only by a rename to a hidden `*.dead` beside it, so that its lines are never
lost: whoever holds the lease next withdraws those partials first.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathpipe.process import Process
from pathpipe.publish import is_partial, withdraw

_DEAD = ".dead"


@dataclass(frozen=True)
class LeaseFile:
    """What was read of it at once.

    Attributes:
        owner: Record of the first line; empty when it is not whole.
        partials: Names of what is being written, relative to the file's folder.
        touched_ns: When it was last touched, by whatever clock dates files there.
    """

    owner: Mapping[str, Any]
    partials: tuple[str, ...]
    touched_ns: int

    @property
    def token(self) -> str | None:
        """What tells this lease from any other of the same path."""
        token = self.owner.get("token")
        return token if isinstance(token, str) else None

    @property
    def process(self) -> Process | None:
        """Its owner; None for a record that doesn't say it all."""
        return Process.from_dict(self.owner)

    @property
    def lasts_s(self) -> float | None:
        """How long its owner may be silent, by its own word."""
        lasts = self.owner.get("lasts_s")
        return float(lasts) if isinstance(lasts, int | float) and lasts > 0 else None

    @property
    def state(self) -> tuple[str | None, int]:
        """Differs after each sign of life."""
        return self.token, self.touched_ns


def read_lease(path: Path) -> LeaseFile | None:
    """The lease at `path`, or None where there is none.

    It is opened, because to open a file is what makes an NFS client ask the server how it is now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        try:
            touched_ns, content = os.fstat(descriptor).st_mtime_ns, file.read()
        except OSError as error:
            if error.errno == errno.ESTALE:  # removed since it was opened
                return None
            raise
    first, *others = content.split(b"\n")
    names = others[:-1]  # what follows the last end of a line was cut off, or is nothing
    return LeaseFile(_record(first), tuple(os.fsdecode(name) for name in names), touched_ns)


def write_lease(path: Path, owner: Process, token: str, lasts_s: float) -> bool:
    """Create the lease; False when there is one.

    Raises:
        OSError: It can't be written. None is left behind then, if that is possible.
    """
    record = json.dumps({**owner.to_dict(), "token": token, "lasts_s": lasts_s}).encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(record)
            file.flush()
            os.utime(descriptor)  # NFS keeps other things in the times of a file that is created exclusively
    except OSError as error:
        with suppress(OSError):
            remove(path, lambda now: now.token in (None, token))
        if error.errno == errno.ESTALE:  # this process was paused, and the lease has been another's since
            return False
        raise
    return True


def announce(path: Path, token: str, partial: Path) -> bool:
    """Add what is about to be written to the lease with that token; False when another lies there."""
    name = os.fsencode(os.path.relpath(partial, path.parent))
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
    with os.fdopen(descriptor, "r+b") as file:
        if _record(file.readline()).get("token") != token:
            return False
        file.seek(0, os.SEEK_END)
        file.write(name + b"\n")
    return True


def set_aside(path: Path, expected: Callable[[LeaseFile], bool]) -> Path | None:
    """Rename a lease away, if it is one as expected; where it lies then.

    Another one, which took the name meanwhile, is put back. When that can't be, because the name is taken again, the
    hidden file stays, and whoever holds the lease then withdraws what it names.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_DEAD}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
    # NFS may say that there is nothing to rename when it has just renamed it: what lies there counts.
    now = read_lease(aside)
    if now is None or expected(now):
        return aside if now is not None else None
    with suppress(OSError):
        os.link(aside, path)
        os.unlink(aside)
    return None


def remove(path: Path, expected: Callable[[LeaseFile], bool]) -> None:
    """Remove a lease of which nothing is left to withdraw, if it is one as expected."""
    aside = set_aside(path, expected)
    if aside is not None:
        os.unlink(aside)


def fence(path: Path, token: str) -> None:
    """For the owner of the lease with that token: withdraw what owners before it were writing.

    Raises:
        OSError: Something can't be withdrawn: it could still be published.
    """
    for entry in sorted(os.listdir(path.parent)):
        if not entry.startswith(".") or not entry.endswith(_DEAD):
            continue
        if entry[1 : -len(_DEAD)].rpartition(".")[0] != path.name:
            continue
        owner, dead = read_lease(path), path.with_name(entry)
        if owner is None or owner.token != token:
            return  # the next owner's business
        lease = read_lease(dead)
        for name in lease.partials if lease is not None else ():
            partial = Path(os.path.normpath(path.parent / name))
            if is_partial(partial.name):
                withdraw(partial)
        with suppress(FileNotFoundError):
            os.unlink(dead)


def _record(line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
