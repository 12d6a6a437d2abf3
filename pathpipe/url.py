"""URL: where a slide or store lies that is no file here. It never goes through `pathlib`, which eats its slashes."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_EATEN = re.compile(r"(s3|gs|gcs|https?):/[^/]")
_WEB = ("http", "https")


@dataclass(frozen=True)
class Url:
    """An object or a prefix in an object store, or a file on a web server.

    Attributes:
        text: As it was given: it may carry a signature that lets whoever holds it read the object.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def scheme(self) -> str:
        """`s3`, `gs`, `https`, ..."""
        return self.text.partition("://")[0].lower()

    @property
    def shown(self) -> str:
        """For people: without the parts that can hold a secret."""
        if self.scheme not in _WEB:
            return self.text
        parts = urlsplit(self.text)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def name(self) -> str:
        """Last part of the path."""
        last = self.shown.rstrip("/").rpartition("/")[2]
        return unquote(last) if self.scheme in _WEB else last

    @property
    def stem(self) -> str:
        """Name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """`.svs`."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Url:
        """What the object lies in."""
        return Url(self.shown.rstrip("/").rpartition("/")[0])

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which lists nothing."""
        return self.scheme in _WEB

    def joined(self, relative: str) -> Url:
        """What a relative path leads to, which may go up."""
        scheme, _, base = self.text.partition("://")
        return Url(f"{scheme}://{posixpath.normpath(posixpath.join(base, relative))}")

    def __truediv__(self, below: str) -> Url:
        return Url(f"{self.text.rstrip('/')}/{below}")


Place = Path | Url


def is_url(text: str) -> bool:
    """Whether a text is a URL: a scheme of two letters or more, then `://`."""
    return _SCHEME.match(text) is not None


def place(text: str | Path | Url) -> Place:
    """What a person typed, as a path or a URL; `file://` is a path."""
    if not isinstance(text, str):
        return text
    if text.lower().startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    return Url(text) if is_url(text) else Path(text)


def shown(where: Place) -> str:
    """A place for people: of a URL without what can hold a secret."""
    return where.shown if isinstance(where, Url) else str(where)


def was_url(path: Path) -> bool:
    """Whether a path is what `pathlib` leaves of a URL."""
    return _EATEN.match(str(path)) is not None
