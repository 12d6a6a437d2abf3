"""Verify: rows of stored features encoded again from the slide, and how far they have drifted from what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.cohort import Cohort, SlideRow
from pathpipe.encoders.encoder import Encoder
from pathpipe.encoders.load import load_encoder
from pathpipe.encoders.stain import StainedEncoder, StainTarget, target_of
from pathpipe.errors import PathpipeError, SlideError, StoreError
from pathpipe.fingerprint import fingerprint
from pathpipe.settings import TileSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.slides.slide import Mpp, Slide
from pathpipe.store.bucket import fetched
from pathpipe.store.layouts.detect import read_any
from pathpipe.store.layouts.record import SlideFeatures
from pathpipe.tiles.plan import ReadPlan, plan_given
from pathpipe.tiles.stream import stream_tiles
from pathpipe.url import Place, shown

SAME_DRIFT = 0.01  # rounding, another decoder: what is left of a tile that was read and encoded alike
_BATCH = 32


@dataclass(frozen=True)
class VerifyRequest:
    """How to look.

    Attributes:
        sample: Rows a file.
        seed: Of the choice of rows.
        max_drift: Largest drift that still counts as close.
        encoder: In place of the one the file names; of a file with several, only the one of this name, if there is.
        weights: Local checkpoint.
        coords: File or folder of coordinates, for files without.
    """

    sample: int = 64
    seed: int = 0
    max_drift: float = 0.1
    encoder: str | None = None
    weights: str | None = None
    device: str = "auto"
    coords: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of one file and encoder.

    Attributes:
        rows: How many were encoded again.
        mean: Mean cosine of a stored row and the same tile encoded now; `least` is the smallest.
        others: Mean cosine of stored rows and other tiles encoded now: what chance gives.
        drift: (1 - mean) / (1 - others): 0 when nothing has changed, 1 when rows are no nearer than other tiles' rows.
        state: `same`, `close`, `different`, `empty` or `failed`.
        note: What to know or do about it.
    """

    path: Place
    slide_id: str
    layout: str = ""
    encoder: str = ""
    rows: int = 0
    mean: float = float("nan")
    least: float = float("nan")
    others: float = float("nan")
    drift: float = float("nan")
    state: str = "failed"
    note: str = ""


def verify_files(files: Sequence[Place], slides: Cohort, wanted: VerifyRequest) -> Iterator[Verdict]:
    """Verify file by file; one that can't be read costs the others nothing.

    Args:
        slides: Where the slides are; by slide id.
    """
    for path in files:
        try:
            with fetched(path) as at_hand:
                records = read_any(at_hand, wanted.coords)
        except PathpipeError as error:
            yield _failed(Verdict(path, path.stem), error)
            continue
        named = [record for record in records if record.encoder == wanted.encoder]
        for record in named or records:
            try:
                yield _verify(path, record, slides, wanted)
            except PathpipeError as error:
                yield _failed(Verdict(path, record.slide_id, record.layout, record.encoder or ""), error)


def _failed(verdict: Verdict, error: PathpipeError) -> Verdict:
    return replace(verdict, note=error.what + (f" ({error.hint})" if error.hint else ""))


def _verify(path: Place, record: SlideFeatures, slides: Cohort, wanted: VerifyRequest) -> Verdict:
    name = wanted.encoder or record.encoder
    if name is None:
        raise StoreError("doesn't say which encoder made it", shown(path), "give its name with `--encoder`")
    about = (path, record.slide_id, record.layout, name)
    if not len(record.features):
        return Verdict(*about, state="empty", note="no rows")
    encoder = _as_stained(load_encoder(name, wanted.weights, wanted.device), record)
    dim = record.features.shape[1]
    if encoder.identity.dim != dim:
        raise StoreError(f"holds features of width {dim}, `{name}` gives {encoder.identity.dim}", where=shown(path))
    rows = choose_rows(len(record.features), wanted.sample, wanted.seed, record.slide_id)
    again = _encode(record, slides[record.slide_id], rows, encoder)
    own, others, right = compare(record.features[rows], again)
    drift = float((1 - own.mean()) / max(1 - others, 1e-6))
    state = "same" if drift <= SAME_DRIFT else "close" if drift <= wanted.max_drift else "different"
    return Verdict(
        *about,
        rows=len(rows),
        mean=float(own.mean()),
        least=float(own.min()),
        others=others,
        drift=drift,
        state=state,
        note="; ".join(_notes(record, encoder, right, state)),
    )


