"""Fingerprints: short, stable hashes of settings and files that decide whether a result is still current."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
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
    with open(path, "rb") as file:
        parts = (os.pread(file.fileno(), length, offset) for offset, length in sampled(size, blocks, block_bytes))
        return digest_of_parts(size, parts)


def sampled(size: int, blocks: int = 16, block_bytes: int = 1 << 16) -> list[tuple[int, int]]:
    """(offset, length) of the blocks that stand for a file of so many bytes: all of a small one."""
    if size <= blocks * block_bytes:
        return [(0, size)]
    return [((size - block_bytes) * index // (blocks - 1), block_bytes) for index in range(blocks)]


def digest_of_parts(size: int, parts: Iterable[bytes]) -> str:
    """The digest of `sampled_digest` from the parts `sampled` names, wherever they were read."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
