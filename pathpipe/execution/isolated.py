"""A function over items, in processes that may die: a native library that crashes costs only its own item."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Crash:
    """The process that worked on an item died; exit codes below 0 are signals."""

    exitcode: int | None


@dataclass
class _Worker(Generic[Item]):
    process: SpawnProcess
    connection: Connection
    index: int | None = None


def isolated(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int = 0
) -> Iterator[tuple[int, Result | Crash]]:
    """Call `work` on every item, each in one of a few spawned processes.

    Args:
        work: Must be importable in another process, as must items and results.
        workers: Processes; 0 takes the cores.

    Yields:
        The index of an item and what became of it, as they end.
    """
    count = min(workers or len(os.sched_getaffinity(0)), len(items))
    waiting = deque(range(len(items)))
    pool: list[_Worker[Item]] = [_start(work) for _ in range(count)]
    try:
        for worker in pool:
            _hand_over(worker, waiting, items)
        while any(worker.index is not None for worker in pool):
            ready = wait([worker.connection for worker in pool if worker.index is not None])
            for place, worker in enumerate(pool):
                if worker.connection not in ready:
                    continue
                index = worker.index
                assert index is not None
                try:
                    result: Result | Crash = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    _stop(worker)
                    result = Crash(worker.process.exitcode)
                    if waiting:
                        pool[place] = worker = _start(work)
                _hand_over(worker, waiting, items)
                yield index, result
    finally:
        for worker in pool:
            worker.process.terminate()
            _stop(worker)


def _start(work: Callable[[Item], Result]) -> _Worker[Item]:
    # spawn: OpenSlide handles and thread pools don't survive a fork
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(worker: _Worker[Item]) -> None:
    worker.process.join()
    worker.connection.close()


def _hand_over(worker: _Worker[Item], waiting: deque[int], items: Sequence[Item]) -> None:
    worker.index = waiting.popleft() if waiting else None
    if worker.index is not None:
        with suppress(BrokenPipeError):  # dead already: its end of the pipe says so to whoever waits on it
            worker.connection.send(items[worker.index])


def _serve(connection: Connection, work: Callable[[Item], Result]) -> None:
    # Ctrl-C reaches the whole group: the parent decides, the worker must not print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            connection.send(work(connection.recv()))
