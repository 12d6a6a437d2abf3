"""Decoded tiles that are kept: rows of a grid share them, and decoding is what reading costs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from pathpipe.slides.slide import Pixels


class TileCache:
    """The most recently used tiles, up to a number of bytes. Safe from several threads.

    A tile that one thread is decoding is waited for by the others, not decoded again.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._tiles: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        """The tile of that key, made when it isn't there."""
        while True:
            tile = self.get_now(key, make)
            if tile is not None:
                return tile
            with self._lock:
                latch = self._under_way.get(key)
            if latch is not None:
                with latch:
                    pass  # whoever made it has let go

    def get_now(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels | None:
        """The tile of that key, made when it isn't there; None while another thread is making it."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
            if key in self._under_way:
                return None
            latch = self._under_way[key] = threading.Lock()
            latch.acquire()
        try:
            tile = make()
            return tile
        finally:
            self._settle(key, tile)

    def peek(self, key: Hashable) -> Pixels | None:
        """The tile of that key if it is there."""
        with self._lock:
            return self._tiles.get(key)

    def _settle(self, key: Hashable, tile: Pixels | None) -> None:
        with self._lock:
            if tile is not None:
                self._tiles[key] = tile
                self._bytes += tile.nbytes
            while self._bytes > self.max_bytes and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes
            self._under_way.pop(key).release()
