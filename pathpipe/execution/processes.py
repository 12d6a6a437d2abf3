"""Spawned worker processes that take units one by one; one that dies costs the unit to blame only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

from pathpipe.progress import Notify, Progress

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
    queue = _Queue(deque(keys))
    results: dict[str, R] = {}
    workers = [_Worker.start(work, at_once) for work in works[: len(keys)]]
    try:
        for worker in workers:
            queue.hand_over(worker)
        while any(worker.keys for worker in workers):
            ready = wait([worker.connection for worker in workers if worker.keys])
            for worker in [worker for worker in workers if worker.connection in ready]:
                for key, result in _listen(worker, hearing, queue):
                    results[key] = result
                    hearing.finished(key, result)
                if not worker.alive:
                    workers[workers.index(worker)] = worker = _Worker.start(worker.work, at_once)
                queue.hand_over(worker)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
            worker.connection.close()
    return results


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


@dataclass
class _Queue:
    """What is left to do.

    Attributes:
        suspects: Keys that were in a process that died: each is done alone.
    """

    waiting: deque[str]
    suspects: deque[str] = field(default_factory=deque)
    alone: set[str] = field(default_factory=set)

    def hand_over(self, worker: _Worker[R]) -> None:
        """Give a worker what it has room for."""
        while len(worker.keys) < worker.at_once and not worker.keys & self.alone:
            if self.suspects and not worker.keys:
                key = self.suspects.popleft()
                self.alone.add(key)
            elif self.waiting and not self.suspects:
                key = self.waiting.popleft()
            else:
                return
            worker.keys.add(key)
            with suppress(BrokenPipeError):  # dead already: its end of the pipe says so to whoever waits on it
                worker.connection.send(key)


def _listen(worker: _Worker[R], hearing: Hearing[R], queue: _Queue) -> list[tuple[str, R]]:
    """What came to an end; nothing when it was only progress, or when a death has to be looked into."""
    try:
        message = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        worker.connection.close()
        worker.alive = False
        keys, worker.keys = sorted(worker.keys), set()
        if len(keys) == 1:
            return [(keys[0], hearing.died(keys[0], worker.process.exitcode))]
        queue.suspects.extend(keys)
        return []
    if isinstance(message, Progress):
        hearing.progress(message)
        return []
    key, result = message
    worker.keys.discard(key)
    queue.alone.discard(key)
    return [(key, result)]


def _serve(connection: Connection, work: Work[R], at_once: int) -> None:
    """Main of a worker process: keys come in through the pipe, results and progress go out."""
    # Ctrl-C reaches the whole group: the parent decides, the worker must not print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    speaking = threading.Lock()

    def notify(progress: Progress) -> None:
        with speaking:
            connection.send(progress)

    def do(key: str) -> None:
        result = work(key, notify)
        with speaking:
            connection.send((key, result))

    try:
        with ThreadPoolExecutor(at_once) as pool:
            while True:
                key = connection.recv()
                if at_once == 1:
                    do(key)  # in the main thread, where a reader that counts on it works too
                else:
                    pool.submit(do, key)
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
