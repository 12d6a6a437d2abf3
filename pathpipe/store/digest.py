"""Digest of a feature file, be it a file or the folder of a Zarr."""

from __future__ import annotations

from pathlib import Path

from pathpipe.fingerprint import file_sha256, fingerprint


def source_digest(path: Path) -> str:
    """Hash of all bytes: SHA-256 of a file; for a folder a fingerprint of its files' names and SHA-256."""
    if path.is_file():
        return file_sha256(path)
    files = (file for file in path.rglob("*") if file.is_file())
    return fingerprint({file.relative_to(path).as_posix(): file_sha256(file) for file in files})


def source_state(path: Path) -> list[int]:
    """Size and time of the last change in ns, summed and newest over a folder: what any edit moves."""
    files = [path] if path.is_file() else [path, *(file for file in path.rglob("*"))]
    stats = [file.stat() for file in files]
    return [sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]
