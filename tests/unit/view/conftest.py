"""A run written by hand: two sound slides, a damaged and a missing one, and all that a page can show of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pathpipe.cohort import Cohort, SlideRow
from pathpipe.provenance import Provenance
from pathpipe.run import Run
from pathpipe.slides.slide import Mpp
from pathpipe.testing.slides import cut_short, position_slide
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.table import TileTable, write_tiles
from pathpipe.tissue.mask import TissueMask
from pathpipe.tissue.polygons import write_tissue
from pathpipe.view.server import ViewServer

MADE = Provenance("test", 1, {}, {})
SIZE0 = (1300, 900)
MODEL = "abmil-label-net"
ODD = "S 1&é"  # a slide id is any file name


@contextmanager
def serving(run: Run) -> Iterator[ViewServer]:
    """A server that answers while the test goes on, and stops whatever becomes of it."""
    with ViewServer(run, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def write_tile_table(path: Path, xy0: np.ndarray, side: float = 100.0, stride: float = 100.0) -> None:
    plan = ReadPlan(100, 0, 0.5, (0.5, 0.5), 0, (1.0, 1.0), (100, 100), (side, side), (stride, stride))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = TileGrid(xy0.astype(np.int64), np.ones(len(xy0), np.float32), plan, None if len(xy0) else "no tissue found")
    write_tiles(path, TileTable(grid, SlideFacts(path.stem, SIZE0, SIZE0)), MADE)


def write_scores(run: Run, slide_id: str, xy0: np.ndarray, scores: np.ndarray, model: str = MODEL) -> None:
    folder = run.heatmap(model, slide_id)
    folder.mkdir(parents=True)
    lines = [f"{x},{y},{score!r}" for (x, y), score in zip(xy0.tolist(), scores.tolist(), strict=True)]
    (folder / "scores.csv").write_text("\n".join(["x0,y0,score", *lines, ""]))
    (folder / "summary.json").write_text(json.dumps({"score": "attention"}))


XY0 = np.array([[100, 100], [200, 100], [100, 200]])
SCORES = np.array([0.7, 0.1, 0.2])
PREDICTIONS = """patient_id,fold,seed,role,target,p_no,p_yes,logit_no,logit_yes
P1,0,0,val,no,0.9,0.1,1,-1
P1,1,0,test,yes,0.45,0.55,0,0
P2,0,0,test,no,0.8,0.2,1,-1
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def make_run(tmp_path: Path) -> Run:
    slides = tmp_path / "slides"
    slides.mkdir()
    position_slide(slides / "a.svs", [SIZE0, (325, 225)])
    position_slide(slides / "b.svs", [(600, 500)], mpp=None)
    cut_short(position_slide(slides / "cut.svs", [SIZE0]), 0.4)
    truth = tmp_path / "truth.geojson"
    square = [[100, 100], [300, 100], [300, 200], [100, 200], [100, 100]]
    truth.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    rows = (
        SlideRow(ODD, slides / "a.svs", "P1", truth=truth, labels={"label": "yes"}),
        SlideRow("S2", slides / "b.svs", "P2", labels={"label": "no"}),
        SlideRow("cut", slides / "cut.svs", "P3", labels={"label": ""}),
        SlideRow("gone", slides / "gone.svs", "P4", labels={"label": ""}),
    )
    run = Run.create(tmp_path / "run", Cohort(rows))
    mask = np.zeros((9, 13), bool)
    mask[1:4, 1:6] = True
    run.tissue(ODD).parent.mkdir()
    write_tissue(run.tissue(ODD), TissueMask(mask, (100.0, 100.0), Mpp(0.5, 0.5, "test")), MADE, origin0=(10.0, 20.0))
    write_tile_table(run.tiles(ODD), XY0)
    write_scores(run, ODD, XY0, SCORES)
    folder = run.evaluation(MODEL)
    folder.mkdir(parents=True)
    (folder / "predictions.csv").write_text(PREDICTIONS)
    (folder / "evaluation.json").write_text(json.dumps({"model": {"thresholds": {"0": 0.5, "1": 0.6}}}))
    receipt = run.receipt("tile", "cut")
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"state": "failed", "reason": "the file was cut short"}))
    return run
