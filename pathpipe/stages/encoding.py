"""One pass over the tiles of a slide: decoded once, encoded by one encoder or by several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathpipe.clock import Clock
from pathpipe.encoders.encoder import Encoder
from pathpipe.encoders.load import load_for
from pathpipe.encoders.stain import StainedEncoder, stain_target
from pathpipe.progress import Progress
from pathpipe.provenance import Provenance
from pathpipe.settings import RunSettings
from pathpipe.stages.opening import opened
from pathpipe.stages.stage import Job
from pathpipe.store.features import write_features
from pathpipe.store.rows import RowFile, RowLayout, refuse_non_finite
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tiles.table import TileTable


@dataclass(frozen=True)
class Part:
    """One encoder's share of the pass: where its rows go while they are few, and what is known of them.

    Attributes:
        before: Tiles that earlier attempts have encoded.
    """

    settings: RunSettings
    provenance: Provenance
    half_made: Path
    encoder: Encoder
    rows: RowFile
    before: int

    @classmethod
    @contextmanager
    def opened(cls, job: Job, settings: RunSettings, provenance: Provenance) -> Iterator[Part]:
        """The share of the encoder that `settings` name, with the rows that earlier attempts committed."""
        encoder, target = load_for(settings), stain_target(settings.extract)
        if target is not None:
            encoder = StainedEncoder(encoder, target)
        half_made = job.run.rows(settings.extract.encoder, job.key)
        layout = RowLayout(encoder.identity.dim, settings.extract.dtype, provenance.fingerprint)
        with closing(RowFile.resume(half_made, layout, job.claim)) as rows:
            yield cls(settings, provenance, half_made, encoder, rows, rows.rows)

    def write(self, path: Path, table: TileTable) -> None:
        """The whole file; the half-made one has served."""
        write_features(path, self.rows, table, self.encoder.identity.to_dict(), self.provenance)
        self.rows.discard(self.half_made)

    @property
    def counts(self) -> dict[str, float]:
        """Numbers for people."""
        before = {"tiles of earlier attempts": self.before} if self.before else {}
        stained = {"tiles left as stained": self.encoder.unchanged} if isinstance(self.encoder, StainedEncoder) else {}
        return {**before, **stained}


def encode(job: Job, grid: TileGrid, parts: list[Part], clock: Clock) -> None:
    """Encode every tile, each encoder going on from the rows it has."""
    start = min(part.rows.rows for part in parts)
    if start == len(grid.xy0):
        return
    execution = job.settings.execution
    batch_size = execution.tiles_per_batch or min(part.encoder.probe_batch(grid.plan.tile_px) for part in parts)
    with opened(job.run.cohort[job.key], job.settings, tile_by_tile=True) as slide:
        for batch in stream_tiles(
            slide, grid.plan, grid.xy0, batch_size, threads=execution.read_threads, start=start, clock=clock
        ):
            for part in parts:
                rows = part.rows
                new = batch.pixels[max(rows.rows - batch.start, 0) :]
                if not len(new):
                    continue
                found = part.encoder.embed(new, clock)
                with np.errstate(over="ignore"):  # what float16 can't hold is refused with its place
                    block = found.astype(part.settings.extract.dtype)
                refuse_non_finite(block, grid.xy0[rows.rows : rows.rows + len(block)])
                with clock.spend("write"):
                    rows.append(block)
            job.notify(Progress("extract", job.key, min(part.rows.rows for part in parts), len(grid.xy0)))
