"""URLs: their parts, what people are shown of them, and that none of them goes through a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathpipe.url import Url, is_url, place, shown, was_url


@pytest.mark.parametrize(
    ("text", "name", "stem", "suffix", "parent"),
    [
        ("s3://bucket/a/S 1.svs", "S 1.svs", "S 1", ".svs", "s3://bucket/a"),
        ("s3://bucket/a/what?.svs", "what?.svs", "what?", ".svs", "s3://bucket/a"),
        ("gs://bucket/a/", "a", "a", "", "gs://bucket"),
        (
            "https://me:hush@host:8443/x/S%201.ome.tif?key=hush#part",
            "S 1.ome.tif",
            "S 1.ome",
            ".tif",
            "https://host:8443/x",
        ),
    ],
)
def test_parts(text: str, name: str, stem: str, suffix: str, parent: str) -> None:
    url = Url(text)
    assert (url.name, url.stem, url.suffix, str(url.parent)) == (name, stem, suffix, parent)
    assert str(url) == text and "hush" not in url.shown == shown(url)


def test_what_is_a_url() -> None:
    assert [is_url(text) for text in ("s3://b/k", "HTTPS://h/p", "/data/s3://b", "C:/x", "s3:/b/k", "a.svs")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert place("s3://b//k/") == Url("s3://b//k/"), "a double slash is part of a key"
    assert place("file:///data/a%20b.svs") == Path("/data/a b.svs") and place("a/b.svs") == Path("a/b.svs")
    assert was_url(Path("s3://b/k")) and was_url(Path("https://h/p")) and not was_url(Path("/s3:/b"))
    assert not was_url(Path("runs/s3"))


def test_joining() -> None:
    assert str(Url("s3://b/tables").joined("../wsi/./S1.svs")) == "s3://b/wsi/S1.svs"
    assert str(Url("s3://b/feats/") / "uni" / "S1.zarr") == "s3://b/feats/uni/S1.zarr"
