"""Units in threads: order of starting, bounded number at once, and an interrupt that reaches every unit."""

from __future__ import annotations

import threading
import time

import pytest

from pathpipe.execution.processes import Hearing, Stopped
from pathpipe.execution.threads import run_in_threads
from pathpipe.progress import Notify, Progress


def _hearing(finished: list[str]) -> Hearing[str]:
    return Hearing(lambda _: None, lambda key, _: finished.append(key), lambda key, _: key)


def test_as_many_at_once_as_asked_and_begun_in_order() -> None:
    begun: list[str] = []
    at_once: list[int] = []
    inside = 0
    lock = threading.Lock()

    def work(key: str, notify: Notify) -> str:
        nonlocal inside
        with lock:
            begun.append(key)
            inside += 1
            at_once.append(inside)
        time.sleep(0.005)
        with lock:
            inside -= 1
        return key.upper()

    finished: list[str] = []
    keys = [f"k{number:02}" for number in range(12)]
    results = run_in_threads(work, keys, 3, _hearing(finished))
    assert begun == keys and max(at_once) == 3
    assert results == {key: key.upper() for key in keys} and sorted(finished) == keys


def test_an_interrupt_stops_the_others_where_they_speak() -> None:
    given_back: list[str] = []

    def work(key: str, notify: Notify) -> str:
        try:
            while True:
                notify(Progress("extract", key))
                time.sleep(0.002)
        except Stopped:
            given_back.append(key)
            raise

    def interrupt(_: Progress) -> None:
        if threading.current_thread() is not threading.main_thread():
            calls.append(1)

    calls: list[int] = []
    hearing: Hearing[str] = Hearing(interrupt, lambda key, _: None, lambda key, _: key)

    def waiting(*args: object, **kwargs: object) -> None:
        while len(calls) < 10:
            time.sleep(0.001)
        raise KeyboardInterrupt

    import pathpipe.execution.threads as threads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "wait", waiting)
        with pytest.raises(KeyboardInterrupt):
            run_in_threads(work, ["a", "b", "c"], 2, hearing)
    assert sorted(given_back) == ["a", "b"]


def test_what_a_unit_raises_comes_out() -> None:
    def work(key: str, notify: Notify) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_threads(work, ["a"], 2, _hearing([]))
