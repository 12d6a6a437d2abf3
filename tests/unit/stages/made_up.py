"""A run whose features were never extracted: each patient has a hidden number, and tiles and labels follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathpipe.cohort import Cohort
from pathpipe.execution.receipt import Receipt
from pathpipe.execution.unit import bring_up_to_date
from pathpipe.provenance import Provenance
from pathpipe.run import Run
from pathpipe.settings import RunSettings, merge
from pathpipe.stages.chain import STAGES, units
from pathpipe.store.features import write_features
from pathpipe.tiles.attributes import SlideFacts
from pathpipe.tiles.grid import TileGrid
from pathpipe.tiles.plan import ReadPlan
from pathpipe.tiles.table import TileTable

PLAN = ReadPlan(256, 0, 0.5, (0.25, 0.25), 0, (1.0, 1.0), (512, 512), (512.0, 512.0), (512.0, 512.0))
DIM = 6


def made_up_run(folder: Path, patients: int = 36, slides: int = 1, encoders: tuple[str, ...] = ("uni",)) -> Run:
    """A run of `patients` patients with labels of every kind and some missing ones."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=patients)
    time = rng.exponential(np.exp(-1.5 * hidden)) * 20 + 0.5
    censoring = rng.exponential(40, patients) + 0.5
    rows = []
    for number in range(patients):
        z = hidden[number]
        columns = {
            "subtype": "b" if z + 0.3 * rng.normal() > 0 else "a",
            "grade": f"G{1 + int(np.searchsorted([-0.6, 0.6], z))}",
            "score": f"{50 + 10 * z + rng.normal():.3f}",
            "os_months": f"{min(time[number], censoring[number]):.2f}",
            "os_event": str(int(time[number] <= censoring[number])),
            "er": "" if number % 5 == 0 else str(int(z > -0.2)),
            "pr": "" if number % 7 == 0 else ("yes" if z < 0.4 else "no"),
            "age": "" if number % 6 == 0 else f"{60 + 5 * rng.normal():.0f}",
            "sex": "fm"[number % 2],
        }
        for at in range(slides if number % 3 else 1):
            path = folder / "slides" / f"P{number:02d}-{at}.svs"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"pixels {number} {at}")
            rows.append({"path": str(path), "patient_id": f"P{number:02d}", **columns})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    run = Run.create(folder / "run", Cohort.read(folder / "cohort.csv"))
    for slide in run.cohort.slides:
        for seed, encoder in enumerate(encoders):
            put_features(run, slide.slide_id, hidden[int(slide.patient_id[1:])], encoder, seed)
    return run


def put_features(
    run: Run, slide_id: str, z: float, encoder: str = "uni", seed: int = 0, tiles: int = 8, **known: str
) -> None:
    """Features of one slide: noise, and the hidden number in the first column; `known` are further inputs of theirs."""
    name = int(slide_id[1:3]), int(slide_id[-1])
    rng = np.random.default_rng([seed, *name])
    features = rng.normal(scale=0.3, size=(tiles, DIM))
    features[:, 0] += z
    xy0 = np.stack([np.arange(tiles) * 512, np.zeros(tiles)], axis=1).astype(np.int64)
    table = TileTable(
        TileGrid(xy0, np.ones(tiles, np.float32), PLAN, None), SlideFacts(slide_id, (51200, 4096), (51200, 4096))
    )
    identity = {"name": encoder, "revision": "", "weights_sha256": "ab" * 32, "transform": "resize 224", "dim": DIM}
    made = Provenance("extract", 2, {}, {"slide": slide_id, "tiles": "t", "encoder": encoder, **known})
    path = run.features(encoder, slide_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(path, features.astype(np.float32), table, identity, made)


def settings_of(target: str, **train: Any) -> RunSettings:
    """Quick settings for a target."""
    quick = {"epochs": 12, "lr": 0.02, "model": "mean", "model_settings": {"hidden": 8}, "batch_size": 8, **train}
    values = {
        "extract": {"encoder": "uni"},
        "split": {"target": target, "folds": 3},
        "train": quick,
        "evaluate": {"bootstrap": 100},
    }
    return merge(RunSettings, [("test", values)])[0]


def bring(run: Run, stage: str, settings: RunSettings) -> list[Receipt]:
    """Every unit of one stage."""
    return [bring_up_to_date(STAGES[stage], run, key, settings) for key in units(run, stage, settings)]
