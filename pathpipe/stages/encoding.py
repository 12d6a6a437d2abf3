"""One pass over the tiles of a slide: decoded once, encoded by one encoder or by several."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathpipe.clock import Clock
from pathpipe.encoders.encoder import Encoder
from pathpipe.encoders.load import load_for
from pathpipe.encoders.stain import StainedEncoder, stain_target
from pathpipe.progress import Progress
from pathpipe.provenance import Provenance
from pathpipe.settings import RunSettings
from pathpipe.slides.open import open_slide
from pathpipe.slides.staging import staged
from pathpipe.stages.stage import Job
from pathpipe.store.features import refuse_non_finite, write_features
from pathpipe.store.rows import RowFile, RowLayout
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.stream import stream_tiles
from pathpipe.tiles.table import TileTable


@dataclass(frozen=True)
class Part:
    """One encoder's share of the pass: where its rows go while they are few, and what is known of them."""

    settings: RunSettings
    provenance: Provenance
    half_made: Path
    encoder: Encoder

    @classmethod
    def of(cls, job: Job, settings: RunSettings, provenance: Provenance) -> Part:
        """The share of the encoder that `settings` name."""
        encoder, target = load_for(settings), stain_target(settings.extract)
        if target is not None:
            encoder = StainedEncoder(encoder, target)
        return cls(settings, provenance, job.run.rows(settings.extract.encoder, job.key), encoder)

    def open_rows(self) -> RowFile:
        """What earlier attempts committed, to go on with."""
        layout = RowLayout(self.encoder.identity.dim, self.settings.extract.dtype, self.provenance.fingerprint)
        return RowFile.resume(self.half_made, layout)

    def write(self, path: Path, table: TileTable, features: npt.NDArray[Any]) -> None:
        """The whole file; the half-made one has served."""
        write_features(path, features, table, self.encoder.identity.to_dict(), self.provenance)
        self.half_made.unlink(missing_ok=True)

    @property
    def counts(self) -> dict[str, float]:
        """Numbers for people."""
        return {"tiles left as stained": self.encoder.unchanged} if isinstance(self.encoder, StainedEncoder) else {}


def encode(job: Job, grid: TileGrid, parts: list[Part], clock: Clock) -> list[npt.NDArray[Any]]:
    """Encode every tile, each encoder going on from the rows it has.

    Returns:
        (N, D) for each part, rows in the grid's order.
    """
    if not len(grid.xy0):
        return [np.empty((0, part.encoder.identity.dim), part.settings.extract.dtype) for part in parts]
    execution = job.settings.execution
    batch_size = execution.tiles_per_batch or min(part.encoder.probe_batch(grid.plan.tile_px) for part in parts)
    row = job.run.cohort[job.key]
    with ExitStack() as closing:
        rows = [part.open_rows() for part in parts]
        for one in rows:
            closing.callback(one.close)
        folder = Path(execution.stage_dir) if execution.stage_dir else None
        path = closing.enter_context(staged(row.path, folder, int(execution.stage_gb * 1e9)))
        slide = closing.enter_context(open_slide(path, job.settings.slide.reader))
        start = min(one.rows for one in rows)
        for batch in stream_tiles(
            slide, grid.plan, grid.xy0, batch_size, threads=execution.read_threads, start=start, clock=clock
        ):
            for part, mine in zip(parts, rows, strict=True):
                new = batch.pixels[max(mine.rows - batch.start, 0) :]
                if not len(new):
                    continue
                block = part.encoder.embed(new, clock).astype(part.settings.extract.dtype)
                refuse_non_finite(block, grid.xy0[mine.rows : mine.rows + len(block)])
                with clock.spend("write"):
                    mine.append(block)
            job.notify(Progress("extract", job.key, min(one.rows for one in rows), len(grid.xy0)))
        with clock.spend("write"):
            return [one.read_all() for one in rows]
