"""Process: which process of which machine, and whether it is known to be gone."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Process:
    """A process as machines that share a file system tell it from all others.

    Attributes:
        host: For people: containers, and clones of a machine, may have it in common.
        boot: Of the machine since it was started: two kernels never share it. Empty where the system has none.
        space: Numbering of processes: each container has its own.
        started: Clock ticks from the boot to its start: a number is given again to another process.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: int

    @classmethod
    def here(cls) -> Process:
        """This one."""
        return _of(os.getpid())

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Process | None:
        """Inverse of `to_dict`; None where something is missing or of another type."""
        try:
            made = cls(*(value[name] for name in ("host", "boot", "space", "pid", "started")))
        except KeyError:
            return None
        texts, numbers = (made.host, made.boot, made.space), (made.pid, made.started)
        right = all(isinstance(one, str) for one in texts) and all(type(one) is int for one in numbers)
        return made if right and made.pid > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    @property
    def place(self) -> str:
        """Eight hex digits for the machine and the numbering, in which `pid` and `started` mean something."""
        return hashlib.sha256(f"{self.boot} {self.space} {'' if self.boot else self.host}".encode()).hexdigest()[:8]

    def gone(self) -> bool:
        """Whether it is known to be dead; False where nobody here can know."""
        return self.place == Process.here().place and process_gone(self.pid, self.started)


def process_alive(pid: int) -> bool:
    """Whether a process of this host exists."""
    return not process_gone(pid, 0)


def process_gone(pid: int, started: int) -> bool:
    """Whether no process of this host has the number now, or one has that was started at another time (0: at any)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # of another user
    stat = _stat(pid)
    if not stat:
        return False
    # A zombie that nobody waits for holds nothing, unless one of its threads still is in a system call.
    dead = stat[0] in "ZX" and int(stat[17]) <= 1
    return dead or (started > 0 and int(stat[19]) != started)


@lru_cache(maxsize=1)
def _of(pid: int) -> Process:  # by number: a fork is another process
    stat = _stat(pid)
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return Process(socket.gethostname(), boot, space, pid, int(stat[19]) if stat else 0)


def _stat(pid: int) -> list[str]:
    """Fields of proc(5)'s stat from the third, the state, on; the name before may hold anything."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such system, or hidden from this user
        return ""
