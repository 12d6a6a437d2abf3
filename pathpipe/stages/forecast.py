"""Forecast: hours and disk of a planned cohort, from a short probe of reading and encoding on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pathpipe.encoders.catalogue import encoder_record
from pathpipe.errors import PathpipeError, SlideError
from pathpipe.settings import ExtractSettings, RunSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.slide import Pixels
from pathpipe.stages.plan import SlidePlan
from pathpipe.tiles.stream import stream_tiles

PROBED_SLIDES = 4
_ENOUGH_S = 5.0  # a batch that would take longer isn't timed whole
_FEW = 4

# What a slide leaves beside its rows: provenance and attributes of two HDF5 files, the overlay, the outlines.
_FILES_BYTES = 17_000
_PICTURE_BYTES = 600_000
_COORDS_BYTES = 16  # a row of int64 x, y; in the tile table and in the features
_SHARE_BYTES = 4  # a float32 share of tissue in the tile table


@dataclass(frozen=True)
class Rates:
    """How fast tiles can be had.

    Attributes:
        tiles: Tiles that were read to find out.
        read_threads: Threads that read them.
        read_s_per_mpx: Reader -> seconds per million level pixels.
        encode_tiles_per_s: Of one device; None when not known.
        encode_note: Where that comes from, or why it isn't known.
        devices: Devices that share the cohort, each with its own threads that read.
    """

    tiles: int = 0
    read_threads: int = 0
    read_s_per_mpx: Mapping[str, float] = field(default_factory=dict)
    encode_tiles_per_s: float | None = None
    encode_note: str = "not probed"
    devices: int = 1

    def read_s(self, plan: SlidePlan) -> float | None:
        """Seconds to read a slide's tiles by one device's threads, or None when not known."""
        if not plan.tiles:
            return 0.0
        if plan.read is None or not self.read_s_per_mpx:
            return None
        measured = self.read_s_per_mpx
        cost = measured.get(plan.reader or "", float(np.mean(list(measured.values()))))
        return plan.tiles * _mpx(plan) * cost

    def encode_s(self, plan: SlidePlan) -> float | None:
        """Seconds to encode a slide's tiles on one device, or None when not known."""
        if not plan.tiles:
            return 0.0
        return plan.tiles / self.encode_tiles_per_s if self.encode_tiles_per_s else None

    def extract_s(self, plan: SlidePlan) -> float | None:
        """Seconds of a slide on one device: tiles are read ahead, so the slower of reading and encoding counts."""
        read, encode = self.read_s(plan), self.encode_s(plan)
        return None if read is None or encode is None else max(read, encode)


def disk_bytes(plan: SlidePlan, extract: ExtractSettings) -> int:
    """Bytes that a slide adds to a run: features, tile table, overlay and outlines."""
    tiles = plan.tiles or 0
    rows = tiles * encoder_record(extract.encoder, extract.weights).dim * np.dtype(extract.dtype).itemsize
    return rows + tiles * (2 * _COORDS_BYTES + _SHARE_BYTES) + _FILES_BYTES + _PICTURE_BYTES


def probe(plans: Sequence[SlidePlan], settings: RunSettings, encode: bool = True) -> Rates:
    """Read a few tiles of a few slides and encode them.

    Args:
        encode: Whether the encoder's rate is wanted; without weights at hand it stays unknown.
    """
    chosen = choose(plans)
    costs: dict[str, list[tuple[float, float]]] = {}
    pixels: list[Pixels] = []
    for plan in chosen:
        try:
            taken, tiles = _read(plan, settings)
        except (SlideError, OSError):  # it opened, but not here: `doctor` is for that, the other slides say how fast
            continue
        costs.setdefault(plan.reader or "", []).append((taken, _mpx(plan) * len(tiles)))
        pixels.append(tiles)
    per_mpx = {reader: sum(s for s, _ in each) / sum(mpx for _, mpx in each) for reader, each in costs.items()}
    count = sum(map(len, pixels))
    rate, note = _encoding_rate(np.concatenate(pixels), settings) if encode and pixels else (None, "not probed")
    return Rates(count, settings.execution.read_threads, per_mpx, rate, note)


def choose(plans: Sequence[SlidePlan], count: int = PROBED_SLIDES) -> list[SlidePlan]:
    """Slides to probe: one of each way of reading first, those with most tiles before others; always the same ones."""
    ways: dict[Any, list[SlidePlan]] = {}
    for plan in plans:
        if plan.sample and plan.read is not None:
            ways.setdefault((plan.reader, plan.read.level, plan.read.shrink, plan.read.read_px), []).append(plan)
    rng = np.random.default_rng(0)
    order = sorted(ways.values(), key=lambda group: -sum(plan.tiles or 0 for plan in group))
    queues = [[group[index] for index in rng.permutation(len(group))] for group in order]
    turns = [queue[turn] for turn in range(count) for queue in queues if turn < len(queue)]
    return turns[:count]


def _read(plan: SlidePlan, settings: RunSettings) -> tuple[float, Pixels]:
    assert plan.read is not None
    xy0 = np.asarray(plan.sample, np.int64)
    with open_slide(plan.path, settings.slide.reader) as slide:
        started = time.perf_counter()
        stream = stream_tiles(slide, plan.read, xy0, len(xy0), threads=settings.execution.read_threads)
        pixels = np.concatenate([batch.pixels for batch in stream])
        return time.perf_counter() - started, pixels


def _encoding_rate(pixels: Pixels, settings: RunSettings) -> tuple[float | None, str]:
    from pathpipe.encoders.load import load_for

    try:
        encoder = load_for(settings, offline=True)
    except PathpipeError as error:
        return None, error.reason
    count = settings.execution.tiles_per_batch or encoder.probe_batch(pixels.shape[1])
    batch = np.resize(pixels, (count, *pixels.shape[1:]))
    encoder.embed(batch[:_FEW])  # the first call allocates and compiles
    few_s = _timed(encoder.embed, batch[:_FEW])
    note = f"measured on {encoder.device}"
    if few_s / _FEW * len(batch) > _ENOUGH_S:
        return _FEW / few_s, note
    encoder.embed(batch)
    return len(batch) / _timed(encoder.embed, batch), note


def _timed(embed: Any, batch: Pixels) -> float:
    started = time.perf_counter()
    embed(batch)
    return time.perf_counter() - started


def _mpx(plan: SlidePlan) -> float:
    """Million level pixels behind one tile."""
    assert plan.read is not None
    return plan.read.read_px[0] * plan.read.read_px[1] / 1e6
