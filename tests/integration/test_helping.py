"""A part that is through takes slides of the others: those that nobody has begun, and no others."""

from __future__ import annotations

from pathlib import Path

from pathpipe.cohort import Cohort
from pathpipe.execution.dispatch import shard_of
from pathpipe.execution.listener import Listener
from pathpipe.execution.pipeline import bring_up_to_stage
from pathpipe.execution.receipt import Receipt
from pathpipe.lease import Lease
from pathpipe.run import Run
from pathpipe.settings import RunSettings

SETTINGS = RunSettings.model_validate(
    {
        "tile": {"mpp": 0.5, "tile_px": 112},
        "tissue": {"min_area_um2": 2000},
        "execution": {"shard": "0/3", "help_others": True, "workers": 1},
    }
)


def test_slides_that_nobody_has_begun_are_taken(cohort_csv: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Cohort.read(cohort_csv))
    keys = [slide.slide_id for slide in run.cohort.slides]
    mine = shard_of(run, "tile", keys, "0/3")
    failed, leased = (shard_of(run, "tile", keys, part)[0] for part in ("1/3", "2/3"))
    Receipt("tissue", failed, "failed", "a reason").write(run)
    with Lease.acquire(run.lease("tile", leased)) or exit("taken"):
        outcome = bring_up_to_stage(run, "tile", SETTINGS, Listener())
    made = {key for key in keys if run.tiles(key).exists()}
    assert made == set(keys) - {failed, leased} == set(outcome.receipts["tile"])

    alone = SETTINGS.model_copy(
        update={"execution": SETTINGS.execution.model_copy(update={"help_others": False, "shard": "0/3"})}
    )
    other = Run.create(tmp_path / "other", Cohort.read(cohort_csv))
    bring_up_to_stage(other, "tile", alone, Listener())
    assert {key for key in keys if other.tiles(key).exists()} == set(mine) and 3 <= len(mine) <= 4
