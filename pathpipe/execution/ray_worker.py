"""A worker on a Ray cluster: an actor that takes unit after unit and keeps its encoder loaded between them."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pathpipe
from pathpipe.execution.processes import Stopped, Work
from pathpipe.progress import Progress
from pathpipe.run import Run

R = TypeVar("R")
_GATHER_S = 0.3  # progress is heard so often
_SILENCE_S = 20.0  # a call that waits for progress comes back after so long, whether or not there is any


@dataclass(frozen=True)
class Introduction:
    """Who a worker is.

    Attributes:
        sees_run: Whether the run's folder is there on its node.
    """

    host: str
    pid: int
    version: str
    sees_run: bool


class Worker(Generic[R]):
    """What runs in the actor's process; its methods are called side by side, in threads.

    Args:
        work: What is done with each unit.
        folder: Of the run.
    """

    def __init__(self, work: Work[R], folder: Path) -> None:
        self._work, self._folder = work, folder
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._latest: dict[str, Progress] = {}

    def introduce(self) -> Introduction:
        """Who this is."""
        return Introduction(socket.gethostname(), os.getpid(), pathpipe.__version__, Run.exists(self._folder))

    def work(self, key: str) -> R | None:
        """Do one unit; None when it was stopped on the way."""
        try:
            return self._work(key, self._notify)
        except Stopped:
            return None

    def progress(self) -> list[Progress]:
        """The latest of every unit that has said something since the last call; waits until there is something."""
        with self._news:
            self._news.wait_for(lambda: self._latest or self._stop.is_set(), timeout=_SILENCE_S)
        time.sleep(_GATHER_S)
        with self._news:
            latest, self._latest = list(self._latest.values()), {}
        return latest

    def stop(self) -> None:
        """End what is being worked on where it next says how far it is, so that its lease is given back."""
        self._stop.set()
        with self._news:
            self._news.notify_all()

    def _notify(self, message: Progress) -> None:
        if self._stop.is_set():
            raise Stopped
        with self._news:
            self._latest[message.key] = message
            self._news.notify_all()
