"""A cohort on one machine: units go to spawned worker processes one by one, or run in this process."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from pathpipe.execution.receipt import Receipt
from pathpipe.execution.worker import serve, work
from pathpipe.progress import Progress
from pathpipe.run import Run
from pathpipe.settings import RunSettings

_POLL_S = 0.5
_UNITS_PER_WORKER = 4  # below this, starting another process costs more than it saves


class Listener:
    """Who hears of the work. This one doesn't care; override what should be shown."""

    def begin(self, stages: Sequence[str], count: int) -> None:
        """`count` units are about to go through `stages`."""

    def progress(self, message: Progress) -> None:
        """A unit says how far it is."""

    def finished(self, key: str, receipts: list[Receipt]) -> None:
        """A unit is through, or has stopped where it failed."""


def run_units(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener
) -> dict[str, list[Receipt]]:
    """Bring every unit through `stages`; never raises for a unit that fails.

    A unit that another command is making is waited for. A worker that dies (a reader that crashes on a corrupt
    slide) costs its own unit only.

    Returns:
        key -> receipts, in the order of `keys`.
    """
    workers = worker_count(settings, stages, len(keys))
    results: dict[str, list[Receipt]] = {}
    left = list(keys)
    while left:
        if workers > 1:
            done = _in_processes(run, stages, settings, left, listener, workers)
        else:
            done = {}
            for key in left:
                done[key] = work(run, stages, settings, key, listener.progress)
                if not _busy(done[key]):
                    listener.finished(key, done[key])
        results.update(done)
        left = [key for key in left if _busy(done[key])]
        if left:
            time.sleep(_POLL_S)
    return {key: results[key] for key in keys}


def worker_count(settings: RunSettings, stages: Sequence[str], units: int) -> int:
    """Processes to use: as asked, else the cores for tissue and tiles and one where torch uses them all itself."""
    asked = settings.execution.workers
    if asked:
        return min(asked, max(units, 1))
    if not set(stages) <= {"tissue", "tile"}:
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), units // _UNITS_PER_WORKER))


def _busy(receipts: list[Receipt]) -> bool:
    return bool(receipts) and receipts[-1].state == "busy"


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    key: str | None = None


def _start(run: Run, stages: Sequence[str], settings: RunSettings) -> _Worker:
    # spawn: OpenSlide handles, CUDA and thread pools don't survive a fork
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, run.folder, list(stages), settings), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _in_processes(
    run: Run, stages: Sequence[str], settings: RunSettings, keys: Sequence[str], listener: Listener, count: int
) -> dict[str, list[Receipt]]:
    waiting = deque(keys)
    results: dict[str, list[Receipt]] = {}
    workers = [_start(run, stages, settings) for _ in range(min(count, len(keys)))]
    try:
        for worker in workers:
            _hand_over(worker, waiting)
        while any(worker.key is not None for worker in workers):
            ready = wait([worker.connection for worker in workers if worker.key is not None])
            for worker in [worker for worker in workers if worker.connection in ready]:
                receipts = _listen(worker, run, stages, listener)
                if receipts is None:
                    continue
                assert worker.key is not None
                results[worker.key] = receipts
                if not _busy(receipts):
                    listener.finished(worker.key, receipts)
                if not worker.process.is_alive():
                    workers[workers.index(worker)] = worker = _start(run, stages, settings)
                _hand_over(worker, waiting)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
    return results


def _hand_over(worker: _Worker, waiting: deque[str]) -> None:
    worker.key = waiting.popleft() if waiting else None
    if worker.key is not None:
        with suppress(BrokenPipeError):  # dead already: its end of the pipe says so to whoever waits on it
            worker.connection.send(worker.key)


def _listen(worker: _Worker, run: Run, stages: Sequence[str], listener: Listener) -> list[Receipt] | None:
    """Receipts of the unit that ended, or None when it was only progress."""
    try:
        message = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        assert worker.key is not None
        return [_died(run, stages, worker.key, worker.process.exitcode)]
    if isinstance(message, Progress):
        listener.progress(message)
        return None
    receipts: list[Receipt] = message
    return receipts


def _died(run: Run, stages: Sequence[str], key: str, exitcode: int | None) -> Receipt:
    reason = f"the process that worked on it died (exit {exitcode}): a reader crashed, or memory ran out"
    receipt = Receipt(stages[0], key, "failed", reason, "try `--workers 1`, or another `--reader`")
    receipt.write(run)
    return receipt
