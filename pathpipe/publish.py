"""Publishing: a file or folder appears under its name whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SUFFIX = ".partial"
_HOST = socket.gethostname().replace(".", "_")


def _partial_path(target: Path) -> Path:
    # The original suffix stays last-but-one so that writers that look at it (imageio, h5py) still work.
    token = f"{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return target.with_name(f".{target.stem}.{token}{_SUFFIX}{target.suffix}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Give a path to write to; on a clean exit make it durable and rename it to `target`.

    What is written may be a file or a folder. On an error nothing appears and the partial is removed; after a
    kill -9 a hidden `*.partial*` stays behind, which `sweep` removes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(target)
    try:
        yield partial
        if partial.is_dir():
            for file in sorted(partial.rglob("*")):
                _fsync(file)
        _fsync(partial)
        if target.is_dir():  # rename can't replace a filled folder: set the old one aside first
            retired = _partial_path(target)
            os.rename(target, retired)
            os.rename(partial, target)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            os.replace(partial, target)
        _fsync(target.parent)
    finally:
        _remove(partial)


def publish_text(target: Path, text: str) -> None:
    """Write a small text file atomically (UTF-8)."""
    with publish(target) as partial:
        partial.write_text(text, encoding="utf-8")


def publish_json(target: Path, value: Any) -> None:
    """Write a JSON file atomically, indented for people, keys in the order given."""
    publish_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sweep(folder: Path) -> int:
    """Remove partials that dead processes of this host left in `folder`; returns how many."""
    swept = 0
    for partial in folder.glob(f".*{_SUFFIX}*"):
        token = partial.name.rpartition(_SUFFIX)[0].rpartition(".")[2]
        host, pid, _ = [*token.rsplit("-", 2), "", ""][:3]
        if host == _HOST and pid.isdigit() and not process_alive(int(pid)):
            _remove(partial)
            swept += 1
    return swept


def process_alive(pid: int) -> bool:
    """Whether a process of this host exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
