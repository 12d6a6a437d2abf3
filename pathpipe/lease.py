"""Leases: at most one worker makes a unit at a time, and one that wakes up late publishes nothing.

A lease is a file created with O_EXCL; its owner touches it while it works. An owner that is gone, or silent for too
long, loses it: the file is renamed away, and the next owner removes what the last one was writing before it looks at
the output (`pathpipe.lease_file`). docs/architecture.md, Leases, says why this holds on shared file systems.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pathpipe.errors import LeaseLostError
from pathpipe.lease_file import LeaseFile, announce, fence, read_lease, remove, set_aside, write_lease
from pathpipe.process import Process
from pathpipe.publish import now_on, partial_path

LASTS_S = 300.0
_BEATS = 10  # touched so many times in the time that it lasts
_held: dict[str, Path] = {}  # token -> path of what this process holds, or is about to hold
_watched: dict[Path, tuple[tuple[str | None, int], float]] = {}  # what a lease looked like, and since when
# A child of a fork must not give back what its parent holds.
os.register_at_fork(after_in_child=_held.clear)


class Lease:
    """An exclusive, heart-beating claim on a path. Make one with `Lease.acquire`."""

    def __init__(self, path: Path, token: str, lasts_s: float, beat_s: float) -> None:
        self.path = path
        self._token = token
        self._lasts_s = lasts_s
        self._kept = time.monotonic()
        self._lost = False
        self._partials: dict[Path, Path] = {}
        self._announcing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat_s,), daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, path: Path, *, lasts_s: float = LASTS_S, beat_s: float | None = None) -> Lease | None:
        """The lease, or None when another worker holds it that may be alive.

        What owners before had in hand can't be published any more when this returns.

        Args:
            lasts_s: Seconds without a touch after which others take it over.
            beat_s: Seconds between touches; a tenth of that.

        Raises:
            OSError: The lease can't be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        token = uuid.uuid4().hex
        _held[token] = path
        try:
            written = write_lease(path, Process.here(), token, lasts_s)
            if not written and is_free(path, lasts_s):
                written = write_lease(path, Process.here(), token, lasts_s)
            if written:
                _watched.pop(path, None)
                fence(path, token)
                return cls(path, token, lasts_s, lasts_s / _BEATS if beat_s is None else beat_s)
        except OSError:
            _give_back(token)
            raise
        del _held[token]
        return None

    def mine(self) -> bool:
        """Whether this worker still owns the lease (a paused process may have lost it)."""
        found = read_lease(self.path)
        return found is not None and found.token == self._token

    def partial(self, target: Path) -> Path:
        """Where to write what is to become `target`; the lease says so from now on, so that it can be withdrawn.

        Raises:
            LeaseLostError: Another worker has it.
        """
        with self._announcing:
            if target not in self._partials:
                partial = partial_path(target)
                if not announce(self.path, self._token, partial):
                    self._lost = True
                    raise self._gone()
                self._partials[target] = partial
            return self._partials[target]

    def keep(self) -> None:
        """A sign of life from the worker; cheap.

        Raises:
            LeaseLostError: Another worker has it, or it couldn't be touched for half of the time that it lasts.
        """
        # A process that was paused may be awake before the thread that would have noticed.
        if self._lost or time.monotonic() - self._kept > self._lasts_s / 2:
            self.confirm()

    def confirm(self) -> None:
        """Look at the file itself: nothing that was written before can be published by this worker when it is lost.

        Raises:
            LeaseLostError: Another worker has it, or it can't be touched.
        """
        try:
            self._touch()
        except OSError as error:
            raise LeaseLostError(
                f"the lease can't be kept: {error.strerror or error}",
                where=str(self.path),
                hint="see to the disk that holds the run, and run the same command again",
            ) from error
        if self._lost:
            raise self._gone()

    def taken(self) -> bool:
        """Whether it is known that another worker took it, or that somebody removed it."""
        try:
            return self._lost or not self.mine()
        except OSError:
            return False

    def release(self) -> None:
        """Give the lease back; harmless if it was lost."""
        self._stop.set()
        self._thread.join()
        # What could not be removed, with a permission lost, is for the next owner to remove.
        _give_back(self._token, leave=any(map(os.path.lexists, self._partials.values())))

    def _beat(self, beat_s: float) -> None:
        while not self._lost and not self._stop.wait(beat_s):
            with suppress(OSError):  # `keep` counts the time since the last that went well
                self._touch()

    def _touch(self) -> None:
        began = time.monotonic()
        try:
            if self.mine():
                os.utime(self.path)
                self._kept = began
            else:
                self._lost = True
        except FileNotFoundError:  # taken away between the two
            self._lost = True

    def _gone(self) -> LeaseLostError:
        return LeaseLostError(
            "the lease was lost while it was being made (was this process paused?)",
            hint="run again: what another worker has published is kept",
        )

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_free(path: Path, lasts_s: float = LASTS_S) -> bool:
    """Whether the lease can be had; one whose owner is dead is taken away.

    An owner that was a process of this machine is asked after. Any other is dead when it has been silent for as long
    as its lease says that it lasts: as seen from here, call after call, or by the dates of the file system and from
    here for a third of it. Dates alone prove nothing, since Lustre and others date files by the clock of each machine.

    Args:
        lasts_s: For leases that don't say it.
    """
    found = read_lease(path)
    if found is None:
        _watched.pop(path, None)
        return True
    owner = found.process
    orphaned = owner == Process.here() and found.token not in _held  # it could not be given back
    if not (orphaned or (owner is not None and owner.gone()) or _silent(path, found, lasts_s)):
        return False
    aside = set_aside(path, lambda now: now.state == found.state)
    return aside is not None or not path.exists()


def looks_dead(path: Path, lasts_s: float = LASTS_S) -> bool:
    """Whether by the dates of the file system nobody has touched the lease for as long as it lasts: watch it a while.

    Args:
        lasts_s: For leases that don't say it.
    """
    found = read_lease(path)
    return found is not None and _overdue(path, found, found.lasts_s or lasts_s)


def release_of(path: Path, host: str, pid: int) -> bool:
    """Take away the lease of a process that is known to be dead, though its host can't be asked; True if it had it."""
    found = read_lease(path)
    if found is None or (found.owner.get("host"), found.owner.get("pid")) != (host, pid):
        return False
    return set_aside(path, lambda now: now.token == found.token) is not None


def _silent(path: Path, found: LeaseFile, lasts_s: float) -> bool:
    now = time.monotonic()
    state, since = _watched.get(path, (None, now))
    if state != found.state:
        _watched[path] = found.state, now
        return False
    lasts_s = found.lasts_s or lasts_s
    return now - since >= lasts_s or (now - since >= lasts_s / 3 and _overdue(path, found, lasts_s))


def _overdue(path: Path, found: LeaseFile, lasts_s: float) -> bool:
    return now_on(path.parent) - found.touched_ns / 1e9 >= lasts_s


def _give_back(token: str, leave: bool = False) -> None:
    path = _held.get(token)
    if path is not None:
        with suppress(OSError):  # it stays until it expires; this process may have it again at once
            (set_aside if leave else remove)(path, lambda now: now.token == token)
    _held.pop(token, None)


@atexit.register
def _give_all_back() -> None:
    """An interrupt may fall between taking a lease and the `with` that gives it back, or inside giving it back."""
    for token in list(_held):
        _give_back(token)
