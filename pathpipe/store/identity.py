"""Encoder identities: whether two files hold features of one encoder, and that of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pathpipe.errors import StoreError


def refuse_mixed(first: Mapping[str, Any], second: Mapping[str, Any], where: str) -> None:
    """Compare two encoder identities.

    Raises:
        StoreError: They differ, with both and what differs.
    """
    differing = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    if differing:
        one, other = (", ".join(f"{key} {identity.get(key)}" for key in differing) for identity in (first, second))
        names = f"`{first.get('name')}` ({one}) and `{second.get('name')}` ({other})"
        raise StoreError(
            f"the features come from two encoders: {names}",
            where=where,
            hint="features of different encoders, weights or transforms can't be mixed; extract again with one",
        )


def unknown_identity(name: str, dim: int) -> dict[str, Any]:
    """The identity of an encoder of which only the name is known, as in files of other tools."""
    return {"name": name, "revision": "", "weights_sha256": "", "transform": "", "dim": dim}


def joined_identity(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The identity of features of several encoders side by side, in that order."""
    return {
        "name": "+".join(str(part["name"]) for part in parts),
        "revision": "",
        "weights_sha256": "",
        "transform": "",
        "dim": sum(int(part["dim"]) for part in parts),
        "parts": [dict(part) for part in parts],
    }
