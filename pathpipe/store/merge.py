"""Merge: folders of features into one, either more slides of one encoder or more encoders of the same slides."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathpipe.errors import StoreError
from pathpipe.publish import publish
from pathpipe.run import safe_name
from pathpipe.store.aligned import read_aligned
from pathpipe.store.digest import source_digest
from pathpipe.store.features import read_header, write_hdf5
from pathpipe.store.identity import refuse_mixed
from pathpipe.store.layouts import native
from pathpipe.store.layouts.detect import feature_files
from pathpipe.store.layouts.own import refuse_to_replace


def merge_slides(sources: Sequence[Path], out: Path) -> list[Path]:
    """Copy the slides of several places to `OUT/ENCODER/`, byte for byte.

    Everything is compared before the first file is copied. A slide that stands twice with the same bytes is taken once.

    Raises:
        StoreError: The encoders differ, a slide stands twice with different content, or a file isn't pathpipe's.
    """
    found: dict[str, Path] = {}
    first: tuple[Path, dict[str, Any]] | None = None
    for path in _files(sources):
        header, _ = read_header(path)
        first = first or (path, dict(header.encoder))
        refuse_mixed(first[1], header.encoder, where=f"{first[0]} and {path}")
        other = found.setdefault(path.name, path)
        if other is not path and source_digest(other) != source_digest(path):
            raise StoreError(
                f"and {path} are two different files of one slide",
                where=str(other),
                hint="delete the one that is wrong, or give one of the slides another id",
            )
    assert first is not None
    folder = out / safe_name(str(first[1]["name"]))
    for name, path in found.items():
        if (folder / name).exists() and source_digest(folder / name) != source_digest(path):
            raise StoreError(
                "is there already and differs from " + str(path), str(folder / name), "delete one of the two"
            )
    written = []
    for name, path in found.items():
        target = folder / name
        if not (target.exists() and target.samefile(path)):
            with publish(target) as partial:
                shutil.copytree(path, partial) if path.is_dir() else shutil.copyfile(path, partial)
        written.append(target)
    return written


def merge_encoders(sources: Sequence[Path], out: Path) -> list[Path]:
    """Join the features of several encoders side by side, slide by slide, into `OUT/A+B/SLIDE.h5`.

    Raises:
        StoreError: A slide isn't in all places, or its files aren't row-aligned.
    """
    if len(sources) < 2:
        raise StoreError("joining encoders needs at least two places", where=", ".join(map(str, sources)))
    by_place = [{path.stem: path for path in _files([source])} for source in sources]
    slides = sorted(set().union(*by_place))
    for slide_id in slides:
        absent = [str(source) for source, files in zip(sources, by_place, strict=True) if slide_id not in files]
        if absent:
            raise StoreError(
                f"isn't in {' and '.join(absent)}",
                where=slide_id,
                hint="extract it with every encoder first, or leave it out everywhere",
            )
    written = []
    for slide_id in slides:
        whole = read_aligned([files[slide_id] for files in by_place])
        target = out / safe_name(str(whole.encoder["name"])) / f"{slide_id}.h5"
        refuse_to_replace(target, whole)
        with publish(target) as partial:
            write_hdf5(partial, whole)
        written.append(target)
    return written


def _files(sources: Sequence[Path]) -> list[Path]:
    files = [path for source in sources for path in feature_files(source)]
    foreign = next((path for path in files if not native.matches(path)), None)
    if foreign is not None:
        raise StoreError(
            "isn't a feature file of pathpipe",
            where=str(foreign),
            hint="bring files of other tools over with `pathpipe store convert --to native` first",
        )
    return files