def _as_stained(encoder: Encoder, record: SlideFeatures) -> Encoder:
    """The encoder as it saw the tiles: with the stain normalisation that the file's identity names."""
    text = target_of(str(record.native.encoder.get("transform", ""))) if record.native else None
    return encoder if text is None else StainedEncoder(encoder, StainTarget.from_text(text))


def choose_rows(total: int, sample: int, seed: int, slide_id: str) -> npt.NDArray[np.intp]:
    """Rows to look at, in order: the same for the same slide and seed, on any machine."""
    own = int(fingerprint(slide_id), 16) % 2**63
    return np.sort(np.random.default_rng([seed, own]).choice(total, min(sample, total), replace=False))


def compare(
    stored: npt.NDArray[np.floating[Any]], again: npt.NDArray[np.floating[Any]]
) -> tuple[npt.NDArray[np.float64], float, float]:
    """Compare rows with themselves and with each other.

    Args:
        stored: (n, D); `again` likewise, of the same tiles.

    Returns:
        (n,) cosines of each pair; the mean cosine of different tiles (0 when there is but one); the share of tiles
        whose nearest stored row is their own.
    """
    one, two = (_unit(values.astype(np.float64)) for values in (stored, again))
    table = two @ one.T
    own = np.diag(table).copy()
    n = len(own)
    others = float((table.sum() - own.sum()) / (n * (n - 1))) if n > 1 else 0.0
    right = float((own >= table.max(axis=1) - 1e-6).mean())
    return own, others, right


def _unit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _encode(
    record: SlideFeatures, row: SlideRow, rows: npt.NDArray[np.intp], encoder: Encoder
) -> npt.NDArray[np.float32]:
    made = record.native.provenance.settings if record.native else {}
    with open_slide(row.path, made.get("slide", {}).get("reader", "auto")) as slide:
        plan, xy0 = _plan_and_places(record, slide, row)
        parts = [encoder.embed(batch.pixels) for batch in stream_tiles(slide, plan, xy0[rows], _BATCH)]
    return np.concatenate(parts)


def _plan_and_places(record: SlideFeatures, slide: Slide, row: SlideRow) -> tuple[ReadPlan, npt.NDArray[np.int64]]:
    """How the tiles were read: the plan of our own files; of others their footprint and size, decoded in full."""
    native, places = record.native, record.places
    if native is not None and native.provenance.stage == "extract":
        if native.plan.level >= len(slide.levels):
            raise SlideError(
                f"has {len(slide.levels)} levels, the tiles are of level {native.plan.level}", record.slide_id
            )
        return native.plan, native.xy0
    if places is None:
        raise StoreError("has no coordinates", record.slide_id, "give them with `--coords`")
    if places.side is None:
        raise StoreError(
            "doesn't say how large a tile is", record.slide_id, "give its tool's coordinate files as `--coords`"
        )
    mpp = _mpp(slide, row, places.in_um)
    scale = np.array([1 / mpp.x, 1 / mpp.y]) if places.in_um else np.ones(2)
    side0 = (places.side[0] * scale[0], places.side[1] * scale[1])
    tile_px = places.tile_px or round((side0[0] * side0[1]) ** 0.5)
    settings = TileSettings(tile_px=tile_px, decode="exact", max_upsample=1e9)
    xy0 = np.round(places.xy * scale).astype(np.int64)
    if ((xy0 >= slide.size0) | (xy0 + side0 <= 0)).any():
        raise SlideError("is another slide than the features are of: tiles lie outside of it", where=record.slide_id)
    return plan_given(slide, mpp, settings, side0, places.overlap), xy0


def _mpp(slide: Slide, row: SlideRow, needed: bool) -> Mpp:
    try:
        return resolve_mpp(slide, row.mpp, "error")
    except SlideError:
        if needed:
            raise
        return Mpp(1.0, 1.0, "not needed: the tiles are given in level-0 px")


def _notes(record: SlideFeatures, encoder: Encoder, right: float, state: str) -> list[str]:
    found = []
    if record.native is not None:
        now = encoder.identity.to_dict()
        stored = record.native.encoder
        changed = [key for key in now if stored.get(key) and stored[key] != now[key]]
        if changed:
            found.append(f"made with another {', '.join(changed)}")
    if state == "different":
        if right < 0.5:
            found.append(f"only {right:.0%} of the tiles are nearest to their own row: other rows, places or weights")
        else:
            found.append(
                "the rows belong to their tiles, but another transform, tile size or encoder version made them"
            )
    return found
