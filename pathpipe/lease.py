"""Leases: at most one worker makes a unit at a time, and a dead worker's unit is taken over.

A lease is a file created with O_EXCL; its owner touches it while it works. Leases save work; they are not what
keeps results whole: `publish` does that, so two owners at once waste time and corrupt nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import threading
import uuid
from pathlib import Path
from types import TracebackType

from pathpipe.publish import process_alive

BEAT_S = 30.0
EXPIRY_S = 300.0
_held: dict[str, Path] = {}  # token -> path of what this process holds, or was about to hold


class Lease:
    """An exclusive, heart-beating claim on a path. Make one with `Lease.acquire`."""

    def __init__(self, path: Path, token: str, beat_s: float) -> None:
        self.path = path
        self._token = token
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat_s,), daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, path: Path, *, beat_s: float = BEAT_S, expiry_s: float = EXPIRY_S) -> Lease | None:
        """The lease, or None when a living worker holds it.

        A lease whose owner was a process of this host that is gone, or that has not been touched for `expiry_s`,
        is taken over.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        token = uuid.uuid4().hex
        owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": token})
        _held[token] = path
        for _ in range(2):
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if not _take_away_dead(path, expiry_s):
                    break
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(owner)
            return cls(path, token, beat_s)
        del _held[token]
        return None

    def mine(self) -> bool:
        """Whether this worker still owns the lease (a paused process may have lost it)."""
        return _owner(self.path).get("token") == self._token

    def release(self) -> None:
        """Give the lease back; harmless if it was lost."""
        self._stop.set()
        self._thread.join()
        _give_back(self._token)

    def _beat(self, beat_s: float) -> None:
        while not self._stop.wait(beat_s):
            if self.mine():
                with contextlib.suppress(FileNotFoundError):  # taken away between the two lines
                    os.utime(self.path)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _give_back(token: str) -> None:
    path = _held.get(token)
    if path is not None and _owner(path).get("token") == token:
        path.unlink(missing_ok=True)
    _held.pop(token, None)


@atexit.register
def _give_all_back() -> None:
    """An interrupt may fall between taking a lease and the `with` that gives it back, or inside giving it back."""
    for token in list(_held):
        _give_back(token)


def _owner(path: Path) -> dict[str, object]:
    try:
        owner = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _take_away_dead(path: Path, expiry_s: float) -> bool:
    """Remove a dead owner's lease; True when the way is free."""
    owner = _owner(path)
    try:
        age = _now_on(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return True
    here = owner.get("host") == socket.gethostname()
    pid = owner.get("pid")
    gone = here and isinstance(pid, int) and not process_alive(pid)
    if not gone and age < expiry_s:
        return False
    taken = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.dead")
    try:
        os.rename(path, taken)
    except FileNotFoundError:
        return True
    if _owner(taken).get("token") != owner.get("token"):  # somebody renewed it meanwhile: put theirs back
        with contextlib.suppress(FileExistsError):
            os.link(taken, path)
        taken.unlink(missing_ok=True)
        return False
    taken.unlink(missing_ok=True)
    return True


def _now_on(folder: Path) -> float:
    """The file system's own clock, so that skewed hosts agree about ages."""
    probe = folder / f".{uuid.uuid4().hex[:8]}.clock"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
