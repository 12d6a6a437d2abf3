"""Several encoders of one slide: row-aligned files read, or joined, as one bag with their features side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance
from pathpipe.store.features import Features, read_features
from pathpipe.store.identity import joined_identity


def read_aligned(paths: Sequence[Path]) -> Features:
    """Read feature files of one slide by several encoders as one.

    Returns:
        Features (N, D1 + D2 + ...), in the type of the widest; plan and places are those of the first file.

    Raises:
        StoreError: The files aren't of the same tiles of the same slide, or two are of the same encoder.
    """
    parts = [read_features(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        _refuse_other_tiles(first, part, f"{paths[0]} and {path}")
    names = [str(part.encoder["name"]) for part in parts]
    if len(set(names)) < len(names):
        raise StoreError(f"are of the same encoder: {', '.join(names)}", where=", ".join(str(path) for path in paths))
    joined = np.concatenate([part.features for part in parts], axis=1)
    inputs = {f"features of {name}": part.provenance.fingerprint for name, part in zip(names, parts, strict=True)}
    made_by = first.provenance.made_by
    return replace(
        first,
        features=joined,
        encoder=joined_identity([part.encoder for part in parts]),
        provenance=Provenance("merge", 1, {}, {"slide": first.slide_fingerprint, **inputs}, made_by),
    )


def _refuse_other_tiles(first: Features, second: Features, where: str) -> None:
    if first.slide_fingerprint != second.slide_fingerprint:
        raise StoreError("are of different slides", where=where, hint="make both from the same slide file")
    if len(first.xy0) != len(second.xy0):
        raise StoreError(f"have {len(first.xy0)} and {len(second.xy0)} tiles", where=where, hint=_HINT)
    if not np.array_equal(first.xy0, second.xy0):
        row = int(np.flatnonzero((first.xy0 != second.xy0).any(axis=1))[0])
        places = f"{first.xy0[row].tolist()} and {second.xy0[row].tolist()}"
        raise StoreError(f"have row {row} at two places, {places} level-0 px", where=where, hint=_HINT)
    if not np.allclose(first.plan.side0, second.plan.side0, rtol=1e-3):
        sides = f"{first.plan.side0[0]:g} and {second.plan.side0[0]:g} level-0 px"
        raise StoreError(f"have tiles of {sides}", where=where, hint=_HINT)


_HINT = "extract with both encoders from one run, so that they share its tiles"
