"""The shelf: bounded, closed only when nobody reads, opened once by many."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pathpipe.errors import SlideError
from pathpipe.testing.slides import position_slide
from pathpipe.view import shelf as module
from pathpipe.view.shelf import Pictures, Shelf


class _Counted:
    opened: ClassVar[list[str]] = []
    closed: ClassVar[list[str]] = []

    def __init__(self, path: Path, reader: str) -> None:
        self.path, self.size0 = path, (10, 10)
        self.opened.append(path.name)

    def close(self) -> None:
        self.closed.append(self.path.name)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[_Counted]:
    _Counted.opened, _Counted.closed = [], []
    monkeypatch.setattr(module, "open_slide", _Counted)
    return _Counted


def test_the_least_recently_used_is_closed(tmp_path: Path, counted: Any) -> None:
    shelf = Shelf(max_slides=2)
    for name in "abac":
        with shelf.borrow(tmp_path / name):
            pass
    assert counted.opened == ["a", "b", "c"] and counted.closed == ["b"] and len(shelf) == 2


def test_a_slide_in_use_stays_open(tmp_path: Path, counted: Any) -> None:
    shelf = Shelf(max_slides=1)
    with shelf.borrow(tmp_path / "a"):
        with shelf.borrow(tmp_path / "b"):
            assert counted.closed == []
        assert counted.closed == ["b"]  # one may stay, and that is the one in use
        shelf.close()
        assert counted.closed == ["b"]
    shelf.close()
    assert counted.closed == ["b", "a"]


def test_threads_that_want_a_slide_at_once_open_it_once(tmp_path: Path, counted: Any) -> None:
    shelf, barrier = Shelf(), threading.Barrier(8)

    def read() -> None:
        barrier.wait()
        with shelf.borrow(tmp_path / "a"):
            pass

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.opened == ["a"]


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    path = position_slide(tmp_path / "a.svs", [(300, 200)])
    shelf = Shelf()
    with shelf.borrow(path) as pyramid:
        assert pyramid.slide.size0 == (300, 200)
    position_slide(tmp_path / "new.svs", [(400, 200)])
    os.replace(tmp_path / "new.svs", path)
    with shelf.borrow(path) as pyramid:
        assert pyramid.slide.size0 == (400, 200)
    shelf.close()


def test_a_slide_that_is_not_there_is_an_error_each_time(tmp_path: Path) -> None:
    shelf = Shelf()
    for _ in range(2):
        with pytest.raises(SlideError), shelf.borrow(tmp_path / "none.svs"):
            pass
    assert len(shelf) == 0


def test_pictures_keep_to_their_bytes() -> None:
    pictures, made = Pictures(max_bytes=10), []

    def picture(name: str) -> bytes | None:
        return pictures.get(name, lambda: made.append(name) or b"1234")  # type: ignore[func-returns-value]

    assert [picture(name) for name in "abaca"] == [b"1234"] * 5
    assert made == ["a", "b", "c"]  # b went, a was used since
    picture("b")
    assert made == ["a", "b", "c", "b"]
    assert pictures.get("none", lambda: None) is None
