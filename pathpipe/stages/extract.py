"""Stage `extract`: the features of one slide. The only file that joins tiles, encoder and store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.clock import Clock
from pathpipe.encoders.catalogue import encoder_record
from pathpipe.encoders.encoder import Encoder
from pathpipe.encoders.load import encoder_identity, load_for
from pathpipe.encoders.stain import StainedEncoder, stain_target, stained
from pathpipe.errors import MissingError, StoreError
from pathpipe.progress import Progress
from pathpipe.provenance import read_provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings
from pathpipe.slides.open import open_slide
from pathpipe.stages.stage import Job, Made, Stage, sections
from pathpipe.store.features import read_header, refuse_non_finite, write_features
from pathpipe.store.rows import RowFile, RowLayout
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tiles.table import read_tiles


def what(settings: RunSettings) -> dict[str, Any]:
    """Settings that matter; the encoder and its weights are an input, known by content and not by path."""
    return sections("slide", "tissue", "tile", "extract")(settings)


def inputs(run: Run, key: str, settings: RunSettings) -> dict[str, str]:
    """The tiles, and the very weights and transform of the encoder."""
    made = read_provenance(run.tiles(key))
    if made is None:
        raise StoreError("there is no tile table", where=str(run.tiles(key)), hint="run `pathpipe tile` first")
    return {**made.inputs, "tiles": made.fingerprint, "encoder": _encoder_fingerprint(run, key, settings)}


def _encoder_fingerprint(run: Run, key: str, settings: RunSettings) -> str:
    """Of the encoder; where its weights are out of reach, the one recorded in features that are there already."""
    extract = settings.extract
    try:
        identity = encoder_identity(extract.encoder, extract.weights, settings.execution.offline)
        return stained(identity, stain_target(extract)).fingerprint
    except MissingError:
        made = read_provenance(run.features(extract.encoder, key))
        if made is None or extract.weights is not None:
            raise
        return made.inputs["encoder"]


def make(job: Job) -> Made:
    """Encode every tile of one slide, going on from rows an earlier attempt committed."""
    table = read_tiles(job.run.tiles(job.key))
    settings, clock = job.settings.extract, Clock()
    encoder, target = load_for(job.settings), stain_target(settings)
    if target is not None:
        encoder = StainedEncoder(encoder, target)
    layout = RowLayout(encoder.identity.dim, settings.dtype, job.provenance.fingerprint)
    half_made = job.run.rows(settings.encoder, job.key)
    if len(table.grid.xy0):
        features = _encode(job, table.grid, encoder, RowFile.resume(half_made, layout), clock)
    else:
        features = np.empty((0, layout.dim), layout.dtype)
    with clock.spend("write"):
        write_features(job.target, features, table, encoder.identity.to_dict(), job.provenance)
        half_made.unlink(missing_ok=True)
    made = replace(_made(len(features), table.grid.empty_reason), spent=clock.seconds)
    if isinstance(encoder, StainedEncoder):
        return replace(made, counts={**made.counts, "tiles left as stained": encoder.unchanged})
    return made


def _encode(job: Job, grid: TileGrid, encoder: Encoder, rows: RowFile, clock: Clock) -> npt.NDArray[Any]:
    total = len(grid.xy0)
    row = job.run.cohort[job.key]
    execution = job.settings.execution
    batch_size = execution.tiles_per_batch or encoder.probe_batch(grid.plan.tile_px)
    try:
        with open_slide(row.path, job.settings.slide.reader) as slide:
            for batch in stream_tiles(
                slide, grid.plan, grid.xy0, batch_size, threads=execution.read_threads, start=rows.rows, clock=clock
            ):
                block = encoder.embed(batch.pixels, clock).astype(job.settings.extract.dtype)
                refuse_non_finite(block, grid.xy0[batch.start : batch.start + len(block)])
                with clock.spend("write"):
                    rows.append(block)
                job.notify(Progress("extract", job.key, rows.rows, total))
        with clock.spend("write"):
            return rows.read_all()
    finally:
        rows.close()


def check(path: Path) -> Made:
    """Read the file back."""
    header, rows = read_header(path)
    return _made(rows, header.empty_reason)


def preflight(run: Run, settings: RunSettings) -> None:
    """Weights and device are there before the first slide is opened, if any slide is still to be encoded."""
    extract = settings.extract
    encoder_record(extract.encoder, extract.weights)
    if all(run.features(extract.encoder, slide.slide_id).exists() for slide in run.cohort.slides):
        return
    stain_target(extract)
    load_for(settings)


def _made(rows: int, empty_reason: str | None) -> Made:
    return Made("empty" if empty_reason else "done", empty_reason, {"tiles": rows})


STAGE = Stage(
    name="extract",
    version=1,
    packages=("torch", "timm", "numpy", "h5py"),
    what=what,
    inputs=inputs,
    output=lambda run, key, settings: run.features(settings.extract.encoder, key),
    make=make,
    check=check,
    preflight=preflight,
)
