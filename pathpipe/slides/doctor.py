"""What is to be known of a slide before work starts: opens it, reads some of every level, and says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pathpipe.cohort import Cohort, SlideRow
from pathpipe.errors import PathpipeError, SlideError
from pathpipe.progress import Notify
from pathpipe.slides.identity import series_uid, slide_fingerprint
from pathpipe.slides.open import open_slide
from pathpipe.slides.remote import RemoteFile
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.slides.slide import Box, Level, Mpp, Slide
from pathpipe.slides.tiff import COPY_AGAIN, is_tiff, refuse_cut_short
from pathpipe.url import Place, Url, shown

TILE_PX = 256
_IDENTIFYING = ("label", "macro", "overview")


@dataclass(frozen=True)
class Examination:
    """How closely slides are looked at.

    Attributes:
        reader: `auto` or a reader's name.
        mpp_policy: As for `resolve_mpp`.
        tiles: Random tiles that are read of every level, beside its corner.
        seed: Of their places.
    """

    reader: str = "auto"
    mpp_policy: str = "error"
    tiles: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Damage:
    """One thing that can't be read.

    Attributes:
        level: Where it was met; None when the slide can't be opened or the file as a whole is meant.
        xy0: Top left corner of the tile, level-0 px.
    """

    reason: str
    hint: str | None = None
    level: int | None = None
    xy0: tuple[int, int] | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about one slide.

    Attributes:
        state: `sound`; `damaged`: opens, but not all of what was tried can be read; `unreadable`: doesn't open.
        mpp_problem: Why there is no resolution to work with, or None.
        associated: Names of the other pictures in the file.
        series: What the files of a DICOM slide have in common.
        duplicate_of: slide_id of an earlier slide with the same content, or of the same DICOM series.
    """

    slide_id: str
    path: str
    state: Literal["sound", "damaged", "unreadable"]
    reader: str | None = None
    vendor: str | None = None
    size_px: tuple[int, int] | None = None
    bounds: Box | None = None
    objective: float | None = None
    levels: tuple[Level, ...] = ()
    mpp: Mpp | None = None
    mpp_problem: str | None = None
    associated: tuple[str, ...] = ()
    tiles_read: int = 0
    damage: tuple[Damage, ...] = ()
    fingerprint: str | None = None
    series: str | None = None
    duplicate_of: str | None = None

    @property
    def may_identify(self) -> tuple[str, ...]:
        """Pictures that may show who the patient is: paper labels are photographed with name and number."""
        return tuple(name for name in self.associated if any(word in name.lower() for word in _IDENTIFYING))

    def as_json(self) -> dict[str, Any]:
        """Plain values, by the keys that docs/slides.md lists."""
        box, mpp = self.bounds, self.mpp
        return {
            "slide_id": self.slide_id,
            "path": self.path,
            "state": self.state,
            "reader": self.reader,
            "vendor": self.vendor,
            "size_px": self.size_px and list(self.size_px),
            "bounds_px": box and [box.x0, box.y0, box.w, box.h],
            "objective": self.objective,
            "levels": [
                {"level": level.index, "size_px": list(level.size_px), "downsample": list(level.downsample)}
                for level in self.levels
            ],
            "mpp": mpp and {"x": mpp.x, "y": mpp.y, "source": mpp.source},
            "mpp_problem": self.mpp_problem,
            "associated": list(self.associated),
            "may_identify": list(self.may_identify),
            "tiles_read": self.tiles_read,
            "damage": [
                {"reason": one.reason, "hint": one.hint, "level": one.level, "xy0": one.xy0 and list(one.xy0)}
                for one in self.damage
            ],
            "fingerprint": self.fingerprint,
            "duplicate_of": self.duplicate_of,
        }


def examine_one(cohort: Cohort, how: Examination, slide_id: str, notify: Notify) -> Diagnosis:
    """`examine` for a slide of a cohort, as a unit of work."""
    return examine(cohort[slide_id], how)


def examine(row: SlideRow, how: Examination) -> Diagnosis:
    """Open a slide and read a corner and random tiles of every level; what is wrong is reported, never raised."""
    try:
        slide = open_slide(row.path, how.reader)
    except PathpipeError as error:
        return unreadable(row, error.what, error.hint)
    except OSError as error:
        return unreadable(row, f"can't be read: {error.strerror or error}", COPY_AGAIN)
    with slide:
        found = Diagnosis(
            slide_id=row.slide_id,
            path=shown(row.path),
            state="sound",
            reader=slide.reader,
            vendor=slide.vendor,
            size_px=slide.size0,
            bounds=slide.bounds,
            objective=slide.objective,
            levels=slide.levels,
            associated=getattr(slide, "associated", ()),  # readers of other packages may not know of it
            series=series_uid(slide),
        )
        try:
            found = replace(found, mpp=resolve_mpp(slide, row.mpp, how.mpp_policy))
        except SlideError as refusal:
            found = replace(found, mpp_problem=refusal.what)
        tiles, damage = _read_some(slide, how)
    damage = [*_whole_file(row.path), *damage]
    try:
        found = replace(found, fingerprint=slide_fingerprint(row.path))
    except OSError as error:
        damage.append(Damage(f"damaged: the file can't be read: {error.strerror or error}", COPY_AGAIN))
    return replace(found, tiles_read=tiles, damage=tuple(damage), state="damaged" if damage else "sound")


def unreadable(row: SlideRow, reason: str, hint: str | None = None) -> Diagnosis:
    """The diagnosis of a slide that doesn't open."""
    return Diagnosis(row.slide_id, shown(row.path), "unreadable", damage=(Damage(reason, hint),))


def with_duplicates(found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Name, beside every later copy of a slide, the first."""
    first: dict[str, str] = {}
    named = []
    for one in found:
        content = one.series or one.fingerprint
        known = first.setdefault(content, one.slide_id) if content else one.slide_id
        named.append(replace(one, duplicate_of=None if known == one.slide_id else known))
    return named


def _read_some(slide: Slide, how: Examination) -> tuple[int, list[Damage]]:
    """Tiles that were read, and those that could not be."""
    done, damage = 0, []
    for level in slide.levels:
        for xy0, size in _places(slide, level, how):
            try:
                slide.read(xy0, level.index, size)
                done += 1
            except SlideError as error:
                damage.append(Damage(error.what, error.hint, level.index, xy0))
    return done, damage


def _places(slide: Slide, level: Level, how: Examination) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Corners (level-0 px) and sizes (level px): the corner of the slide, then random ones in its scanned part."""
    size = (min(TILE_PX, level.size_px[0]), min(TILE_PX, level.size_px[1]))
    box = slide.bounds or Box(0, 0, *slide.size0)
    rng = np.random.default_rng([how.seed, level.index])
    room = [
        max(0, side - int(part * down)) for side, part, down in zip((box.w, box.h), size, level.downsample, strict=True)
    ]
    places = rng.integers(0, np.array(room) + 1, (how.tiles, 2))
    corners = [(0, 0), *((box.x0 + int(x), box.y0 + int(y)) for x, y in places)]
    return [(corner, size) for corner in dict.fromkeys(corners)]


def _whole_file(path: Place) -> list[Damage]:
    """A TIFF that ends early is damaged even where no tile that was tried is among the lost."""
    if isinstance(path, Path) and path.is_dir():
        return []
    try:
        file = RemoteFile(path) if isinstance(path, Url) else path
        if is_tiff(file):
            refuse_cut_short(file)
    except SlideError as error:
        return [Damage(error.what, error.hint)]
    return []
