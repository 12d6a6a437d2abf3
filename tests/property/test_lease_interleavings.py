"""The lease protocol under any schedule: workers are stopped between any two calls to the system, for any time."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathpipe import lease as lease_module
from pathpipe import lease_file, publish
from pathpipe.errors import LeaseLostError
from pathpipe.lease import Lease

LASTS_S = 300.0
WORKERS = 3
STEPS = ("open", "rename", "replace", "unlink", "utime", "link", "listdir", "stat")
CLOCKS = range(WORKERS, 2 * WORKERS)  # in a schedule: time passes for one of them (a machine may sleep, and its clock)


class _Stage:
    """Real threads and real files, but one thread moves at a time, one call to the system at a time."""

    def __init__(self, folder: Path, is_folder: bool) -> None:
        self.lease, self.target, self.is_folder = folder / "leases" / "S1", folder / "out" / "S1", is_folder
        self.now_s = [0.0] * WORKERS
        self.published: list[int] = []
        self.fenced = self.unlikely = 0
        self._go = [threading.Semaphore(0) for _ in range(WORKERS)]
        self._back = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._life, args=(n,), daemon=True) for n in range(WORKERS)]
        self.errors: list[BaseException] = []
        self.done = [False] * WORKERS
        for thread in self._threads:
            thread.start()

    def step(self, number: int) -> None:
        if number in CLOCKS:
            self.now_s[number - WORKERS] += LASTS_S + 1
        elif not self.done[number]:
            self._go[number].release()
            self._back.acquire()

    def monotonic(self) -> float:
        return self.now_s[self._number()]

    def os(self) -> Any:
        def gated(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                self._wait()
                result = getattr(os, name)(*arguments, **options)
                if name == "replace" and Path(arguments[1]) == self.target:
                    self.published.append(self._number())
                return result

            return call

        return SimpleNamespace(**{**vars(os), **{name: gated(name) for name in STEPS}})

    def _number(self) -> int:
        return self._threads.index(threading.current_thread())

    def _wait(self) -> None:
        if threading.current_thread() in self._threads:
            self._back.release()
            self._go[self._number()].acquire()

    def _life(self, number: int) -> None:
        self._go[number].acquire()
        try:
            while not self.target.exists():
                lease = Lease.acquire(self.lease, lasts_s=LASTS_S, beat_s=1e6)
                if lease is None:
                    self._wait()
                    continue
                with lease:
                    self._work(number, lease)
        except BaseException as error:
            self.errors.append(error)
        self.done[number] = True
        self._back.release()

    def _work(self, number: int, lease: Lease) -> None:
        if self.target.exists():
            return
        try:
            with publish.publish(self.target, lease) as partial:
                self._wait()
                if self.is_folder:
                    partial.mkdir()
                (partial / "content" if self.is_folder else partial).write_text(f"whole, by {number}")
                lease.keep()
        except (LeaseLostError, FileNotFoundError):
            assert lease.taken(), "it failed though it is the owner"
            self.fenced += 1


def _play(schedule: list[tuple[int, int]], is_folder: bool) -> _Stage:
    """The schedule, and then everybody in turn until all are through."""
    with tempfile.TemporaryDirectory() as folder:
        stage = _Stage(Path(folder), is_folder)
        fake_time = SimpleNamespace(monotonic=stage.monotonic, sleep=time.sleep)
        (Path(folder) / "leases").mkdir()
        system = stage.os()
        with (
            mock.patch.object(lease_module, "os", system),
            mock.patch.object(lease_file, "os", system),
            mock.patch.object(publish, "os", system),
            mock.patch.object(lease_module, "time", fake_time),
        ):
            for number, steps in schedule:
                for _ in range(steps):
                    stage.step(number)
            rounds = 0
            while not all(stage.done):
                for number in range(WORKERS):
                    for _ in range(40):
                        stage.step(number)
                    stage.step(CLOCKS[number])
                rounds += 1
                assert rounds < 100, "they wait for each other"
        for error in stage.errors:
            raise AssertionError("a worker failed") from error
        assert len(stage.published) == 1, f"published by {stage.published}"
        read = stage.target / "content" if is_folder else stage.target
        assert read.read_text() == f"whole, by {stage.published[0]}"
        assert os.listdir(stage.target.parent) == ["S1"], "a partial was left"
        _next_one_comes(stage.lease)
        assert os.listdir(stage.lease.parent) == []
        return stage


def _next_one_comes(path: Path) -> None:
    """A lease may be left, by somebody who took it for another's and put it back, but not for ever."""
    with mock.patch.object(lease_module, "time", SimpleNamespace(monotonic=iter((0.0, 0.0, 1e6, 1e6)).__next__)):
        lease = Lease.acquire(path, beat_s=1e6) or Lease.acquire(path, beat_s=1e6)
    assert lease is not None
    lease.release()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, CLOCKS[-1]), st.integers(1, 9)), max_size=30), st.booleans())
def test_published_once_whatever_the_schedule(schedule: list[tuple[int, int]], is_folder: bool) -> None:
    _play(schedule, is_folder)


@pytest.mark.parametrize("is_folder", [False, True])
def test_stopped_at_every_single_step(is_folder: bool) -> None:
    """The first worker is stopped after each of its steps; the second takes over and is through; the first wakes up."""
    fenced = first = steps = 0
    while True:
        before = [(0, steps)] if steps else []
        stage = _play([*before, (1, 60), (CLOCKS[1], 1), (1, 200), (0, 200)], is_folder)
        fenced += stage.fenced
        first += stage.published == [0]
        steps += 1
        if steps > 60:
            break
    assert fenced >= 5, "it was never stopped with something in hand"
    assert first >= 20, "it never came through"
