"""Archive: plain values and tensors in one file that is read back whole or not at all, and never executed."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pathpipe.errors import StoreError
from pathpipe.publish import Claim, publish

_ANEW = "copy it again, or make it anew: `pathpipe train RUN` trains what is missing or damaged"


def write_archive(path: Path, content: Mapping[str, Any], claim: Claim | None = None) -> None:
    """Write it; equal content gives equal bytes."""
    # To memory first: torch names the archive inside after the file, and that would be the partial's random name.
    buffer = io.BytesIO()
    torch.save(_plain(content, {}), buffer)
    with publish(path, claim) as partial:
        partial.write_bytes(buffer.getbuffer())


def _plain(value: Any, texts: dict[str, str]) -> Any:
    """The same value with no object in it twice but equal texts: a pickle says which of its objects are one, and that
    depends on how they came here, by a pipe or not."""
    if isinstance(value, str):
        return texts.setdefault(value, value)
    if isinstance(value, Mapping):
        return {_plain(key, texts): _plain(inner, texts) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(inner, texts) for inner in value)
    return value


def read_archive(path: Path) -> Any:
    """What `write_archive` wrote, tensors on the host.

    Raises:
        StoreError: There is no such file, or it is damaged, or holds code.
    """
    if not path.exists():
        raise StoreError("there is no such checkpoint", where=str(path))
    try:
        # torch itself doesn't compare checksums: a flipped bit would give another model without a word.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise StoreError(f"is damaged: the checksum of {broken} is wrong", where=str(path), hint=_ANEW)
        return torch.load(path, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile:
        raise StoreError("is not a checkpoint, or ends early", where=str(path), hint=_ANEW) from None
    except pickle.UnpicklingError:
        raise StoreError(
            "holds code, which is never run", where=str(path), hint="use a model.pt that `pathpipe train` wrote"
        ) from None
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"can't be read as a checkpoint: {reason}", where=str(path)) from None
