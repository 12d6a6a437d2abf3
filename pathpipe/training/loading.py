"""Loading: feature files into one bag a patient, those of several encoders side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathpipe.errors import StoreError
from pathpipe.mil.bag import Bag
from pathpipe.store.aligned import read_aligned
from pathpipe.store.features import Features, read_features
from pathpipe.store.identity import refuse_mixed
from pathpipe.store.pack import Pack, PackedBag, fresh_pack


@dataclass(frozen=True, eq=False)
class LoadedBags:
    """What feature files hold.

    Attributes:
        bags: patient_id -> bag, in order of patient_id.
        encoder: Identity of the one encoder that made all features.
        skipped: One sentence for each slide without tiles.
    """

    bags: Mapping[str, Bag]
    encoder: Mapping[str, Any]
    skipped: tuple[str, ...] = ()


def load_bags(files: Mapping[str, Path | Sequence[Path]], patients: Mapping[str, str]) -> LoadedBags:
    """Read feature files, kept in memory as stored (often float16), or map them from the folder's pack.

    A pack (`pathpipe store pack`) is used where it holds the files' present content; the bags are the same either way.

    Args:
        files: slide_id -> feature file; or one of each encoder, of the same tiles, to lay features side by side.
        patients: slide_id -> patient_id. Slides of one patient become one bag, in order of slide_id.

    Raises:
        StoreError: A file is damaged or holds values that aren't finite, encoders differ between slides, tiles differ
            between encoders, or no slide has tiles.
    """
    slides: dict[str, list[tuple[str, Features | PackedBag]]] = {}
    sets = {slide_id: [given] if isinstance(given, Path) else list(given) for slide_id, given in files.items()}
    pack = _pack(sets)
    skipped: list[str] = []
    first: tuple[Path, Mapping[str, Any]] | None = None
    for slide_id in sorted(files):
        path = sets[slide_id][0]
        features = _read(sets[slide_id]) if pack is None else pack.bag(path.name)
        first = first or (path, features.encoder)
        refuse_mixed(first[1], features.encoder, where=f"{first[0]} and {path}")
        if len(features.features) == 0:
            skipped.append(f"{slide_id} has no tiles")
            continue
        if pack is None:  # what is packed was looked at then
            _refuse_not_finite(features.features, path)
        slides.setdefault(patients[slide_id], []).append((slide_id, features))
    if first is None or not slides:
        raise StoreError(
            "no slide has features", hint="extract them first; `pathpipe extract` says why slides are empty"
        )
    bags = {patient: _merge(patient, slides[patient]) for patient in sorted(slides)}
    return LoadedBags(bags, first[1], tuple(skipped))


def _pack(sets: Mapping[str, list[Path]]) -> Pack | None:
    """The folder's pack, which holds one encoder."""
    if any(len(paths) > 1 for paths in sets.values()):
        return None
    return fresh_pack({slide_id: paths[0] for slide_id, paths in sets.items()})


def _read(paths: list[Path]) -> Features:
    return read_features(paths[0]) if len(paths) == 1 else read_aligned(paths)


def _refuse_not_finite(features: np.ndarray, path: Path) -> None:
    # A float32 sum is finite only if every value is, and costs no second array.
    if not np.isfinite(features.sum(dtype=np.float32)):
        rows = int((~np.isfinite(features).all(axis=1)).sum())
        if rows:
            raise StoreError(
                f"{rows} of {len(features)} tiles have features that are not finite",
                where=str(path),
                hint="extract again with `--dtype float32` or another precision",
            )


def _merge(patient: str, slides: list[tuple[str, Features | PackedBag]]) -> Bag:
    parts = [features for _, features in slides]
    lengths = [len(part.features) for part in parts]
    return Bag(
        features=parts[0].features if len(parts) == 1 else np.concatenate([part.features for part in parts]),
        xy0=np.concatenate([part.xy0 for part in parts]),
        bag_id=patient,
        patient_id=patient,
        slide=np.repeat(np.arange(len(parts), dtype=np.int32), lengths),
        slide_ids=tuple(slide_id for slide_id, _ in slides),
    )
