"""Provenance: what changed is told in words a person can read."""

from __future__ import annotations

from pathpipe.provenance import Provenance


def test_changes_are_named_one_by_one_and_digests_are_short() -> None:
    def made(mpp: float, coords: str) -> Provenance:
        return Provenance("tile", 2, {"tile": {"mpp": mpp, "tile_px": 256}}, {"slide": "a" * 32, "coords": coords})

    old = made(0.5, "CLAM 0123456789abcdef0123456789abcdef")
    new = made(0.25, "TRIDENT 89abcdef012345670123456789abcdef")
    assert old.differences(new) == [
        "settings.tile.mpp: 0.5 -> 0.25",
        "input.coords: CLAM 0123456789ab... -> TRIDENT 89abcdef0123...",
    ]
    assert old.differences(old) == []
