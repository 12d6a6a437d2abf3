"""Remote: what an object store or web server holds, asked through fsspec; what goes wrong comes as one sentence.

Credentials and endpoints are those of the libraries (AWS_*, GOOGLE_APPLICATION_CREDENTIALS, FSSPEC_*).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pathpipe.errors import MissingError, RemoteError, RemoteFinalError, RemoteMissingError, SettingsError
from pathpipe.url import Url

T = TypeVar("T")
CONNECT_S, SILENT_S = 20, 60  # a server that says nothing for so long is gone
ATTEMPTS = 4
PAUSE_S = 0.5
_RETRIED_BY_OTHERS = ("s3", "gs", "gcs")  # s3fs and gcsfs try again themselves
_FOREIGN = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "gcsfs.retry": ("HttpError",),
}
_NO_RANGES = "range requests"  # fsspec, of servers that send the whole file whatever they are asked for
_CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; FSSPEC_S3_ANON=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS; FSSPEC_GS_TOKEN=anon for a public bucket",
    "http": "sign the URL, or ask for access",
}
_CREDENTIALS["gcs"], _CREDENTIALS["https"] = _CREDENTIALS["gs"], _CREDENTIALS["http"]


@dataclass(frozen=True)
class Found:
    """What lies at a URL.

    Attributes:
        size: Bytes.
        version: What changes when the content does, as the store gives it: ETag or time of change.
    """

    url: Url
    size: int
    version: str = ""


def filesystem(url: Url) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the URL's path in it.

    Raises:
        MissingError: The package for that kind of store isn't installed.
        SettingsError: There is no such kind.
    """
    from fsspec.core import url_to_fs

    try:
        with reaching(url):
            fs, path = url_to_fs(url.text, **_options(url))
    except ImportError as error:
        raise MissingError(
            f"{url.scheme}:// needs a package that isn't installed ({error.name or error})",
            where=url.shown,
            hint='install it with `pip install "pathpipe[remote]"`',
        ) from None
    except ValueError as error:
        raise SettingsError(f"can't be used as a URL: {error}", where=url.shown) from None
    return fs, path


def _options(url: Url) -> dict[str, Any]:
    import fsspec.config

    options: dict[str, Any] = {"use_listings_cache": False}  # what has been written since must be seen
    if url.is_web and "client_kwargs" not in fsspec.config.conf.get(url.scheme, {}):
        from aiohttp import ClientTimeout

        # no limit on a whole file, but one on silence; compressed parts of a file would be no parts of it
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
        options["client_kwargs"] = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}
    return options


@contextmanager
def reaching(url: Url) -> Iterator[None]:
    """Turn what the libraries raise into a `RemoteError` that says what it means."""
    try:
        yield
    except ImportError:
        raise
    except _failures() as error:
        raise explained(error, url) from None


def _failures() -> tuple[type[BaseException], ...]:
    """OSError, and the errors of those libraries that are loaded: no other can raise."""
    foreign = [
        getattr(sys.modules[module], name)
        for module, names in _FOREIGN.items()
        if module in sys.modules
        for name in names
    ]
    return (OSError, *foreign)


def explained(error: BaseException, url: Url) -> RemoteError:
    """What an error of the libraries means to the person who gave the URL."""
    if url.is_web and isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # fsspec says so of whatever a web server answers
    said, kind = " ".join(str(error).split()), type(error).__name__
    status = getattr(error, "status", None) or vars(error).get("code")  # aiohttp's, gcsfs's
    if isinstance(error, FileNotFoundError) or status == 404:
        what = "there is no such bucket" if "bucket" in said.lower() else "there is no such object"
        return RemoteMissingError(what, url.shown, "correct the URL in the cohort table")
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in kind or "Auth" in kind:
        return RemoteFinalError(f"may not be read: {said or kind}", url.shown, _CREDENTIALS.get(url.scheme))
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return RemoteError("the server doesn't answer in time", url.shown, "run again when it does")
    return RemoteError(
        f"can't be reached: {said or kind}", url.shown, "check network and endpoint, and run again: what is done stays"
    )


