"""Convert: any layout that can be read into any that can be written; what would be lost is said first."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

import pathpipe
from pathpipe.errors import PathpipeError, SettingsError, StoreError
from pathpipe.provenance import Provenance
from pathpipe.run import safe_name
from pathpipe.store.bucket import fetched, made_by, upload
from pathpipe.store.features import DTYPES, UNKNOWN_SIZE, ZARR_SUFFIX, Features
from pathpipe.store.identity import unknown_identity
from pathpipe.store.layouts import anndata, clam, native, stamp, trident
from pathpipe.store.layouts.detect import read_any
from pathpipe.store.layouts.record import Places, SlideFeatures
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.plan import ReadPlan
from pathpipe.url import Place, Url, shown

WRITERS: dict[str, ModuleType] = {
    "native": native,
    "zarr": native,
    "clam": clam,
    "trident": trident,
    "stamp": stamp,
    "anndata": anndata,
}
_OWN_FOLDER = ("trident", "stamp")  # layouts whose tree names the encoder


@dataclass(frozen=True)
class SlideOrigin:
    """What is known of a slide from elsewhere than its features.

    Attributes:
        mpp: um/px of level 0, (x, y).
        size0: (w, h) of level 0, px; (0, 0) when nobody knows.
        fingerprint: Of the slide's content; empty when the slide isn't at hand.
    """

    mpp: tuple[float, float]
    size0: tuple[int, int] = UNKNOWN_SIZE
    fingerprint: str = ""


@dataclass(frozen=True)
class Conversion:
    """What to make of the files.

    Attributes:
        layout: One of `WRITERS`.
        out: Folder, or prefix of a bucket, the layout's tree goes to.
        coords: File or folder of coordinates for features that lack places or the size of a tile.
        origin: slide_id -> what is known of the slide, or None.
        encoder: Name for features that don't say theirs.
        lossy: Go on where something is lost.
    """

    layout: str
    out: Place
    coords: Path | None = None
    origin: Callable[[str], SlideOrigin | None] = lambda _: None
    encoder: str | None = None
    lossy: bool = False


@dataclass(frozen=True)
class Converted:
    """One bag that was converted, or why it wasn't.

    Attributes:
        files: That were written to a disk.
        urls: That were written to a bucket.
    """

    source: Place
    slide_id: str
    rows: int = 0
    files: tuple[Path, ...] = ()
    urls: tuple[Url, ...] = ()
    lost: tuple[str, ...] = ()
    error: PathpipeError | None = None


def convert_files(files: Sequence[Place], wanted: Conversion) -> Iterator[Converted]:
    """Convert file by file; one that can't be converted costs the others nothing.

    Raises:
        SettingsError: There is no such layout.
    """
    if wanted.layout not in WRITERS:
        raise SettingsError(f"there is no layout `{wanted.layout}` to write", hint=f"one of {', '.join(WRITERS)}")
    taken: dict[str, Place] = {}
    for path in files:
        try:
            with fetched(path) as at_hand:
                records = read_any(at_hand, wanted.coords)
        except PathpipeError as error:
            yield Converted(path, path.stem, error=error)
            continue
        for record in records:
            try:
                yield _convert(path, record, wanted, taken)
            except PathpipeError as error:
                yield Converted(path, record.slide_id, error=error)


def _convert(path: Place, record: SlideFeatures, wanted: Conversion, taken: dict[str, Place]) -> Converted:
    whole = record.native or to_native(record, wanted.origin(record.slide_id), wanted.encoder)
    writer = WRITERS[wanted.layout]
    lost = (*record.left_out, *_widened(record), *writer.losses(whole))
    if lost and not wanted.lossy:
        raise StoreError(
            f"{wanted.layout} can't hold all of it: " + "; ".join(lost),
            where=shown(path),
            hint="pass --lossy to leave that out",
        )
    folder = wanted.out if wanted.layout in _OWN_FOLDER else wanted.out / safe_name(str(whole.encoder["name"]))
    key = f"{folder}/{record.slide_id}/{whole.encoder['name']}"
    if taken.setdefault(key, path) != path:
        raise StoreError(
            f"and {taken[key]} are both of slide {record.slide_id} by {whole.encoder['name']}",
            where=shown(path),
            hint="convert them to different folders",
        )
    expected = folder / path.name
    if expected == path or (
        isinstance(expected, Path) and isinstance(path, Path) and expected.exists() and expected.samefile(path)
    ):
        raise StoreError("would be replaced by its own conversion", shown(path), "give another folder with -o")
    write = native.write_as_zarr if wanted.layout == "zarr" else writer.write
    done = Converted(path, record.slide_id, len(whole.features), lost=lost)
    if isinstance(folder, Url):
        return replace(done, urls=tuple(_to_bucket(folder, whole, write)))
    return replace(done, files=tuple(write(folder, whole)))


def _to_bucket(folder: Url, whole: Features, write: Callable[[Path, Features], list[Path]]) -> list[Url]:
    with tempfile.TemporaryDirectory(prefix="pathpipe-") as here:
        files = write(Path(here), whole)
        targets = [folder / file.relative_to(here).as_posix() for file in files]
        for target in targets:
            if target.suffix == ZARR_SUFFIX and made_by(target) not in (None, whole.provenance.fingerprint):
                raise StoreError(
                    "is there already, and other features are in it",
                    where=target.shown,
                    hint="delete it, or give another prefix with -o",
                )
        for file, target in zip(files, targets, strict=True):
            upload(file, target)
    return targets


def to_native(record: SlideFeatures, origin: SlideOrigin | None, encoder: str | None = None) -> Features:
    """Features of another tool as pathpipe's own: what the file doesn't say must be given, and is never guessed.

    Args:
        encoder: Name for features that don't say theirs.

    Raises:
        StoreError: Places, size of a tile, um/px or encoder are unknown, or places aren't whole level-0 px.
    """
    places, where = record.places, record.slide_id
    if places is None:
        raise StoreError("has no coordinates", where, "give them with `--coords`: a file, or a folder of SLIDE files")
    if places.side is None:
        raise StoreError(
            "doesn't say how large a tile is", where, "give the coordinate files of its tool as `--coords`"
        )
    if origin is None and places.mpp is not None:
        origin = SlideOrigin((places.mpp, places.mpp))
    if origin is None:
        raise StoreError("doesn't say its um/px of level 0", where, "give `--slides`, or `--mpp` for all of them")
    name = record.encoder or encoder
    if name is None:
        raise StoreError("doesn't say which encoder made it", where, "give its name with `--encoder`")
    if not np.isfinite(record.features).all():
        raise StoreError("has NaN or infinite features", where, "`pathpipe store inspect` says how many")
    size0 = places.size0 or origin.size0
    dtype = record.features.dtype.name if record.features.dtype.name in DTYPES else "float32"
    settings = {"layout": record.layout, "stated": dict(record.stated)}
    return Features(
        features=record.features.astype(dtype),
        xy0=_whole_px(places, origin.mpp, where),
        encoder=unknown_identity(name, record.features.shape[1]),
        plan=_plan(places, places.side, origin.mpp),
        slide_fingerprint=origin.fingerprint,
        empty_reason=None if len(record.features) else "the file it comes from lists no tiles",
        provenance=Provenance(
            stage="convert",
            version=1,
            settings=settings,
            inputs={"slide": origin.fingerprint, "source": content_digest(record)},
            made_by={"pathpipe": pathpipe.__version__},
        ),
        slide=SlideFacts(record.slide_id, size0, size0),
    )


def _whole_px(places: Places, mpp: tuple[float, float], where: str) -> np.ndarray:
    scaled = places.xy / np.asarray(mpp) if places.in_um else places.xy
    whole = np.round(scaled)
    if not np.isfinite(whole).all() or (not places.in_um and not np.array_equal(whole, scaled)):
        raise StoreError("has places that aren't whole level-0 px", where=where)
    return whole.astype(np.int64)


def _plan(places: Places, side: tuple[float, float], mpp: tuple[float, float]) -> ReadPlan:
    """The tiles as a plan over level 0: how the other tool read them isn't known."""
    width, height = (side[0] / mpp[0], side[1] / mpp[1]) if places.in_um else side
    tile_px = places.tile_px or round((width * height) ** 0.5)
    overlap = places.overlap
    return ReadPlan(
        tile_px=tile_px,
        overlap_px=round(overlap * tile_px),
        mpp_wanted=(width * mpp[0] * height * mpp[1]) ** 0.5 / tile_px,
        mpp0=mpp,
        level=0,
        downsample=(1.0, 1.0),
        read_px=(max(1, round(width)), max(1, round(height))),
        side0=(width, height),
        stride0=(width * (1 - overlap), height * (1 - overlap)),
    )


def _widened(record: SlideFeatures) -> list[str]:
    narrow = record.features.astype(np.float32)
    if record.features.dtype.name in DTYPES or np.array_equal(narrow, record.features):
        return []
    return [f"{record.features.dtype} features: float32 is the widest that is stored"]


def content_digest(record: SlideFeatures) -> str:
    """Hash of rows and places, whatever file they are in; 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for values in (record.features, record.places.xy if record.places else np.empty(0)):
        digest.update(f"{values.shape} {values.dtype.str}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
