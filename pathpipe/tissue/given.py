"""Outlines given from outside: a folder of SLIDE.geojson files, drawn in QuPath or made by another tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pathpipe.errors import SettingsError, StoreError
from pathpipe.fingerprint import file_sha256
from pathpipe.settings import TissueSettings
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.tissue.artefacts import COLOURS
from pathpipe.tissue.geojson import Feature, Polygon, read_features
from pathpipe.tissue.mask import TissueMask, tissue_colour
from pathpipe.tissue.polygons import fill, moved, parted
from pathpipe.tissue.segment import segment
from pathpipe.tissue.thumbnail import read_thumbnail

Origin = tuple[float, float]


def origin0(slide: Slide, settings: TissueSettings) -> Origin:
    """What GeoJSON of this slide calls (0, 0), level-0 px."""
    if settings.geojson_origin == "bounds" and slide.bounds is not None:
        return float(slide.bounds.x0), float(slide.bounds.y0)
    return 0.0, 0.0


def given_file(folder: str | None, slide_id: str) -> Path | None:
    """The file of a slide, or None where none was given."""
    path = Path(folder) / f"{slide_id}.geojson" if folder else None
    return path if path is not None and path.is_file() else None


def given_digest(folder: str | None, slide_id: str, recorded: str | None) -> str | None:
    """Digest of a slide's file; the recorded one where the whole folder has been archived away since."""
    if folder and not Path(folder).is_dir():
        return recorded
    path = given_file(folder, slide_id)
    return None if path is None else file_sha256(path)


def refuse_useless_folder(folder: str | None, option: str, slide_ids: Sequence[str], made: bool) -> None:
    """Stop before the first slide where a folder can't be meant.

    Args:
        option: How it was given, e.g. `--mask-dir`.
        made: Everything it is needed for has been made already: it may have been archived away.

    Raises:
        SettingsError: There is no such folder, or it holds no file for any slide.
    """
    if folder is None or (made and not Path(folder).is_dir()):
        return
    if not Path(folder).is_dir():
        raise SettingsError("there is no such folder", where=f"{option} {folder}")
    if not any(given_file(folder, slide_id) for slide_id in slide_ids):
        raise SettingsError(
            "holds no file for any slide of the cohort",
            where=f"{option} {folder}",
            hint=f"a file is named after the slide's id, e.g. `{slide_ids[0]}.geojson`",
        )


def read_given(path: Path, origin: Origin) -> list[Feature]:
    """Features in level-0 px.

    Args:
        origin: What the file calls (0, 0); a file of pathpipe knows that itself.

    Raises:
        StoreError: It can't be read as GeoJSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        own = content.get("pathpipe") if isinstance(content, dict) else None
        return moved(read_features(content), own["origin0"] if own else origin)
    except (OSError, KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
        raise StoreError(f"can't be read as GeoJSON polygons ({error!r})", where=str(path)) from None


def given_mask(path: Path, slide: Slide, mpp: Mpp, settings: TissueSettings) -> TissueMask:
    """The tissue that a file says there is, on the grid that detection would use.

    Polygons classed as an artefact (`Pen`, `Blur`, ...) are kept as such and not as tissue; all others are tissue.

    Raises:
        StoreError: It can't be read, or none of its tissue lies on the slide.
        SlideError: The slide can't be read.
    """
    features = read_given(path, origin0(slide, settings))
    named = {(one.name or "").casefold() for one in features}
    tissue, artefacts = parted(features, [kind for kind in COLOURS if kind in named])
    _refuse_elsewhere(path, tissue, slide)
    thumbnail = read_thumbnail(slide, settings.mpp / mpp.mean)
    shape, scale0 = thumbnail.pixels.shape[:2], thumbnail.scale0
    mask = fill(tissue, scale0, shape)
    return TissueMask(
        mask=mask,
        scale0=scale0,
        mpp=mpp,
        method="given",
        artefacts={kind: fill(polygons, scale0, shape) for kind, polygons in artefacts.items()},
        colour=tissue_colour(thumbnail.pixels, mask),
    )


def find_tissue(slide_id: str, slide: Slide, mpp: Mpp, settings: TissueSettings) -> TissueMask:
    """The tissue: as given for this slide, else as the method finds it. Raises as `given_mask` and `segment`."""
    path = given_file(settings.mask_dir, slide_id)
    return segment(slide, mpp, settings) if path is None else given_mask(path, slide, mpp, settings)


def _refuse_elsewhere(path: Path, tissue: Sequence[Polygon], slide: Slide) -> None:
    """Outlines of another slide, or with another origin, would quietly give an empty slide."""
    if not tissue:
        return
    corners = np.concatenate([polygon[0] for polygon in tissue])
    low, high = corners.min(axis=0), corners.max(axis=0)
    if (high < 0).any() or (low > np.asarray(slide.size0)).any():
        raise StoreError(
            f"its outlines lie off the slide: x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f} of "
            f"{slide.size0[0]} x {slide.size0[1]} px",
            where=str(path),
            hint="coordinates are level-0 px; `--geojson-origin bounds` where they start at the scanned bounds",
        )


def refuse_foreign(path: Path) -> None:
    """Keep what a person put in the place of a tissue file from being made over.

    Raises:
        StoreError: It is GeoJSON that pathpipe didn't write.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        foreign = not (isinstance(content, dict) and "pathpipe" in content) and bool(read_features(content))
    except (OSError, KeyError, TypeError, IndexError, ValueError, RecursionError):
        return
    if foreign:
        raise StoreError(
            "holds outlines that another program wrote",
            where=str(path),
            hint="move it to a folder of its own and give that as `--mask-dir`, or delete it",
        )
