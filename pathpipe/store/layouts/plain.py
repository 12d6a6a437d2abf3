"""Plain arrays: `.pt`, `.npy` and `.npz` files of (N, D) features that don't say where the tiles lie."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.errors import StoreError
from pathpipe.store.layouts.record import DAMAGE, SlideFeatures, row_problems

NAME = "plain array"
SUFFIXES = (".pt", ".pth", ".npy", ".npz")
_NAMES = ("features", "feats", "embeddings", "X")


def matches(path: Path) -> bool:
    """By its name's end: an array has nothing else to be known by."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path) -> list[SlideFeatures]:
    """Read it whole.

    Raises:
        StoreError: Not an array, or damaged.
    """
    features = read_array(path)
    if features.ndim == 3 and len(features) == 1:  # saved as a batch of one
        features = features[0]
    problems = (*row_problems(features), "has no coordinates (`--coords` takes them from a file beside)")
    return [SlideFeatures(NAME, path.stem, features, problems=problems)]


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array of features in a file; nothing in it is executed.

    Raises:
        StoreError: As `read`.
    """
    try:
        value = _load_torch(path) if path.suffix.lower() in (".pt", ".pth") else np.load(path, allow_pickle=False)
        if isinstance(value, np.lib.npyio.NpzFile):
            with value:
                value = {name: value[name] for name in value.files}
        if isinstance(value, dict):
            names = [name for name in _NAMES if name in value] or (list(value) if len(value) == 1 else [])
            if not names:
                raise StoreError(f"holds {', '.join(map(str, value)) or 'nothing'}, none of them features", str(path))
            value = value[names[0]]
        return _array(value, path)
    except (*DAMAGE, pickle.UnpicklingError) as error:
        raise StoreError(f"can't be read as an array ({str(error).splitlines()[0]})", where=str(path)) from None


def _load_torch(path: Path) -> Any:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _array(value: Any, path: Path) -> npt.NDArray[Any]:
    if hasattr(value, "detach"):
        import torch

        value = value.detach()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
        raise StoreError(f"holds {getattr(value, 'dtype', type(value).__name__)}, not features", where=str(path))
    return value
