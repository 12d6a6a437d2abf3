"""Spawned worker processes that take one unit at a time; one that dies costs its own unit only."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

from pathpipe.progress import Notify, Progress

R = TypeVar("R")
Work = Callable[[str, Notify], R]  # (key, notify) -> result; both ways through a pipe, so it must be picklable


@dataclass(frozen=True)
class Hearing(Generic[R]):
    """Who is told what, in the parent process.

    Attributes:
        progress: A unit says how far it is.
        finished: A unit is through: its key and its result.
        died: The result of a unit whose process died, from its key and the exit code.
    """

    progress: Notify
    finished: Callable[[str, R], None]
    died: Callable[[str, int | None], R]


def run_in_processes(work: Work[R], keys: Sequence[str], count: int, hearing: Hearing[R]) -> dict[str, R]:
    """Do `work` for every key in `count` processes.

    Returns:
        key -> result, in the order they were finished.
    """
    waiting = deque(keys)
    results: dict[str, R] = {}
    workers = [_start(work) for _ in range(min(count, len(keys)))]
    try:
        for worker in workers:
            _hand_over(worker, waiting)
        while any(worker.key is not None for worker in workers):
            ready = wait([worker.connection for worker in workers if worker.key is not None])
            for worker in [worker for worker in workers if worker.connection in ready]:
                assert worker.key is not None
                try:
                    message = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    message = hearing.died(worker.key, worker.process.exitcode)
                if isinstance(message, Progress):
                    hearing.progress(message)
                    continue
                results[worker.key] = message
                hearing.finished(worker.key, message)
                if not worker.process.is_alive():
                    workers[workers.index(worker)] = worker = _start(work)
                _hand_over(worker, waiting)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
    return results


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    key: str | None = None


def _start(work: Work[R]) -> _Worker:
    # spawn: OpenSlide handles, CUDA and thread pools don't survive a fork
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _hand_over(worker: _Worker, waiting: deque[str]) -> None:
    worker.key = waiting.popleft() if waiting else None
    if worker.key is not None:
        with suppress(BrokenPipeError):  # dead already: its end of the pipe says so to whoever waits on it
            worker.connection.send(worker.key)


def _serve(connection: Connection, work: Work[R]) -> None:
    """Main of a worker process: keys come in through the pipe, results and progress go out."""
    # Ctrl-C reaches the whole group: the parent decides, the worker must not print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def notify(progress: Progress) -> None:
        connection.send(progress)

    try:
        while True:
            connection.send(work(connection.recv(), notify))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
