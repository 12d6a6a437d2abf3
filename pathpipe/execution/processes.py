"""Spawned worker processes that take units one by one; one that dies costs the unit to blame only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Generic, TypeVar

from pathpipe.errors import ExitCode
from pathpipe.execution.queue import Queue
from pathpipe.progress import Notify, Progress

_GRACE_S = 20.0  # Slurm kills 30 s after it has told to stop
_OWN_SIGNAL_S = 1.0
_TOLD_TO_STOP = (-signal.SIGTERM, -signal.SIGUSR1, ExitCode.INTERRUPTED)  # exit codes of a worker
R = TypeVar("R")
Work = Callable[[str, Notify], R]  # (key, notify) -> result; both ways through a pipe, so it must be picklable


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


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


def run_in_processes(
    works: Sequence[Work[R]], keys: Sequence[str], hearing: Hearing[R], at_once: int = 1
) -> dict[str, R]:
    """Do every key once, in one process for each of `works`.

    Args:
        at_once: Keys a process works on at the same time, in threads. When it dies, each of them is tried again alone,
            so that only the one to blame is lost.

    Returns:
        key -> result, in the order they were finished.
    """
    queue = Queue(deque(keys))
    results: dict[str, R] = {}
    workers = [_Worker.start(work, at_once) for work in works[: len(keys)]]
    try:
        for worker in workers:
            _hand_over(queue, worker)
        while any(worker.keys for worker in workers):
            ready = wait([worker.connection for worker in workers if worker.keys])
            for worker in [worker for worker in workers if worker.connection in ready]:
                for key, result in _listen(worker, hearing, queue):
                    results[key] = result
                    hearing.finished(key, result)
                if not worker.alive:
                    workers[workers.index(worker)] = worker = _Worker.start(worker.work, at_once)
                _hand_over(queue, worker)
    finally:
        _dismiss(workers)
    return results


class Stopped(BaseException):
    """Raised inside a unit at its next sign of life after the command was interrupted."""


@dataclass
class _Worker(Generic[R]):
    work: Work[R]
    at_once: int
    process: SpawnProcess
    connection: Connection
    keys: set[str] = field(default_factory=set)
    alive: bool = True

    @classmethod
    def start(cls, work: Work[R], at_once: int) -> _Worker[R]:
        # spawn: OpenSlide handles, CUDA and thread pools don't survive a fork
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work, at_once), daemon=True)
        process.start()
        theirs.close()
        return cls(work, at_once, process, ours)


def _dismiss(workers: Sequence[_Worker[R]]) -> None:
    """Let each stop where it gives back what it holds; one that gives no sign of life is killed."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.connection.close()


def _hand_over(queue: Queue, worker: _Worker[R]) -> None:
    """Give a worker what it has room for."""
    while (key := queue.next_for(worker.keys, worker.at_once)) is not None:
        worker.keys.add(key)
        with suppress(BrokenPipeError):  # dead already: its end of the pipe says so to whoever waits on it
            worker.connection.send(key)


def _listen(worker: _Worker[R], hearing: Hearing[R], queue: Queue) -> list[tuple[str, R]]:
    """What came to an end; nothing when it was only progress, or when a death has to be looked into."""
    try:
        message = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        worker.connection.close()
        worker.alive = False
        if worker.process.exitcode in _TOLD_TO_STOP:
            time.sleep(_OWN_SIGNAL_S)  # a scheduler tells every process: this one is about to be told too
            raise KeyboardInterrupt from None
        keys, worker.keys = sorted(worker.keys), set()
        if len(keys) == 1:
            return [(keys[0], hearing.died(keys[0], worker.process.exitcode))]
        for key in keys:
            queue.suspect(key)
        return []
    if isinstance(message, Progress):
        hearing.progress(message)
        return []
    key, result = message
    worker.keys.discard(key)
    queue.came_back(key)
    return [(key, result)]


def _serve(connection: Connection, work: Work[R], at_once: int) -> None:
    """Main of a worker process: keys come in through the pipe, results and progress go out."""
    # Ctrl-C reaches the whole group: the parent decides, the worker must not print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    speaking, stop, busy = threading.Lock(), threading.Event(), threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()
        if not busy.is_set():
            raise Stopped

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, told)

    def notify(progress: Progress) -> None:
        if stop.is_set():
            raise Stopped
        with speaking:
            connection.send(progress)

    def do(key: str) -> None:
        result = work(key, notify)
        with speaking:
            connection.send((key, result))

    try:
        with ThreadPoolExecutor(at_once) as pool:
            while not stop.is_set():
                key = connection.recv()
                if at_once == 1:
                    busy.set()
                    do(key)  # in the main thread, where a reader that counts on it works too
                    busy.clear()
                else:
                    pool.submit(do, key)
            raise Stopped
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
    except Stopped:
        sys.exit(ExitCode.INTERRUPTED)
