"""Fingerprints: short, stable hashes of settings and files that decide whether a result is still current."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DIGEST_BYTES = 16


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, on any machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Mapping[str, Any] | list[Any] | str) -> str:
    """Hash of a JSON-able value, 32 hex digits."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file, as weight publishers quote it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_digest(path: Path, *, blocks: int = 16, block_bytes: int = 1 << 16) -> str:
    """Hash of a file's size and of blocks spread evenly over it: milliseconds, even for a 5 GB slide.

    Moving or copying the file doesn't change it; replacing its content does, save for an edit
    that keeps the size and misses every sampled block.
    """
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=_DIGEST_BYTES)
    with open(path, "rb") as file:
        if size <= blocks * block_bytes:
            digest.update(file.read())
        else:
            for index in range(blocks):
                file.seek((size - block_bytes) * index // (blocks - 1))
                digest.update(file.read(block_bytes))
    return digest.hexdigest()
