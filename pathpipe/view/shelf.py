"""The shelf: slides that are open, a bounded number of them, and pictures of them that were encoded already."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pathpipe.slides.open import open_slide
from pathpipe.url import Place, Url
from pathpipe.view.deepzoom import Pyramid

MAX_SLIDES = 8
MAX_PICTURE_BYTES = 64 << 20
Version = tuple[int, int]


@dataclass
class _Open:
    pyramid: Pyramid
    users: int = 0


class Shelf:
    """Open slides by path; the least recently used are closed when there are too many. Safe from several threads."""

    def __init__(self, reader: str = "auto", max_slides: int = MAX_SLIDES) -> None:
        self.reader = reader
        self.max_slides = max_slides
        self._open: OrderedDict[tuple[Place, Version], _Open] = OrderedDict()
        self._lock = threading.Lock()
        self._opening: dict[Place, threading.Lock] = {}

    @contextmanager
    def borrow(self, path: Place) -> Iterator[Pyramid]:
        """The slide, opened if it isn't; it stays open until it is given back.

        Raises:
            SlideError: It can't be opened.
        """
        entry = self._taken(path)
        try:
            yield entry.pyramid
        finally:
            with self._lock:
                entry.users -= 1
                self._close_some(self.max_slides)

    def close(self) -> None:
        """Close every slide that nobody reads."""
        with self._lock:
            self._close_some(0)

    def __len__(self) -> int:
        return len(self._open)

    def _taken(self, path: Place) -> _Open:
        with self._lock:
            turn = self._opening.setdefault(path, threading.Lock())
        with turn:  # several threads that want a slide at once open it once
            key = (path, version_of(path))
            with self._lock:
                entry = self._open.get(key)
                if entry is not None:
                    self._open.move_to_end(key)
                    entry.users += 1
                    return entry
            entry = _Open(Pyramid(open_slide(path, self.reader)), users=1)
            with self._lock:
                self._open[key] = entry
                self._close_some(self.max_slides)
            return entry

    def _close_some(self, keep: int) -> None:
        idle = [key for key, entry in self._open.items() if not entry.users]
        for key in idle[: max(0, len(self._open) - keep)]:
            self._open.pop(key).pyramid.slide.close()


def version_of(path: Place) -> Version:
    """Time of change (ns) and size of a slide's file: another slide under the same name is noticed. Zeros for none.

    A slide behind a URL has zeros too: asking its store for every picture would take longer than the picture.
    """
    if isinstance(path, Url):
        return 0, 0
    try:
        found = path.stat()
    except OSError:  # opening it says what is wrong
        return 0, 0
    return found.st_mtime_ns, found.st_size


class Pictures:
    """Encoded pictures, the most recently used ones up to a number of bytes. Safe from several threads."""

    def __init__(self, max_bytes: int = MAX_PICTURE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._pictures: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes | None]) -> bytes | None:
        """The picture of that key, made when it isn't there; None when there is none to make."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        made = make()
        if made is None:
            return None
        with self._lock:
            self._bytes += len(made) - len(self._pictures.pop(key, b""))
            self._pictures[key] = made
            while self._bytes > self.max_bytes:
                self._bytes -= len(self._pictures.popitem(last=False)[1])
        return made