def find(url: Url) -> Found:
    """Size and version of an object.

    Raises:
        RemoteMissingError: There is none.
        RemoteError: It can't be reached or read, or its size isn't known.
    """
    fs, path = filesystem(url)

    def ask() -> dict[str, Any]:
        with reaching(url):
            return fs.info(path)

    about = _retried(url, ask)
    if about.get("type") == "directory":
        raise RemoteError("is a prefix, not an object", url.shown, "give the slide file below it")
    return _found(url, about)


def _found(url: Url, about: dict[str, Any]) -> Found:
    size = about.get("size")
    if size is None:
        raise RemoteError("the server doesn't say how large it is", url.shown, "download it, and give the file")
    version = about.get("ETag") or about.get("etag") or about.get("LastModified") or about.get("Last-Modified") or ""
    return Found(url, int(size), str(version).strip('"'))


def listed(prefix: Url, deep: bool = True) -> list[Found]:
    """Every object below a prefix, in order; one request per thousand.

    Args:
        deep: Whether objects below further prefixes count.

    Raises:
        RemoteError: It can't be listed.
    """
    if prefix.is_web:
        raise RemoteError("a web server lists nothing", prefix.shown, "give a cohort table with a URL a slide")
    fs, path = filesystem(prefix)
    with reaching(prefix):
        found = list(fs.find(path, detail=True).values()) if deep else []
        if not found:  # `find` hides that there is no such bucket
            found = [about for about in fs.ls(path, detail=True) if about.get("type") != "directory"]
    return sorted((_found(_as_url(prefix, about["name"]), about) for about in found), key=lambda one: one.url.text)


def _as_url(like: Url, name: str) -> Url:
    return Url(f"{like.scheme}://{name.removeprefix(like.scheme + '://').lstrip('/')}")


def sizes(urls: Iterable[Url]) -> dict[Url, int]:
    """Bytes of each object, by one listing a prefix: asking for each by itself would take hours for a large cohort.

    What a web server holds counts as 0, and so does what isn't there.

    Raises:
        RemoteError: A store can't be listed.
    """
    wanted = list(urls)
    known: dict[Url, int] = {}
    for parent in sorted({url.parent for url in wanted if not url.is_web}, key=str):
        with suppress(RemoteMissingError):
            known.update({found.url: found.size for found in listed(parent, deep=False)})
    return {url: known.get(url, 0) for url in wanted}


def fetch(url: Url, offset: int, length: int, size: int) -> bytes:
    """A part of an object.

    Args:
        size: Of the whole object, as `find` gave it.

    Raises:
        RemoteError: It can't be read, ends early, or the server gives no parts.
    """

    def ask() -> bytes:
        data = _part(url, offset, length, size)
        if len(data) == length:
            return data
        raise RemoteError(
            f"ends early: gives {len(data)} of {length} bytes at {offset}, though it should have {size}",
            url.shown,
            "it was cut short, or replaced while it was read: upload it again, or run again",
        )

    return _retried(url, ask)


def _retried(url: Url, ask: Callable[[], T]) -> T:
    """Ask a web server again after a pause: it may have been busy. The libraries of buckets do so themselves."""
    attempts = 1 if url.scheme in _RETRIED_BY_OTHERS else ATTEMPTS
    for attempt in range(attempts - 1):
        try:
            return ask()
        except RemoteFinalError:
            raise
        except RemoteError:
            time.sleep(PAUSE_S * 2**attempt)
    return ask()


def _part(url: Url, offset: int, length: int, size: int) -> bytes:
    fs, path = filesystem(url)
    try:
        with reaching(url):
            if not url.is_web:
                return bytes(fs.cat_file(path, start=offset, end=offset + length))
            # cat_file would take a whole slide into memory from a server that knows no parts
            with fs.open(path, "rb", cache_type="none", size=size, block_size=length) as file:
                file.seek(offset)
                return bytes(file.read(length))
    except ValueError as error:
        if _NO_RANGES not in str(error):
            raise
        raise RemoteFinalError(
            "the server gives no parts of a file (it ignores HTTP Range)",
            url.shown,
            "download it, and give the file; or serve it by a server that does",
        ) from None


def read_whole(url: Url) -> bytes:
    """All of a small object.

    Raises:
        RemoteError: As `find` and `fetch`.
    """
    found = find(url)
    return fetch(url, 0, found.size, found.size) if found.size else b""
