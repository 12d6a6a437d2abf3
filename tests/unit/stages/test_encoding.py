"""One pass over the tiles: what float16 can't hold is refused by its place; each encoder goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pathpipe.clock import Clock
from pathpipe.cohort import Cohort
from pathpipe.errors import StoreError
from pathpipe.provenance import Provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings, TileSettings, merge
from pathpipe.slides.open import open_slide
from pathpipe.slides.resolution import resolve_mpp
from pathpipe.stages.encoding import Part, encode
from pathpipe.stages.stage import Job
from pathpipe.store.rows import RowFile, RowLayout
from pathpipe.testing.slides import position_slide
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.plan import plan_read

SIDE, TILE = 512, 64
XY0 = np.stack(np.meshgrid(np.arange(0, SIDE, TILE), np.arange(0, SIDE, TILE)), axis=-1).reshape(-1, 2)


@dataclass
class _First:
    """An encoder whose features are the first pixel of a tile, times a factor."""

    factor: float = 1.0
    seen: list[int] = field(default_factory=list)

    def embed(self, pixels: npt.NDArray[np.uint8], clock: Clock | None = None) -> npt.NDArray[np.float32]:
        self.seen.append(len(pixels))
        return np.float32(self.factor) * pixels[:, 0, 0].astype(np.float32)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    path = position_slide(tmp_path / "S1.svs", [(SIDE, SIDE)])
    settings = merge(RunSettings, [("test", {"execution": {"tiles_per_batch": 10}})])[0]
    made = Provenance("extract", 1, {}, {})
    return Job(Run.create(tmp_path / "run", Cohort.read(path)), "S1", settings, tmp_path / "out.h5", made)


def _grid(job: Job) -> TileGrid:
    with open_slide(job.run.cohort["S1"].path) as slide:
        plan = plan_read(slide, resolve_mpp(slide, None, "error"), TileSettings(mpp=0.5, tile_px=TILE))
    return TileGrid(XY0, np.ones(len(XY0), np.float32), plan)


@pytest.fixture
def part(job: Job) -> Iterator[Callable[..., Part]]:
    """The share of an encoder that has encoded so many tiles before."""
    with ExitStack() as opened:

        def make(encoder: Any, name: str, rows: int = 0) -> Part:
            file = RowFile.resume(job.run.folder / f"{name}.rows", RowLayout(3, "float16", name))
            opened.callback(file.close)
            if rows:
                file.append(_expected()[:rows])
            return Part(job.settings, job.provenance, job.run.folder, encoder, file, rows)

        yield make


def _expected() -> npt.NDArray[np.float16]:
    return np.concatenate([XY0 // 16 % 256, np.zeros((len(XY0), 1))], axis=1).astype(np.float16)


def test_each_encoder_goes_on_from_its_own_rows(job: Job, part: Callable[..., Part]) -> None:
    one, two = _First(), _First()
    parts = [part(one, "one", 30), part(two, "two", 17)]
    encode(job, _grid(job), parts, Clock())
    for each in parts:
        assert np.array_equal(np.concatenate(list(each.rows.blocks())), _expected())
    # batches start at the lesser row, 17; of that from 27 to 37 the first encoder lacks seven
    assert (one.seen, two.seen) == ([7, 10, 10, 7], [10, 10, 10, 10, 7])


def test_what_float16_cannot_hold_is_refused_with_its_place(job: Job, part: Callable[..., Part]) -> None:
    one = part(_First(factor=3000.0), "one")  # 24 x 3000 and more is beyond 65,504
    with pytest.raises(StoreError, match=r"NaN or infinity for .* the first at level-0 \(384, 0\)"):
        encode(job, _grid(job), [one], Clock())
    assert one.rows.rows == 0


def test_nothing_is_opened_where_all_rows_are_there(job: Job, part: Callable[..., Part]) -> None:
    whole = part(SimpleNamespace(), "one", len(XY0))
    grid = _grid(job)
    job.run.cohort["S1"].path.unlink()  # type: ignore[union-attr]
    encode(job, grid, [whole], Clock())
    assert whole.rows.rows == len(XY0)
