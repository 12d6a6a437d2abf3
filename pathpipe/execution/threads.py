"""Several units at once in this process: while one is encoded, the next is read, so that the device never waits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from pathpipe.execution.processes import Hearing, Stopped, Work
from pathpipe.progress import Progress

R = TypeVar("R")
_POLL_S = 0.2  # how soon an interrupt is noticed


def run_in_threads(work: Work[R], keys: Sequence[str], count: int, hearing: Hearing[R]) -> dict[str, R]:
    """Do `work` for every key, `count` at a time, begun in the order given.

    An interrupt stops the others where they next report progress, so that what they hold is given back.

    Returns:
        key -> result, in the order they were finished.
    """
    stop, speaking = threading.Event(), threading.Lock()
    results: dict[str, R] = {}

    def notify(message: Progress) -> None:
        if stop.is_set():
            raise Stopped
        with speaking:
            hearing.progress(message)

    pool = ThreadPoolExecutor(count, thread_name_prefix="pathpipe-unit")
    waiting: dict[Future[R], str] = {pool.submit(work, key, notify): key for key in keys}
    try:
        while waiting:
            for future in wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED).done:
                key = waiting.pop(future)
                results[key] = future.result()
                with speaking:
                    hearing.finished(key, results[key])
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return results
